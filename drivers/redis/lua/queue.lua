-- A queue is, under its key q:
--
--   q:s0 q:s1 q:s2   streams, one per level of priority; field m is the message
--   q:z  q:zm        what is delayed: due ms by name; message by name
--   q:f              what was given back and stays in its stream: due ms by member
--   q:x              generation and deaths of what was handed out more than once
--   q:d  q:dm  q:di  dead letters: ms of death by key; message by key; epochs by id
--   q:w              who waits: registered ms by channel, token and want
--   q:l  q:t         lease in ms; a lock that lets leases be looked through once a second
--
-- Each stream has one group, g, of two consumers: l has what is leased, f what
-- was given back. A hand-out is fenced by its generation, which rises when it is
-- given back or its lease runs out; the first is 0 and needs no entry in q:x.

-- member names an entry of a stream so that names sort as entries do, the highest
-- level first.
local function member(level, sid)
  local dash = string.find(sid, '-', 1, true)
  return (2 - level) .. string.sub(sid, 1, dash) .. string.format('%012d', string.sub(sid, dash + 1))
end

local function unmember(m)
  local dash = string.find(m, '-', 1, true)
  return 2 - tonumber(string.sub(m, 1, 1)), string.sub(m, 2, dash) .. string.format('%.0f', tonumber(string.sub(m, dash + 1)))
end

-- message_head takes apart what a message begins with: flags, epoch, seq, attempt, deliveries
-- and where its id is. See encoding.go.
local function message_head(blob)
  local flags = string.byte(blob) or error('too short')
  if flags % 8 >= 4 then return flags, 0, 0, 1, 0, 2 end
  return struct.unpack('>BI4I4I4I4', blob)
end

-- generation returns the generation of an entry, and how often it died.
local function generation(q, level, sid)
  local x = redis.call('HGET', q .. ':x', member(level, sid))
  if not x then return 0, 0 end
  local space = string.find(x, ' ', 1, true)
  return tonumber(string.sub(x, 1, space)), tonumber(string.sub(x, space))
end

-- current reports whether an entry has the generation gen. In most queues none has
-- another than 0, which is looked up once.
local given = {}
local function current(q, level, sid, gen)
  if given[q] == nil then given[q] = redis.call('EXISTS', q .. ':x') == 1 end
  if not given[q] then return gen == 0 end
  return generation(q, level, sid) == gen
end

-- due is when a delay is over that begins now, in whole ms: never early.
local function due(now, delay) return now + 1 + delay end

-- free gives an entry back that is leased, from when on it can be claimed. It
-- reports whether it was there.
local function free(q, level, sid, at, died)
  local gen, deaths = generation(q, level, sid)
  if #redis.call('XCLAIM', q .. ':s' .. level, 'g', 'f', 0, sid, 'JUSTID') == 0 then return false end
  redis.call('HSET', q .. ':x', member(level, sid), (gen + 1) .. ' ' .. (deaths + died))
  given[q] = true
  redis.call('ZADD', q .. ':f', string.format('%.0f', at), member(level, sid))
  return true
end

-- wake tells those who wait, until they can take n messages.
local function wake(q, n)
  while n > 0 do
    local w = redis.call('ZPOPMIN', q .. ':w')
    if #w == 0 then return end
    local channel, token, want = string.match(w[1], '^(%S+) (%S+) (%d+)$')
    if channel and redis.call('PUBLISH', channel, 'w' .. token) > 0 then
      n = n - tonumber(want)
    end
  end
end

-- put stores a message, with a delay under its name. It returns how many can
-- be received that could not before, or are due before all others.
local function put(q, level, delay, name, blob, now)
  if delay > 0 then
    name = level .. name
    redis.call('ZADD', q .. ':z', string.format('%.0f', due(now, delay)), name)
    redis.call('HSET', q .. ':zm', name, blob)
    if redis.call('ZRANGE', q .. ':z', 0, 0)[1] == name then return 1 end
    return 0
  end
  redis.call('XADD', q .. ':s' .. level, '*', 'm', blob)
  return 1
end
