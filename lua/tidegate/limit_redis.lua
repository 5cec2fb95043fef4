--- limit_redis: limits that all gateways share through a Redis; and what goes on while it is away.
-- While Redis answers, this gateway notes what its share of each limit would have used, so that it can go on with it at once. What it has let
-- through alone is a debt, charged in Redis when that is back, so that nobody gets the same twice.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local dict = require "tidegate.dict"
local failure = require "tidegate.failure"
local lease = require "tidegate.limit_lease"
local log = require "tidegate.log"
local number = require "tidegate.number"
local redis = require "tidegate.redis"
local script = require "tidegate.limit_script"
local store = require "tidegate.limit_local"
local task = require "tidegate.task"

local vm = abi.vm
local huge, max, min = math.huge, math.max, math.min
local misuse, out = failure.misuse, store.out
local PREFIX, TAG_MAX = "tidegate:{", 64 -- bytes of a key as it is; longer ones are hashed
local ALIVE_EVERY, WARN_EVERY = 2, 10 -- seconds
local DEBT_MIN, DEBT_MAX = 10, 86400 -- seconds for which debts are looked for
local MICRO = 1e6

local shared = { used = {} } -- used: name of a Redis -> db, whose gateways are to be counted
local Shared = { __name = "limits in redis" }
Shared.__index = Shared

local zero = "0"
local texts = { [0] = "0", [1] = "1" }
local function text_of(value) return texts[value] or number.text(value) end

-- ---------------------------------------------------------------- set-up

-- What a script is told of a limit: algorithm, rate, per, extra.
local function words_of(one, burst)
  local extra = one.delay and one.delay * MICRO or burst or one.burst or 0
  return { one.algorithm, number.text(one.rate), number.text(one.per * MICRO), number.text(extra) }
end

-- How long a debt may matter.
local function span_of(limits)
  local span = DEBT_MIN
  for _, one in ipairs(limits) do
    span = max(span, one.burst and 2 * one.burst / one.speed or one.delay and one.delay + one.per or 2 * one.per)
  end
  return min(span, DEBT_MAX)
end

local function check(options)
  local mode, on_down = options.mode or "exact", options.on_down or "local"
  if mode ~= "exact" and mode ~= "lease" then misuse '`mode` is "exact" or "lease"' end
  if on_down ~= "local" and on_down ~= "allow" and on_down ~= "deny" then misuse '`on_down` is "local", "allow" or "deny"' end
  if options.nodes ~= nil and (type(options.nodes) ~= "number" or options.nodes < 1) then misuse "`nodes` is a number of at least 1" end
  return mode, on_down
end

--- new(limiter, name, options): for a limiter whose limits are read
function shared.new(limiter, name, options)
  local mode, on_down = check(options)
  local db = redis.open(name)
  local self = setmetatable({
    name = name, client = db.client, db = db:with { timeout = options.timeout or 0.05 }, on_down = on_down, fixed_nodes = options.nodes,
    limits = limiter.limits, dict = limiter.dict, counters = dict.open "rate-limit",
    count_denied = limiter.count_denied, words = {}, span = span_of(limiter.limits), warned = -huge,
    nodes_key = "nodes\1" .. name,
  }, Shared)
  -- One for each span: it would end with the shortest of them.
  self.debt_flag = ("debts\1%s\1%g"):format(name, self.span)
  if mode == "lease" then lease.prepare(self) end
  for i, one in ipairs(self.limits) do self.words[i] = words_of(one, self.bursts and self.bursts[i]) end
  self.script, self.settle_script = self.db:script(script.take(self.limits)), self.db:script(script.settle(self.limits))
  if mode == "lease" then self.lease_script = self.db:script(script.lease(self.limits)) end
  shared.used[name] = self.db
  return self
end

-- ---------------------------------------------------------------- the share of this gateway

--- nodes() -> how many gateways share this Redis, as far as is known
function Shared:nodes()
  return self.fixed_nodes or self.counters:get(self.nodes_key) or 1
end

-- The limits as they are when each gateway has its share: at least 1, or nobody would be let through. A log becomes a window.
local function share_of(one, nodes)
  local share = {}
  for key, value in pairs(one) do share[key] = value end
  share.rate, share.speed = one.rate / nodes, one.speed / nodes
  if one.burst then share.burst = max(1, one.burst / nodes) elseif not one.delay then share.rate = max(1, share.rate) end
  if one.algorithm == "log" then share.algorithm = "sliding" end
  share.core = abi.limit(share)
  return share
end

function Shared:share()
  local nodes = self:nodes()
  if self.share_nodes ~= nodes then
    self.share_nodes, self.shares = nodes, {}
    for i, one in ipairs(self.limits) do self.shares[i] = share_of(one, nodes) end
  end
  return self.shares, nodes
