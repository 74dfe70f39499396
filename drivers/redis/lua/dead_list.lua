-- ARGV: q, limit, score and key of the last one seen, both '' at the start. It returns
-- score, key and message of each, oldest first.
local q, from = ARGV[1], 0
if ARGV[4] ~= '' then
  local added = redis.call('ZADD', q .. ':d', 'NX', ARGV[3], ARGV[4])
  from = redis.call('ZRANK', q .. ':d', ARGV[4])
  if added == 1 then redis.call('ZREM', q .. ':d', ARGV[4]) else from = from + 1 end
end
local out = {}
local keys = redis.call('ZRANGE', q .. ':d', from, from + ARGV[2] - 1, 'WITHSCORES')
for i = 1, #keys, 2 do
  out[#out + 1] = keys[i + 1]
  out[#out + 1] = keys[i]
  out[#out + 1] = redis.call('HGET', q .. ':dm', keys[i])
end
return out
