-- Who waited waits no more. If it was just told, another one is.
-- ARGV: channel, token, want, then queues.
for i = 4, #ARGV do
  if redis.call('ZREM', ARGV[i] .. ':w', ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]) == 0 then
    wake(ARGV[i], tonumber(ARGV[3]))
  end
end
return 0