end

local function own_key(key, i)
  return type(key) == "table" and key[i] or key
end

-- Notes what the share of this gateway would have used by what is used of the whole.
local function feed(self, place, key)
  local shares, nodes = self:share()
  for i, one in ipairs(self.limits) do
    local used = (one.burst or one.delay) and out.reset[i] * one.speed or one.rate - out.left[i]
    store.set(self.dict.id, shares[i], place.shares[i], own_key(key, i), used / nodes)
  end
end

-- ---------------------------------------------------------------- debts

local function add_debt(self, place, key, amounts, cost)
  local shares = self:share()
  for i in ipairs(self.limits) do
    local amount = amounts and amounts[i] or cost
    if amount and amount > 0 then store.add(self.dict.id, shares[i], place.debts[i], own_key(key, i), amount) end
  end
  self.dict:set(self.debt_flag, 1, self.span)
end

-- What is owed for this key, which from now on is nobody's but the caller's; nil: nothing.
local function take_debt(self, place, key)
  if not self.dict:get(self.debt_flag) then return nil end
  local shares, amounts, sum = self:share(), {}, 0
  for i in ipairs(self.limits) do
    amounts[i] = store.remove(self.dict.id, shares[i], place.debts[i], own_key(key, i))
    sum = sum + amounts[i]
  end
  return sum > 0 and amounts or nil
end

-- ---------------------------------------------------------------- Redis

local function id_of(key)
  if #key > TAG_MAX or key:find "[{}%c]" then return crypto.hex(crypto.sha256(key)):sub(1, 32) end
  return key
end

-- What is no list of so many numbers is not from our script.
local function check_reply(reply, count)
  if type(reply) ~= "table" or #reply ~= count then return false end
  for i = 1, count do
    reply[i] = tonumber(reply[i])
    if not reply[i] then return false end
  end
  return true
end

-- Runs a script for the limits of `indices` -> reply, `count` numbers | nil, err. first, second: its first words; last: of each limit;
-- ends: when it is too late.
local function run(self, call, place, key, indices, ends, count, first, second, last)
  local keys, args, n = {}, { first, second }, 2
  local many = type(key) == "table"
  local id = not many and id_of(key)
  for j, i in ipairs(indices) do
    local words = self.words[i]
    keys[j] = PREFIX .. (id or id_of(key[i])) .. place.keys[i]
    args[n + 1], args[n + 2], args[n + 3], args[n + 4], args[n + 5] = words[1], words[2], words[3], words[4], last and text_of(last[i]) or zero
    n = n + 5
  end
  local reply, err = call(keys, args, ends)
  if reply == nil and err then return nil, err end
  if count > 0 and not check_reply(reply, count) then
    return nil, failure.new("reply", ("redis %s: not what the script answers"):format(self.name), 503)
  end
  return reply
end
Shared.run = run

local function fill(reply, indices)
  local wait = 0
  for j, i in ipairs(indices) do
    local at = 1 + (j - 1) * 5
    out.ok[i], out.left[i], out.reset[i] = reply[at + 1] == 1, reply[at + 2], reply[at + 4] / MICRO
    out.retry[i] = reply[at + 3] < 0 and huge or reply[at + 3] / MICRO
    wait = max(wait, reply[at + 5] / MICRO)
  end
  out.wait = wait
end

local ones = {}
for n = 1, 8 do
  ones[n] = {}
  for i = 1, n do ones[n][i] = i end
end

