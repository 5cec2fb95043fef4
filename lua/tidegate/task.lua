--- task: tg.spawn, tg.sleep, tg.within's base and tg.fetch_all: work beside the running coroutine.
local abi = require "abi"
local failure = require "tidegate.failure"

local C, vm = abi.C, abi.vm
local create, resume, running, yield = coroutine.create, coroutine.resume, coroutine.running, coroutine.yield
local pcall, type, error, setmetatable, tostring, next, pairs = pcall, type, error, setmetatable, tostring, next, pairs

local task = { context = nil, set_context = nil } -- ctx of the running coroutine; set by the runtime
local waiting = {} -- id -> task that was spawned and has not begun
local last_id = 0
local MAX_CHILDREN = 32 -- SECURITY 1.2: subrequests a request

local function need_worker()
  if abi.validating then error("no tasks while a configuration is loaded: move this into `start` or a phase", 3) end
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

--- wait_until(seconds): as wait, woken after that time at the latest.
local function wait_until(moment)
  if moment then C.tg_abi_timer(math.max(0, moment - vm.monotonic)) end
  give_way()
  if moment then C.tg_abi_timer_stop() end
end

--- sleep(seconds)
function task.sleep(seconds)
  need_worker()
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then error("sleep needs seconds >= 0", 2) end
  local till = vm.monotonic + seconds
  repeat wait_until(till) until vm.monotonic >= till
end

local Task = {}
Task.__index = Task

local function finish(self, ok, ...)
  self.done, self.ok = true, ok
  self.n = select("#", ...)
  for i = 1, self.n do self[i] = (select(i, ...)) end
  if self.waiter then C.tg_abi_wake(self.waiter, self.waiter_serial) end
end

--- Runs the task `id`; called by the main function of a fresh coroutine.
function task.run(id)
  local self = waiting[id]
  waiting[id] = nil
  if not self then return end
  self.coroutine, self.serial = vm.coroutine, vm.coroutine_serial
  finish(self, pcall(self.f, unpack(self.args, 1, self.args.n)))
end

local function start(f, ...)
  last_id = last_id % 2 ^ 31 + 1
  local self = setmetatable({ f = f, args = { n = select("#", ...), ... }, id = last_id }, Task)
  waiting[last_id] = self
  local rc = C.tg_abi_spawn(last_id)
  if rc ~= 0 then
    waiting[last_id] = nil
    error(failure.new("busy", rc == abi.ELIMIT and "more than 32 tasks of one request" or "too many tasks"), 0)
  end
  return self
end

--- spawn(f, ...) -> task. It ends with the exchange at the latest.
function task.spawn(f, ...)
  need_worker()
  if type(f) ~= "function" then error("spawn needs a function", 2) end
  return start(f, ...)
end

local function to_failure(value)
  if failure.is(value) then return value end
  return failure.new("error", tostring(value))
end

--- task:join() -> what f returned | nil, err when it raised
function Task:join()
  while not self.done do
    self.waiter, self.waiter_serial = vm.coroutine, vm.coroutine_serial
    task.wait()
  end
  if not self.ok then return nil, to_failure(self[1]) end
  return unpack(self, 1, self.n)
end

--- task:cancel(): it and the calls it waits for end at once.
function Task:cancel()
  if self.done then return end
  waiting[self.id] = nil
  if self.coroutine then C.tg_abi_cancel(self.coroutine, self.serial) end
  self.done, self.ok, self.n = true, false, 1
  self[1] = failure.new("cancelled", "the task was cancelled")
end

-- ---------------------------------------------------------------- fetch_all

