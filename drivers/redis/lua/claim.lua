-- ARGV: prefix, channel and token of who asks, how many, covering (1 or 0),
-- lease in ms, how many it was for that it is registered as waiting, 0 if it is not,
-- whether to look for leases that ran out (1; 2 after the server was silent; or 0), whether to
-- wait (1 or 0); then queues in
-- the order in which they are served: q, share.
-- It returns the ms until something is due, -1 if nothing is, and per message: number of the
-- queue from 1 (2) level(1) generation(4) count(4); entry; message. If there is none,
-- who asks waits, if it is to.
local prefix, channel, token, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local covering, lease = ARGV[5] == '1', tonumber(ARGV[6])
local now, us = clock()
local out, taken, bytes, looked = { -1 }, 0, 0, 0
local AT_ONCE, MOST_BYTES, MOST_LOOKED = 16, 8 * 1024 * 1024, 2000 -- of a read; of a call, roughly
local RECLAIMED, MOST_RECLAIMED = 1000, 5000 -- leases at once; in a call
local waits = channel .. ' ' .. token .. ' '

local function promote(q)
  local names = redis.call('ZRANGEBYSCORE', q .. ':z', '-inf', now, 'LIMIT', 0, 500)
  for _, name in ipairs(names) do
    local blob = redis.call('HGET', q .. ':zm', name)
    if blob then redis.call('XADD', q .. ':s' .. string.sub(name, 1, 1), '*', 'm', blob) end
    redis.call('ZREM', q .. ':z', name)
    redis.call('HDEL', q .. ':zm', name)
  end
  return #names
end

-- serving reports whether this process of the server has served a queue for a lease. While
-- the server was away or stood still, refused writes, or another one was in its place,
-- nobody could extend. What q:t knows: the process, since when it serves q, and when leases
-- were looked at last.
local function serving(q)
  local run, since, looked_at = string.match(redis.call('GET', q .. ':t') or '', '^(%S+) (%d+) (%d+)$')
  since, looked_at = tonumber(since), tonumber(looked_at)
  local past = run and looked_at <= now -- or the clock was set back
  if past and now - looked_at < 900 and ARGV[8] ~= '2' then return false end
  local this = string.match(redis.call('INFO', 'server'), 'run_id:(%S+)') or '-'
  if not past or run ~= this or ARGV[8] == '2' then since = now end
  redis.call('SET', q .. ':t', string.format('%s %.0f %.0f', this, since, now))
  return now - since >= lease
end

-- reclaim frees what is leased for too long.
local function reclaim(q)
  if not serving(q) then return 0 end
  local n = 0
  for level = 2, 0, -1 do
    local key = q .. ':s' .. level
    local found = redis.call('EXISTS', key) == 1 and RECLAIMED or 0
    while found == RECLAIMED and n < MOST_RECLAIMED do
      local p = redis.pcall('XPENDING', key, 'g', 'IDLE', lease, '-', '+', RECLAIMED, 'l')
      if p.err then break end
      found = #p
      for _, entry in ipairs(p) do
        if free(q, level, entry[1], 0, 1) then n = n + 1 end
      end
    end
  end
  if n >= MOST_RECLAIMED then -- there may be more
    redis.call('SET', q .. ':t', (string.gsub(redis.call('GET', q .. ':t'), '%d+$', '0')))
  end
  return n
end

-- kinds are what messages are whose heads are the same, which nearly all are.
local kinds = {}
local function kind_of(blob)
  local flags = string.byte(blob) or error('too short')
  local head = flags % 8 >= 4 and flags or string.sub(blob, 1, 17)
  local k = kinds[head]
  if not k then
    k = {}
    k.flags, k.e, k.s, k.at, k.deliveries, k.id = message_head(blob)
    if k.flags % 2 == 0 and k.e == 0 and k.s == 0 then k.started = start_head(k.at, now, us) end
    kinds[head] = k
  end
  return k
end

-- copy_of names a stored message, for a stream never has another entry of that id. See
-- copyOf in subscription.go.
local suffixes = {}
local function copy_of(q, level, sid)
  local suffix = suffixes[q] and suffixes[q][level]
  if not suffix then
    suffix = string.char(97 + level) .. string.sub(string.match(q, '{(.*)}'), -200)
    suffixes[q] = suffixes[q] or {}
    suffixes[q][level] = suffix
  end
  return sid .. suffix
end

-- starts has the record say that a message has started. It reports whether it may.
local function starts(k, q, level, sid, blob, gen, count)
  local once, id = k.flags % 2 >= 1, string.sub(blob, k.id + 1, k.id + (string.byte(blob, k.id) or error('too short')))
  local key, copy = prefix .. ':r:{' .. id .. '}', copy_of(q, level, sid)
  if k.started and count == 1 and brief_start(key, k.started, copy) then return true end
  local r = read(key, now)
  if check_claim(r, k.e, k.s) then
    redis.call('XACK', q .. ':s' .. level, 'g', sid)
    redis.call('XDEL', q .. ':s' .. level, sid)
    if gen > 0 then redis.call('HDEL', q .. ':x', member(level, sid)) end
    meet(r, now)
    leave(r)
    write(key, r)
    return false
  end
  if not once and check_start(r, k.e, k.s, copy, count, false) ~= STALE then
    begin(r, k.e, k.s, k.at, copy, count, false, now, us)
    write(key, r)
  end
  return true
