--- limit_lease: portions of a limit that this gateway has paid for in Redis, and spends without asking.
-- A portion is what a key is likely to need in HOLD seconds, and never more than a share of what there is. Units are charged before they are
-- spent, so all gateways together never let more through than the limit; what may be refused too early are the units that lie in portions:
--   gcra              the burst is smaller by rate * hold, hold = min(0.25 s, burst / 4 / rate): a portion is used up in that time, or lapses
--   fixed, sliding    at most nodes * max(1, rate / 8 / nodes): a portion lasts to the end of the window in which it was charged
local abi = require "abi"
local failure = require "tidegate.failure"
local store = require "tidegate.limit_local"
local task = require "tidegate.task"

local C, vm, records = abi.C, abi.vm, abi.records
local floor, huge, max, min = math.floor, math.huge, math.max, math.min
local out = store.out
local HOLD, MARGIN = 0.25, 0.02 -- seconds: what a portion is to last; what clocks of loops and the way to the upstream may take
local BLOCK_MAX, GROWTH, ROUNDS, TRIES = 1, 4, 4, 1000
local STRANDED = 8 -- an eighth of a window's limit may lie in portions

local lease = {}
local LEFT, TILL, BLOCKED, SIZE, SINCE, REST, RESET = 0, 1, 2, 3, 4, 5, 6 -- of a record
local COUNT = 7

--- prepare(self): for limits that are shared through Redis
function lease.prepare(self)
  self.holds, self.bursts, self.asking, self.keep = {}, {}, {}, 10 -- keep: seconds
  for i, one in ipairs(self.limits) do
    if one.algorithm == "log" or one.algorithm == "leaky" then
      failure.misuse(('mode = "lease" is for fixed, sliding and gcra: what %s counts cannot be paid for in advance'):format(one.algorithm))
    end
    self.keep = max(self.keep, 2 * one.per)
    self.holds[i] = one.burst and min(HOLD, one.burst / 4 / one.speed) or HOLD
    if one.burst then self.bursts[i] = max(1, one.burst - one.speed * self.holds[i]) end
  end
end

local function own_key(key, i)
  return type(key) == "table" and key[i] or key
end

local none = {}

