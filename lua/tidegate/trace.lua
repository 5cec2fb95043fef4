--- trace: spans of the exchanges that are recorded, tg.span, and which trace goes to whom. Set up by the plugin `tracing`.
-- An exchange that is not recorded has no table here: its trace is the field traceparent of its request, and nothing more.
local abi = require "abi"
local context = require "tidegate.trace_context"
local records = require "tidegate.records"

local C, vm, to_string = abi.C, abi.vm, abi.string
local REQUEST, RESPONSE = abi.REQUEST, abi.RESPONSE
local band, bor = bit.band, bit.bor
local SERVER, CLIENT, INTERNAL = 2, 3, 1 -- SpanKind of OTLP
local SPANS_MAX, TEXT_MAX = 128, 1024 -- of an exchange; bytes of a value

local trace = {
  on = false, -- whether any use records: whoever asks nothing else pays one comparison
  live = false, -- whether requests are told of to whoever asks at the command line
  context = context, SERVER = SERVER, CLIENT = CLIENT, INTERNAL = INTERNAL,
}
local live = {} -- slot -> record of the exchange that is recorded there
local copied = {} -- fields beside those of W3C that tracers write: calls of exchanges that are not recorded carry them on

-- The record of the running exchange, nil when it is not recorded.
local function record_of(x) return records.of(live, x) end
local function current() return records.current(live) end

-- ---------------------------------------------------------------- spans

local Span = { __name = "span" }
Span.__index = Span

