-- ARGV: per delivery q, level, entry, generation. It returns a code for each: 0 or L.
local held, kept, streams = {}, {}, {}

for i = 1, #ARGV, 4 do
  local q, level, sid, gen = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  held[i] = current(q, level, sid, gen)
  if held[i] then
    local stream = q .. ':s' .. level
    streams[stream] = streams[stream] or {}
    table.insert(streams[stream], sid)
  end
end

for stream, sids in pairs(streams) do
  table.insert(sids, 'JUSTID')
  for _, sid in ipairs(redis.call('XCLAIM', stream, 'g', 'l', 0, unpack(sids))) do
    kept[stream .. sid] = true
  end
end

local codes = {}
for i = 1, #ARGV, 4 do
  codes[#codes + 1] = held[i] and kept[ARGV[i] .. ':s' .. ARGV[i + 1] .. ARGV[i + 2]] and '0' or 'L'
end
return table.concat(codes)
