--- guard: the circuit breaker and the bulkhead of a route.
local abi = require "abi"
local breaker = require "runtime.breaker"
local bulkhead = require "runtime.bulkhead"
local cells = require "runtime.cells"
local metrics = require "tidegate.metrics"

local C, vm = abi.C, abi.vm
local guard = {}
local Guard = {}
Guard.__index = Guard

local guards = {} -- of the generation: list of { route, cell, breaker | nil, bulkhead | nil }
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
  end
  guards[#guards + 1] = { route = conf.name, breaker = self.breaker, bulkhead = self.bulkhead, cell = self.cell }
  return self
end

local function read_breaker(cell) return bit.band(cell.breaker, 3) end
local function read_in_flight(cell) return cell.in_flight end
local function read_waiting(cell) return cell.waiting end

local FAMILIES = {
  { "tidegate_route_breaker_state", "Of routes that have a circuit breaker: 0 closed, 1 open, 2 and 3 half-open.", "breaker", read_breaker },
  { "tidegate_route_requests_in_flight", "Of routes that have a bulkhead: requests in flight.", "bulkhead", read_in_flight },
  { "tidegate_route_requests_waiting", "Of routes that have a bulkhead: requests that wait for room.", "bulkhead", read_waiting },
}

local function write(writer)
  for _, family in ipairs(FAMILIES) do
    local name, help, part, read = unpack(family)
    writer:family(name, "gauge", help)
    for _, one in ipairs(guards) do
      if one[part] then writer:sample(name, metrics.labels { { "route", one.route } }, tonumber(read(one.cell))) end
      writer:breathe()
    end
  end
end

--- start(): the generation is current.
function guard.start()
  if #guards == 0 then return end
  table.sort(guards, function(a, b) return a.route < b.route end)
  for _, each in ipairs(guards) do
    if each.bulkhead then each.bulkhead:start() end
  end
  metrics.collect(write)
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
