-- Control keys, under prefix:c (a hash: revision, expiry in ms or 0, and value by key) and
-- prefix:cr (a sorted set: revision of the last change by key, removals too).
-- ARGV: prefix, what is to be done, then
--   put     key, value, ttl in ms or 0
--   remove  keys
--   list    prefix of keys; it returns the revision, then keys and values
--   since   prefix of keys, revision; it returns 1 if one has changed after it
drains(ARGV[1])
local c, cr = ARGV[1] .. ':c', ARGV[1] .. ':cr'
local now, us = clock()

-- revision is the time, so that it rises even if everything was lost.
local function revision()
  local rev = math.max(us, (redis.call('GET', ARGV[1] .. ':cn') or 0) + 1)
  redis.call('SET', ARGV[1] .. ':cn', string.format('%.0f', rev))
  return rev
end

local function told(key) redis.call('PUBLISH', ARGV[1] .. ':cc', key) end

if ARGV[2] == 'put' then
  local ttl = tonumber(ARGV[5])
  local expires, rev = ttl > 0 and now + ttl or 0, revision()
  redis.call('HSET', c, ARGV[3], struct.pack('>I8I8', rev, expires) .. ARGV[4])
  redis.call('ZADD', cr, string.format('%.0f', rev), ARGV[3])
  told(ARGV[3])
  return 0
elseif ARGV[2] == 'remove' then
  for i = 3, #ARGV do
    if redis.call('HDEL', c, ARGV[i]) == 1 then
      redis.call('ZADD', cr, string.format('%.0f', revision()), ARGV[i])
      told(ARGV[i])
    end
  end
  return 0
elseif ARGV[2] == 'list' then
  local all, out = redis.call('HGETALL', c), { redis.call('GET', ARGV[1] .. ':cn') or '0' }
  for i = 1, #all, 2 do
    local _, expires = struct.unpack('>I8I8', all[i + 1])
    if expires > 0 and now >= expires then
      redis.call('HDEL', c, all[i])
      redis.call('ZREM', cr, all[i])
    elseif string.sub(all[i], 1, #ARGV[3]) == ARGV[3] then
      out[#out + 1] = all[i]
      out[#out + 1] = string.sub(all[i + 1], 17)
    end
  end
  -- Of removals only the last are remembered.
  local much = redis.call('ZCARD', cr) - redis.call('HLEN', c) - 1000
  if much > 1000 then
    for _, key in ipairs(redis.call('ZRANGE', cr, 0, -1)) do
      if much > 0 and redis.call('HEXISTS', c, key) == 0 then
        redis.call('SET', ARGV[1] .. ':cf', redis.call('ZSCORE', cr, key))
        redis.call('ZREM', cr, key)
        much = much - 1
      end
    end
  end
  return out
end
if tonumber(redis.call('GET', ARGV[1] .. ':cn') or 0) < tonumber(ARGV[4]) then return 1 end
if tonumber(ARGV[4]) < tonumber(redis.call('GET', ARGV[1] .. ':cf') or 0) then return 1 end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', cr, '(' .. ARGV[4], '+inf')) do
  if string.sub(key, 1, #ARGV[3]) == ARGV[3] then return 1 end
end
return 0
