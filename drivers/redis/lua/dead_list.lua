-- ARGV: q, limit, score and key of the last one seen, both '' at the start. It returns
-- score, key and message of each, oldest first.
local q, from = ARGV[1], 0
if ARGV[4] ~= '' then
  from = redis.call('ZRANK', q .. ':d', ARGV[4])
  if from then
    from = from + 1
  else -- it is gone: those of its moment are looked through
    from = redis.call('ZCOUNT', q .. ':d', '-inf', '(' .. ARGV[3])
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', q .. ':d', ARGV[3], ARGV[3])) do
      if key > ARGV[4] then break end
      from = from + 1
    end
  end
end
local out = {}
local keys = redis.call('ZRANGE', q .. ':d', from, from + ARGV[2] - 1, 'WITHSCORES')
for i = 1, #keys, 2 do
  out[#out + 1] = keys[i + 1]
  out[#out + 1] = keys[i]
  out[#out + 1] = redis.call('HGET', q .. ':dm', keys[i])
end
return out
