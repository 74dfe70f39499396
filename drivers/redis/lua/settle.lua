-- ARGV: prefix, covering (1 or 0), then settlements:
--   q, level, entry, generation, action (a ack, r release), delay in ms, t or u (tracked or
--   not) and the id, update or '', number of messages that follow, and these as add has them.
-- It returns a code for each: 0, L lost, S stale (acknowledged without what follows),
-- T started (nothing changed).
local prefix, covering = ARGV[1], ARGV[2] == '1'
drains(prefix)
local now = clock()
local woken, codes, gone = {}, {}, {}

local function settle(i, follows, n)
  local q, level, sid, gen = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local stream = q .. ':s' .. level
  if generation(q, level, sid) ~= gen then return 'L' end
  local tracked, id = string.sub(ARGV[i + 6], 1, 1) == 't', string.sub(ARGV[i + 6], 2)
  local key = prefix .. ':r:{' .. id .. '}'
  local r, u, refused
  if covering and ARGV[i + 7] ~= '' then
    u = unpack_update(ARGV[i + 7])
    r = read(key, now)
    refused = check_update(r, u, true)
    if refused == BEGUN then
      if #redis.call('XPENDING', stream, 'g', sid, sid, 1) == 0 then return 'L' end
      return BEGUN
    end
  end
  local stays = ARGV[i + 4] == 'r' and not refused
  if stays then
    local delay = tonumber(ARGV[i + 5])
    if not free(q, level, sid, delay > 0 and due(now, delay) or 0, 0) then return 'L' end
    woken[q] = (woken[q] or 0) + 1
  else
    if redis.call('XACK', stream, 'g', sid) == 0 then return 'L' end
    redis.call('XDEL', stream, sid)
    if gen > 0 then redis.call('HDEL', q .. ':x', member(level, sid)) end
  end
  if u or tracked and not stays then
    r = r or read(key, now)
    if u and not refused then follow(r, u, now, true) end
    if covering and (refused or not u and not stays) then meet(r, now) end
    if tracked and not stays then leave(r) end
    local v = write(key, r)
    if u and not refused and r.st >= SUCCESS then announce(prefix, id, r, v) end
  end
  if refused then return STALE end
  for f = follows, follows + (n - 1) * ADD, ADD do
    add(f, now, false, woken)
  end
  return '0'
end

local i = 3
while i <= #ARGV do
  local n = tonumber(ARGV[i + 8])
  codes[#codes + 1] = settle(i, i + 9, n)
  i = i + 9 + n * ADD
end
for q, n in pairs(woken) do wake(q, n) end
return table.concat(codes)
