--- limit: tg.limit: how much of something there may be in a time, or at once, for each key; counted by this gateway or by all that share a Redis.
local abi = require "abi"
local decision = require "tidegate.limit_decision"
local dict = require "tidegate.dict"
local edits = require "tidegate.edits"
local failure = require "tidegate.failure"
local places = require "tidegate.limit_places"
local shared = require "tidegate.limit_redis"
local status = require "tidegate.limit_status"
local store = require "tidegate.limit_local"
local task = require "tidegate.task"

local C, vm, kinds, taken = abi.C, abi.vm, abi.limits, abi.taken
local max, huge = math.max, math.huge
local misuse = failure.misuse
local LIMITS_MAX, LOG_MAX, PER_MAX = 8, 10000, 366 * 86400 -- TG_RECORDS; units; seconds
local FLUSH_EVERY = 1 -- seconds

local limit = { all = {} } -- all: every limiter of this generation
local started = false

-- ---------------------------------------------------------------- options

local function number_of(options, field, least, default)
  local value = options[field]
  if value == nil then value = default end
  if type(value) ~= "number" or not (value >= least and value < huge) then
    misuse(("a limit needs `%s`, a number of at least %s"):format(field, least))
  end
  return value
end

local fields = {}
for name in ("name rate per burst delay algorithm store mode on_down timeout nodes count_denied dict limits"):gmatch "%S+" do fields[name] = true end

local function check_fields(options)
  if type(options) ~= "table" then misuse("a limit needs a table of options, found a " .. type(options)) end
  for key in pairs(options) do
    if not fields[key] then misuse(("a limit has no option %s"):format(tostring(key))) end
  end
end

local function check_name(name)
  if type(name) ~= "string" or not name:find "^[%w_.:%-]+$" or #name > 63 then
    misuse "a limit needs a name of letters, digits, '_', '.', ':' and '-'"
  end
  return name
end

-- One of the limits of a limiter: { algorithm, rate, per, speed, burst or delay, tag, core }
local function compile(options, algorithm, name)
  check_fields(options)
  algorithm = options.algorithm or algorithm or "sliding"
  if algorithm == "concurrency" then return places.compile(name, number_of(options, "rate", 1)) end
  if not kinds[algorithm] then misuse(("there is no algorithm %s"):format(tostring(algorithm))) end
  local counts = algorithm ~= "gcra" and algorithm ~= "leaky"
  local one = { algorithm = algorithm, name = name and check_name(name) }
  one.rate, one.per = number_of(options, "rate", counts and 1 or 1e-6), number_of(options, "per", 0.001, 1)
  if one.per > PER_MAX then misuse "`per` is at most a year" end
  if algorithm == "log" and (one.rate > LOG_MAX or one.rate % 1 ~= 0) then misuse(("a log keeps whole units, at most %d"):format(LOG_MAX)) end
  one.speed = one.rate / one.per
  if algorithm == "gcra" then
    one.burst = number_of(options, "burst", 1, max(1, one.rate))
  elseif options.burst ~= nil then
    misuse("`burst` is for gcra, not for " .. algorithm)
  end
  if algorithm == "leaky" then one.delay = number_of(options, "delay", 0, 1) elseif options.delay ~= nil then misuse "`delay` is for leaky" end
  one.capacity = one.burst or one.rate
  one.tag = ("%s%g%s"):format(algorithm, one.per, one.name and "-" .. one.name or "")
  one.core = abi.limit(one)
  return one
end

local function compile_all(options, algorithm)
  local list, known = {}, {}
  local given = options.limits or { options }
  if type(given) ~= "table" or #given < 1 or #given > LIMITS_MAX then misuse(("`limits` is a list of 1 to %d"):format(LIMITS_MAX)) end
  for i, each in ipairs(given) do
    local one = compile(each, algorithm, options.limits and each.name)
    if known[one.tag] then
      misuse(("two limits are %s in %g s: the smaller says all, unless they have names, and keys of their own"):format(one.algorithm, one.per))
    end
    known[one.tag], list[i] = true, one
  end
  return list
