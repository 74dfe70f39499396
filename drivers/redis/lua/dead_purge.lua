-- ARGV: prefix, q, limit, moment ('+inf' or Unix ms: those that died before it). It removes
-- up to limit dead letters and returns how many.
local now = clock()
local before = ARGV[4] == '+inf' and '+inf' or '(' .. ARGV[4]
local keys = redis.call('ZRANGEBYSCORE', ARGV[2] .. ':d', '-inf', before, 'LIMIT', 0, ARGV[3])
for _, k in ipairs(keys) do remove(ARGV[1], ARGV[2], k, now) end
return #keys
