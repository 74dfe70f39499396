-- ARGV: covering (1 or 0), then messages as add has them. It returns a code for each.
local now = clock()
local woken, codes = {}, {}
for i = 2, #ARGV, ADD do
  codes[#codes + 1] = add(i, now, ARGV[1] == '1', woken)
end
for q, n in pairs(woken) do wake(q, n) end
return table.concat(codes)
