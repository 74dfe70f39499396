-- ARGV: prefix, then ids. It returns the record of each, '' if there is none; of the
-- first ids only if they are large.
local now = clock()
local out, bytes = {}, 0
for i = 2, #ARGV do
  if bytes > 8 * 1024 * 1024 then break end
  local r = read(ARGV[1] .. ':r:{' .. ARGV[i] .. '}', now)
  bytes = bytes + #r.tail
  out[i - 1] = (r.st > 0 and not r.skel) and encode(r) or ''
end
return out
