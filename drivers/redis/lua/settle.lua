-- ARGV: prefix, covering (1 or 0), number of queues, these, then settlements:
--   head: number of the queue from 1 (2) level(1) action(1, a ack, r release) tracked(1, 1 or 0)
--     generation(4) delay(8, ms) number of messages that follow(2) id(1+)
--   entry, update or '', and the messages that follow as add has them.
-- It returns a code for each: 0, L lost, S stale (acknowledged without what follows),
-- T started, E damaged (nothing changed).
local prefix, covering = ARGV[1], ARGV[2] == '1'
queues_at = 3
drains(prefix)
local now = clock()
local woken, codes = {}, {}
local gone = {} -- entries that were acknowledged, by stream

-- acknowledge ends a delivery, and reports whether it had the entry.
local function acknowledge(q, level, sid, gen)
  local stream = q .. ':s' .. level
  if redis.call('XACK', stream, 'g', sid) == 0 then return false end
  gone[stream] = gone[stream] or {}
  table.insert(gone[stream], sid)
  if gen > 0 then redis.call('HDEL', q .. ':x', member(level, sid)) end
  return true
end

-- settle settles from ARGV[i] on. It returns the code, and how many messages follow.
local function settle(i)
  local index, level, action, tracked, gen, delay, n, id = struct.unpack('>I2Bc1BI4I8I2Bc0', ARGV[i])
  local q, sid, stays = ARGV[queues_at + index], ARGV[i + 1], action == 'r'
  local key, update = prefix .. ':r:{' .. id .. '}', covering and ARGV[i + 2] or ''
  if not current(q, level, sid, gen) then return 'L', n end
  if not stays and tracked == 1 and n == 0 and update ~= '' and string.byte(update) >= SUCCESS then
    local v, to, ex = finished(key, update, now)
    if v then
      if not acknowledge(q, level, sid, gen) then return 'L', n end
      store(key, v, ex)
      announce(prefix, id, to, v)
      return '0', n
    end
  end
  local r, u, refused
  if update ~= '' then
    u = unpack_update(update)
    r = read(key, now)
    refused = check_update(r, u, true)
    if refused == BEGUN then
      if #redis.call('XPENDING', q .. ':s' .. level, 'g', sid, sid, 1) == 0 then return 'L', n end
      return BEGUN, n
    end
  end
  stays = stays and not refused
  if u or tracked == 1 and not stays then r = r or read(key, now) end
  for f = 1, n do known(prefix, i + f * ADD, now) end -- nothing has changed yet
  if stays then
    if not free(q, level, sid, delay > 0 and due(now, delay) or 0, 0) then return 'L', n end
    woken[q] = (woken[q] or 0) + 1
  elseif not acknowledge(q, level, sid, gen) then
    return 'L', n
  end
  if u or tracked == 1 and not stays then
    if u and not refused then follow(r, u, now, true) end
    if covering and (refused or not u and not stays) then meet(r, now) end
    if tracked == 1 and not stays then leave(r) end
    local v = write(key, r)
    if u and not refused and r.st >= SUCCESS then announce(prefix, id, r.to, v) end
  end
  if refused then return STALE, n end
  for f = 1, n do
    add(prefix, i + f * ADD, now, false, woken)
  end
  return '0', n
end

local function settle_all()
  local i = 4 + ARGV[3]
  while i <= #ARGV do
    local ok, code, n = guard(settle, i)
    if not ok then -- what is stored is damaged
      code, n = 'E', struct.unpack('>I2', ARGV[i], 18)
    end
    codes[#codes + 1] = code
    i = i + 3 + n * ADD
  end
end

local ok, err = pcall(settle_all)
for stream, sids in pairs(gone) do redis.call('XDEL', stream, unpack(sids)) end
for q, n in pairs(woken) do wake(q, n) end
push(prefix)
if not ok then error(err) end
return table.concat(codes)
