--- branch: several things at once: tg.fetch_all, as_completed and first.
local abi = require "abi"
local failure = require "tidegate.failure"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local pcall, type, error, setmetatable, tostring, pairs, ipairs = pcall, type, error, setmetatable, tostring, pairs, ipairs

local branch = { fetch = nil } -- fetch(request) -> value | nil, err: what a branch without a function does; set by the runtime
local MAX = 32 -- SECURITY 1.2: at once; and as tasks of a request in all
local BRANCHES_MAX = 1000

-- A branch in one form: function f(r), timeout, fallback, optional.
local function to_branch(name, value)
  if type(value) == "function" then return { f = value } end
  if type(value) ~= "table" then error(("branch %q is no function and no table"):format(tostring(name)), 4) end
  local f = value[1]
  if f == nil and value.upstream then f = function() return branch.fetch(value) end end
  if type(f) ~= "function" then error(("branch %q needs a function or an upstream"):format(tostring(name)), 4) end
  return { f = f, timeout = value.timeout, fallback = value.fallback, has_fallback = value.fallback ~= nil, optional = value.optional }
end

local Group = {}
Group.__index = Group

local function text_of(a) return tostring(a) end

-- open(branches, options) -> group; nothing has begun yet. Names in an order that does not change from run to run.
local function open(branches, options, default_limit)
  local self = setmetatable({
    branches = {}, names = {}, next = 1, running = 0, open = 0, settled = {}, taken = 0, data = {}, errors = {},
    parent = vm.coroutine, serial = vm.coroutine_serial, limit = math.min(options and options.limit or default_limit, MAX),
    till = options and options.timeout and vm.monotonic + options.timeout or nil,
  }, Group)
  for name, value in pairs(branches) do
    self.branches[name] = to_branch(name, value)
    self.branches[name].waiters = {}
    self.names[#self.names + 1] = name
    self.open = self.open + 1
  end
  if self.open > BRANCHES_MAX then error("at most " .. BRANCHES_MAX .. " branches", 3) end
  table.sort(self.names, function(a, b)
    if type(a) == type(b) and type(a) == "number" then return a < b end
    return text_of(a) < text_of(b)
  end)
  return self
end

-- results.other inside a branch waits for that branch; a cycle raises with its names.
function Group:results(own)
  return setmetatable({}, {
    __index = function(_, name)
      local other = self.branches[name]
      if not other then error(("there is no branch %q"):format(tostring(name)), 2) end
      local chain, at = own, name
      while at do
        if at == own then error("branches wait for each other: " .. text_of(chain) .. " -> " .. text_of(name), 2) end
        at = self.branches[at].waits_for
      end
      self.branches[own].waits_for = name
      if not other.task and not other.settled then self:start(name) end
      while not other.settled do
        other.waiters[#other.waiters + 1] = { vm.coroutine, vm.coroutine_serial }
        task.wait()
      end
      self.branches[own].waits_for = nil
      if other.err and other.value == nil then error(other.err, 0) end
      return other.value
    end,
  })
end

function Group:settle(name, value, err)
  local each = self.branches[name]
  if each.settled then return end
  each.settled = true
  self.open = self.open - 1
  if each.task then self.running = self.running - 1 end
  if err then
    self.errors[name] = err
    each.err = err
    if each.has_fallback then
      value = each.fallback
      if type(value) == "function" then value = value(err) end
    elseif not each.optional then
      self.failed = self.failed or err
    end
  end
  each.value = value
  self.data[name] = value
  self.settled[#self.settled + 1] = name
  for _, waiter in ipairs(each.waiters) do C.tg_abi_wake(waiter[1], waiter[2]) end
  C.tg_abi_wake(self.parent, self.serial)
end

local function run(self, name, each)
  local ok, value, err = pcall(each.f, self:results(name))
  if not ok then
    self:settle(name, nil, task.to_failure(value))
  elseif value == nil and err ~= nil then
    self:settle(name, nil, task.to_failure(err))
  else
    self:settle(name, value)
  end
end

function Group:start(name)
  local each = self.branches[name]
  each.till = each.timeout and vm.monotonic + each.timeout
  each.task = task.start(abi.TASK_CHILD, run, self, name, each)
  self.running = self.running + 1
end

function Group:start_more()
  while self.running < self.limit and self.next <= #self.names do
    local name = self.names[self.next]
    self.next = self.next + 1
    local each = self.branches[name]
    if not each.task and not each.settled then self:start(name) end
  end
end

-- The moment at which something must be ended.
function Group:moment()
  local at = self.till
  for _, each in pairs(self.branches) do
    if not each.settled and each.till and (not at or each.till < at) then at = each.till end
  end
  return at
end

-- Ends the branches whose time is up.
function Group:expire()
  local all = self.till and vm.monotonic >= self.till
  for name, each in pairs(self.branches) do
    if not each.settled and (all or each.till and vm.monotonic >= each.till) then
      if each.task then each.task:cancel() end
      self:settle(name, nil, failure.new("timeout", ("branch %q took too long"):format(tostring(name))))
    end
  end
end

function Group:cancel()
  for _, each in pairs(self.branches) do
    if each.task and not each.settled then each.task:cancel() end
    each.settled = true
  end
end

--- fetch_all(branches, { timeout?, limit? }) -> data, errors | nil, err when a branch that is needed failed. `limit`: so many at once.
function branch.fetch_all(branches, options)
  task.need_worker()
  local self = open(branches, options, MAX)
  while self.open > 0 and not self.failed do
    self:start_more()
    task.wait_until(self:moment())
    self:expire()
  end
  if self.failed then
    self:cancel()
    return nil, self.failed
  end
  return self.data, self.errors
end

--- as_completed(branches, { timeout?, limit? }) -> iterator over name, value, err in the order in which they are done
function branch.as_completed(branches, options)
  task.need_worker()
  local self = open(branches, options, MAX)
  return function()
    self.parent, self.serial = vm.coroutine, vm.coroutine_serial
    while self.taken == #self.settled do
      if self.open == 0 then return nil end
      self:start_more()
      task.wait_until(self:moment())
      self:expire()
    end
    self.taken = self.taken + 1
    local name = self.settled[self.taken]
    return name, self.data[name], self.errors[name]
  end
end

--- first(branches, { timeout?, stagger? }) -> value, name of the first that succeeds; the others end | nil, err. `stagger`: each begins so
-- many seconds after the one before it, or when that one has failed.
function branch.first(branches, options)
  task.need_worker()
  local self = open(branches, options, MAX)
  local stagger = options and options.stagger
  local last_err, due = nil, vm.monotonic
  while self.open > 0 do
    if not stagger then
      self:start_more()
    elseif self.next <= #self.names and (vm.monotonic >= due or self.running == 0) then
      self:start(self.names[self.next])
      self.next = self.next + 1
      due = vm.monotonic + stagger
    end
    local moment = self:moment()
    if stagger and self.next <= #self.names and (not moment or due < moment) then moment = due end
    task.wait_until(moment)
    self:expire()
    while self.taken < #self.settled do
      self.taken = self.taken + 1
      local name = self.settled[self.taken]
      if not self.errors[name] then
        self:cancel()
        return self.data[name], name
      end
      last_err = self.errors[name]
    end
  end
  return nil, last_err or failure.new("error", "there are no branches")
end

return branch
