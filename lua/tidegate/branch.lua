--- branch: several things at once: tg.fetch_all, as_completed and first.
local abi = require "abi"
local about_exchange = require("tidegate.call").about
local failure = require "tidegate.failure"
local task = require "tidegate.task"
local unread = require "tidegate.unread"

local C, vm, misuse = abi.C, abi.vm, failure.misuse
local pcall, type, error, setmetatable, rawget, tostring, pairs, ipairs =
  pcall, type, error, setmetatable, rawget, tostring, pairs, ipairs

-- request(table) -> a call that has not begun, fetch(table) -> value | nil, err: what a branch without a function does; begin, settle and
-- adopt: the same without a call, as long as all goes well. Set by the runtime.
local branch = { request = nil, fetch = nil, begin = nil, settle = nil, adopt = nil }
local MAX = 32 -- SECURITY 1.2: at once; and as tasks of a request in all
local BRANCHES_MAX = 1000

local function fetching(value)
  return function() return branch.fetch(value) end
end

-- A branch in one form: function f(r) or a request, timeout, fallback, optional.
local function to_branch(name, value)
  if type(value) == "function" then
    return { f = value, has_fallback = false, begun = false, settled = false, task = nil, till = nil, value = nil, request = nil, waiters = nil }
  end
  if type(value) ~= "table" then misuse(("branch %q is no function and no table"):format(tostring(name))) end
  local f, request = value[1], nil
  if f == nil and value.upstream and not value.cache then request = value end
  if f == nil and not request and (value.upstream or value.url) then f = fetching(value) end
  if type(f) ~= "function" and not request then misuse(("branch %q needs a function, an upstream or a url"):format(tostring(name))) end
  local fallback = value.fallback
  return { f = f, request = request, timeout = value.timeout, fallback = fallback, has_fallback = fallback ~= nil, optional = value.optional }
end

local Group = {}
Group.__index = Group

local function text_of(a) return tostring(a) end

local function comes_before(a, b)
  if type(a) == type(b) and type(a) == "number" then return a < b end
  return text_of(a) < text_of(b)
end

