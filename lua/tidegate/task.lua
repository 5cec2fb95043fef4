--- task: work beside the running coroutine: tg.spawn, sleep, within, defer, background; and what waiting is made of.
local abi = require "abi"
local failure = require "tidegate.failure"
local trace = require "tidegate.trace"

local C, vm = abi.C, abi.vm
local create, resume, running, yield = coroutine.create, coroutine.resume, coroutine.running, coroutine.yield
local pcall, type, error, setmetatable, tostring, pairs = pcall, type, error, setmetatable, tostring, pairs

local task = { defer_to_exchange = nil, report = nil, weigh = nil, forgive = nil } -- set by the runtime
local waiting = {} -- id -> task that was spawned and has not begun
local last_id = 0
local BACKGROUND_MAX, BACKGROUND_TIME = 256, 30 -- of a worker at once; seconds

function task.need_worker()
  if not abi.validating then return end
  abi.refused = "waits, or asks others"
  error("no tasks while a configuration is loaded: move this into `start` or a phase", 3)
end
local need_worker = task.need_worker

-- Where the last error came from that somebody has caught to raise it again: by then its stack is gone.
local caught = { value = nil, traceback = nil }

--- catching(f, ...) -> as pcall; should the error be raised again, its traceback is known.
function task.catching(f, ...)
  return xpcall(f, function(value)
    if type(value) == "string" then caught.value, caught.traceback = value, debug.traceback("", 2):sub(2) end
    return value
  end, ...)
end

--- traceback_of(value) -> where it was raised first | nil. It is asked once.
function task.traceback_of(value)
  local traceback = caught.value == value and caught.traceback or nil
  caught.value, caught.traceback = nil, nil
  return traceback
end

local core = setmetatable({}, { __mode = "k" }) -- the threads that the core resumes
local owner = setmetatable({}, { __mode = "k" }) -- thread of a plugin's own that waits -> serial of the core's coroutine it waits in
local WAITING = {}

--- Called by the main function of each coroutine that the core made.
function task.adopt()
  core[running()] = true
end

-- Gives way to the core, through all coroutines of a plugin's own that are in between: each is resumed by `pass` below.
local function give_way()
  if abi.validating then need_worker() end
  if vm.grown ~= 0 and task.weigh then task.weigh() end -- what is kept during a wait is not looked at again
  local thread = running()
  if core[thread] then
    yield(true)
    return
  end
  owner[thread] = vm.coroutine_serial
  yield(WAITING)
  owner[thread] = nil
end

--- Gives way until something wakes this coroutine; there may be false alarms.
function task.wait()
  give_way()
end

--- Gives the phase back to the core, and goes on with its next one. Through coroutines of a plugin's own there is no way.
function task.park()
  if not core[running()] then error("ctx:next() cannot be called inside a coroutine of your own", 3) end
  yield(true)
end

local TURN = 0.002 -- seconds of the processor
local resumes, started = -1, nil

--- take_turns(): lets others go first when this coroutine has computed for a turn without a wait. For loops over what never runs dry: a
-- body that comes and goes faster than it is worked on would keep the worker for itself, until the budget ends it.
function task.take_turns()
  if vm.resumes ~= resumes then -- who waits for each piece never reads the clock
    resumes, started = vm.resumes, nil
  elseif not started then
    started = C.tg_abi_cpu()
  elseif C.tg_abi_cpu() - started > TURN then
    C.tg_abi_wake(vm.coroutine, vm.coroutine_serial)
    give_way()
  end
end

-- ---------------------------------------------------------------- coroutines of a plugin's own

local pass

local function resume_own(thread, ...)
  if owner[thread] and owner[thread] ~= vm.coroutine_serial then
    return false, "this coroutine waited for a request that has ended"
  end
  return pass(thread, resume(thread, ...))
end

function pass(thread, ok, first, ...)
  if ok and first == WAITING then
    task.wait()
    return resume_own(thread)
  end
  return ok, first, ...
end

local function raise_or_return(ok, ...)
  if ok then return ... end
  error((...), 0)
end

