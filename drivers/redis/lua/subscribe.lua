-- ARGV: prefix, lease in ms, whether to create (1) or only to look (0), then queues q.
-- Nothing is changed if one has another lease: its number, from 1, is returned, otherwise 0.
drains(ARGV[1])
for i = 4, #ARGV do
  local lease = redis.call('GET', ARGV[i] .. ':l')
  if lease and lease ~= ARGV[2] then return i - 3 end
end
if ARGV[3] == '0' then return 0 end
for i = 4, #ARGV do
  redis.call('SET', ARGV[i] .. ':l', ARGV[2])
  local made = redis.pcall('XGROUP', 'CREATE', ARGV[i] .. ':s0', 'g', '0', 'MKSTREAM')
  if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then error(made.err) end
end
return 0
