--- core_steps: what uses do with every exchange alike, taken out of their phases `rewrite` and `log`: the core does it, and Lua is not entered.
local abi = require "abi"
local constant_edits = require "runtime.constant_edits"
local exchange = require "runtime.exchange"
local log_line = require "tidegate.log_line"
local pace = require "runtime.pace"
local slots = require "runtime.route_slots"
local steps = require "tidegate.steps"
local upstreams = require "runtime.upstreams"

local C, NAME = abi.C, abi.NAME
local core_steps = {}
local tracer -- whose decision the core asks for

core_steps.opened = {} -- labels of the uses whose `rewrite` the core does

-- The step that is all that a use does in its phase | nil: it must be asked each time.
local function step_of(use, phase)
  local of = use.plugin.core
  if not of or not use.plugin[phase] or use.when or use.shadow or use.quarantine or use.on_error == "skip" then return nil end
  if constant_edits.whole or abi.in_shadow or abi.offline then return nil end
  local step = of(use.conf, use.state)[phase]
  if step ~= nil and not steps.is(step) then error(("%s: core.%s is no step, but a %s"):format(use.label, phase, type(step)), 0) end
  return step
end

-- ---------------------------------------------------------------- when a request begins

local open = {
  correlate = function(step)
    return C.tg_abi_open_correlate(step.header, #step.header, step.keep and 1 or 0, step.version)
  end,
  trace = function(step)
    if tracer then return abi.ELIMIT end
    local rc = C.tg_abi_open_trace(step.tracer.ratio, step.tracer.follows and 1 or 0)
    if rc == 0 then tracer = step.tracer end
    return rc
  end,
}

--- opening(uses) -> those whose `rewrite` Lua runs. Only what comes before all of these can be taken out of them.
function core_steps.opening(uses)
  local rest, taking = {}, true
  for _, use in ipairs(uses) do
    local step = taking and step_of(use, "rewrite")
    if not step or not abi.validating and open[step.kind](step) ~= 0 then
      rest[#rest + 1] = use
      taking = taking and not use.plugin.rewrite
    else
      core_steps.opened[#core_steps.opened + 1] = use.label
    end
  end
  return rest
end

--- decide(): the running exchange may be one that is recorded.
function core_steps.decide() tracer:begin() end

-- ---------------------------------------------------------------- when it is over

--- ending(uses) -> what the core does then | nil, the uses whose phase does the rest, whether it is always entered for these
function core_steps.ending(uses)
  local found, rest, always = nil, {}, false
  for _, use in ipairs(uses) do
    local step = step_of(use, "log")
    local rc = abi.ELIMIT
    if step then
      found = found or abi.ending()
      rc = step.kind == "line" and C.tg_abi_ending_line(found, step.line, step.sink, step.sample, step.status, step.seconds) or 0
    end
    local failures = rc == 0 and step.kind == "failures"
    if failures and step.on then C.tg_abi_ending_failures(found) end
    if rc ~= 0 or failures then rest[#rest + 1] = use end
    always = always or rc ~= 0 and use.plugin.log ~= nil
  end
  return found, rest, always
end

-- ---------------------------------------------------------------- once a generation

local function name(kind, number, text)
  if C.tg_abi_name(kind, number, text, #text) ~= 0 then error("memory is short", 0) end
end

-- What lines of logs say that is not said by the exchange.
local function tell_names(server, id)
  name(NAME.generation, 0, id)
  for index, route in pairs(server.routes) do
    name(NAME.route, index, route.name)
    if route.upstream then name(NAME.route_upstream, index, route.upstream.name) end
    pace.breathe()
  end
  upstreams.tell_names(name)
end

--- start(server, cfg, id): the generation `id` is ready to serve. server: { routes, shared }
function core_steps.start(server, cfg, id)
  if abi.offline then return end
  for number, listen in ipairs(cfg.listen) do
    if listen.admin then C.tg_abi_open_except(number) end
  end
  if server.shared.ending then C.tg_abi_ending_of(0, server.shared.ending) end
  for index, route in pairs(server.routes) do
    local ending = route[slots.PHASES].ending
    if ending and C.tg_abi_ending_of(index, ending) ~= 0 then error("memory is short", 0) end
    pace.breathe()
  end
  if log_line.wants.names then tell_names(server, id) end
  if log_line.wants.consumer then exchange.tell_consumer = log_line.wants.consumer end
end

return core_steps
