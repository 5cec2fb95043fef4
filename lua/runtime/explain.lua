--- explain: what became of one request, told to whoever has signed for it: in a field of the answer. Set up by the word `explain`; without it
-- nothing of this is loaded into the way of a request.
-- It sees what spans see: the functions of tidegate/trace are wrapped, for the exchanges that are explained.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local exchange = require "runtime.exchange"
local json = require "tidegate.json"
local limit = require "tidegate.limit"
local near = require "runtime.near"
local records = require "tidegate.records"
local response = require "tidegate.response"
local constant_edits = require "runtime.constant_edits"
local trace = require "tidegate.trace"

local C, vm, to_string = abi.C, abi.vm, abi.string
local REQUEST, RESPONSE = abi.REQUEST, abi.RESPONSE

local explain = {}
local FIELD = "X-Tidegate-Explain"
local MAX_AGE, AHEAD = 60, 5 -- seconds that a signature is valid; that the clock of who signs may be ahead
local TEXT_MAX, STEPS_MAX, LIST_MAX, VALUE_MAX = 4096, 64, 8, 64 -- bytes of the field; steps; entries of other lists; bytes of a value in them
local UPSTREAM = 1 -- TG_SOURCE_UPSTREAM
local live = {} -- slot -> record of the exchange that is explained there
local secret

local function record_of(x) return records.of(live, x) end
local function current() return records.current(live) end

local function milliseconds(seconds) return math.floor(seconds * 1e5 + 0.5) / 100 end

-- ---------------------------------------------------------------- who may ask

--- is_signed(value, secret, now) -> whether it is "<unix time>.<HMAC-SHA-256 of it, in hexadecimal>", of now
function explain.is_signed(value, key, now)
  local at, digits = value:match "^(%d+)%.(%x+)$"
  if not at or #at > 12 or tonumber(at) < now - MAX_AGE or tonumber(at) > now + AHEAD then return false end
  return crypto.equal(crypto.hex(crypto.hmac("sha256", key, at)), digits:lower())
end

