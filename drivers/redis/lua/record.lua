-- What is known of a task, under the key of its id: which of its messages and
-- dead letters are alive, and its record. A binary string, big-endian:
--
--   n(1)                      messages and dead letters alive, up to 254
--   epoch(4) seq(4)           the newest of them
--   state(1)                  of the record: 0 none, 1 PENDING, 2 STARTED, 3 RETRY, 4 and above terminal
--   flags(1)                  1 once, 2 provisional, 4 held, 8 skeleton
--   epoch(4) seq(4) attempt(4) count(4) run(8)
--   expires(8)                Unix ms, 0 never: then it becomes a skeleton, or goes
--   started(8) pending(8) retried(8) finished(8)   Unix ms
--   copy(1+) reply-to(2+)
--   ttl(8), ms, and the rest is the client's: ttl, due, error, content type, body, next
--
-- While it waits for the first time there is a brief form instead, of a third of the
-- memory. It is of one message, of version 0.0, and of a PENDING record of attempt 1:
--
--   255(1) pending(6) due(6)  Unix ms
--   reply-to(2+)
--
-- The rules are those of driver/rules.go, which says why.
local PENDING, STARTED, RETRY, SUCCESS, DEAD, CANCELLED = 1, 2, 3, 4, 6, 8
local SKELETON_AGE = 2 * 3600 * 1000
local PROVISIONAL_AGE = 600 * 1000
local SAFETY_AGE = 30 * 24 * 3600 * 1000
local FIXED_SIZE, BRIEF, PLAIN = 75, 255, 4
local FIXED = '>BI4I4BBI4I4I4I4I8I8I8I8I8I8'

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000000 + t[2]
end

-- safety is when a record goes at the latest whose task does not end.
local function safety(now, due) return now + math.min(math.max(0, due - now), SAFETY_AGE * 1000) + SAFETY_AGE end