--- What plugins see as `coroutine`: a wait inside of one of theirs suspends the exchange, not their protocol.
task.library = {
  create = create, running = running, status = coroutine.status, isyieldable = coroutine.isyieldable, resume = resume_own,
  wrap = function(f)
    local thread = create(f)
    return function(...) return raise_or_return(resume_own(thread, ...)) end
  end,
  yield = function(...)
    if core[running()] then error("there is nobody to yield to: this is no coroutine of your own", 2) end
    return yield(...)
  end,
}

-- ---------------------------------------------------------------- tasks

--- wait_until(moment?): as wait, woken at that moment (vm.monotonic) at the latest.
function task.wait_until(moment)
  if moment then C.tg_abi_timer(math.max(0, moment - vm.monotonic)) end
  give_way()
  if moment then C.tg_abi_timer_stop() end
end
local wait_until = task.wait_until

--- sleep(seconds)
function task.sleep(seconds)
  need_worker()
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then error("sleep needs seconds >= 0", 2) end
  local till = vm.monotonic + seconds
  repeat wait_until(till) until vm.monotonic >= till
end

local Task = {}
Task.__index = Task
local running_tasks = {} -- index of a coroutine -> the task in it

--- current() -> the task that runs in this coroutine | nil: a phase
function task.current()
  local self = running_tasks[vm.coroutine]
  return self and self.serial == vm.coroutine_serial and self or nil
end

local function run_deferred(list)
  for i = #list, 1, -1 do
    local entry = list[i]
    if not entry.done then
      entry.done = true
      local ok, err = pcall(entry.f)
      if not ok then task.report("defer: " .. tostring(err)) end
    end
  end
end
task.run_deferred = run_deferred

local finish
function finish(self, ok, ...)
  if vm.grown ~= 0 and task.weigh then
    local fine, err = true, nil
    if ok then fine, err = pcall(task.weigh) end
    if not fine then return finish(self, false, err) end
    task.forgive() -- what it held is garbage now: the next one shall not hide behind it
  end
  self.done, self.ok = true, ok
  local n = select("#", ...)
  self.n = n
  if n < 3 then
    self[1], self[2] = ...
  else
    for i = 1, n do self[i] = (select(i, ...)) end
  end
  running_tasks[self.coroutine] = nil
  if self.deferred then run_deferred(self.deferred) end
  if self.waiter then C.tg_abi_wake(self.waiter, self.waiter_serial) end
  if not ok and self.report then task.report(self.report .. ": " .. tostring((...))) end
end

--- Runs the task `id`; called by the main function of a fresh coroutine.
function task.run(id)
  local self = waiting[id]
  waiting[id] = nil
  if not self then return end
  self.coroutine, self.serial = vm.coroutine, vm.coroutine_serial
  running_tasks[vm.coroutine] = self
  if self.scope then trace.adopt(self.scope) end
  finish(self, pcall(self.f, unpack(self.args, 1, self.args.n)))
end

