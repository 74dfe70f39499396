-- ARGV: prefix, whether somebody may watch what cannot be known here (1 or 0), then per
-- update id and update. It returns a code for each: 0, S or T.
local prefix = ARGV[1]
if ARGV[2] == '1' then watching = 1 end
drains(prefix)
local now = clock()
local codes = {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local key = prefix .. ':r:{' .. id .. '}'
  local r, u = read(key, now), unpack_update(ARGV[i + 1])
  local refused = check_update(r, u, false)
  if refused then
    if u.st ~= PENDING and meet(r, now) then write(key, r) end
  else
    follow(r, u, now, false)
    local v = write(key, r)
    if r.st >= SUCCESS then announce(prefix, id, r.to, v) end
  end
  codes[#codes + 1] = refused or '0'
end
push(prefix)
return table.concat(codes)