-- open(branches, options) -> group; nothing has begun yet. `ordered`: names in an order that does not change from run to run.
local function open(branches, options, ordered)
  local self = setmetatable({
    branches = {}, names = {}, next = 1, running = 0, open = 0, settled = {}, taken = 0, data = {}, errors = {}, calls = {}, timed = false,
    parent = vm.coroutine, serial = vm.coroutine_serial, limit = math.min(options and options.limit or MAX, MAX),
    till = options and options.timeout and vm.monotonic + options.timeout or nil,
  }, Group)
  local names = self.names
  for name, value in pairs(branches) do
    local each = to_branch(name, value)
    self.branches[name] = each
    self.timed = self.timed or each.timeout ~= nil
    names[#names + 1] = name
  end
  self.open = #names
  if self.open > BRANCHES_MAX then misuse("at most " .. BRANCHES_MAX .. " branches") end
  if ordered or self.open > self.limit then table.sort(names, comes_before) end
  return self
end

local GROUP, OWN = {}, {} -- keys of results, which no name of a branch can be
local Results = {}

-- results.other inside a branch waits for that branch; a cycle raises with its names.
function Results.__index(results, name)
  local self, own = rawget(results, GROUP), rawget(results, OWN)
  local other = self.branches[name]
  if not other then error(("there is no branch %q"):format(tostring(name)), 2) end
  local chain, at = own, name
  while at do
    if at == own then error("branches wait for each other: " .. text_of(chain) .. " -> " .. text_of(name), 2) end
    at = self.branches[at].waits_for
  end
  self.branches[own].waits_for = name
  if not other.begun and not other.settled then
    if other.request then -- calls belong to who waits for the whole group
      other.wanted, self.wants = true, true
      C.tg_abi_wake(self.parent, self.serial)
    else
      self:start(name)
    end
  end
  while not other.settled do
    other.waiters = other.waiters or {}
    other.waiters[#other.waiters + 1] = { vm.coroutine, vm.coroutine_serial }
    task.wait()
  end
  self.branches[own].waits_for = nil
  if other.err and other.value == nil then error(other.err, 0) end
  return other.value
end

function Group:settle(name, value, err)
  local each = self.branches[name]
  if each.settled then return end
  each.settled = true
  self.open = self.open - 1
  if each.begun then self.running = self.running - 1 end
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
  if each.waiters then
    for _, waiter in ipairs(each.waiters) do C.tg_abi_wake(waiter[1], waiter[2]) end
  end
  if not each.request then C.tg_abi_wake(self.parent, self.serial) end
end

local function run(self, name, each)
  local ok, value, err = pcall(each.f, setmetatable({ [GROUP] = self, [OWN] = name }, Results))
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
  each.begun = true
  self.running = self.running + 1
  if not each.request then
    each.task = task.start(abi.TASK_CHILD, run, self, name, each)
    return
  end
  local call = branch.request(each.request)
  each.call = call
  self.calls[#self.calls + 1] = name
  call:start()
end

-- Settles the calls that are over. An odd one out of the list takes the place of the last.
function Group:poll()
  local calls = self.calls
  for i = #calls, 1, -1 do
    local name = calls[i]
    local each = self.branches[name]
    if each.settled or each.call:poll() then
      calls[i] = calls[#calls]
      calls[#calls] = nil
      self:settle(name, each.call.value, each.call.err)
    end
  end
end

function Group:start_more()
  while self.running < self.limit and self.next <= #self.names do
    local name = self.names[self.next]
    self.next = self.next + 1
    local each = self.branches[name]
    if not each.begun and not each.settled then self:start(name) end
  end
  if not self.wants then return end
  self.wants = false
  for name, each in pairs(self.branches) do
    if each.wanted and not each.begun and not each.settled then self:start(name) end
  end
end

-- The moment at which something must be ended.
function Group:moment()
  local at = self.till
  for _, name in ipairs(self.calls) do
    local moment = self.branches[name].call:moment()
    if moment and (not at or moment < at) then at = moment end
  end
  if not self.timed then return at end
  for _, each in pairs(self.branches) do
    if not each.settled and each.till and (not at or each.till < at) then at = each.till end
  end
  return at
end

-- Ends the branches whose time is up.
function Group:expire()
  self:poll()
  local all = self.till and vm.monotonic >= self.till
  if not all and not self.timed then return end
  for name, each in pairs(self.branches) do
    if not each.settled and (all or each.till and vm.monotonic >= each.till) then
      if each.task then each.task:cancel() end
      if each.call then each.call:cancel() end
      self:settle(name, nil, failure.new("timeout", ("branch %q took too long"):format(tostring(name))))
    end
  end
end

function Group:cancel()
  for _, each in pairs(self.branches) do
    if each.task and not each.settled then each.task:cancel() end
    if each.call and not each.settled then each.call:cancel() end
    each.settled = true
  end
end

-- What only calls and has no pauses in it needs no coroutines and no order.
local function is_plain(value)
  return type(value) == "table" and value.upstream and not (value[1] or value.cache or value.retries or value.hedge)
end

local function are_plain(branches)
  local count = 0
  for _, value in pairs(branches) do
    if not is_plain(value) then return false end
    count = count + 1
  end
  return count <= MAX
end

-- A call; or its handle alone, when that is enough.
local function begin(value, about)
  local handle = about and branch.begin(value, about)
  if handle then return handle, true end
  local call = branch.request(value)
  call:start()
  return call, not call.done
end

-- Whether it has a value, and which.
local function settle(call, value, begun)
  if type(call) == "cdata" then return branch.settle(call, value, begun) end
  return call:poll() and not call.err, call.value
end

-- What has come of one: its value, or what stands for it; true when it was needed and failed.
local function settle_plain(data, errors, name, value, call)
  local err = call.err
  data[name] = call.value
  if not err then return false end
  errors[name] = err
  local fallback = value.fallback
  if type(fallback) == "function" then fallback = fallback(err) end
  data[name] = fallback
  return fallback == nil and not value.optional
end

-- Waits until each of the calls is over, or one that is needed has failed. `data`: what others have given.
local function settle_all(branches, calls, left, till, data)
  local errors, failed = {}, nil
  while true do
    local late = till and vm.monotonic >= till
    local moment, pausing = till, 0 -- those that wait for their next attempt
    for name, call in pairs(calls) do
      if late and not call:poll() then
        call:cancel()
        call.err = failure.new("timeout", ("branch %q took too long"):format(tostring(name)))
      end
      if late or call:poll() then
        calls[name], left = nil, left - 1
        if settle_plain(data, errors, name, branches[name], call) then failed = failed or call.err end
      elseif call.due then
        pausing = pausing + 1
        if not moment or call.due < moment then moment = call.due end
      end
    end
    if left == 0 or failed then break end
    C.tg_abi_calls_gather(left - pausing)
    task.wait_until(moment)
  end
  C.tg_abi_calls_gather(0)
  if not failed then return data, errors end
  for _, call in pairs(calls) do call:cancel() end
  return nil, failed
end

local function end_of(options)
  return options and options.timeout and vm.monotonic + options.timeout or nil
end

local function gather(branches, options)
  local calls, left = {}, 0
  for name, value in pairs(branches) do calls[name], left = begin(value), left + 1 end
  return settle_all(branches, calls, left, end_of(options), {})
end

-- A loop inside of a request's path keeps that path from being compiled as a whole. Most pages are made of few calls that all go well: for
-- those the steps stand one behind the other, and what is left over is left to the loops.
local FEW = 8

local function check_branches(name, branches)
  if type(branches) ~= "table" then misuse(name .. " needs a table of branches, found a " .. type(branches)) end
end

local function few_times(first, step, last)
  local text = "local next, is_plain, begin, settle = ...\n" .. first .. "\n" .. step:rep(FEW) .. last .. "\nend"
  return assert(loadstring(text, "@lua/tidegate/branch.lua (few)"))(unread.next_of, is_plain, begin, settle)
end

local are_few = few_times([[
return function(branches)
  local name, value = nil, nil]], [[
  name, value = next(branches, name)
  if name == nil then return true end
  if not is_plain(value) then return false end
]], "return next(branches, name) == nil")

-- How many there are, and how many of them run: one that could not begin is over already.
local begin_few = few_times([[
return function(branches, names, calls, about)
  local i, running, name, value, runs = 0, 0, nil, nil, nil]], [[
  name, value = next(branches, name)
  if name == nil then return i, running end
  i = i + 1
  names[i] = name
  calls[i], runs = begin(value, about)
  if runs then running = running + 1 end
]], "return i, running")

-- The number of the first that has no value, nil when all have one.
local settle_few = few_times([[
return function(branches, names, calls, count, begun, data)
  local i, name, fine, value = 0, nil, nil, nil]], [[
  if i == count then return nil end
  i = i + 1
  name = names[i]
  fine, value = settle(calls[i], branches[name], begun)
  if not fine then return i end
  data[name] = value
]], "return nil")

local function gather_few(branches, options)
  local names, calls, data = { nil, nil, nil, nil }, { nil, nil, nil, nil }, {}
  local begun, till = vm.monotonic, end_of(options)
  local count, running = begin_few(branches, names, calls, about_exchange())
  local first = 1
  if running == count and count > 0 then
    C.tg_abi_calls_gather(count)
    task.wait_until(till)
    C.tg_abi_calls_gather(0)
    first = settle_few(branches, names, calls, count, begun, data)
    if not first then return data, {} end
  end
  local rest = {}
  for i = first, count do
    local call, name = calls[i], names[i]
    rest[name] = type(call) == "cdata" and branch.adopt(call, branches[name], begun) or call
  end
  return settle_all(branches, rest, count - first + 1, till, data)
end

--- fetch_all(branches, { timeout?, limit? }) -> data, errors | nil, err when a branch that is needed failed. `limit`: so many at once.
function branch.fetch_all(branches, options)
  task.need_worker()
  check_branches("fetch_all", branches)
  if not (options and options.limit) then
    unread.settle(branches)
    if are_few(branches) then return gather_few(branches, options) end
    if are_plain(branches) then return gather(branches, options) end
  end
  local self = open(branches, options)
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
  check_branches("as_completed", branches)
  local self = open(branches, options)
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
  check_branches("first", branches)
  local self = open(branches, options, true)
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
