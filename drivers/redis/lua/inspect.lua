-- ARGV: queues q. It returns per queue: ready, leased, delayed, dead, age of the oldest ready
-- one in ms.
local now = clock()
local out = {}
for _, q in ipairs(ARGV) do
  local stored, pending, oldest = 0, 0, now
  for level = 0, 2 do
    local key = q .. ':s' .. level
    if redis.call('EXISTS', key) == 1 then
      stored = stored + redis.call('XLEN', key)
      local last = '0-0'
      for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        for i = 1, #group, 2 do
          if group[i] == 'pending' then pending = pending + group[i + 1] end
          if group[i] == 'last-delivered-id' then last = group[i + 1] end
        end
      end
      local head = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 1)
      if head[1] then oldest = math.min(oldest, tonumber(string.match(head[1][1], '^%d+'))) end
    end
  end
  local freed = redis.call('ZCARD', q .. ':f')
  local due = redis.call('ZCOUNT', q .. ':f', '-inf', now)
  for _, m in ipairs(redis.call('ZRANGEBYSCORE', q .. ':f', '-inf', now, 'LIMIT', 0, 1)) do
    local _, sid = unmember(m)
    oldest = math.min(oldest, tonumber(string.match(sid, '^%d+')))
  end
  local later = redis.call('ZCOUNT', q .. ':z', '(' .. string.format('%.0f', now), '+inf')
  local ripe = redis.call('ZRANGEBYSCORE', q .. ':z', '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
  if ripe[2] then oldest = math.min(oldest, tonumber(ripe[2])) end
  out[#out + 1] = stored - pending + due + redis.call('ZCARD', q .. ':z') - later
  out[#out + 1] = pending - freed
  out[#out + 1] = later + freed - due
  out[#out + 1] = redis.call('ZCARD', q .. ':d')
  out[#out + 1] = now - oldest
end
return out