-- In a cluster the keys of one call are in one slot: limits by different keys are asked for one after the other.
local function groups_of(self, key)
  if type(key) ~= "table" or not self.client.cluster then return nil end
  local groups, by_id = {}, {}
  for i in ipairs(self.limits) do
    local id = id_of(key[i])
    if not by_id[id] then
      by_id[id] = {}
      groups[#groups + 1] = by_id[id]
    end
    table.insert(by_id[id], i)
  end
  return #groups > 1 and groups or nil
end

local function take_groups(self, place, key, cost, groups, debts, ends)
  local charge = self.count_denied and "1" or zero
  local replies = {}
  for n, indices in ipairs(groups) do
    local reply, err = run(self, self.script, place, key, indices, ends, 1 + 5 * #indices, text_of(cost), charge, debts)
    if not reply then return nil, err end
    replies[n] = reply
    if reply[1] ~= 1 and not self.count_denied then
      for before = 1, n - 1 do run(self, self.settle_script, place, key, groups[before], ends, 0, text_of(-cost), zero) end
    end
    if reply[1] ~= 1 then break end
  end
  local allowed = #replies == #groups
  for i in ipairs(self.limits) do out.ok[i], out.left[i], out.retry[i], out.reset[i] = true, huge, 0, 0 end
  for n, reply in ipairs(replies) do
    fill(reply, groups[n])
    allowed = allowed and reply[1] == 1
  end
  if not (allowed or self.count_denied) then store.keep_left(#self.limits, cost) end
  return allowed
end

-- One decision in Redis -> allowed | nil, err
local function ask(self, place, key, cost, debts, ends)
  local groups = groups_of(self, key)
  if groups then return take_groups(self, place, key, cost, groups, debts, ends) end
  local indices = ones[#self.limits]
  local charge = self.count_denied and "1" or zero
  local reply, err = run(self, self.script, place, key, indices, ends, 1 + 5 * #indices, text_of(cost), charge, debts)
  if not reply then return nil, err end
  fill(reply, indices)
  local allowed = reply[1] == 1
  if not (allowed or self.count_denied) and #indices > 1 then store.keep_left(#indices, cost) end
  return allowed
end

-- ---------------------------------------------------------------- without Redis

local consequences = { ["local"] = "this gateway goes on with its share", allow = "all are let through", deny = "all are refused" }

function Shared:warn(place, err)
  place.fallen = place.fallen + 1
  if vm.monotonic < self.warned + WARN_EVERY then return end
  self.warned = vm.monotonic
  log.warn(("limit %s cannot be counted in redis: %s"):format(place.name, consequences[self.on_down]), { err = tostring(err) })
end

--- fall(place, key, cost, err) -> allowed, source: what is decided when Redis has no answer
function Shared:fall(place, key, cost, err)
  self:warn(place, err)
  if self.on_down == "local" then
    local shares = self:share()
    local allowed = store.take(self.dict.id, shares, place.shares, key, cost, self.count_denied)
    if allowed ~= nil then
      if allowed and cost > 0 then add_debt(self, place, key, nil, cost) end
      return allowed, "share"
    end
  end
  local allowed = self.on_down == "allow"
  for i, one in ipairs(self.limits) do
    out.ok[i], out.left[i], out.retry[i], out.reset[i] = allowed, allowed and one.capacity or 0, 1, 1
  end
  out.wait = 0
  return allowed, "down"
end

-- ---------------------------------------------------------------- what a limiter asks for

function Shared:deadline()
  return vm.monotonic + self.db.timeout / 1000
end

--- take(place, key, cost) -> allowed, source. What it was made of is in limit_local.out. However often Redis is asked, all of it takes no longer
-- than the timeout.
function Shared:take(place, key, cost)
  local ends = self:deadline()
  if self.lease_script and cost > 0 then return lease.take(self, place, key, cost, ends) end
  return self:exact(place, key, cost, ends)
end

function Shared:exact(place, key, cost, ends)
  local debts = take_debt(self, place, key)
  local allowed, err = ask(self, place, key, cost, debts, ends)
  if allowed == nil then
    if debts then add_debt(self, place, key, debts) end
    return self:fall(place, key, cost, err)
  end
  if self.on_down == "local" then feed(self, place, key) end
  return allowed, "redis"
end

--- settle(place, key, more, source): charges, or gives back. What Redis does not hear of is owed to it.
function Shared:settle(place, key, more, source)
  if source ~= "down" and source ~= "share" then
    local groups, reply = groups_of(self, key) or { ones[#self.limits] }, nil
    for _, indices in ipairs(groups) do reply = run(self, self.settle_script, place, key, indices, self:deadline(), 0, text_of(more), zero) end
    if reply then return end
  end
  local shares = self:share()
  for i in ipairs(self.limits) do store.add(self.dict.id, shares[i], place.shares[i], own_key(key, i), more) end
  if more > 0 then add_debt(self, place, key, nil, more) end
end

-- ---------------------------------------------------------------- how many gateways there are

local function count_gateways(name, db)
  local counters, id = dict.open "rate-limit", crypto.hex(crypto.random(16))
  local alive = db:script(script.alive)
  while true do
    if not counters:add("gateway", id) then id = counters:get "gateway" or id end -- of the one before; many keys may have driven it out
    local nodes = alive({ "tidegate:gateways" }, { id })
    if type(nodes) == "number" and nodes >= 1 then counters:set("nodes\1" .. name, nodes) end
    task.sleep(ALIVE_EVERY)
  end
end

--- start(): worker 0 tells each Redis that is used that this gateway is there, and hears how many there are.
function shared.start()
  if vm.worker ~= 0 then return end
  for name, db in pairs(shared.used) do task.start(abi.TASK_SERVICE, count_gateways, name, db) end
end

return shared