--- start(kind, f, ...) -> task
function task.start(kind, f, ...)
  last_id = last_id % 2 ^ 31 + 1
  if last_id < 16 then last_id = 16 end -- below are the runtime's own
  local self = setmetatable({ nil, nil, f = f, args = { n = select("#", ...), ... }, id = last_id, coroutine = nil, serial = nil, done = false,
    ok = nil, n = 0, waiter = nil, waiter_serial = nil, deferred = nil, scope = nil }, Task)
  waiting[last_id] = self
  if trace.on and kind == abi.TASK_CHILD then self.scope = trace.scope() end
  local rc = C.tg_abi_spawn(last_id, kind)
  if rc ~= 0 then
    waiting[last_id] = nil
    error(failure.new("busy", rc == abi.ELIMIT and "more than 32 tasks of one request" or "too many tasks"), 0)
  end
  local parent = kind == abi.TASK_CHILD and task.current()
  if parent then
    local children = parent.children
    if not children then
      children = setmetatable({}, { __mode = "v" })
      parent.children = children
    end
    children[#children + 1] = self
  end
  return self
end
local start = task.start

--- spawn(f, ...) -> task. It ends with the exchange at the latest.
function task.spawn(f, ...)
  need_worker()
  if type(f) ~= "function" then error("spawn needs a function", 2) end
  return start(abi.TASK_CHILD, f, ...)
end

local function to_failure(value)
  if failure.is(value) then return value end
  if type(value) == "table" and type(value.code) == "string" then -- one that a plugin has made
    return failure.new(value.code, tostring(value.message or value.code), value.status)
  end
  return failure.new("error", tostring(value))
end
task.to_failure = to_failure

--- task:join() -> what f returned | nil, err when it raised
function Task:join()
  while not self.done do
    self.waiter, self.waiter_serial = vm.coroutine, vm.coroutine_serial
    task.wait()
  end
  if not self.ok then return nil, to_failure(self[1]) end
  return unpack(self, 1, self.n)
end

--- task:cancel(): it, its own tasks and the calls they wait for end at once; what they have deferred runs.
function Task:cancel()
  if self.done then return end
  waiting[self.id] = nil
  self.done, self.ok, self.n = true, false, 1
  self[1] = failure.new("cancelled", "the task was cancelled")
  for _, child in pairs(self.children or {}) do child:cancel() end
  if self.coroutine then
    C.tg_abi_cancel(self.coroutine, self.serial)
    running_tasks[self.coroutine] = nil
  end
  if self.waiter then C.tg_abi_wake(self.waiter, self.waiter_serial) end
  if self.deferred then start(abi.TASK_CHILD, run_deferred, self.deferred) end
end

-- As within, below.
local function join_within(seconds, child)
  local till = vm.monotonic + seconds
  child.waiter, child.waiter_serial = vm.coroutine, vm.coroutine_serial
  while not child.done and vm.monotonic < till do wait_until(till) end
  if not child.done then
    child:cancel()
    return nil, failure.new("timeout", ("it took longer than %g s"):format(seconds))
  end
  if not child.ok then error(child[1], 0) end
  return unpack(child, 1, child.n)
end

--- within(seconds, f, ...) -> what f returns | nil, err (`timeout`): then f and all that it began end. Raises what f raises.
function task.within(seconds, f, ...)
  need_worker()
  if type(seconds) ~= "number" or seconds < 0 then error("within needs seconds >= 0", 2) end
  if type(f) ~= "function" then error("within needs a function", 2) end
  return join_within(seconds, start(abi.TASK_CHILD, f, ...))
end

--- limit(seconds, f, ...) -> what f returns first, whether it was ended. As within, for a phase: what it defers is for the end of the exchange.
function task.limit(seconds, f, ...)
  local child = start(abi.TASK_CHILD, f, ...)
  child.is_phase = true
  local r = join_within(seconds, child)
  return r, not child.ok
end

--- defer(f): runs at the end of the task or of the exchange, last first, also after an error, a timeout or a client that went away.
function task.defer(f)
  need_worker()
  if type(f) ~= "function" then error("defer needs a function", 2) end
  local self = task.current()
  local entry = { f = f, done = false }
  if self and not self.is_phase then
    self.deferred = self.deferred or {}
    self.deferred[#self.deferred + 1] = entry
  end
  task.defer_to_exchange(entry)
  return entry
end

local background = 0

local function in_background(f, ...)
  local ok, err = pcall(task.within, BACKGROUND_TIME, f, ...)
  background = background - 1
  if not ok then error(err, 0) end
end

--- background(name, f, ...): goes on after the exchange, for 30 s at most; a reload waits for it. Raises `busy` when 256 of them run.
function task.background(name, f, ...)
  need_worker()
  if type(name) ~= "string" or type(f) ~= "function" then error("background needs a name and a function", 2) end
  if background >= BACKGROUND_MAX then
    error(failure.new("busy", ("more than %d tasks in the background"):format(BACKGROUND_MAX)), 0)
  end
  background = background + 1
  local self = start(abi.TASK_BACKGROUND, in_background, f, ...)
  self.report = "background " .. name
  return self
end

return task
