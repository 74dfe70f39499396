-- add stores a message from ARGV[i] on, which is
--   head: kind(1), m a message, d a dead letter; then number of its queue from 1 (2) and
--     of a message     level(1) delay(8), ms; its name, if it is delayed
--     of a dead letter moment of death(8), Unix ms; epoch(4) seq(4) id(1+)
--   the message, and its update or ''
-- It returns the code, 0 or D for a duplicate, and counts in woken who is to be told. The
-- script says, beforehand, where in ARGV the queues are: after queues_at.
local ADD = 3
local queues_at

local function bury(prefix, q, head, blob, update, now)
  local at, epoch, seq, id = struct.unpack('>I8I4I4Bc0', head, 4)
  local k = string.format('%010d', epoch) .. id
  if redis.call('HSETNX', q .. ':dm', k, blob) == 0 then return end
  redis.call('ZADD', q .. ':d', string.format('%.0f', at), k)
  local eps = redis.call('HGET', q .. ':di', id)
  redis.call('HSET', q .. ':di', id, (eps and eps .. ' ' or '') .. string.format('%010d', epoch))
  local key = prefix .. ':r:{' .. id .. '}'
  local r = read(key, now)
  enter(r, epoch, seq)
  if update ~= '' then
    local u = unpack_update(update)
    if not check_update(r, u, false) then follow(r, u, now, false) end
  end
  write(key, r)
end

-- admit enters a message with what is known of its id, unless that has one as new.
local function admit(key, e, s, update, now)
  if update ~= '' and redis.call('EXISTS', key) == 0 and publish_new(key, e, s, update, now) then return true end
  local r = read(key, now)
  if alive(r, e, s) then return false end
  if update ~= '' then
    if check_publish(r, e, s) then return false end
    local u = unpack_update(update)
    if not check_update(r, u, false) then follow(r, u, now, false) end
  end
  enter(r, e, s)
  write(key, r)
  return true
end

-- known raises an error if what is known of the id of a message, or the message, is damaged.
local function known(prefix, i, now)
  if string.sub(ARGV[i], 1, 1) == 'd' then
    local _, _, _, id = struct.unpack('>I8I4I4Bc0', ARGV[i], 4)
    return read(prefix .. ':r:{' .. id .. '}', now)
  end
  local _, _, _, _, _, at = message_head(ARGV[i + 1])
  local id = struct.unpack('>Bc0', ARGV[i + 1], at)
  return read(prefix .. ':r:{' .. id .. '}', now)
end

local function add(prefix, i, now, covering, woken)
  local head, blob, update = ARGV[i], ARGV[i + 1], covering and ARGV[i + 2] or ''
  local kind, index = struct.unpack('>c1I2', head)
  local q = ARGV[queues_at + index]
  if kind == 'd' then
    bury(prefix, q, head, blob, update, now)
    return '0'
  end
  local level, delay = struct.unpack('>BI8', head, 4)
  local flags, e, s, _, _, at = message_head(blob)
  local id = struct.unpack('>Bc0', blob, at)
  if flags % 4 ~= 2 and not admit(prefix .. ':r:{' .. id .. '}', e, s, update, now) then return 'D' end
  woken[q] = (woken[q] or 0) + put(q, level, delay, string.sub(head, 13), blob, now)
  return '0'
end
