--- live_trace: what happens to some of the next requests, for `tidegate trace`. Loaded when somebody asks; until then nothing of it is there.
-- It sees what spans see: while somebody asks, the functions of tidegate/trace are wrapped, a rewrite phase comes before all others, and
-- chains measure each call.
local abi = require "abi"
local chain = require "runtime.chain"
local core_steps = require "runtime.core_steps"
local exchange = require "runtime.exchange"
local json = require "tidegate.json"
local records = require "tidegate.records"
local response = require "tidegate.response"
local task = require "tidegate.task"
local trace = require "tidegate.trace"

local C, vm, to_string = abi.C, abi.vm, abi.string
local live_trace = {}
local EVERY = 0.1 -- seconds between two looks at whether it is still asked for
local EVENTS_MAX, LIVE_MAX, TELL_MAX, VALUE_MAX = 256, 64, 512 * 1024, 1024 -- of a request; requests at once; bytes; bytes of a value
local UPSTREAM = 1 -- TG_SOURCE_UPSTREAM
local WRAPPED = { "enter", "leave", "note", "raised", "attempt", "failed", "answered", "want", "client", "done", "lines" }
local live, count = {}, 0 -- slot -> record
local asked -- { serial, route, status, path, left }
local kept -- what was in place before
local told = {} -- lines

local function record_of(x) return records.of(live, x) end
local function current() return records.current(live) end

-- Seconds since the request came.
local function now_of(record)
  return math.max(0, C.tg_abi_clock() - record.zero)
end

local function shorten(value) return value and tostring(value):sub(1, VALUE_MAX) end