end

-- accept hands a message out, unless its record refuses that.
local function accept(index, q, level, sid, blob, gen, deaths)
  local k = kind_of(blob)
  local count = 1 + k.deliveries + deaths
  if covering and k.flags % 4 < 2 and not starts(k, q, level, sid, blob, gen, count) then return end
  taken, bytes = taken + 1, bytes + #blob
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = struct.pack('>I2BI4I4', index, level, gen, count), sid, blob
end

-- offer does, too. A message that is damaged, or whose record is, stays leased, and is
-- answered as an empty one.
local function offer(index, q, level, sid, blob, gen, deaths)
  if guard(accept, index, q, level, sid, blob, gen, deaths) then return end
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = struct.pack('>I2BI4I4', index, level, gen, 0), sid, ''
end

-- fresh hands out up to n messages of a level that nobody had yet, and reports
-- how many it looked at.
local function fresh(index, q, level, n)
  local key = q .. ':s' .. level
  local got = redis.pcall('XREADGROUP', 'GROUP', 'g', 'l', 'COUNT', n, 'STREAMS', key, '>')
  if got and got.err then
    if string.sub(got.err, 1, 7) ~= 'NOGROUP' then error(got.err) end
    redis.call('XGROUP', 'CREATE', key, 'g', '0', 'MKSTREAM') -- of a level that is new, or all was lost
    got = redis.call('XREADGROUP', 'GROUP', 'g', 'l', 'COUNT', n, 'STREAMS', key, '>')
  end
  if not got then return 0 end
  looked = looked + #got[1][2]
  for _, entry in ipairs(got[1][2]) do
    offer(index, q, level, entry[1], entry[2][2], 0, 0)
  end
  return #got[1][2]
end

-- again hands out what was given back.
local function again(index, q, level, sid)
  redis.call('ZREM', q .. ':f', member(level, sid))
  local got = redis.call('XCLAIM', q .. ':s' .. level, 'g', 'l', 0, sid)
  if not got[1] or not got[1][2] then
    redis.call('HDEL', q .. ':x', member(level, sid))
    return
  end
  local gen, deaths = generation(q, level, sid)
  offer(index, q, level, sid, got[1][2][2], gen, deaths)
end

-- drain hands out messages of a level that nobody had yet, until upto are taken.
local function drain(index, q, level, upto)
  while taken < upto and bytes < MOST_BYTES and looked < MOST_LOOKED do
    local n = math.min(upto - taken, AT_ONCE)
    if fresh(index, q, level, n) < n then return end
  end
end

-- take hands out up to n messages of a queue. Plain is one of which there are none but
-- those of the lowest level that nobody had yet.
local function take(index, q, n, plain)
  local upto = taken + n
  if plain then
    drain(index, q, 0, upto)
    return taken >= upto
  end
  local given = redis.call('ZRANGEBYSCORE', q .. ':f', '-inf', now, 'LIMIT', 0, n)
  for level = 2, 0, -1 do
    for _, m in ipairs(given) do
      local l, sid = unmember(m)
      if l == level and taken < upto and bytes < MOST_BYTES then again(index, q, level, sid) end
    end
    if level == 0 or redis.call('EXISTS', q .. ':s' .. level) == 1 then drain(index, q, level, upto) end
  end
  return taken >= upto
end

local freed, told, plain, full = {}, {}, {}, {}
for i = 10, #ARGV, 2 do
  local q = ARGV[i]
  local waited = redis.call('ZREM', q .. ':w', waits .. ARGV[7]) -- always: see drains
  told[i] = waited == 0 and ARGV[7] ~= '0'
  freed[i] = 0
  if ARGV[8] ~= '0' then freed[i] = reclaim(q) end
  plain[i] = redis.call('EXISTS', q .. ':z', q .. ':f', q .. ':s1', q .. ':s2') == 0
  if not plain[i] then freed[i] = freed[i] + promote(q) end
end
for i = 10, #ARGV, 2 do
  local n = math.min(tonumber(ARGV[i + 1]), want - taken)
  if n > 0 then full[i] = take((i - 8) / 2, ARGV[i], n, plain[i]) end
end
for i = 10, #ARGV, 2 do
  if full[i] ~= false and want > taken then take((i - 8) / 2, ARGV[i], want - taken, plain[i]) end
end
for i = 10, #ARGV, 2 do
  -- Who was told of this queue, and is full with others', has another one told.
  if told[i] and taken >= want then freed[i] = freed[i] + 1 end
  if freed[i] > 0 then wake(ARGV[i], freed[i]) end
end
if taken > 0 or ARGV[9] == '0' then return out end
local next_due
for i = 10, #ARGV, 2 do
  local q = ARGV[i]
  redis.call('ZADD', q .. ':w', now, waits .. want)
  redis.call('PEXPIRE', q .. ':w', 60000) -- of workers that died
  for _, z in ipairs({ ':z', ':f' }) do
    local head = redis.call('ZRANGE', q .. z, 0, 0, 'WITHSCORES')
    if head[2] and (not next_due or tonumber(head[2]) < next_due) then next_due = tonumber(head[2]) end
  end
end
if looked >= MOST_LOOKED then next_due = now end -- there may be more
if next_due then out[1] = math.min(math.max(0, next_due - now), 3600000) end
return out
