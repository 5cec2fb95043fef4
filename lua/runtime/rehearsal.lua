--- rehearsal: a generation in shadow: what it would do with requests that the current one answers, held against what that one did.
-- Its phases run on a view of the exchange (rehearsal_phases.lua), nothing is sent, and nothing of the exchange is touched; then both are compared
-- (rehearsal_verdict.lua). Made and used only where a generation is in shadow.
local abi = require "abi"
local call = require "tidegate.call"
local chain = require "runtime.chain"
local budget = require "runtime.budget"
local consumers = require "tidegate.consumers"
local exchange = require "runtime.exchange"
local gateway_metrics = require "runtime.gateway_metrics"
local limit = require "tidegate.limit"
local log = require "tidegate.log"
local phases = require "runtime.rehearsal_phases"
local records = require "tidegate.records"
local redis = require "runtime.redis"
local shadow = require "runtime.shadow"
local task = require "tidegate.task"
local verdict = require "runtime.rehearsal_verdict"

local C, vm = abi.C, abi.vm

local rehearsal = {}
local KINDS = { "same", "unjudged", "raised", "route", "status", "upstream", "target", "headers", "response" } -- enum tg_shadow_kind
local SOFT, OVERRUNS_MAX = 0.02, 3 -- seconds of the processor for a phase; so many that took longer, and nothing is judged any more
local PATH_MAX, TEXT_MAX = 100, 256

local counted = gateway_metrics.generation_shadow
local live = {} -- slot -> record of the exchange that is judged there
local told = {} -- kind -> the master has an example
local server, generation, all_uses
local counts = {} -- kind -> what counts it

-- ---------------------------------------------------------------- a request

-- Slots 1 and 2 as in ctx. What rehearsal_phases.lua finds out is in the fields named.
local function new_record(x)
  return { x, x.serial, serial = x.serial, counted = 0, method = exchange.method(x), path = phases.path(x), deferred = {} }
end

local function run_deferred(record)
  local list = record.deferred
  record.deferred = {}
  task.run_deferred(list)
end

local function begin(x)
  local router_of_it = server.routers[x.shadow]
  if router_of_it and router_of_it.is_admin then return end
  local record = new_record(x)
  live[x.slot] = record
  if budget.exceeded >= OVERRUNS_MAX then
    record.decided, record.unknown = true, "its phases take more than their budget, nothing is judged in this worker any more"
    return
  end
  phases.run(record, x, server)
  run_deferred(record)
end

-- Of one whose phases of the request are not yet over; one that waits for the response looks for itself.
local function show(x)
  local record = records.of(live, x)
  if record then phases.see(record) end
end

local function tell(record, kind, text)
  counts[kind]:inc()
  if kind == "same" then return end
  local line = ("%s %s: %s"):format(phases.text(record.method), record.path:sub(1, PATH_MAX), text):sub(1, TEXT_MAX)
  if kind ~= "unjudged" then log.info(kind .. ": " .. line) end
  if told[kind] then return end
  told[kind] = true
  for i, name in ipairs(KINDS) do
    if name == kind then C.tg_abi_differs(i - 1, line, #line) end
  end
end

local function finish(x)
  local record = records.of(live, x)
  if not record then return end
  live[x.slot] = nil
  local ok, kind, text = pcall(verdict.compare, x, record)
  if not ok then kind, text = "raised", phases.text(kind) end
  tell(record, kind, text)
  run_deferred(record)
end

-- ---------------------------------------------------------------- coroutines

local ENTRY_SHADOW, ENTRY_HEAD, ENTRY_COMPARE, ENTRY_TASK =
  tonumber(abi.ENTRY_SHADOW), tonumber(abi.ENTRY_HEAD), tonumber(abi.ENTRY_COMPARE), tonumber(abi.ENTRY_TASK)

local function on_task(id, run_hooks)
  if id == 0 then
    redis.start()
    limit.start()
    consumers.start()
    return run_hooks "start"
  end
  if id == 1 or id == 2 then return run_hooks("stop", id == 1 and "reload" or "shutdown") end
  task.run(id)
end

local function main_of(run_hooks)
  return function()
    task.adopt()
    while true do
      local entry = vm.entry
      if entry == ENTRY_SHADOW then
        begin(vm.exchange)
      elseif entry == ENTRY_HEAD then
        show(vm.exchange)
      elseif entry == ENTRY_COMPARE then
        finish(vm.exchange)
      elseif entry == ENTRY_TASK then
        on_task(vm.task, run_hooks)
      end
      vm.entry = 0
      coroutine.yield()
    end
  end
end

local function judge(value, traceback)
  log.raised(2, ("in shadow: %s [generation %s]\n%s"):format(tostring(value), generation, traceback), value)
  return false
end

local function describe()
  local use = all_uses[vm.mark[0]]
  return (" [in shadow, plugin %s, generation %s]"):format(use and use.label or "-", generation)
end

local function defer(entry)
  local record = records.current(live)
  if record then record.deferred[#record.deferred + 1] = entry end
end

--- start(built, cfg, uses, id, run_hooks) -> main, judge: as serve.start, whose settings are changed to those of one that answers nothing
function rehearsal.start(built, cfg, uses, id, run_hooks)
  server, generation, all_uses = built, id, uses
  for _, kind in ipairs(KINDS) do counts[kind] = counted:with { verdict = kind } end
  budget.soft, budget.hard, budget.exceeded, budget.report = math.min(cfg.defaults.budget, SOFT), 1, 0, function() end
  log.context = describe
  task.defer_to_exchange = defer
  task.report = function(text) log.warn(text) end
  call.exchange = function()
    local record = records.current(live)
    return record and record.view or nil
  end
  function chain.report(_, err) -- of uses with on_error = "skip"
    local record = records.current(live)
    if err ~= shadow.UNKNOWN and record then log.info("it has raised: " .. phases.text(err)) end
    budget.forgive()
  end
  return main_of(run_hooks), judge
end

return rehearsal
