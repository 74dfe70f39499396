-- ARGV: prefix, q, then keys. It removes dead letters and returns how many there were.
local now = clock()
local n = 0
for i = 3, #ARGV do
  if dig(ARGV[2], ARGV[i]) then
    local key = ARGV[1] .. ':r:{' .. string.sub(ARGV[i], 11) .. '}'
    local r = read(key, now)
    leave(r)
    write(key, r)
    n = n + 1
  end
end
return n
