-- ARGV: prefix, then per start: id, epoch, seq, attempt, copy, count, once (1 or 0), and of
-- its delivery q or '', level, entry, generation. It returns per start the code, 0, L, S, P
-- or T, the run, and the record that refused or ''.
local prefix = ARGV[1]
drains(prefix)
local now, us = clock()
local out = {}
for i = 2, #ARGV, 11 do
  local id, q, level, sid = ARGV[i], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9]
  local code, run, v = '0', 0, ''
  if q ~= '' and (not current(q, level, sid, tonumber(ARGV[i + 10])) or
      #redis.call('XPENDING', q .. ':s' .. level, 'g', sid, sid, 1) == 0) then
    code = 'L'
  else
    local key = prefix .. ':r:{' .. id .. '}'
    local r = read(key, now)
    local e, s, count, once = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 5]), ARGV[i + 6] == '1'
    code = check_start(r, e, s, ARGV[i + 4], count, once) or '0'
    if code == '0' then
      run = begin(r, e, s, tonumber(ARGV[i + 3]), ARGV[i + 4], count, once, now, us)
      write(key, r)
    else
      if meet(r, now) then write(key, r) end
      if r.st > 0 then v = encode(r) end
    end
  end
  out[#out + 1] = code
  out[#out + 1] = string.format('%.0f', run)
  out[#out + 1] = v
end
return out
