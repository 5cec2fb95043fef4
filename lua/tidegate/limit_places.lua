--- limit_places: tg.limit.concurrency: how many may be under way at once for each key. A place is held until it is released, at the latest
-- when the exchange or task ends; that of a gateway that died is free again after a minute.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local decision = require "tidegate.limit_decision"
local dict = require "tidegate.dict"
local failure = require "tidegate.failure"
local log = require "tidegate.log"
local redis = require "tidegate.redis"
local script = require "tidegate.limit_script"
local store = require "tidegate.limit_local"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local floor, huge, max = math.floor, math.huge, math.max
local misuse, out = failure.misuse, store.out
local HOLD, PLACES_MAX, RETRY, WARN_EVERY = 60, 4096, 1, 10 -- seconds; places; seconds

local places = {}
local Places = { __name = "limiter" }
Places.__index = Places

local last_id = 0

-- No two of all gateways: random once, then counted.
local function new_id()
  if last_id == 0 or last_id >= 2 ^ 52 then
    local a, b, c, d, e, f = crypto.random(6):byte(1, 6)
    last_id = ((((a % 8 * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f + 1
  end
  last_id = last_id + 1
  return last_id
end

-- ---------------------------------------------------------------- keeping what is held

local held, held_count, keeper = {}, 0, nil -- decisions whose places are held

local function renew(one)
  local self = one.limiter
  one.renewed = vm.monotonic
  if one.shared then self.renew({ one.shared }, { ("%d"):format(HOLD * 1e6), ("%d"):format(one.id) }) end
  store.renew(self.dict.id, one.place.scopes[1], one.key, one.id, HOLD)
end

-- Works as long as something is held, also in a generation that is not the current one any more.
local function keep()
  keeper = { vm.coroutine, vm.coroutine_serial }
  while held_count > 0 do
    local due = vm.monotonic + HOLD / 3
    while held_count > 0 and vm.monotonic < due do task.wait_until(due) end
    local list = {}
    for one in pairs(held) do list[#list + 1] = one end
    for _, one in ipairs(list) do
      if held[one] and one.renewed < vm.monotonic - HOLD / 4 then renew(one) end
    end
  end
  keeper = nil
end

local function hold(one)
  held[one], held_count, one.renewed = true, held_count + 1, vm.monotonic
  if not keeper then
    keeper = true
    task.start(abi.TASK_BACKGROUND, keep)
  end
end

local function let_go(one)
  if not held[one] then return end
  held[one], held_count = nil, held_count - 1
  if held_count == 0 and type(keeper) == "table" then C.tg_abi_wake(keeper[1], keeper[2]) end
  local self = one.limiter
  store.release(self.dict.id, one.place.scopes[1], one.key, one.id)
  if one.shared then self.db:zrem(one.shared, ("%d"):format(one.id)) end
end

-- ---------------------------------------------------------------- taking

local function warn(self, place, err)
  place.fallen = place.fallen + 1
  if vm.monotonic < self.warned + WARN_EVERY then return end
  self.warned = vm.monotonic
  log.warn(("limit %s cannot be counted in redis"):format(place.name), { err = tostring(err) })
end

-- What holds when Redis has no answer -> limit of this gateway | nil, allowed
local function without_redis(self)
  if self.on_down ~= "local" then return nil, self.on_down == "allow" end
  local nodes = self.fixed_nodes or self.counters:get("nodes\1" .. self.redis_name) or 1
  return { rate = max(1, floor(self.limits[1].rate / nodes)), room = self.limits[1].room }
end

local function take_shared(self, place, key, id)
  local one = self.limits[1]
  local id_key = (#key > 64 or key:find "[{}%c]") and crypto.hex(crypto.sha256(key)):sub(1, 32) or key
  local name = "tidegate:{" .. id_key .. place.keys[1]
  local reply, err = self.acquire({ name }, { ("%d"):format(one.rate), ("%d"):format(HOLD * 1e6), ("%d"):format(id) })
  if type(reply) == "table" and type(reply[1]) == "number" and type(reply[2]) == "number" then
    -- This gateway's own ones are noted, so that it knows them when Redis goes away.
    if reply[1] == 1 then store.hold(self.dict.id, { rate = huge, room = one.room }, place.scopes[1], key, id, HOLD) end
    return reply[1] == 1, reply[2], "redis", name
  end
  warn(self, place, err)
  local share, allowed = without_redis(self)
  if not share then return allowed, allowed and one.rate or 0, "down" end
  local ok, left = store.hold(self.dict.id, share, place.scopes[1], key, id, HOLD)
  return ok or false, left or 0, "share"
end

--- take(key, 1, name?) -> decision: a place, held until limiter:release(decision), at the latest until the exchange or the task ends.
function Places:take(key, _, name)
  local place = decision.place(self, name or self.name)
  local id, one = new_id(), self.limits[1]
  key = decision.key(key)
  local allowed, left, source, shared
  if self.db then
    allowed, left, source, shared = take_shared(self, place, key, id)
  else
    source = "local"
    allowed, left = store.hold(self.dict.id, one, place.scopes[1], key, id, HOLD)
    if allowed == nil then return nil, failure.new("busy", "the limit cannot be counted") end
  end
  out.ok[1], out.left[1], out.retry[1], out.reset[1], out.wait = allowed, left, RETRY, 0, 0
  local taken = decision.new(self, place, key, 1, allowed, source)
  if allowed and source ~= "down" then
    taken.id, taken.shared = id, shared
    taken.deferred = task.defer(function() let_go(taken) end)
    hold(taken)
  end
  return taken
end

--- pass(key, 1, name?) -> true | decision: as take
function Places:pass(key, cost, name)
  local taken, err = self:take(key, cost, name)
  if taken and taken.allowed then return true end
  return taken, err
end

Places.tells, Places.admit = decision.tells, decision.take_and_tell

--- release(decision): its place is free.
function Places.release(_, taken)
  if taken.deferred then taken.deferred.done = true end
  let_go(taken)
end

--- settle(decision, actual): a place costs nothing but itself.
function Places.settle() end

--- compile(name, rate) -> the one limit of such a limiter
function places.compile(name, rate)
  if rate % 1 ~= 0 or rate > PLACES_MAX then misuse(("concurrency is a whole number, at most %d"):format(PLACES_MAX)) end
  return { algorithm = "concurrency", name = name, rate = rate, per = 1, speed = rate, capacity = rate, room = 2 * rate + 2, tag = "concurrency" }
end

--- open(self, options, redis_name): makes a limiter of `self`, whose limits are read
function places.open(self, options, redis_name)
  if #self.limits ~= 1 then misuse "concurrency stands by itself: a limiter of its own" end
  if options.mode == "lease" then misuse "places are not taken in advance: concurrency has no mode lease" end
  if redis_name then
    local db = redis.open(redis_name):with { timeout = options.timeout or 0.05 }
    self.redis_name, self.db, self.on_down, self.fixed_nodes, self.warned = redis_name, db, options.on_down or "local", options.nodes, -huge
    self.counters = dict.open "rate-limit" -- where limit_redis notes how many gateways there are
    self.acquire, self.renew = db:script(script.acquire), db:script(script.renew)
  end
  return setmetatable(self, Places)
end

return places
