-- ARGV: prefix, q, then keys. It removes dead letters and returns how many there were.
local now = clock()
local n = 0
for i = 3, #ARGV do
  if remove(ARGV[1], ARGV[2], ARGV[i], now) then n = n + 1 end
end
return n
