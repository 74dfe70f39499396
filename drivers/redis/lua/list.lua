-- ARGV: prefix, then names of queues. They are listed.
drains(ARGV[1])
redis.call('SADD', ARGV[1] .. ':queues', unpack(ARGV, 2))
return 0
