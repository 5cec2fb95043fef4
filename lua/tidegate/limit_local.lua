--- limit_local: limits in memory that all workers of this gateway share.
local abi = require "abi"
local kinds = require "tidegate.limit_kinds"

local C, vm, records = abi.C, abi.vm, abi.records
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

-- One try for one limit, which is what nearly all have: loops would show. -> allowed, rc of the swap, if there was one
local function try_one(dict, limit, scope, key, cost, charge)
  local rc = C.tg_abi_record_read(dict, 0, scope, #scope, key, #key, limit.room)
  if rc ~= 0 then return false, rc end
  local ok, left, retry, reset, wait = kinds[limit.algorithm].take(records[1], limit, cost, vm.monotonic, vm.now)
  out.ok[1], out.left[1], out.retry[1], out.reset[1], out.wait = ok, left, retry, reset, wait
  if cost == 0 or not (ok or charge) then return ok, 0 end
  return ok, C.tg_abi_record_swap(dict, 1)
end

local function take_one(dict, limit, scope, key, cost, charge)
  local ok, rc = try_one(dict, limit, scope, key, cost, charge)
  if rc == 0 then return ok end
  for _ = 1, TRIES do
    if rc ~= abi.EBUSY then return nil, rc end
    ok, rc = try_one(dict, limit, scope, key, cost, charge)
    if rc == 0 then return ok end
  end
  return nil, rc
end

--- take(dict, limits, scopes, key, cost, charge) -> allowed | nil, rc. `scopes[i] .. key` is where limits[i] counts; a list of keys is one for
-- each limit. `charge`: also what is refused counts.
function store.take(dict, limits, scopes, key, cost, charge)
  local many = type(key) == "table"
  if #limits == 1 then return take_one(dict, limits[1], scopes[1], many and key[1] or key, cost, charge) end
  for _ = 1, TRIES do
    local now, wall = vm.monotonic, vm.now
    local allowed, wait = true, 0
    for i = 1, #limits do
      local limit, scope, own = limits[i], scopes[i], many and key[i] or key
      local rc = C.tg_abi_record_read(dict, i - 1, scope, #scope, own, #own, limit.room)
      if rc ~= 0 then return nil, rc end
      local ok, left, retry, reset, delay = kinds[limit.algorithm].take(records[i], limit, cost, now, wall)
      out.ok[i], out.left[i], out.retry[i], out.reset[i] = ok, left, retry, reset
      allowed = allowed and ok
      if delay > wait then wait = delay end
    end
    out.wait = wait
    if not (allowed or charge) then store.keep_left(#limits, cost) end
    if cost == 0 or not (allowed or charge) then return allowed end
    local rc = C.tg_abi_record_swap(dict, #limits)
    if rc == 0 then return allowed end
    if rc ~= abi.EBUSY then return nil, rc end
  end
  return nil, abi.EBUSY
end

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

local function add(r, limit, now, wall, amount)
  kinds[limit.algorithm].add(r, limit, amount, now, wall)
  return true
end

--- add(dict, limit, scope, key, amount): counts it, whatever comes of it; gives back when it is below 0.
function store.add(dict, limit, scope, key, amount)
  change(dict, limit, scope, key, add, amount)
end

local function set(r, limit, now, wall, amount)
  local kind = kinds[limit.algorithm]
  local more = amount - kind.used(r, limit, now, wall)
  if more > -0.01 and more < 0.01 then return false end
  kind.add(r, limit, more, now, wall)
  return true
end

--- set(dict, limit, scope, key, amount): from now on as much as this is used
function store.set(dict, limit, scope, key, amount)
  change(dict, limit, scope, key, set, amount)
end

local function remove(r, limit, now, wall)
  local used = kinds[limit.algorithm].used(r, limit, now, wall)
  r.next_count = 0
  return r.count > 0, used
end

--- remove(dict, limit, scope, key) -> what was used
function store.remove(dict, limit, scope, key)
  return change(dict, limit, scope, key, remove) or 0
end

-- ---------------------------------------------------------------- places that are held

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