-- Events within another one know its place in the list.
local function add_event(record, event)
  if #record.events >= EVENTS_MAX then
    record.lost = record.lost + 1
    return event
  end
  event.at, event.within = now_of(record), record.open and record.open.event.place or nil
  record.events[#record.events + 1] = event
  event.place = #record.events
  return event
end

-- ---------------------------------------------------------------- an exchange

local function fits(x)
  if asked.route and asked.route ~= live_trace.serve.route_name(x) then return false end
  return not asked.status or tostring(tonumber(x.status)):sub(1, #asked.status) == asked.status
end

local function close_attempt(record, over)
  local attempt = record.attempt
  if not attempt then return end
  attempt.took, record.attempt = math.max(0, (over or now_of(record)) - (attempt.at or 0)), nil
end

local function text_of(slice) return slice.n > 0 and to_string(slice.p, math.min(tonumber(slice.n), VALUE_MAX)) or nil end

local function said_of(record, x)
  local ctx = record.ctx
  local consumer = ctx.consumer
  return {
    at = x.started, worker = tonumber(vm.worker), method = text_of(x.method), host = text_of(x.host), path = text_of(x.raw_path) or record.path,
    id = text_of(x.id), trace = record.trace or trace.ids(x), generation = exchange.generation, route = live_trace.serve.route_name(x),
    consumer = consumer and shorten(consumer.id), status = tonumber(x.status), source = ctx.res and ctx.res.source,
    error = x.error ~= 0 and abi.code(tonumber(x.error)) or nil, aborted = x.aborted ~= 0, bytes_in = tonumber(x.bytes_in),
    bytes_out = tonumber(x.bytes_out), duration = x.duration, events = json.array(record.events), left_out = record.lost > 0 and record.lost or nil,
  }
end

local function over(record)
  local x = vm.exchange
  if live[x.slot] ~= record then return end
  live[x.slot], count = nil, count - 1
  if not asked or asked.left <= 0 or not fits(x) then return end
  asked.left = asked.left - 1
  close_attempt(record, x.duration)
  for _, event in ipairs(record.events) do
    if not event.took then event.unfinished = true end
    event.place = nil
  end
  told[#told + 1] = json.encode(said_of(record, x), { sorted = true })
end

-- Those that are told by what is known at the end only cannot be chosen now.
local function may_begin(x)
  local most = (asked.route or asked.status) and LIVE_MAX or math.min(asked.left, LIVE_MAX)
  return count < most and asked.left > 0 and (not asked.path or to_string(x.raw_path.p, x.raw_path.n):find(asked.path, 1, true) ~= nil)
end

local function begin(ctx)
  local x = vm.exchange
  if not asked or not may_begin(x) then return end
  local record = {
    serial = x.serial, x = x, ctx = ctx, events = {}, lost = 0, open = nil, attempt = nil, trace = nil,
    zero = C.tg_abi_clock() - math.max(0, vm.now - x.started), path = text_of(x.raw_path),
  }
  if not live[x.slot] then count = count + 1 end
  live[x.slot] = record
  task.defer_to_exchange { f = function() over(record) end }
  for _, label in ipairs(core_steps.opened) do -- before Lua was entered
    add_event(record, { kind = "plugin", plugin = label, phase = "rewrite", took = 0, verdict = response.verdict() })
  end
end

-- ---------------------------------------------------------------- what is seen

local function close_step(step, verdict)
  local event = step.event
  event.took, event.verdict = math.max(0, now_of(step.record) - (event.at or 0)), event.verdict or verdict
  event.waited = step.resumes ~= vm.resumes or nil
  step.record.open = step.up
end

local function watch_plugins()
  function trace.enter(label, phase)
    local frame, record = kept.enter(label, phase), current()
    if not record then return frame end
    local step = { is_live = true, frame = frame, up = record.open, record = record, resumes = vm.resumes,
      event = add_event(record, { kind = "plugin", plugin = label, phase = phase }) }
    record.open = step
    return step
  end
  function trace.leave(step, r)
    if not step.is_live then return kept.leave(step, r) end
    if step.frame then kept.leave(step.frame, r) end
    local record = step.record
    while record.open and record.open ~= step do close_step(record.open, "raised") end -- what raised has not left
    if record.open then close_step(step, response.verdict(r)) end
  end
  function trace.note(verdict)
    kept.note(verdict)
    local record = current()
    if record and record.open then record.open.event.verdict = verdict end
  end
  function trace.raised(value)
    kept.raised(value)
    local record = current()
    while record and record.open do close_step(record.open, response.is(value) and value.status or "raised") end
  end
end

local function connected(x, attempt)
  if x.connect_time >= 0 then attempt.connect = x.connect_time end -- else there is no connection yet
end

local function watch_attempts()
  function trace.attempt(x, up, peer)
    kept.attempt(x, up, peer)
    local record = record_of(x)
    if not record then return end
    close_attempt(record)
    record.trace = trace.ids(x) or record.trace
    record.attempt = add_event(record, { kind = "attempt", upstream = up.name, peer = peer.name })
  end
  function trace.failed(x)
    kept.failed(x)
    local record = record_of(x)
    local attempt = record and record.attempt
    if not attempt then return end
    connected(x, attempt)
    if x.answered ~= 0 then attempt.status = tonumber(x.status) else attempt.error = abi.code(tonumber(x.error)) end
    close_attempt(record)
  end
  function trace.answered(x)
    kept.answered(x)
    local record = record_of(x)
    if not record then return end
    record.trace = trace.ids(x) or record.trace
    local attempt = record.attempt
    if not attempt then return end
    connected(x, attempt)
    if x.source == UPSTREAM then
      attempt.status, attempt.first_byte = tonumber(x.status), now_of(record) - (attempt.at or 0)
    else
      attempt.error = x.error ~= 0 and abi.code(tonumber(x.error)) or "replaced"
      close_attempt(record)
    end
  end
  function trace.want(x)
    kept.want(x)
    if record_of(x) then x.wants = bit.bor(x.wants, bit.bor(abi.WANT_RESPONSE, abi.WANT_LOG)) end
  end
end

-- In place of a span: it is one when the exchange is recorded for a tracer, too.
local Call = {}
Call.__index = Call
local shown = { ["url.full"] = "url", ["tidegate.upstream"] = "upstream", ["tidegate.redis"] = "redis", ["http.request.resend_count"] = "again" }

function Call:set(key, value)
  if self.inner then self.inner:set(key, value) end
  local name = shown[key]
  if not name then return end
  self.event[name] = type(value) == "string" and shorten(value) or value
  if name == "redis" then self.event.kind = "redis" end
end

function Call:fail(kind, message)
  if self.inner then self.inner:fail(kind, message) end
  self.event.error = shorten(kind)
end

local function watch_calls()
  function trace.client(name)
    local inner, record = kept.client(name), current()
    if not record then return inner end
    return setmetatable({ is_live = true, inner = inner, opened = record, event = add_event(record, { kind = "fetch", name = name }) }, Call)
  end
  function trace.done(call, status, err)
    if not call.is_live then return kept.done(call, status, err) end
    if call.inner then kept.done(call.inner, status, err) end
    local event = call.event
    if event.took then return end
    event.took = math.max(0, now_of(call.opened) - (event.at or 0))
    if status and status > 0 then event.status = status end
    if err then event.error = event.error or shorten(err.code or "error") end
  end
  function trace.lines(call)
    if call and call.is_live then call = call.inner end
    return kept.lines(call)
  end
end

-- ---------------------------------------------------------------- as long as somebody asks

local function install(serve)
  if kept then return end
  kept = { on = trace.on, rewrite = serve.rewrite }
  for _, name in ipairs(WRAPPED) do kept[name] = trace[name] end
  watch_plugins()
  watch_attempts()
  watch_calls()
  trace.on, trace.live = true, true
  local rewrite = serve.rewrite
  function serve.rewrite(ctx)
    begin(ctx)
    return rewrite and rewrite(ctx)
  end
  chain.measure_all(true)
end

local function remove(serve)
  for _, name in ipairs(WRAPPED) do trace[name] = kept[name] end
  trace.on, trace.live, serve.rewrite = kept.on, false, kept.rewrite
  chain.measure_all(false)
  kept = nil
end

-- One that ended without a word does not keep the rest waiting.
local function forget_dead()
  for slot, record in pairs(live) do
    if record.x.serial ~= record.serial then live[slot], count = nil, count - 1 end
  end
end

local function tell(serve, serial)
  while told[1] do
    local list, size = {}, 0
    while told[1] and (size == 0 or size + #told[1] < TELL_MAX) do
      size = size + #told[1]
      list[#list + 1] = table.remove(told, 1) .. "\n"
    end
    serve.ask("worker", ("trace tell %d"):format(serial), table.concat(list)) -- nobody asks any more: then nobody misses it
  end
end

-- What is in work when it is over is seen to its end, but told to nobody.
local function watch(serve, serial)
  while asked and asked.serial == serial or count > 0 do
    if asked and asked.serial == serial then
      tell(serve, serial)
      if C.tg_abi_trace_asked() ~= serial then asked, told = nil, {} end
    end
    forget_dead()
    task.sleep(EVERY)
    if asked and asked.serial ~= serial then return end -- the next one goes on from here
  end
  if kept then remove(serve) end
end

--- start(serve): somebody may ask; begins when he does.
function live_trace.start(serve)
  local serial = tonumber(C.tg_abi_trace_asked())
  local question = serial ~= 0 and json.decode(abi.out())
  if not question or asked and asked.serial == serial then return end
  live_trace.serve = serve
  asked = { serial = serial, route = question.route, status = question.status, path = question.path, left = question.count }
  told = {}
  install(serve)
  task.start(abi.TASK_SERVICE, watch, serve, serial)
end

return live_trace
