-- ARGV: prefix, covering (1 or 0), number of queues, these, then messages as add has them.
-- It returns a code for each.
queues_at = 3
local now = clock()
local woken, codes = {}, {}
for i = 4 + ARGV[3], #ARGV, ADD do
  codes[#codes + 1] = add(ARGV[1], i, now, ARGV[2] == '1', woken)
end
for q, n in pairs(woken) do wake(q, n) end
return table.concat(codes)
