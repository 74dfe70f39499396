-- drains has a script work on a server that is full. That refuses to run commands
-- which may need memory, but not after a script has written. Producers do without.
local function drains(prefix) redis.call('DEL', (KEYS[1] or prefix) .. ':') end

