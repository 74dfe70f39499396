-- drains has a script work on a server that is full. That refuses to run commands
-- which may need memory, but not after a script has written. Producers do without. The key
-- is never there. On a cluster it is declared beside another that is of the same slot: no
-- node runs a script that has one key and not the other, as while a slot is moved.
local function drains(prefix) redis.call('DEL', KEYS[2] or prefix .. ':') end

