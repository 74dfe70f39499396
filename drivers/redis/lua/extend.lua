-- ARGV: per delivery q, level, entry, generation. It returns a code for each: 0 or L.
local codes = {}
for i = 1, #ARGV, 4 do
  local q, level, sid = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local ok = generation(q, level, sid) == tonumber(ARGV[i + 3]) and
    #redis.call('XCLAIM', q .. ':s' .. level, 'g', 'l', 0, sid, 'JUSTID') == 1
  codes[#codes + 1] = ok and '0' or 'L'
end
return table.concat(codes)
