--- guard: the circuit breaker and the bulkhead of a route.
local abi = require "abi"
local breaker = require "runtime.breaker"
local bulkhead = require "runtime.bulkhead"
local cells = require "runtime.cells"

local C, vm = abi.C, abi.vm
local guard = {}
local Guard = {}
Guard.__index = Guard

local NEVER = 2 -- a share that nothing reaches
local ROUTE = 2 -- TG_WATCH_ROUTE

local function rules_of(conf)
  local rules = abi.rules()
  rules.failed, rules.slow_share = NEVER, NEVER
  if conf.breaker then breaker.put(rules, conf.breaker) end
  rules.timed = conf.bulkhead and conf.bulkhead.adaptive and 1 or 0
  return rules
end

--- new(conf of a route) -> guard | nil: it has neither.
function guard.new(conf)
  if abi.validating or not conf.breaker and not conf.bulkhead then return nil end
  local name = "route " .. conf.name
  local self = setmetatable({ cell = cells.want("r:" .. conf.name), rules = rules_of(conf) }, Guard)
  if conf.breaker then self.breaker = breaker.new(conf.breaker, self.cell, name, conf.timeout + 1) end
  if conf.bulkhead then
    self.bulkhead = bulkhead.new(conf.bulkhead, self.cell, name)
    guard.bulkheads[#guard.bulkheads + 1] = self.bulkhead
  end
  return self
end

guard.bulkheads = {}

--- start(): the generation is current.
function guard.start()
  for _, each in ipairs(guard.bulkheads) do each:start() end
end

--- guard:enter(x) -> true | nil, err: it is open, or full. May wait.
function Guard:enter(x)
  local watch = x.watch[ROUTE]
  watch.cell, watch.rules = self.cell, self.rules
  if self.breaker then
    local period, err = self.breaker:enter()
    if not period then return nil, err end
    if period ~= 0 then watch.probe = period end
  end
  if self.bulkhead then return self.bulkhead:enter(watch, x.started + x.total_timeout / 1000 - vm.now) end
  C.tg_abi_cell_enter(watch, 0)
  return true
end

return guard