end

-- ---------------------------------------------------------------- limiters

local Limiter = { __name = "limiter" }
Limiter.__index = Limiter

local function known_keys(self, key)
  if type(key) ~= "table" then return decision.key(key) end
  local list = {}
  for i = 1, #self.limits do list[i] = decision.key(key[i]) end
  return list
end

local function check_cost(cost)
  if type(cost) ~= "number" or not (cost >= 0 and cost < huge) then misuse "the cost of a request is a number of at least 0" end
  return cost
end

local function busy(rc)
  return failure.new("busy", "the limit cannot be counted: " .. abi.code(rc))
end

-- key as it is counted by, allowed | nil, err, source
local function decide(self, place, key, cost)
  check_cost(cost)
  key = known_keys(self, key)
  if self.shared then
    local allowed, source = self.shared:take(place, key, cost)
    return key, allowed, source
  end
  local allowed, rc = store.take(self.dict.id, self.limits, place.scopes, key, cost, self.count_denied)
  if allowed == nil then return nil, busy(rc) end
  return key, allowed, "local"
end

--- take(key, cost = 1, name?) -> decision | nil, err: counts `cost` for this key against all limits at once, or, when one of them has no
-- room, against none. A list of keys has one for each limit. cost 0 only looks. `name` in place of the limiter's own.
function Limiter:take(key, cost, name)
  local place = decision.place(self, name or self.name)
  local counted, allowed, source = decide(self, place, key, cost or 1)
  if counted == nil then return nil, allowed end
  return decision.new(self, place, counted, cost or 1, allowed, source)
end

