-- KEYS: none. ARGV: prefix, lease in ms, then per queue q and name. Nothing is changed if
-- one has another lease: its number, from 1, is returned, otherwise 0.
drains(ARGV[1])
for i = 3, #ARGV, 2 do
  local lease = redis.call('GET', ARGV[i] .. ':l')
  if lease and lease ~= ARGV[2] then return (i - 1) / 2 end
end
for i = 3, #ARGV, 2 do
  redis.call('SET', ARGV[i] .. ':l', ARGV[2])
  redis.call('SADD', ARGV[1] .. ':queues', ARGV[i + 1])
  local made = redis.pcall('XGROUP', 'CREATE', ARGV[i] .. ':s0', 'g', '0', 'MKSTREAM')
  if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then error(made.err) end
end
return 0
