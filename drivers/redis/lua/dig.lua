-- dig removes a dead letter, and reports whether it was there. What of its id is known
-- is left to the caller.
local function dig(q, k)
  redis.call('ZREM', q .. ':d', k)
  if redis.call('HDEL', q .. ':dm', k) == 0 then return false end
  local epoch, id = string.sub(k, 1, 10), string.sub(k, 11)
  local left = {}
  for other in string.gmatch(redis.call('HGET', q .. ':di', id) or '', '%d+') do
    if other ~= epoch then left[#left + 1] = other end
  end
  if #left == 0 then
    redis.call('HDEL', q .. ':di', id)
  else
    redis.call('HSET', q .. ':di', id, table.concat(left, ' '))
  end
  return true
end

-- remove does, and what is known of its id knows.
local function remove(prefix, q, k, now)
  if not dig(q, k) then return false end
  local key = prefix .. ':r:{' .. string.sub(k, 11) .. '}'
  local r = read(key, now)
  leave(r)
  write(key, r)
  return true
end