-- The field goes no further, whoever has sent it.
local function begin()
  local x = vm.exchange
  if C.tg_abi_field_get(x, REQUEST, FIELD, #FIELD) ~= 0 then return end
  local value = to_string(vm.out.p, vm.out.n)
  C.tg_abi_field_remove(x, REQUEST, FIELD, #FIELD)
  if not explain.is_signed(value, secret:reveal(), vm.now) then return end
  live[x.slot] = { serial = x.serial, steps = {}, attempts = {}, limits = {}, near = nil, open = nil }
  x.wants = bit.bor(x.wants, abi.WANT_RESPONSE)
end

-- ---------------------------------------------------------------- what is seen

local function watch_plugins()
  local enter, leave = trace.enter, trace.leave
  function trace.enter(label, phase)
    local frame, record = enter(label, phase), current()
    if not record then return frame end
    local step = { plugin = label, phase = phase, began = C.tg_abi_clock(), frame = frame, up = record.open, record = record, explained = true }
    record.open = step
    if #record.steps < STEPS_MAX then record.steps[#record.steps + 1] = step end
    return step
  end
  function trace.leave(step, r)
    if not step.explained then return leave(step, r) end
    if step.frame then leave(step.frame, r) end
    step.took, step.verdict = C.tg_abi_clock() - step.began, step.verdict or response.verdict(r)
    step.record.open = step.up
  end
  function trace.raised(value)
    local record = current()
    local step = record and record.open
    while step do -- what raised has not left, nor has what it is in
      step.took, step.verdict = C.tg_abi_clock() - step.began, step.verdict or (response.is(value) and value.status or "raised")
      step = step.up
    end
    if record then record.open = nil end
  end
  function trace.note(verdict)
    local record = current()
    if record and record.open then record.open.verdict = verdict end
  end
end

local function end_attempt(x, record)
  local last = record.attempts[#record.attempts]
  if not last or last.result then return end
  if x.answered ~= 0 or x.source == UPSTREAM then
    last.result = tonumber(x.status)
  else
    last.result = abi.code(tonumber(x.error))
  end
end

local function watch_attempts()
  local attempt, failed, answered, want = trace.attempt, trace.failed, trace.answered, trace.want
  function trace.attempt(x, up, peer)
    attempt(x, up, peer)
    local record = record_of(x)
    if record and #record.attempts < LIST_MAX then record.attempts[#record.attempts + 1] = { upstream = up.name, peer = peer.name } end
  end
  function trace.failed(x)
    failed(x)
    local record = record_of(x)
    if record then end_attempt(x, record) end
  end
  function trace.answered(x)
    answered(x)
    local record = record_of(x)
    if record then end_attempt(x, record) end
  end
  function trace.want(x)
    want(x)
    if record_of(x) then x.wants = bit.bor(x.wants, abi.WANT_RESPONSE) end
  end
end

local function watch_limits()
  local take = limit.Limiter.take
  function limit.Limiter:take(key, cost, name)
    local decision, err = take(self, key, cost, name)
    local record = current()
    if record and decision and #record.limits < LIST_MAX then
      record.limits[#record.limits + 1] = { name = decision.place.name, allowed = decision.allowed, limit = decision.limit, left = decision.remaining,
        source = decision.source }
    end
    return decision, err
  end
  function limit.Limiter:pass(key, cost, name) return self:take(key, cost, name) end
  limit.Limiter.admit = limit.take_and_tell
end

local function shorten(value) return value and tostring(value):sub(1, VALUE_MAX) end

-- The routes that were nearly it, by what the router was asked.
local function watch_router(r, confs)
  local find = r.find
  function r.find(self, x, request)
    local record = current()
    if record then
      record.near = {}
      local host, path = to_string(x.host.p, x.host.n), to_string(x.path.p, x.path.n)
      for _, entry in ipairs(near.routes(confs, exchange.method(x), host, path, request)) do
        local miss = entry.misses[1]
        if #record.near < LIST_MAX then
          record.near[#record.near + 1] = { route = entry.conf.name, lacks = miss and miss.what, found = miss and shorten(miss.found),
            wanted = miss and shorten(miss.wanted) }
        end
      end
    end
    return find(self, x, request)
  end
end

-- ---------------------------------------------------------------- what is said

local function fill(ctx, x, record)
  local steps, found = {}, {}
  for i, step in ipairs(record.steps) do
    steps[i] = { step.plugin, step.phase, step.verdict or "not over", step.took and milliseconds(step.took) or json.null }
  end
  local route = ctx.route
  for _, entry in ipairs(record.near or {}) do
    if not (route and entry.route == route.name and not entry.lacks) then found[#found + 1] = entry end
  end
  local consumer = ctx.consumer
  return {
    generation = exchange.generation, route = route and route.name or json.null, near = json.array(found), steps = json.array(steps),
    consumer = consumer and shorten(consumer.id) or nil, status = tonumber(x.status), source = ctx.res and ctx.res.source,
    attempts = json.array(record.attempts), limits = json.array(record.limits), ms = milliseconds(vm.now - x.started),
  }
end

-- A field has to be short: the last steps are left out until it is.
local function encode(said)
  local text = json.encode(said, { sorted = true }):gsub("[\128-\255]", "?")
  while #text > TEXT_MAX do
    said.left_out = (said.left_out or 0) + 1
    if said.steps[1] then said.steps[#said.steps] = nil else said.near = nil end
    text = json.encode(said, { sorted = true }):gsub("[\128-\255]", "?")
  end
  return text
end

local function tell(ctx)
  local x = vm.exchange
  local record = record_of(x)
  if not record then return end
  live[x.slot] = nil
  local text = encode(fill(ctx, x, record))
  C.tg_abi_field_set(x, RESPONSE, FIELD, #FIELD, text, #text)
end

-- ---------------------------------------------------------------- once a generation

--- use(conf) -> a use that comes before all others, and so sees the response last. Before any chain is built.
function explain.use(conf)
  secret, trace.on, constant_edits.whole = conf.secret, true, true
  watch_plugins()
  watch_attempts()
  watch_limits()
  return { at = conf.at, path = { "explain" }, conf = {}, on_error = "deny", name = "explain", built_in = { rewrite = begin, response = tell } }
end

--- start(routers, confs): by listener; the routes that each has
function explain.start(routers, confs)
  for i, r in pairs(routers) do
    if not r.is_admin then watch_router(r, confs[i]) end
  end
end

return explain