-- A branch in one form: function f(r), timeout, fallback, optional.
local function to_branch(name, branch)
  if type(branch) == "function" then return { f = branch } end
  if type(branch) ~= "table" then error(("branch %q is no function and no table"):format(name), 3) end
  if type(branch[1]) == "function" then
    return {
      f = branch[1], timeout = branch.timeout, fallback = branch.fallback, has_fallback = branch.fallback ~= nil,
      optional = branch.optional,
    }
  end
  if branch.upstream then
    return {
      f = function() return task.fetch(branch) end,
      timeout = branch.timeout, fallback = branch.fallback, has_fallback = branch.fallback ~= nil, optional = branch.optional,
    }
  end
  error(("branch %q needs a function or an upstream"):format(name), 3)
end

-- results.other inside a branch waits for that branch; a cycle raises with its names.
local function new_results(state, own)
  return setmetatable({}, {
    __index = function(_, name)
      local branch = state.branches[name]
      if not branch then error(("there is no branch %q"):format(tostring(name)), 2) end
      local chain, at = own, name
      while at do
        if at == own then error("branches wait for each other: " .. chain .. " -> " .. name, 2) end
        at = state.branches[at].waits_for
      end
      state.branches[own].waits_for = name
      while not branch.settled do
        branch.waiters[#branch.waiters + 1] = { vm.coroutine, vm.coroutine_serial }
        task.wait()
      end
      state.branches[own].waits_for = nil
      if branch.err and branch.value == nil then error(branch.err, 0) end
      return branch.value
    end,
  })
end

local function settle(state, name, value, err)
  local branch = state.branches[name]
  if branch.settled then return end
  branch.settled = true
  state.open = state.open - 1
  if err then
    state.errors[name] = err
    branch.err = err
    if branch.has_fallback then
      value = branch.fallback
      if type(value) == "function" then value = value(err) end
    elseif not branch.optional then
      state.failed = state.failed or err
    end
  end
  branch.value = value
  state.data[name] = value
  for _, waiter in pairs(branch.waiters) do C.tg_abi_wake(waiter[1], waiter[2]) end
  C.tg_abi_wake(state.parent, state.parent_serial)
end

local function run_branch(state, name, branch)
  local ok, value, err = pcall(branch.f, new_results(state, name))
  if not ok then
    settle(state, name, nil, to_failure(value))
  elseif value == nil and err ~= nil then
    settle(state, name, nil, to_failure(err))
  else
    settle(state, name, value)
  end
end

local function next_deadline(state, till)
  local at = till
  for _, branch in pairs(state.branches) do
    if not branch.settled and branch.till and (not at or branch.till < at) then at = branch.till end
  end
  return at
end

-- Ends the branches whose time is up, or all.
local function expire(state, all)
  for name, branch in pairs(state.branches) do
    if not branch.settled and (all or branch.till and vm.monotonic >= branch.till) then
      branch.task:cancel()
      settle(state, name, nil, failure.new("timeout", ("branch %q took too long"):format(name)))
    end
  end
end

--- fetch_all(branches, { timeout? }) -> data, errors | nil, err when a branch that is needed failed
function task.fetch_all(branches, options)
  need_worker()
  local state = {
    branches = {}, data = {}, errors = {}, open = 0, parent = vm.coroutine, parent_serial = vm.coroutine_serial,
  }
  for name, branch in pairs(branches) do
    state.branches[name] = to_branch(name, branch)
    state.branches[name].waiters = {}
    state.open = state.open + 1
  end
  if state.open > MAX_CHILDREN then error("fetch_all takes at most " .. MAX_CHILDREN .. " branches", 2) end
  local till = options and options.timeout and vm.monotonic + options.timeout
  for name, branch in next, state.branches do
    branch.till = branch.timeout and vm.monotonic + branch.timeout
    branch.task = start(run_branch, state, name, branch)
  end
  while state.open > 0 and not state.failed do
    wait_until(next_deadline(state, till))
    expire(state, till and vm.monotonic >= till)
  end
  if state.failed then
    for _, branch in pairs(state.branches) do
      if not branch.settled then branch.task:cancel() end
    end
    return nil, state.failed
  end
  return state.data, state.errors
end

return task