-- varint is a number as package wire has signed ones; it is not negative.
local function varint(n)
  local out = {}
  n = n * 2
  while n >= 128 do
    out[#out + 1] = string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return table.concat(out) .. string.char(n)
end

local function read_brief(v)
  local _, p, due, to = struct.unpack('>BI6I6I2c0', v)
  return { n = 1, ae = 0, as = 0, st = PENDING, fl = 0, e = 0, s = 0, at = 1, c = 0, run = 0, ex = safety(p, due),
    p = p, sa = 0, ra = 0, fa = 0, copy = '', to = to,
    tail = string.rep('\0', 9) .. varint(due) .. string.rep('\0', 4) }
end

local function read_full(v)
  local r = {}
  local pos
  r.n, r.ae, r.as, r.st, r.fl, r.e, r.s, r.at, r.c, r.run, r.ex, r.sa, r.p, r.ra, r.fa, pos = struct.unpack(FIXED, v)
  r.copy, r.to, pos = struct.unpack('>Bc0I2c0', v, pos)
  r.tail = string.sub(v, pos)
  return r
end

-- read returns what is stored under key, as time has left it. A new table has
-- n = 0 and st = 0.
local function read(key, now)
  local v = redis.call('GET', key)
  if not v then
    return { n = 0, ae = 0, as = 0, st = 0, fl = 0, e = 0, s = 0, at = 0, c = 0, run = 0, ex = 0,
      p = 0, sa = 0, ra = 0, fa = 0, copy = '', to = '', tail = '' }
  end
  local r = string.byte(v) == BRIEF and read_brief(v) or read_full(v)
  r.once = r.fl % 2 >= 1
  r.prov = r.fl % 4 >= 2
  r.held = r.fl % 8 >= 4
  r.skel = r.fl % 16 >= 8
  while r.st > 0 and r.ex > 0 and now >= r.ex do
    if not r.skel and r.st >= SUCCESS and not r.held then
      r.skel, r.ex = true, r.ex + SKELETON_AGE
      r.at, r.copy, r.to = 0, '', ''
    elseif not r.skel and r.n > 0 then
      r.ex = r.ex + SAFETY_AGE
    else
      r.st, r.skel, r.held, r.prov, r.once, r.ex, r.copy, r.to, r.tail = 0, false, false, false, false, 0, '', '', ''
    end
  end
  return r
end

local function encode(r)
  local fl = (r.once and 1 or 0) + (r.prov and 2 or 0) + (r.held and 4 or 0) + (r.skel and 8 or 0)
  return struct.pack(FIXED, r.n, r.ae, r.as, r.st, fl, r.e, r.s, r.at, r.c, r.run, r.ex, r.sa, r.p, r.ra, r.fa) ..
    struct.pack('>Bc0I2c0', #r.copy, r.copy, #r.to, r.to) .. r.tail
end

-- store stores v until it goes, for ever if that is 0.
local function store(key, v, goes)
  if goes == 0 then
    redis.call('SET', key, v)
  else
    redis.call('SET', key, v, 'PXAT', string.format('%.0f', goes))
  end
end

-- write stores r and returns what it stored.
local function write(key, r)
  if r.st == 0 and r.n == 0 then
    redis.call('DEL', key)
    return
  end
  local v, goes = encode(r), r.n == 0 and r.ex or 0
  if goes > 0 and r.st >= SUCCESS and not r.held and not r.skel then goes = goes + SKELETON_AGE end
  store(key, v, goes)
  return v
end

-- What follows is done for nearly all messages: of those whose id nobody else has
-- anything to do with. It does as the rules would, without a table of the fields.
-- Each returns nothing where it does not apply.
local ALIVE = '>BI4I4BBI4I4I4I4I8I8'

-- publish_new stores under key, which is new, the brief form of a plain update, with its due
-- and reply-to, if its message is of version 0.0 too.
local function publish_new(key, e, s, update, now)
  if string.byte(update, 2) ~= PLAIN or e > 0 or s > 0 then return end
  redis.call('SET', key, struct.pack('>BI6', BRIEF, now) .. string.sub(update, 33, 38) ..
    string.sub(update, 39, 40 + string.byte(update, 40)))
  return true
end

-- start_head is what a record begins with after the first delivery of such a message.
local function start_head(at, now, us)
  return struct.pack(ALIVE, 1, 0, 0, STARTED, 0, 0, 0, at, 1, us, now + SAFETY_AGE) .. struct.pack('>I8I2', now, 0)
end

local between = {} -- what is between pending and a copy, by the length of this: neither retried nor finished

-- brief_start stores that record in place of the brief form, unless that is not there.
local function brief_start(key, head, copy)
  local v = redis.call('GET', key)
  if not v or string.byte(v) ~= BRIEF then return end
  if not between[#copy] then between[#copy] = string.rep('\0', 16) .. string.char(#copy) end
  redis.call('SET', key, head .. string.sub(v, 2, 7) .. between[#copy] .. copy .. string.sub(v, 14))
  return true
end

-- finished returns what is to be stored once the only message of an id is settled
-- with a verdict, whom to tell, and when it goes, 0 if never.
local function finished(key, update, now)
  local v = redis.call('GET', key)
  if not v or string.byte(v) == BRIEF then return end
  local n, ae, as, st, fl, e, s, _, c, run, ex = struct.unpack(ALIVE, v)
  local ust, ufl, ue, us, at, urun, ttl, _, uto, upos = struct.unpack('>BBI4I4I4I8I8I8I2c0', update)
  if n ~= 1 or st ~= PENDING and st ~= STARTED or fl > 1 or ue ~= e or us ~= s or now >= ex or ust < SUCCESS or ufl > 1 then return end
  local copy, to = struct.unpack('>Bc0I2c0', v, FIXED_SIZE + 1)
  if uto ~= '' then to = uto end
  ex = ttl > 0 and now + ttl or 0
  v = struct.pack(ALIVE, 0, ae, as, ust, ufl, e, s, at, c, math.max(run, urun), ex) .. string.sub(v, 44, 67) ..
    struct.pack('>I8Bc0I2c0', now, #copy, copy, #to, to) .. string.sub(update, upos)
  return v, to, ex > 0 and ex + SKELETON_AGE or 0
end

-- guard calls f. It reports whether it has, and what it returns; what is stored may be
-- damaged, but there is no other excuse.
local function guard(f, ...)
  local ok, a, b = pcall(f, ...)
  if ok then return true, a, b end
  local text = type(a) == 'table' and a.err or tostring(a)
  if string.find(text, 'WRONGTYPE', 1, true) or string.find(text, 'too short', 1, true) then return false end
  error(a)
end

local function older(e, s, r) return e < r.e or e == r.e and s < r.s end
local function newer(e, s, r) return e > r.e or e == r.e and s > r.s end

-- alive reports whether a message or dead letter as new is.
local function alive(r, e, s) return r.n > 0 and (r.ae > e or r.ae == e and r.as >= s) end

local function enter(r, e, s)
  if r.n == 0 or e > r.ae or e == r.ae and s > r.as then
    r.ae, r.as = e, s
  end
  r.n = math.min(254, r.n + 1)
end

local function leave(r) r.n = math.max(0, r.n - 1) end

local function rank(st, prov)
  if prov then return 0 end
  return math.min(st, 4)
end

-- expire sets when a record that was written now expires.
local function expire(r, now, ttl, due)
  if r.prov then
    r.ex = now + PROVISIONAL_AGE
  elseif r.st >= SUCCESS and not r.held then
    r.ex = ttl > 0 and now + ttl or 0
  else
    r.ex = safety(now, due)
  end
end

-- An update is state(1) flags(1) epoch(4) seq(4) attempt(4) run(8) ttl(8, ms)
-- due(8, ms) reply-to(2+) and the client's rest, which begins with ttl and due
-- once more. Flags are 1 once, 2 provisional, 4 plain: nothing but due and reply-to is
-- other than in the brief form.
local function unpack_update(b)
  local u, fl, pos = {}
  u.st, fl, u.e, u.s, u.at, u.run, u.ttl, u.due, u.to, pos = struct.unpack('>BBI4I4I4I8I8I8I2c0', b)
  u.once, u.prov = fl % 2 >= 1, fl % 4 >= 2
  u.tail = string.sub(b, pos)
  return u
end

-- ttl_of returns the ttl, in ms, that the record was written with.
local function ttl_of(r)
  if #r.tail < 8 then return 0 end
  return (struct.unpack('>I8', r.tail))
end

local STALE, BEGUN, SUPERSEDED = 'S', 'T', 'P'

-- check_update is CheckUpdate: nil accepts.
local function check_update(r, u, fenced)
  if r.st == 0 or u.e > r.e then return nil end
  if r.skel or u.e < r.e or r.st >= SUCCESS or u.s < r.s then return STALE end
  if u.s > r.s then return nil end
  if rank(u.st, u.prov) <= rank(r.st, r.prov) then return STALE end
  if r.st == RETRY then
    if u.st == SUCCESS or u.st == CANCELLED then return nil end
    return STALE
  end
  if u.run == 0 then
    if u.once and u.st == RETRY and r.st == STARTED then return BEGUN end
    return nil
  end
  if u.run < r.run and u.st ~= SUCCESS and not fenced then return STALE end
  return nil
end

-- follow makes of r the record after u was accepted, as NextUpdated.
local function follow(r, u, now, fenced)
  local outside = u.run == 0 and not fenced
  if r.st > 0 and r.e == u.e and not r.skel then
    r.run = math.max(r.run, u.run)
    if u.to ~= '' then r.to = u.to end
  else
    r.p, r.sa, r.ra, r.copy, r.c, r.run, r.to = 0, 0, 0, '', 0, u.run, u.to
  end
  r.fa = 0
  r.st, r.e, r.s, r.at, r.once, r.prov, r.held, r.skel = u.st, u.e, u.s, u.at, u.once, u.prov, false, false
  r.tail = u.tail
  if u.st == PENDING then
    r.p = now
  elseif u.st == RETRY then
    r.ra = now
  elseif u.st >= SUCCESS then
    r.fa = now
    r.held = u.st == CANCELLED and outside
  end
  expire(r, now, u.ttl, u.due)
end

-- check_start is CheckStart.
local function check_start(r, e, s, copy, count, once)
  if r.st == 0 then
    if once and count > 1 then return BEGUN end
    return nil
  end
  if r.skel then
    if e > r.e then return nil end
    if r.st == DEAD and e == r.e and s == r.s then return STALE end
    return SUPERSEDED
  end
  if older(e, s, r) or e == r.e and r.st >= SUCCESS then return STALE end
  if newer(e, s, r) or r.st == PENDING then return nil end
  if r.st ~= STARTED then return STALE end
  if copy ~= r.copy or count < r.c then return SUPERSEDED end
  if once then return BEGUN end
  return nil
end

-- begin makes of r the record after a start was granted, as NextStarted, and
-- returns its run.
local function begin(r, e, s, at, copy, count, once, now, us)
  local run = math.max(us, r.run + 1)
  if r.st == 0 or r.e ~= e then
    r.p, r.ra, r.to = 0, 0, ''
  end
  r.fa, r.sa = 0, now
  r.st, r.e, r.s, r.at, r.once, r.prov, r.held, r.skel = STARTED, e, s, at, once, false, false, false
  r.copy, r.c, r.run, r.tail = copy, count, run, ''
  expire(r, now, 0, 0)
  return run
end

-- check_claim is CheckClaim, of a version.
local function check_claim(r, e, s)
  if r.st == 0 then return nil end
  if r.skel then
    if e > r.e then return nil end
    return STALE
  end
  if older(e, s, r) or e == r.e and r.st >= SUCCESS then return STALE end
  return nil
end

-- check_publish is CheckPublish: true refuses.
local function check_publish(r, e, s)
  return not (r.st == 0 or newer(e, s, r) or r.prov)
end

-- meet ends the hold of a cancellation. It reports whether r has changed.
local function meet(r, now)
  if not r.held then return false end
  r.held = false
  expire(r, now, ttl_of(r), 0)
  return true
end

-- announce has the terminal record v of id pushed to those who watch it, and to whom it is
-- to be told, once push is called. A push has 'r', then per record: id(1+), and the record(4+),
-- empty if it is large.
local LARGE, MOST_PUSHED = 16384, 65536
local watching
local pushes = {} -- records by whom they are for
local function announce(prefix, id, to, v)
  local item = struct.pack('>Bc0I4c0', #id, id, #v <= LARGE and #v or 0, #v <= LARGE and v or '')
  if to ~= '' then
    local p = pushes[to]
    if not p then
      p = { 'r', bytes = 0 }
      pushes[to] = p
    end
    p[#p + 1] = item
    p.bytes = p.bytes + #item
    if p.bytes >= MOST_PUSHED then
      redis.call('PUBLISH', prefix .. ':ch:' .. to, table.concat(p))
      pushes[to] = nil
    end
  end
  watching = watching or redis.call('EXISTS', prefix .. ':watching')
  if watching == 1 then redis.call('PUBLISH', prefix .. ':n:' .. id, 'r' .. item) end
end

local function push(prefix)
  for to, p in pairs(pushes) do redis.call('PUBLISH', prefix .. ':ch:' .. to, table.concat(p)) end
end
