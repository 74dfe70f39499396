-- ARGV: prefix, q, covering (1 or 0), then per dead letter: key, tracked (1 or 0), and of
-- its replay level, epoch, message, update or ''. It returns a code for each: 0, or N if
-- there is nothing to replay.
local prefix, q, covering = ARGV[1], ARGV[2], ARGV[3] == '1'
local now = clock()
local codes, woken = {}, 0
for i = 4, #ARGV, 6 do
  local code, k = 'N', ARGV[i]
  local id, epoch = string.sub(k, 11), tonumber(ARGV[i + 3])
  local key = prefix .. ':r:{' .. id .. '}'
  if redis.call('HEXISTS', q .. ':dm', k) == 1 then
    local r = read(key, now)
    local _, letters = string.gsub(redis.call('HGET', q .. ':di', id) or '', '%d+', '')
    if r.n <= letters or r.ae < epoch then -- else a message as new is alive
      dig(q, k)
      leave(r)
      if ARGV[i + 1] == '1' then enter(r, epoch, 0) end
      if covering and ARGV[i + 5] ~= '' then
        local u = unpack_update(ARGV[i + 5])
        if not check_update(r, u, false) then follow(r, u, now, false) end
      end
      write(key, r)
      woken = woken + put(q, ARGV[i + 2], 0, '', ARGV[i + 4], now)
      code = '0'
    end
  end
  codes[#codes + 1] = code
end
wake(q, woken)
return table.concat(codes)
