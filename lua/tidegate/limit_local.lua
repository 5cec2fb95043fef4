--- limit_local: limits in memory that all workers of this gateway share. The core decides and counts (zone/allowance.h).
local abi = require "abi"

local C, vm, records, taken = abi.C, abi.vm, abi.records, abi.taken
local ADD, SET, REMOVE = tonumber(C.TG_LIMIT_ADD), tonumber(C.TG_LIMIT_SET), tonumber(C.TG_LIMIT_REMOVE)
local TRIES = 1000 -- to swap what others change at the same time

local store = {}

--- out: what the last decision was made of: left, until there is room, until all is free (seconds), of each limit; `wait`: the longest.
store.out = { ok = {}, left = {}, retry = {}, reset = {}, wait = 0 }
local out = store.out

--- keep_left(n, cost): what one limit has refused is charged to none, so the others have what they had.
function store.keep_left(n, cost)
  for i = 1, n do
    if out.ok[i] then out.left[i] = out.left[i] + cost end
  end
end

--- fill(): what came of the one limit that was decided on last, into `out`
function store.fill()
  local one = taken[1]
  out.ok[1], out.left[1], out.retry[1], out.reset[1], out.wait = one.ok ~= 0, one.left, one.retry, one.reset, one.wait
end

local function take_all(dict, limits, scopes, key, cost, charge)
  local many, n = type(key) == "table", #limits
  for i = 1, n do
    local scope, own = scopes[i], many and key[i] or key
    local rc = C.tg_abi_limit_name(i - 1, limits[i].core, scope, #scope, own, #own)
    if rc < 0 then return rc end
  end
  local rc, wait = C.tg_abi_limit_take_all(dict, n, cost, charge and 1 or 0), 0
  for i = 1, n do
    local one = taken[i]
    out.ok[i], out.left[i], out.retry[i], out.reset[i] = one.ok ~= 0, one.left, one.retry, one.reset
    if one.wait > wait then wait = one.wait end
  end
  out.wait = wait
  if rc == 0 and not charge then store.keep_left(n, cost) end
  return rc
end

--- take(dict, limits, scopes, key, cost, charge) -> allowed | nil, rc. `scopes[i] .. key` is where limits[i] counts; a list of keys is one for
-- each limit. `charge`: also what is refused counts.
function store.take(dict, limits, scopes, key, cost, charge)
  local rc
  if #limits == 1 then
    local scope, own = scopes[1], type(key) == "table" and key[1] or key
    rc = C.tg_abi_limit_take(dict, limits[1].core, scope, #scope, own, #own, cost, charge and 1 or 0)
    store.fill()
  else
    rc = take_all(dict, limits, scopes, key, cost, charge)
  end
  if rc < 0 then return nil, rc end
  return rc == 1
end

--- add(dict, limit, scope, key, amount): counts it, whatever comes of it; gives back when it is below 0.
function store.add(dict, limit, scope, key, amount)
  C.tg_abi_limit_change(dict, limit.core, scope, #scope, key, #key, ADD, amount)
end

--- set(dict, limit, scope, key, amount): from now on as much as this is used
function store.set(dict, limit, scope, key, amount)
  C.tg_abi_limit_change(dict, limit.core, scope, #scope, key, #key, SET, amount)
end

--- remove(dict, limit, scope, key) -> what was used
function store.remove(dict, limit, scope, key)
  local rc = C.tg_abi_limit_change(dict, limit.core, scope, #scope, key, #key, REMOVE, 0)
  return rc == 0 and vm.number or 0
end

-- ---------------------------------------------------------------- places that are held

-- Changes one record by f(record, limit, now, wall) -> whether it is to be swapped, a result.
local function change(dict, limit, scope, key, f, ...)
  local r = records[1]
  for _ = 1, TRIES do
    local rc = C.tg_abi_record_read(dict, 0, scope, #scope, key, #key, limit.room)
    if rc ~= 0 then return nil end
    local wanted, result = f(r, limit, vm.monotonic, vm.now, ...)
    if not wanted then return result end
    rc = C.tg_abi_record_swap(dict, 1)
    if rc == 0 then return result end
    if rc ~= abi.EBUSY then return nil end
  end
end

local HELD = { room = 2 }

-- Pairs of a moment and an id: those whose moment has not come are held. Keeps these, but not the one of `without`.
local function keep(r, now, without)
  local was, next, n = r.was, r.next, 0
  for i = 0, r.count - 2, 2 do
    if was[i] > now and was[i + 1] ~= without then
      next[n], next[n + 1] = was[i], was[i + 1]
      n = n + 2
    end
  end
  return n
end

local function hold(r, limit, now, _, id, seconds)
  local n = keep(r, now, id)
  if n / 2 >= limit.rate or n + 2 > limit.room then return false, { false, 0 } end
  r.next[n], r.next[n + 1] = now + seconds, id
  r.next_count, r.ttl = n + 2, math.max(seconds, 3600)
  return true, { true, limit.rate - n / 2 - 1 }
end

--- hold(dict, limit, scope, key, id, seconds) -> whether there is a place, how many are left; nil: no room
function store.hold(dict, limit, scope, key, id, seconds)
  local result = change(dict, limit, scope, key, hold, id, seconds)
  if not result then return nil end
  return result[1], result[2]
end

local function release(r, _, now, _, id)
  local n = keep(r, now, id)
  r.next_count, r.ttl = n, 3600
  return r.count > 0
end

--- release(dict, scope, key, id)
function store.release(dict, scope, key, id)
  change(dict, HELD, scope, key, release, id)
end

-- One that is not held any more stays so: its place may be another's.
local function renew(r, _, now, _, id, seconds)
  local n, found = keep(r, now), false
  for i = 0, n - 2, 2 do
    if r.next[i + 1] == id then r.next[i], found = now + seconds, true end
  end
  r.next_count, r.ttl = n, math.max(seconds, 3600)
  return found
end

--- renew(dict, scope, key, id, seconds)
function store.renew(dict, scope, key, id, seconds)
  change(dict, HELD, scope, key, renew, id, seconds)
end

return store
