-- ARGV: prefix, then ids. It returns the record of each, '' if there is none.
local now = clock()
local out = {}
for i = 2, #ARGV do
  local r = read(ARGV[1] .. ':r:{' .. ARGV[i] .. '}', now)
  out[i - 1] = (r.st > 0 and not r.skel) and encode(r) or ''
end
return out