-- pass and admit, of one limit that is counted here: no more is done than to count, and to tell. `forms`: bits of abi.limit_forms.
local function pass_alone(self, place, key, cost, forms)
  key = decision.key(key)
  local scope, core = place.scope, self.core
  local rc = C.tg_abi_limit_take(self.dict_id, core, scope, #scope, key, #key, check_cost(cost), self.charge)
  if rc >= 0 and forms ~= 0 then
    local policy, title, x = place.policy, place.title, vm.exchange
    if x == nil then misuse "clients can be told of a limit in a request" end
    local told = C.tg_abi_limit_tell(x, forms, core, policy, #policy, title, #title)
    if told ~= 0 then rc = told end
  end
  if rc == 1 and taken[1].wait == 0 and cost > 0 then
    place.allowed = place.allowed + 1
    return true
  end
  if rc < 0 then return nil, busy(rc) end
  store.fill()
  return decision.new(self, place, key, cost, rc == 1, "local")
end

--- pass(key, cost = 1, name?) -> true when it is let through at once | decision | nil, err: as take, for who needs not know what is left.
function Limiter:pass(key, cost, name)
  local place = decision.place(self, name or self.name)
  if self.core and type(key) ~= "table" then return pass_alone(self, place, key, cost or 1, 0) end
  local counted, allowed, source = decide(self, place, key, cost or 1)
  if counted == nil then return nil, allowed end
  if allowed and store.out.wait == 0 and cost ~= 0 then
    place.allowed = place.allowed + 1
    return true
  end
  return decision.new(self, place, counted, cost or 1, allowed, source)
end

-- What the core tells by, if it knows all of these forms and there is one limit that is counted here.
local function bits_of(self, forms)
  local bits = 0
  for _, form in ipairs(forms) do
    if not self.core or not abi.limit_forms[form] then return nil end
    bits = bit.bor(bits, abi.limit_forms[form])
  end
  return bits
end

function Limiter:tells(forms)
  self.bits = bits_of(self, forms)
  return decision.tells(self, forms)
end

--- admit(key, cost, name) -> as pass; and clients are told what is left in the forms of tells.
function Limiter:admit(key, cost, name)
  if self.bits and self.core and type(key) ~= "table" then return pass_alone(self, decision.place(self, name), key, cost, self.bits) end
  return decision.take_and_tell(self, key, cost, name)
end

--- settle(decision, actual): what it has cost in the end; the rest is charged, or given back.
function Limiter:settle(made, actual)
  if type(actual) ~= "number" or not (actual >= 0 and actual < huge) then misuse "what it has cost is a number of at least 0" end
  local more = actual - (made.allowed and made.cost or 0)
  if more == 0 then return end
  made.cost = made.cost + more
  if self.shared then return self.shared:settle(made.place, made.key, more, made.source) end
  local many = type(made.key) == "table"
  for i, one in ipairs(self.limits) do
    store.add(self.dict.id, one, made.place.scopes[i], many and made.key[i] or made.key, more)
  end
end

local function check_shared(options)
  local name = options.store and options.store:match "^redis:(.+)$"
  if options.store and options.store ~= "local" and not name then misuse '`store` is "local" or "redis:NAME"' end
  for _, field in ipairs { "mode", "on_down", "timeout", "nodes" } do
    if options[field] ~= nil and not name then misuse(('`%s` is for a store in Redis: store = "redis:NAME"'):format(field)) end
  end
  return name
end

--- new{ name, limits = { { algorithm?, rate, per?, burst?, delay? } ... } or these fields themselves, store = "local"|"redis:NAME",
-- mode = "exact"|"lease", on_down = "local"|"deny"|"allow", timeout = 0.05, nodes?, count_denied?, dict? } -> limiter. In `setup`.
-- algorithm: "sliding" (the default), "fixed", "log", "gcra", "leaky", "concurrency". What was counted survives a reload, also of another rate.
function limit.new(options, algorithm)
  if started then misuse "a limiter is made in `setup`, or at the top of a file, and used by all requests" end
  check_fields(options)
  local name = check_shared(options)
  local self = setmetatable({
    name = check_name(options.name), limits = compile_all(options, algorithm), places = {}, count_denied = options.count_denied or false,
    dict = dict.open(options.dict or "rate-limit"),
  }, Limiter)
  limit.all[#limit.all + 1] = self
  for _, one in ipairs(self.limits) do
    if one.algorithm == "concurrency" then return places.open(self, options, name) end
  end
  self.dict_id, self.charge = self.dict.id, self.count_denied and 1 or 0
  if name then
    self.shared = shared.new(self, name, options)
  elseif #self.limits == 1 and not abi.offline then
    self.core = self.limits[1].core
  end
  return self
end

--- sliding{...}, fixed{...}, log{...}, gcra{...}, leaky{...}: new{...} with this algorithm; window is fixed
for algorithm in pairs(kinds) do
  limit[algorithm] = function(options) return limit.new(options, algorithm) end
end
limit.window = limit.fixed

--- concurrency{ name, rate, store?, ... } -> limiter: at most `rate` at once. take(key) holds a place until release(decision), at the latest until
-- the exchange or the task ends.
function limit.concurrency(options) return limit.new(options, "concurrency") end

--- what plugins see
limit.public = { new = limit.new, window = limit.window, concurrency = limit.concurrency, status = status.of, told = edits.told() }
for algorithm in pairs(kinds) do limit.public[algorithm] = limit[algorithm] end

-- ---------------------------------------------------------------- for the runtime

limit.Limiter, limit.take_and_tell = Limiter, decision.take_and_tell -- of all but those of concurrency

--- names() -> those of all limits that have one, in their order
function limit.names()
  local names, seen = {}, {}
  for _, limiter in ipairs(limit.all) do
    for name in pairs(limiter.places) do
      if type(name) == "string" and not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
  end
  table.sort(names)
  return names
end

--- status(name): see tidegate.limit_status
limit.status = status.of

--- flush(): what was decided since the last time, into the metrics
function limit.flush() status.flush(limit.all) end

local function keep_flushing()
  while true do
    task.sleep(FLUSH_EVERY)
    limit.flush()
  end
end

--- start(): called when the generation is current.
function limit.start()
  started = true
  if #limit.all == 0 or abi.in_shadow then return end
  status.start()
  task.start(abi.TASK_SERVICE, keep_flushing)
  shared.start()
end

return limit
