-- add stores a message from ARGV[i] on, which is
--   kind: u untracked, t tracked, d dead letter
--   q, key of the id, level, delay in ms, name, epoch, seq, message, update or ''
-- It returns the code, 0 or D for a duplicate, and counts in woken who is to be
-- told. Of a dead letter, level is the id, and delay the moment of death.
local ADD = 10

local function bury(q, id, epoch, seq, at, blob, update, key, now)
  local k = string.format('%010d', epoch) .. id
  if redis.call('HSETNX', q .. ':dm', k, blob) == 0 then return end
  redis.call('ZADD', q .. ':d', at, k)
  local eps = redis.call('HGET', q .. ':di', id)
  redis.call('HSET', q .. ':di', id, (eps and eps .. ' ' or '') .. string.format('%010d', epoch))
  local r = read(key, now)
  enter(r, tonumber(epoch), tonumber(seq))
  if update ~= '' then
    local u = unpack_update(update)
    if not check_update(r, u, false) then follow(r, u, now, false) end
  end
  write(key, r)
end

local function add(i, now, covering, woken)
  local kind, q, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local update = covering and ARGV[i + 9] or ''
  if kind == 'd' then
    bury(q, ARGV[i + 3], ARGV[i + 6], ARGV[i + 7], ARGV[i + 4], ARGV[i + 8], update, key, now)
    return '0'
  end
  if kind == 't' then
    local e, s = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7])
    local r = read(key, now)
    if alive(r, e, s) then return 'D' end
    if update ~= '' then
      if check_publish(r, e, s) then return 'D' end
      local u = unpack_update(update)
      if not check_update(r, u, false) then follow(r, u, now, false) end
    end
    enter(r, e, s)
    write(key, r)
  end
  woken[q] = (woken[q] or 0) + put(q, ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 8], now)
  return '0'
end