-- What was is also what is to be, but for what a portion has lost by its time.
local function read_one(self, place, key, i)
  local scope, r = place.leases[i], records[i]
  if C.tg_abi_record_read(self.dict.id, i - 1, scope, #scope, key, #key, COUNT) ~= 0 then return false end
  local was, next = r.count == COUNT and r.was or none, r.next
  next[LEFT], next[TILL], next[BLOCKED], next[SIZE] = was[LEFT] or 0, was[TILL] or 0, was[BLOCKED] or 0, was[SIZE] or 0
  next[SINCE], next[REST], next[RESET] = was[SINCE] or 0, was[REST] or 0, was[RESET] or 0
  if next[TILL] <= vm.monotonic then next[LEFT] = 0 end
  r.next_count, r.ttl = COUNT, self.keep
  return true
end

-- What is there for this limit: true enough, false it is blocked, nil it needs more
local function judge_one(i, cost)
  local next, now = records[i].next, vm.monotonic
  local enough = next[LEFT] >= cost
  out.ok[i], out.left[i], out.retry[i], out.reset[i] = enough, floor(next[LEFT] + next[REST]), 0, max(0, next[RESET] - now)
  if enough then return true end
  if next[BLOCKED] <= now then return nil end
  out.retry[i] = next[BLOCKED] - now
  return false
end

-- The same of all limits; those that need more are put into a list.
local function judge(self, place, key, cost)
  local n = #self.limits
  if n == 1 then
    if not read_one(self, place, own_key(key, 1), 1) then return false, nil, true end
    local verdict = judge_one(1, cost)
    return verdict, verdict == nil and { 1 } or nil
  end
  local needy, blocked = {}, false
  for i = 1, n do
    if not read_one(self, place, own_key(key, i), i) then return false, nil, true end
  end
  for i = 1, n do
    local verdict = judge_one(i, cost)
    if verdict == false then blocked = true elseif verdict == nil then needy[#needy + 1] = i end
  end
  if blocked then return false end
  if #needy == 0 then return true end
  return nil, needy
end

local function spend_one(i, cost)
  local next = records[i].next
  next[LEFT] = next[LEFT] - cost
  out.left[i] = floor(next[LEFT] + next[REST])
end

local function spend(self, cost)
  local n = #self.limits
  spend_one(1, cost)
  if n > 1 then
    for i = 2, n do spend_one(i, cost) end
  end
  return C.tg_abi_record_swap(self.dict.id, n)
end

-- How many units to ask for: what was spent of the last portion in its time says what a hold needs.
local function wish(self, i, cost)
  local one, next, hold = self.limits[i], records[i].next, self.holds[i]
  local elapsed = max(vm.monotonic - next[SINCE], 0.001)
  local spent = records[i].count == COUNT and max(0, next[SIZE] - records[i].was[LEFT]) or 0
  local portion = min(spent / elapsed * hold, GROWTH * next[SIZE] + 1)
  local most = one.burst and one.speed * hold / 2 or one.rate / STRANDED / self:nodes()
  if not one.burst and next[RESET] > vm.monotonic then most = min(most, next[REST] / 2 / self:nodes()) end
  return max(cost, floor(min(portion, most)))
end

-- What Redis has given, or refused, into the record.
local function note(self, place, key, i, units, rest, retry, reset, sent)
  local one, own, scope = self.limits[i], own_key(key, i), place.leases[i]
  local r = records[1]
  for _ = 1, TRIES do
    if C.tg_abi_record_read(self.dict.id, 0, scope, #scope, own, #own, COUNT) ~= 0 then return end
    local known = r.count == COUNT and r.was[TILL] > vm.monotonic
    local left, till = known and r.was[LEFT] or 0, known and r.was[TILL] or huge
    local next = r.next
    local ends = sent + (one.burst and self.holds[i] or reset - MARGIN)
    next[LEFT], next[TILL] = left + units, left > 0 and min(till, ends) or ends
    next[BLOCKED] = r.count == COUNT and r.was[BLOCKED] or 0
    next[SIZE], next[SINCE], next[REST], next[RESET] = left + units, sent, rest, sent + reset
    if units == 0 then
      local wait = one.burst and max(self.holds[i] / 4, min(max(retry, 1 / one.speed), self.holds[i])) or min(retry, BLOCK_MAX)
      next[BLOCKED], next[SIZE], next[SINCE] = sent + wait, r.count == COUNT and r.was[SIZE] or 0, r.count == COUNT and r.was[SINCE] or 0
    end
    r.next_count, r.ttl = COUNT, self.keep
    if C.tg_abi_record_swap(self.dict.id, 1) ~= abi.EBUSY then return end
  end
end

local function refill(self, place, key, cost, needy, ends)
  local wishes, sent = {}, vm.monotonic
  for _, i in ipairs(needy) do wishes[i] = wish(self, i, cost) end
  local reply, err = self.run(self, self.lease_script, place, key, needy, ends, 4 * #needy, tostring(cost), "0", wishes)
  if not reply then return err end
  for j, i in ipairs(needy) do
    local at = (j - 1) * 4
    local retry = reply[at + 3] < 0 and huge or reply[at + 3] / 1e6
    note(self, place, key, i, reply[at + 1], reply[at + 2], retry, reply[at + 4] / 1e6, sent)
  end
end

local function late()
  return failure.new("timeout", "redis: no portion in time", 503)
end

-- One of this worker asks, the others wait for it -> err | nil
local function refill_together(self, place, key, cost, needy, ends)
  local id = place.name .. "\1" .. own_key(key, needy[1])
  local asking = self.asking[id]
  if asking then
    local n, coroutine, serial = #asking + 1, vm.coroutine, vm.coroutine_serial
    asking[n] = { coroutine, serial }
    while not asking.done and vm.monotonic < ends do task.wait_until(ends) end
    return not asking.done and late() or asking.err
  end
  asking = {}
  self.asking[id] = asking
  local finish = task.defer(function()
    asking.done, self.asking[id] = true, nil
    for _, each in ipairs(asking) do C.tg_abi_wake(each[1], each[2]) end
  end)
  asking.err = refill(self, place, key, cost, needy, ends)
  finish.done = true
  finish.f()
  return asking.err
end

-- Just before the end of a window no portion would last.
local function ends_soon(self, needy)
  for _, i in ipairs(needy) do
    local left = records[i].next[RESET] - vm.monotonic
    if not self.limits[i].burst and left > 0 and left < 2 * MARGIN then return true end
  end
  return false
end

local function try(self, place, key, cost, ends)
  local verdict, needy, failed = judge(self, place, key, cost)
  out.wait = 0
  if failed then return nil end
  if verdict == false then return false, "lease" end
  if verdict then
    if spend(self, cost) == 0 then return true, "lease" end
    return nil, nil, true
  end
  if ends_soon(self, needy) then return nil end
  local err = vm.monotonic >= ends and late() or refill_together(self, place, key, cost, needy, ends)
  if err then return self:fall(place, key, cost, err) end
  return nil, nil, true
end

--- take(self, place, key, cost, ends) -> allowed, source. ends: when it is too late to ask.
function lease.take(self, place, key, cost, ends)
  local allowed, source, again = try(self, place, key, cost, ends)
  if source then return allowed, source end
  for _ = 2, ROUNDS do
    if not again then break end
    allowed, source, again = try(self, place, key, cost, ends)
    if source then return allowed, source end
  end
  return self:exact(place, key, cost, ends)
end

return lease
