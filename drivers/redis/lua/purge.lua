-- ARGV: prefix, q, limit. It removes up to limit messages that are not leased, and returns
-- their ids.
local prefix, q, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock()
local ids = {}

local function drop(blob)
  local flags, _, _, _, _, at = message_head(blob)
  local id = struct.unpack('>Bc0', blob, at)
  ids[#ids + 1] = id
  if flags % 4 >= 2 and flags % 2 == 0 then return end
  local key = prefix .. ':r:{' .. id .. '}'
  local r = read(key, now)
  leave(r)
  write(key, r)
end

for _, name in ipairs(redis.call('ZRANGE', q .. ':z', 0, limit - 1)) do
  local blob = redis.call('HGET', q .. ':zm', name)
  redis.call('ZREM', q .. ':z', name)
  redis.call('HDEL', q .. ':zm', name)
  if blob then drop(blob) end
end
for _, m in ipairs(redis.call('ZRANGE', q .. ':f', 0, math.max(0, limit - #ids) - 1)) do
  if #ids >= limit then break end
  local level, sid = unmember(m)
  local key = q .. ':s' .. level
  local got = redis.call('XRANGE', key, sid, sid)
  redis.call('XACK', key, 'g', sid)
  redis.call('XDEL', key, sid)
  redis.call('ZREM', q .. ':f', m)
  redis.call('HDEL', q .. ':x', m)
  if got[1] then drop(got[1][2][2]) end
end
for level = 0, 2 do
  local key = q .. ':s' .. level
  local last = '0-0'
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if not groups.err then
    for _, group in ipairs(groups) do
      for i = 1, #group, 2 do
        if group[i] == 'last-delivered-id' then last = group[i + 1] end
      end
    end
    if limit > #ids then
      for _, entry in ipairs(redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', limit - #ids)) do
        redis.call('XDEL', key, entry[1])
        drop(entry[2][2])
      end
    end
  end
end
return ids