--- span:set(key, value): an attribute: text, number or boolean; anything else is written as its text.
function Span:set(key, value)
  if value == nil then return end
  local list = self.attributes
  list[#list + 1] = key
  local kind = type(value)
  if kind ~= "number" and kind ~= "boolean" then value = tostring(value) end
  list[#list + 1] = type(value) == "string" and value:sub(1, TEXT_MAX) or value
end

--- span:fail(kind, message?)
function Span:fail(kind, message)
  self:set("error.type", kind)
  self.failed, self.message = true, message and tostring(message):sub(1, TEXT_MAX)
end

local function new_span(record, kind, name, parent, id)
  return setmetatable({
    trace = record.trace, id = id or context.new_id(16), parent = parent, name = name, kind = kind, start = vm.now, stop = nil,
    attributes = {}, failed = false, message = nil, record = record, state = record.state,
  }, Span)
end

-- It is kept when it has ended. Wall clocks go backwards at times, spans do not.
local function close(span, stop)
  if span.stop then return end
  local record = span.record
  span.stop = math.max(stop or vm.now, span.start)
  span.record = nil
  if record.n >= SPANS_MAX then
    record.lost = record.lost + 1
    return
  end
  record.n = record.n + 1
  record.spans[record.n] = span
end

-- A plugin's phase, as a span that may not be needed: it is when it waits, or when something within it is one.
local function id_of_frame(frame)
  if not frame.id then frame.id = context.new_id(16) end
  return frame.id
end

local function parent_of(record)
  local scope = record.scopes[vm.coroutine]
  if scope and scope.serial == vm.coroutine_serial then return scope.id end
  return record.frame and id_of_frame(record.frame) or record.root.id
end

local function close_frame(record, frame)
  record.frame = frame.up
  if vm.resumes == frame.resumes and not frame.id then return end
  local up = frame.up
  local span = new_span(record, INTERNAL, frame.label, up and id_of_frame(up) or record.root.id, frame.id)
  span.start = frame.start
  span:set("tidegate.phase", frame.phase)
  close(span)
end

--- enter(label, phase) -> frame | nil; leave(frame): around each phase of each plugin.
function trace.enter(label, phase)
  local record = current()
  if not record then return nil end
  local frame = { label = label, phase = phase, start = vm.now, resumes = vm.resumes, up = record.frame, record = record }
  record.frame = frame
  return frame
end

-- What raised has not left: frames within this one end with it.
function trace.leave(frame)
  local record = frame.record
  if record.done then return end
  while record.frame and record.frame ~= frame do close_frame(record, record.frame) end
  if record.frame then close_frame(record, frame) end
end

--- note(verdict), raised(value): of the phase that runs; and of all that run, which end with it. For who explains an exchange.
function trace.note() end
function trace.raised() end

-- ---------------------------------------------------------------- tg.span

local function begin_scope(record, name)
  local span = new_span(record, INTERNAL, name, parent_of(record))
  local before = record.scopes[vm.coroutine]
  record.scopes[vm.coroutine] = { id = span.id, serial = vm.coroutine_serial, span = span }
  return span, before
end

local function end_scope(span, before, ok, ...)
  local record = span.record
  if record then
    record.scopes[vm.coroutine] = before
    if not ok then span:fail("error", (...)) end
    if not record.done then close(span) end
  end
  if not ok then error((...), 0) end
  return ...
end

--- span(name, f, ...) -> what f returns: f runs in a span of this name. span.set(key, value): an attribute of the innermost one.
local function run_in_span(_, name, f, ...)
  if type(name) ~= "string" or type(f) ~= "function" then error("span needs a name and a function", 2) end
  local record = trace.on and current()
  if not record then return f(...) end
  local span, before = begin_scope(record, name)
  return end_scope(span, before, pcall(f, ...))
end

local function set(key, value)
  if type(key) ~= "string" then error("span.set needs a name", 2) end
  local record = trace.on and current()
  if not record then return end
  local scope = record.scopes[vm.coroutine]
  local span = scope and scope.serial == vm.coroutine_serial and scope.span or record.root
  span:set(key, value)
end

trace.span = setmetatable({}, { __index = { set = set }, __newindex = function() error("tg.span is frozen", 2) end, __call = run_in_span,
  __metatable = false })

--- scope() -> what a task that begins now belongs to | nil; adopt(scope): in that task.
function trace.scope()
  local record = current()
  return record and (record.scopes[vm.coroutine] or record.frame) and { id = parent_of(record) } or nil
end

function trace.adopt(scope)
  local record = current()
  if record then record.scopes[vm.coroutine] = { id = scope.id, serial = vm.coroutine_serial, span = record.root } end
end

-- ---------------------------------------------------------------- which trace goes to whom

local function set_field(x, name, value)
  if value then
    C.tg_abi_field_set(x, REQUEST, name, #name, value, #value)
  else
    C.tg_abi_field_remove(x, REQUEST, name, #name)
  end
end

local outgoing = { trace = nil, span = nil, sampled = nil, debug = nil, state = nil } -- one is enough: it is written at once

local function context_from(record, id)
  outgoing.trace, outgoing.span, outgoing.sampled, outgoing.debug, outgoing.state = record.trace, id, true, record.debug, record.state
  return outgoing
end

-- The fields of the request that goes upstream, from the span `id`.
local function inject(x, record, id)
  context.write(record.tracer.inject, context_from(record, id), function(name, value) set_field(x, name, value) end)
end

local function get_field(x, side, name)
  if C.tg_abi_field_get(x, side, name, #name) ~= 0 then return nil end
  return (to_string(vm.out.p, vm.out.n))
end

local function lines_of(span)
  local text = ""
  context.write(span.record.tracer.inject, context_from(span.record, span.id), function(name, value)
    if value then text = text .. "\r\n" .. name .. ": " .. value end
  end)
  return text
end

--- lines(span?) -> fields for the head of a call, each behind a CRLF: those of the span, or what the running exchange came with.
function trace.lines(span)
  if span then return lines_of(span) end
  local x, text = vm.exchange, ""
  if x == nil or C.tg_abi_field_get(x, REQUEST, "traceparent", 11) ~= 0 then return trace.on and x ~= nil and trace.copies(x) or "" end
  if C.tg_abi_trace_read(vm.out.p, vm.out.n) >= 0 then
    text = "\r\ntraceparent: " .. to_string(vm.out.p, vm.out.n)
    local state = get_field(x, REQUEST, "tracestate")
    if state then text = text .. "\r\ntracestate: " .. state end
  end
  return trace.on and text .. trace.copies(x) or text
end

function trace.copies(x)
  local text = ""
  for i = 1, #copied do
    local value = get_field(x, REQUEST, copied[i])
    if value then text = text .. "\r\n" .. copied[i] .. ": " .. value end
  end
  return text
end

--- copies_of(names): calls of exchanges that are not recorded carry on the fields of these formats, too.
function trace.copies_of(names)
  for _, field in ipairs(context.fields(names)) do
    if field ~= "traceparent" and field ~= "tracestate" then copied[#copied + 1] = field end
  end
end

--- ids(x) -> trace, span, whether it is recorded | nil
function trace.ids(x)
  local record = trace.on and record_of(x)
  if record then return record.trace, record.root.id, true end
  if C.tg_abi_field_get(x, REQUEST, "traceparent", 11) ~= 0 or C.tg_abi_trace_read(vm.out.p, vm.out.n) < 0 then return nil end
  local text = to_string(vm.out.p, vm.out.n)
  return text:sub(4, 35), text:sub(37, 52), false
end

-- ---------------------------------------------------------------- an exchange

--- want(x): what is recorded is also to be seen when its response is there, and when it is over.
function trace.want(x)
  if record_of(x) then x.wants = bor(x.wants, bor(abi.WANT_RESPONSE, abi.WANT_LOG)) end
end

--- open(x, tracer, incoming, id): it is recorded from now on. incoming: its context; nil: it begins the trace `id`.
function trace.open(x, tracer, incoming, id)
  local record = {
    serial = x.serial, tracer = tracer, trace = incoming and incoming.trace or id,
    state = incoming and incoming.state, debug = incoming and incoming.debug, spans = {}, n = 0, lost = 0,
    frame = nil, scopes = {}, attempt = nil, done = false, root = nil,
  }
  record.root = new_span(record, SERVER, "", incoming and incoming.span)
  record.root.start, record.root.remote = x.started, incoming ~= nil
  live[x.slot] = record
  C.tg_abi_set_recorded(x, record.trace, record.root.id)
  inject(x, record, record.root.id)
  trace.want(x)
end

trace.record_of = record_of

local function fail_by_status(span, status, from)
  if status >= from then span:fail(tostring(status)) end
end

--- attempt(x, up, peer): a request goes upstream. peer: { address, port, name }
function trace.attempt(x, up, peer)
  local record = record_of(x)
  if not record then return end
  local method = to_string(x.method.p, x.method.n)
  local span = new_span(record, CLIENT, method, parent_of(record))
  span:set("http.request.method", method)
  span:set("server.address", peer.address)
  span:set("server.port", peer.port)
  span:set("url.full", (up.defaults.scheme or "http") .. "://" .. peer.host_name .. to_string(x.raw_path.p, x.raw_path.n))
  span:set("tidegate.upstream", up.name)
  if x.attempt > 0 then span:set("http.request.resend_count", tonumber(x.attempt)) end
  record.attempt = span
  inject(x, record, span.id)
end

--- failed(x): the attempt has come to nothing, and another one may follow.
function trace.failed(x)
  local record = record_of(x)
  local span = record and record.attempt
  if not span then return end
  record.attempt = nil
  if x.answered ~= 0 then
    span:set("http.response.status_code", tonumber(x.status))
    fail_by_status(span, x.status, 400)
  else
    span:fail(abi.code(tonumber(x.error)))
  end
  close(span)
end

--- answered(x): the head of the response is there, and nobody has changed it yet.
function trace.answered(x)
  local record = record_of(x)
  if not record then return end
  local name = record.tracer.response_header
  if name then C.tg_abi_field_set(x, RESPONSE, name, #name, record.trace, #record.trace) end
  local span = record.attempt
  if not span then return end
  if x.source == 1 then
    span:set("http.response.status_code", tonumber(x.status))
    fail_by_status(span, x.status, 400)
    if x.upstream_time >= 0 then span:set("tidegate.upstream_time", tonumber(x.upstream_time)) end
  elseif not span.failed then
    span:fail(x.error ~= 0 and abi.code(tonumber(x.error)) or "replaced")
  end
end

--- take(x) -> list of the spans of an exchange that is over, the server's first, how many did not fit | nil: it was not recorded
function trace.take(x)
  local record = record_of(x)
  if not record then return nil end
  live[x.slot] = nil
  while record.frame do close_frame(record, record.frame) end
  local over = x.started + x.duration
  if record.attempt then
    if x.aborted ~= 0 and not record.attempt.failed then record.attempt:fail "aborted" end
    close(record.attempt, over)
  end
  record.done = true
  local root = record.root
  root.stop, root.record = math.max(over, root.start), nil
  table.insert(record.spans, 1, root)
  return record.spans, record.lost
end

--- lone(x) -> the server's span of an exchange that was not recorded, made of what is known when it is over
function trace.lone(x, names)
  local id, span = trace.ids(x)
  local function get(name) return get_field(x, abi.ORIGINAL, name) end
  local incoming = context.read(names, get, get)
  local own = not (incoming and incoming.span == span)
  local record = { trace = id or context.new_id(32), state = incoming and incoming.state }
  local root = new_span(record, SERVER, "", incoming and incoming.span, own and span or nil)
  root.start, root.record, root.remote = x.started, nil, incoming ~= nil
  root.stop = math.max(x.started + x.duration, x.started)
  return root
end

-- ---------------------------------------------------------------- calls

--- client(name) -> a span of a call of the running exchange | nil; done(span, status?, err?)
function trace.client(name)
  local record = current()
  return record and new_span(record, CLIENT, name, parent_of(record)) or nil
end

function trace.done(span, status, err)
  if not span.record or span.record.done then return end
  if status and status > 0 then
    span:set("http.response.status_code", status)
    fail_by_status(span, status, 400)
  end
  if err and not span.failed then span:fail(err.code or "error", err.message) end
  close(span)
end

trace.get_field, trace.set_field, trace.band = get_field, set_field, band
return trace
