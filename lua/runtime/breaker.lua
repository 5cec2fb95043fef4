--- breaker: a circuit breaker of an upstream, a peer or a route. Its state is in shared memory: all workers agree, and exactly so many
-- probes are let through as were asked for.
local abi = require "abi"
local cells = require "runtime.cells"
local failure = require "tidegate.failure"
local log = require "tidegate.log"
local statuses = require "runtime.statuses"

local C, vm = abi.C, abi.vm
local band, rshift, min, random, floor = bit.band, bit.rshift, math.min, math.random, math.floor

local breaker = {}
local Breaker = {}
Breaker.__index = Breaker

local CLOSED, OPEN, HALF_OPEN, FAILED = 0, 1, 2, 3 -- enum tg_abi_breaker
local names = { [CLOSED] = "closed", [OPEN] = "open", [HALF_OPEN] = "half-open", [FAILED] = "half-open" }
local JITTER = 0.1
local NEVER = 2 -- a share that nothing reaches

local function milliseconds(seconds) return floor(seconds * 1000) end

--- put(rules, conf): what of a breaker the core must know, to tell when there is something to judge.
function breaker.put(rules, conf)
  statuses.put(rules.failures, conf.statuses)
  rules.window = milliseconds(conf.window)
  rules.consecutive = conf.consecutive or 0
  rules.min, rules.failed = conf.min, conf.errors or NEVER
  rules.slow = conf.slow and milliseconds(conf.slow) or 0
  rules.slow_share = conf.slow and conf.slow_share or NEVER
end

--- new(conf, cell, name, patience, changed?) -> breaker. `name` is for the log; after `patience` seconds without a word of its probes others
-- are let through; `changed()` is called after each change.
function breaker.new(conf, cell, name, patience, changed)
  local self = setmetatable({ conf = conf, cell = cell, name = name, patience = milliseconds(patience), changed = changed }, Breaker)
  cells.on_news(cell, self)
  return self
end

--- enter() -> 0 when it is closed, the period in which this is a probe | nil, err: it is open.
function Breaker:enter()
  local cell = self.cell
  if band(cell.breaker, 3) == CLOSED then return 0 end
  if C.tg_abi_cell_breaker_enter(cell, self.conf.probes, self.patience) == 0 then return tonumber(vm.number) end
  local err = failure.new("open", self.name .. ": the circuit breaker is open", 503)
  err.retry_after = self:open_for()
  return nil, err
end

--- open_for() -> seconds until probes are let through, at most.
function Breaker:open_for()
  return math.max(0, self.cell.breaker_until * 0.032 - vm.monotonic)
end

function Breaker:state() return names[band(self.cell.breaker, 3)] end

-- Goes on to a state, if no other worker has done so already.
local function go(self, seen, state, seconds, opened, why)
  if C.tg_abi_cell_breaker_set(self.cell, seen, state, vm.monotonic + seconds, opened) ~= 0 then return end
  local event = { breaker = self.name, from = names[band(seen, 3)], to = names[state], reason = why, seconds = state == OPEN and seconds or nil }
  log[state == OPEN and "warn" or "info"]("circuit breaker " .. names[state], event)
  if self.changed then self.changed() end
  if self.conf.on_change then
    local ok, err = pcall(self.conf.on_change, event)
    if not ok then log.error(("%s: on_change: %s"):format(self.name, tostring(err))) end
  end
end

local function open(self, seen, opened, why)
  local conf = self.conf
  local seconds = min(conf.open * 2 ^ min(opened, 20), conf.open_max) * (1 + JITTER * (random() * 2 - 1))
  go(self, seen, OPEN, seconds, opened + 1, why)
end

-- Why it has to open, or nil.
local function reason(self)
  local conf, cell = self.conf, self.cell
  if conf.consecutive and cell.consecutive >= conf.consecutive then return ("%d failures in a row"):format(cell.consecutive) end
  C.tg_abi_cell_sum(cell, milliseconds(conf.window))
  local all, failed, slow = tonumber(vm.number), tonumber(vm.out.n), vm.type
  if all < conf.min then return nil end
  if conf.errors and failed >= conf.errors * all then return ("%d of %d failed"):format(failed, all) end
  if conf.slow and slow >= conf.slow_share * all then return ("%d of %d were slow"):format(slow, all) end
  return nil
end

function Breaker:judge()
  local seen, cell = self.cell.breaker, self.cell
  local state = band(seen, 3)
  if state == CLOSED then
    local why = reason(self)
    if why then open(self, seen, 0, why) end
  elseif state == FAILED then
    open(self, seen, cell.opened, "a probe failed")
  elseif state == HALF_OPEN and rshift(seen, 24) >= self.conf.probes then
    go(self, seen, CLOSED, 0, 0, ("%d probes went well"):format(self.conf.probes))
  end
end

return breaker
