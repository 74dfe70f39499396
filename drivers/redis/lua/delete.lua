-- ARGV: prefix, then ids. It leaves skeletons of terminal records, and returns how many.
drains(ARGV[1])
local now = clock()
local n = 0
for i = 2, #ARGV do
  local key = ARGV[1] .. ':r:{' .. ARGV[i] .. '}'
  local r = read(key, now)
  if r.st >= SUCCESS and not r.skel then
    r.ex = now + (r.held and SAFETY_AGE or SKELETON_AGE)
    r.skel, r.held, r.copy, r.to = true, false, '', ''
    if r.st ~= DEAD then r.tail = '' end
    write(key, r)
    n = n + 1
  end
end
return n
