--- quarantine: a use that raises, or computes for longer than its budget, too often is put out for a while: its exchanges are answered 503, or go on
-- without it. Then one call tries whether it works again. Each worker judges for itself. Uses without it are as they were.
local abi = require "abi"
local failure = require "tidegate.failure"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local response = require "tidegate.response"
local schema = require "runtime.schema"
local trace = require "tidegate.trace"

local vm = abi.vm
local t = schema.t
local quarantine = {}
local counted = metrics.counter("tidegate_quarantine_total",
  { help = "Times that a plugin was put out or is back, and calls that were refused or skipped meanwhile.", labels = { "plugin", "event" } })
-- A log phase that raises ends itself alone, so there is nothing to keep it from.
local PHASES = { "rewrite", "authenticate", "access", "around", "handler", "balance", "response", "websocket" }
local INTERNAL_ERROR = 1011 -- of RFC 6455

--- spec: what `quarantine = { ... }` takes, in a use or in `defaults`.
quarantine.spec = {
  errors = t.integer { default = 20, min = 1, max = 1e6 }, window = t.duration { default = "10s", min = 0.1, max = 3600 },
  pause = t.duration { default = "30s", min = 0.1, max = 86400 },
}

-- ---------------------------------------------------------------- once a generation

-- What it does when it is out, or nil: it was told that this cannot be.
local function fail_of(use, report)
  local fail = use.fail or use.on_error == "skip" and "open" or "closed"
  if fail == "closed" then return fail end
  local why
  if fail ~= "open" then
    return report:found(use.at, use.path, fail, '"closed" or "open" as `fail`')
  elseif use.plugin.authenticate then
    why = "a plugin that authenticates"
  elseif use.is_handler then
    why = "a handler: nothing else would answer"
  end
  if not why then return fail end
  report:problem(use.at, use.path, 'fail = "open" is refused for ' .. why)
end

--- judge(use, defaults, report): reads `quarantine` and `fail` of a use whose plugin is known.
function quarantine.judge(use, defaults, report)
  local fail = fail_of(use, report)
  local rules = use.quarantine_words
  if rules == nil then rules = defaults end
  use.quarantine = nil
  if not rules then
    if use.fail then report:problem(use.at, use.path, "`fail` is for a use in quarantine, and `quarantine` is not set: quarantine = {}") end
    return
  elseif type(rules) ~= "table" then
    return report:found(use.at, use.path, rules, "a table or false as `quarantine`")
  end
  local read = rules == defaults and rules or schema.unfrozen(quarantine.spec, rules, { report = report, at = use.at, path = { unpack(use.path) } })
  if not read or not fail then return end
  use.quarantine = {
    errors = read.errors, window = read.window, pause = read.pause, fail = fail, since = 0, count = 0, out_until = false, trial_until = 0,
  }
end

-- ---------------------------------------------------------------- in and out

local function count(use, event) counted:inc(1, { plugin = use.label, event = event }) end

local function put_out(use, q, why)
  q.out_until, q.trial_until, q.count = vm.monotonic + q.pause, 0, 0
  count(use, "out")
  log.error(("plugin %s is out for %g s: %s; meanwhile %s"):format(use.label, q.pause, why,
    q.fail == "open" and "exchanges go on without it" or "its exchanges are answered 503"))
end

-- One more error, and it is out again: what has worked was one phase, once.
local function take_back(use, q)
  q.out_until, q.trial_until, q.count, q.since = false, 0, q.errors - 1, vm.monotonic
  count(use, "back")
  log.warn(("plugin %s is back"):format(use.label))
end

--- raised(use | nil): it has raised, or computed for longer than its budget.
function quarantine.raised(use)
  local q = use and use.quarantine
  if not q or q.out_until then return end
  local now = vm.monotonic
  if now >= q.since + q.window then q.since, q.count = now, 0 end
  q.count = q.count + 1
  if q.count >= q.errors then put_out(use, q, ("it has raised or been too slow %d times in %g s"):format(q.errors, q.window)) end
end

-- ---------------------------------------------------------------- calls

local function refuse(q, phase, message)
  if phase == "websocket" then return message:close(INTERNAL_ERROR) end
  local seconds = math.max(1, math.ceil(q.out_until - vm.monotonic))
  local r = response.problem(503, "a policy of this route is out of order", nil, { ["Retry-After"] = tostring(seconds) })
  if phase == "balance" then error(r, 0) end -- which has no response to give
  return r
end

local function without(use, q, phase, ctx, message)
  if trace.on then trace.note "in quarantine" end
  if q.fail == "closed" then
    count(use, "refused")
    return refuse(q, phase, message)
  end
  count(use, "skipped")
  if phase == "around" then ctx:next() end
end

local function try(use, q, f, ...)
  q.trial_until = vm.monotonic + q.pause -- one that never ends is not waited for
  local ok, r = pcall(f, ...)
  if ok or response.is(r) or failure.is(r) then
    take_back(use, q)
  else
    put_out(use, q, "it has raised again")
  end
  if not ok then error(r, 0) end
  return r
end

local function wrap(use, phase, f)
  local q = use.quarantine
  return function(ctx, first, second, third)
    if not q.out_until then return f(ctx, first, second, third) end
    local now = vm.monotonic
    if now < q.out_until or now < q.trial_until then return without(use, q, phase, ctx, first) end
    return try(use, q, f, ctx, first, second, third)
  end
end

--- stand_in(use) -> what runs in place of its plugin
function quarantine.stand_in(use)
  local stand_in = {}
  for name, value in pairs(use.plugin) do stand_in[name] = value end
  for _, phase in ipairs(PHASES) do
    if stand_in[phase] then stand_in[phase] = wrap(use, phase, stand_in[phase]) end
  end
  return stand_in
end

return quarantine
