--- semaphore: tg.semaphore(n): at most n at once in this worker; the others wait in the order in which they came.
local abi = require "abi"
local failure = require "tidegate.failure"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local semaphore = {}
local Semaphore = { __name = "semaphore" }
Semaphore.__index = Semaphore

local function pass_on(self)
  local first = table.remove(self.waiting, 1)
  if first then
    first.has = true
    C.tg_abi_wake(first.coroutine, first.serial)
  else
    self.free = self.free + 1
  end
end

local function acquire(self, timeout)
  if self.free > 0 then
    self.free = self.free - 1
    return true
  end
  local place = { coroutine = vm.coroutine, serial = vm.coroutine_serial, has = false }
  local till = timeout and vm.monotonic + timeout
  self.waiting[#self.waiting + 1] = place
  local deferred = task.defer(function() -- one that was cancelled while it waited
    if place.has then return pass_on(self) end
    for i, each in ipairs(self.waiting) do
      if each == place then return table.remove(self.waiting, i) end
    end
  end)
  while not place.has and not (till and vm.monotonic >= till) do task.wait_until(till) end
  deferred.done = true
  if not place.has then deferred.f() end
  return place.has
end

local function release(self, deferred, ok, ...)
  deferred.done = true
  pass_on(self)
  if not ok then error((...), 0) end
  return ...
end

--- run(timeout, f, ...) -> what f returns | nil, err (`busy`) when there was no room in that time; nil waits as long as the request may.
function Semaphore:run(timeout, f, ...)
  if not acquire(self, timeout) then return nil, failure.new("busy", "no room in that time") end
  local deferred = task.defer(function() pass_on(self) end)
  return release(self, deferred, pcall(f, ...))
end

--- open(n) -> semaphore
function semaphore.open(n)
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then error("a semaphore needs a number of places", 2) end
  return setmetatable({ free = n, waiting = {} }, Semaphore)
end

return semaphore
