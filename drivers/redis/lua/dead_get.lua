-- ARGV: q, id. It returns the dead letters of one task.
local out = {}
for epoch in string.gmatch(redis.call('HGET', ARGV[1] .. ':di', ARGV[2]) or '', '%d+') do
  out[#out + 1] = redis.call('HGET', ARGV[1] .. ':dm', epoch .. ARGV[2])
end
return out
