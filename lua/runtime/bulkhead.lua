--- bulkhead: at most so many requests at once, in all workers, and a bounded queue of those that wait for room.
local abi = require "abi"
local cells = require "runtime.cells"
local failure = require "tidegate.failure"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local min, max, floor, sqrt = math.min, math.max, math.floor, math.sqrt

local bulkhead = {}
local Bulkhead = {}
Bulkhead.__index = Bulkhead

local LOOK_EVERY = 0.1 -- seconds: one of an old generation hears nothing of room
local LEARN_EVERY = 0.5 -- seconds between two steps of an adaptive limit
local FORGET = 0.005 -- of the best time, at each step: what is best may change
local SAMPLES_MIN = 5
local START = 8 -- what nobody has overloaded yet shows its best time
local FALL = 0.2 -- share of a lower limit that counts at once

--- new(conf, cell, name) -> bulkhead
function bulkhead.new(conf, cell, name)
  local self = setmetatable({ conf = conf, cell = cell, name = name, waiting = {}, count = 0 }, Bulkhead)
  cells.add_queue(self)
  cells.on_news(cell, self)
  return self
end

-- How many there may be now.
local function limit_of(self)
  local conf = self.conf
  if not conf.adaptive then return conf.concurrency end
  local learnt = self.cell.limit
  return min(learnt > 0 and learnt or max(conf.min, START), conf.concurrency)
end

local function set_count(self, count)
  self.count = count
  C.tg_abi_cell_set_waiting(self.cell, count)
end

-- Who goes first: the one that waits longest; or the last one, when those before it have waited so long that their clients are leaving.
local function next_place(self)
  local order, list = self.conf.order, self.waiting
  if order == "lifo" then return #list end
  if order == "adaptive" and #list > 1 and vm.monotonic - list[1].since > self.conf.wait / 2 then return #list end
  return 1
end

local function remove(self, place)
  for i, each in ipairs(self.waiting) do
    if each == place then
      table.remove(self.waiting, i)
      return set_count(self, #self.waiting)
    end
  end
end

--- serve(): there may be room: who is next takes it.
function Bulkhead:serve()
  while #self.waiting > 0 do
    local place = self.waiting[next_place(self)]
    if C.tg_abi_cell_enter(place.watch, limit_of(self)) ~= 0 then return end
    place.has = true
    remove(self, place)
    C.tg_abi_wake(place.coroutine, place.serial)
  end
end
Bulkhead.judge = Bulkhead.serve

local function full(self, text)
  local err = failure.new("busy", self.name .. ": " .. text, 503)
  err.retry_after = self.conf.retry_after
  return nil, err
end

-- Cancelled while it waited: its place is another's; room that it had goes with the watch.
local function leave(self, place)
  if not place.has then remove(self, place) end
end

--- enter(watch, remaining?) -> true | nil, err: it is full. With `remaining` (seconds that the request has left) it may wait in the queue.
function Bulkhead:enter(watch, remaining)
  if #self.waiting == 0 and C.tg_abi_cell_enter(watch, limit_of(self)) == 0 then return true end
  local conf = self.conf
  if not remaining or conf.queue == 0 then return full(self, "too many requests at once") end
  if self.cell.waiting >= conf.queue then return full(self, "too many requests wait") end
  local till = vm.monotonic + min(conf.wait, remaining)
  local place = { watch = watch, coroutine = vm.coroutine, serial = vm.coroutine_serial, since = vm.monotonic, has = false }
  self.waiting[#self.waiting + 1] = place
  set_count(self, #self.waiting)
  local deferred = task.defer(function() leave(self, place) end)
  self:serve() -- room that came between our look and our name in the list
  while not place.has and vm.monotonic < till do
    task.wait_until(min(till, vm.monotonic + LOOK_EVERY))
    if not place.has then self:serve() end
  end
  deferred.done = true
  if place.has then return true end
  remove(self, place)
  return full(self, ("no room in %g s"):format(conf.wait))
end

-- ---------------------------------------------------------------- adaptive limit

-- One step: the limit follows the ratio of the best time to the time now (gradient of Netflix's concurrency-limits), and room for a queue.
local function step(self, took, best)
  local conf, limit = self.conf, limit_of(self)
  local gradient = max(0.5, min(1, conf.tolerance * best / took))
  local wanted = limit * gradient + sqrt(limit)
  if wanted > limit and self.cell.in_flight < limit / 2 then return end -- nothing is known of what it could bear
  if wanted < limit then wanted = limit * (1 - FALL) + wanted * FALL end
  C.tg_abi_cell_set_limit(self.cell, max(conf.min, min(conf.concurrency, floor(wanted + 0.5))))
  self:serve()
end

local function learn(self)
  local time, timed, best = tonumber(self.cell.time), tonumber(self.cell.timed), nil
  while true do
    task.sleep(LEARN_EVERY)
    local time_now, timed_now = tonumber(self.cell.time), tonumber(self.cell.timed)
    local n = timed_now - timed
    if n >= SAMPLES_MIN then
      local took = (time_now - time) / n
      best = best and min(best * (1 + FORGET), took) or took
      step(self, took, best)
      time, timed = time_now, timed_now
    end
  end
end

--- start(): the generation is current. One worker learns for all.
function Bulkhead:start()
  if not self.conf.adaptive then
    C.tg_abi_cell_set_limit(self.cell, 0)
  elseif vm.worker == 0 then
    task.start(abi.TASK_SERVICE, learn, self)
  end
end

return bulkhead
