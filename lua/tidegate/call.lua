--- call: one request of ours to a peer: its head, its attempts, its result. start and poll do not wait; run does.
local abi = require "abi"
local coding = require "tidegate.coding"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local query = require "tidegate.query"
local secret = require "tidegate.secret"
local stream = require "tidegate.stream"
local task = require "tidegate.task"
local trace = require "tidegate.trace"
local url = require "tidegate.url"

local C, vm, to_string, slice = abi.C, abi.vm, abi.string, abi.slice
local type, error, pairs, ipairs, pcall, setmetatable, rawget, rawset, tonumber, tostring =
  type, error, pairs, ipairs, pcall, setmetatable, rawget, rawset, tonumber, tostring
local misuse = failure.misuse
local floor, max, min, random = math.floor, math.max, math.min, math.random

local call = { exchange = nil } -- exchange() -> ctx of the running exchange; set by the runtime
local MAX_BODY = 8 * 1024 * 1024
local RETRY_PAUSE = 0.025 -- seconds before the first retry, doubled for each more; full jitter

-- ---------------------------------------------------------------- results

-- The codings to undo, nil for none; an unknown one is a failure.
local function codings_of(value)
  if not value then return nil end
  local list = coding.known(value)
  if list then return list[1] and list end
  return nil, failure.new("decode", ("a content coding that is not known: %q"):format(value))
end

local function plain(body, value)
  local codings, err = codings_of(value)
  if codings then return coding.decode(body, codings) end
  if err then return nil, err end
  return body
end

-- What an upstream sends is its fault, not the client's.
local function read_json(read, body, err)
  local value
  if body then value, err = read(body, MAX_BODY) end
  if value == nil and err then
    err.status = 502
    return nil, err
  end
  return value
end

local Result = {}
Result.__index = Result

--- result:text() -> string | nil, err: the body, its content codings undone; result.body has it as it came
function Result:text() return plain(self.body, self.headers["content-encoding"]) end

function Result:json() return read_json(json.read, self:text()) end

--- result:lazy() -> a document, as json.lazy makes it | nil, err
function Result:lazy() return read_json(json.lazy, self:text()) end

function Result:form()
  local body, err = self:text()
  if not body then return nil, err end
  return query.parse(body):map()
end

function Result:chunks()
  local rest = assert(self:text())
  return stream.input(function()
    local piece = rest
    rest = nil
    return piece ~= "" and piece or nil
  end)
end

--- result { status, headers, body } -> what a call would have given: for who keeps results
function call.result(fields)
  return setmetatable(fields, Result)
end

-- The result of a call with `stream = true`: its body is read while it comes.
local Streamed = { is_stream = true }
Streamed.__index = Streamed

local function read_piece(handle)
  task.take_turns()
  local rc = C.tg_abi_call_read(handle)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_call_read(handle)
  end
  if rc == 0 then return to_string(vm.out.p, vm.out.n) end
  if rc == abi.ENONE then return nil end
  error(failure.new(abi.code(rc), "the body of the result broke: " .. abi.code(rc)), 0)
end

--- result:chunks() -> iterator over pieces as they come; with lines, events, text as the body of a message has
function Streamed:chunks()
  if not self.input then
    local handle = self.call
    local function read() return read_piece(handle) end
    local codings, err = codings_of(self.headers["content-encoding"])
    if err then error(err, 0) end
    self.input = stream.input(codings and coding.readers(read, codings) or read)
  end
  return self.input
end
function Streamed:lines(most) return self:chunks():lines(most) end
function Streamed:events(most) return self:chunks():events(most) end
function Streamed:items(path, most) return self:chunks():items(path, most) end
function Streamed:text(most) return self:chunks():text(most or MAX_BODY) end
function Streamed:json(most) return read_json(json.read, self:text(most)) end

-- What `respond(status, result)` sends: the call goes on when the coroutine that began it has ended.
function Streamed:pass_on()
  local handle = self.call
  if C.tg_abi_call_hand_over(handle) ~= 0 then error("only one streamed result of this request can be passed on", 3) end
  return function(write)
    if C.tg_abi_call_take_over(handle) ~= 0 then error("the streamed result has ended", 0) end
    while true do
      local piece = read_piece(handle)
      if not piece then return end
      write(piece)
    end
  end
end

local Headers = {}
local repeated = setmetatable({}, { __mode = "k" }) -- headers -> name -> values of those that came more than once
function Headers.__index(self, name)
  return rawget(self, name:lower())
end
-- headers "name" -> list of all its values: Set-Cookie cannot be told apart again when it is joined.
function Headers.__call(self, name)
  local lists = repeated[self]
  return lists and lists[name:lower()] or { self[name] }
end
call.Headers = Headers

local function repeat_header(headers, name, before, value)
  local lists = repeated[headers] or {}
  repeated[headers], lists[name] = lists, lists[name] or { before }
  table.insert(lists[name], value)
  return before .. ", " .. value
end

local function read_headers(handle)
  local headers, index = setmetatable({}, Headers), 0
  while C.tg_abi_call_field(handle, index, slice) == 0 do
    local name = to_string(slice.p, slice.n):lower()
    local value = to_string(vm.out.p, vm.out.n)
    local before = rawget(headers, name)
    rawset(headers, name, before and repeat_header(headers, name, before, value) or value)
    index = index + 1
  end
  return headers
end

-- Fields of a call that is not freed yet, one by one: for who needs few of them.
local Fields = {}
function Fields.__index(self, name)
  local handle = self[1]
  if not handle or type(name) ~= "string" or C.tg_abi_call_find(handle, name, #name) ~= 0 then return nil end
  return to_string(vm.out.p, vm.out.n)
end

-- ---------------------------------------------------------------- heads

-- Its messages are without the value, which may be a credential.
local function check_header(name, value)
  if type(value) == "table" and secret.is(value) then misuse(("header %q: a secret becomes text by its reveal()"):format(name)) end
  value = tostring(value)
  if C.tg_abi_valid_name(name, #name) ~= 0 or C.tg_abi_valid_value(value, #value) ~= 0 then
    misuse(("header %q: it or its value has bytes that may not stand there"):format(name))
  end
  return value
end

local reserved = { host = true, ["content-length"] = true, ["transfer-encoding"] = true, connection = true }
local good, good_count = {}, 0 -- paths and methods that were looked at

local function check_target(method, path)
  if good[path] and good[method] then return end
  if path:find "[%c%s#\127-\255]" or path:sub(1, 1) ~= "/" then misuse(("not a path: %q"):format(path)) end
  if not method:find "^%u+$" then misuse(("not a method: %q"):format(method)) end
  if good_count >= 1000 then good, good_count = {}, 0 end
  good[path], good[method], good_count = true, true, good_count + 1
end

local function add_fields(lines, options, ctx)
  local seen = {}
  for name, value in pairs(options.headers or {}) do
    if reserved[name:lower()] then misuse("header " .. name .. " is set by the client itself") end
    lines[#lines + 1] = name .. ": " .. check_header(name, value)
    seen[name:lower()] = true
  end
  for _, name in ipairs(ctx and options.forward or {}) do
    local value = ctx.req.headers[name]
    if value and not seen[name:lower()] then
      lines[#lines + 1] = name .. ": " .. check_header(name, value)
      seen[name:lower()] = true
    end
  end
  if options.idempotency_key then
    lines[#lines + 1] = "Idempotency-Key: " .. check_header("Idempotency-Key", options.idempotency_key)
  end
  return seen
end

-- The parts of a head, each checked; the core sends them as they are.
local function build_head(self, host, span)
  local method, options, body = self.method, self.options, self.body
  local ctx = call.exchange and call.exchange()
  if self.bare then
    local about = ctx and "\r\nX-Request-Id: " .. ctx.id .. trace.lines(span) .. "\r\n\r\n" or "\r\n\r\n"
    return "GET " .. self.path .. " HTTP/1.1\r\nHost: " .. host .. about
  end
  local lines = { method .. " " .. self.path .. " HTTP/1.1", "Host: " .. host }
  local seen = options and add_fields(lines, options, ctx) or {}
  if ctx and not seen["x-request-id"] then lines[#lines + 1] = "X-Request-Id: " .. ctx.id end
  if self.content_type and not seen["content-type"] then lines[#lines + 1] = "Content-Type: " .. self.content_type end
  if type(body) == "function" then
    lines[#lines + 1] = "Transfer-Encoding: chunked"
  elseif body ~= "" or method == "POST" or method == "PUT" or method == "PATCH" then
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  local about = ctx and not seen.traceparent and trace.lines(span) or ""
  return table.concat(lines, "\r\n") .. about .. "\r\n\r\n"
end

local function add_query(path, values)
  if not values then return path end
  local parts, names = {}, {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do parts[#parts + 1] = url.encode(name) .. "=" .. url.encode(values[name]) end
  if #parts == 0 then return path end
  return path .. (path:find("?", 1, true) and "&" or "?") .. table.concat(parts, "&")
end

-- body, content type
local function take_body(options)
  if options == nil then return "" end
  if options.json ~= nil then return json.encode(options.json), "application/json" end
  if options.form then return add_query("", options.form):sub(2), "application/x-www-form-urlencoded" end
  local body = options.body
  if type(body) == "table" then return json.encode(body), "application/json" end
  return body or ""
end

-- ---------------------------------------------------------------- breakers

local breakers, breaker_count = {}, 0 -- name -> { failures, until, probing }; of this worker

-- An err when the breaker is open. One call in the time of `open` is let through to see.
local function may_begin(name, conf)
  local breaker = breakers[name]
  if not breaker or breaker.failures < conf.failures then return nil end
  if vm.monotonic < breaker.till then return failure.new("open", name .. ": the breaker is open") end
  breaker.till = vm.monotonic + conf.open
  return nil
end

local function count(name, conf, failed)
  local breaker = breakers[name]
  if not failed then
    if breaker then breaker.failures = 0 end
    return
  end
  if not breaker then
    if breaker_count >= 1000 then breakers, breaker_count = {}, 0 end
    breaker, breaker_count = { failures = 0, till = 0 }, breaker_count + 1
    breakers[name] = breaker
  end
  breaker.failures = breaker.failures + 1
  if breaker.failures >= conf.failures then breaker.till = vm.monotonic + conf.open end
end

-- ---------------------------------------------------------------- attempts

local Call = { __name = "call" }
Call.__index = Call

local idempotent = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true }
local BREAKER = { failures = 5, open = 5 }

--- new(method, path, host, peer, options, defaults, form) -> call, not begun. `peer` is its index, or an object whose next_target(tried,
-- again) gives index and host for each attempt, or nil, nil, err; `defaults` has timeout and connect_timeout in seconds, and `retry`, the
-- policy of an upstream; `form`: "json" or "lazy" gives the body instead of the result.
function call.new(method, path, host, peer, options, defaults, form)
  if abi.validating then failure.no_worker() end
  local body, content_type = take_body(options)
  if type(path) ~= "string" then misuse("a path is a string, found a " .. type(path)) end
  path = options and add_query(path, options.query) or path
  local hedge = options and options.hedge
  if hedge and type(hedge) ~= "number" and not tostring(hedge):find "^p%d%d$" then misuse "hedge is a number of seconds, or a quantile as \"p95\"" end
  local expect = options and options.expect
  if expect and type(expect) ~= "number" and not tostring(expect):find "^%dxx$" then misuse "expect is a status, or a class as \"2xx\"" end
  check_target(method, path)
  local repeatable = type(body) ~= "function" and (idempotent[method] or options and options.idempotency_key)
  local breaker = options and options.breaker
  local fields = options and (options.headers or options.forward or options.idempotency_key)
  return (setmetatable({
    method = method, path = path, host = host, peer = peer, options = options, defaults = defaults, form = form, body = body,
    content_type = content_type, read = options and options.read, n = 0,
    retries = repeatable and (options and options.retries or defaults.retry and defaults.retry.attempts - 1) or 0,
    hedge = repeatable and hedge or nil, tried = nil, begun = 0,
    breaker = breaker and { failures = breaker.failures or BREAKER.failures, open = breaker.open or BREAKER.open } or nil,
    bare = not fields and body == "" and method == "GET", -- what most calls are
    handle = nil, second = nil, due = nil, second_due = nil, done = false, status = nil, value = nil, err = nil,
  }, Call))
end

local function milliseconds(seconds)
  return (max(1, floor(seconds * 1000)))
end

-- The time that a call may take: its own, cut to what the exchange has left.
local function time_for(options, defaults)
  local seconds = options and options.timeout or defaults.timeout
  local ctx = call.exchange and call.exchange()
  if ctx then seconds = min(seconds, ctx:remaining()) end
  return seconds
end

local function flags_of(self, options, again)
  local flags = (self.method == "HEAD" and abi.CALL_TO_HEAD or 0) + (again and abi.CALL_RETRY or 0)
  if not options then return flags end
  return flags + (options.stream and abi.CALL_STREAMS or 0) + (type(self.body) == "function" and abi.CALL_UPLOADS or 0)
    + (options.fresh and abi.CALL_FRESH or 0) + (options.connects and abi.CALL_CONNECTS or 0)
end

-- The span of an attempt; nil when the running exchange is not recorded.
local function span_of(self, host, again)
  local span = trace.client(self.method)
  if not span then return nil end
  local name, port = host:match "^(.-):?(%d*)$"
  span:set("http.request.method", self.method)
  span:set("server.address", name)
  span:set("server.port", tonumber(port))
  span:set("url.full", (self.defaults.scheme or "http") .. "://" .. host .. self.path:match "^[^?]*")
  if type(self.peer) == "table" then span:set("tidegate.upstream", self.peer.name) end
  if again then span:set("http.request.resend_count", self.n > 0 and self.n or 1) end
  return span
end

local function begin_attempt(self, again)
  local index, host, options, body = self.peer, self.host, self.options, self.body
  if type(index) == "table" then
    if self.retries > 0 or self.hedge then self.tried = self.tried or {} end
    local err
    index, host, err = index:next_target(self.tried, again)
    if not index then return nil, err end
  end
  local span = trace.on and span_of(self, host, again) or nil
  local head = build_head(self, host, span)
  local sent = type(body) == "function" and "" or body
  local most = options and options.max_body or MAX_BODY
  local connect = milliseconds(options and options.connect_timeout or self.defaults.connect_timeout)
  local time = milliseconds(time_for(options, self.defaults))
  local handle = C.tg_abi_call_start(index, head, #head, sent, #sent, connect, time, most, flags_of(self, options, again))
  if handle == nil then return nil, failure.new("memory", "the call could not be started") end
  if span then
    self.spans = self.spans or {}
    self.spans[self.handle and "second" or "handle"] = span
  end
  return options and options.stream and abi.held_call(handle) or handle
end

local function end_span(self, which, status, err)
  local span = self.spans and self.spans[which]
  if not span then return end
  self.spans[which] = nil
  trace.done(span, status, err)
end

local CANCELLED = { code = "cancelled" }

local function finish(self, value, err)
  self.done, self.value, self.err = true, value, err
  local times = self.defaults.times
  if times and not err then times:add(vm.monotonic - self.begun) end
  if not self.breaker then return end
  local status = err and (err.answer or 0) or self.status or 0
  count(self.host, self.breaker, err and err.retryable or status >= 500)
end

-- Seconds, or the quantile of what the upstream's calls have taken; nil while too few are known.
local function hedge_after(self)
  if type(self.hedge) == "number" then return self.hedge end
  local times = self.defaults.times
  return times and times:quantile(tonumber(self.hedge:sub(2)) / 100)
end

--- call:start(): begins the first attempt.
function Call:start()
  local err = self.breaker and may_begin(self.host, self.breaker)
  if err then
    self.done, self.err = true, err
    return
  end
  self.handle, err = begin_attempt(self)
  if not self.handle then return finish(self, nil, err) end
  self.begun = vm.monotonic
  local after = self.hedge and hedge_after(self)
  self.second_due = after and vm.monotonic + after
end

local function is_expected(expect, status)
  if type(expect) == "number" then return status == expect end
  return floor(status / 100) == tonumber(expect:match "^(%d)xx$")
end

local function unexpected(self, status)
  local err = failure.new("status", ("%s %s%s: status %d"):format(self.method, self.host, self.path, status))
  err.answer = status
  return err
end

-- What `read` makes of the result, whose headers are there for so long only.
local function hand_to_reader(self, handle, status)
  local fields = setmetatable({ handle }, Fields)
  local result = setmetatable({ status = status, headers = fields, body = to_string(handle.body.p, handle.body.n) }, Result)
  local ok, value, err = pcall(self.read, result, self.options)
  fields[1] = nil
  C.tg_abi_call_free(handle)
  if not ok then return nil, task.to_failure(value) end
  return value, err
end

-- What has come of an attempt: value | nil, err.
local function take(self, handle)
  local options = self.options
  if handle.state < 0 then
    local code = abi.code(tonumber(handle.state))
    local event = handle.began == 0 and "connect" or handle.answered == 0 and (code == "timeout" and code or "reset") or nil
    C.tg_abi_call_free(handle)
    local err = failure.new(code, ("%s %s%s: %s"):format(self.method, self.host, self.path, code))
    err.event = event
    return nil, err
  end
  local status = tonumber(handle.status)
  self.status = status
  if self.form and status >= 200 and status <= 299 then
    local coded = C.tg_abi_call_find(handle, "content-encoding", 16) == 0 and to_string(vm.out.p, vm.out.n) or nil
    local body = to_string(handle.body.p, handle.body.n)
    C.tg_abi_call_free(handle)
    return read_json(self.form == "lazy" and json.lazy or json.read, plain(body, coded))
  end
  local expect = options and options.expect or self.form and "2xx"
  if self.read and (not expect or is_expected(expect, status)) then return hand_to_reader(self, handle, status) end
  local result = { status = status, headers = read_headers(handle) }
  if options and options.stream then
    result.call = handle
    setmetatable(result, Streamed)
  else
    result.body = to_string(handle.body.p, handle.body.n)
    setmetatable(result, Result)
    C.tg_abi_call_free(handle)
  end
  if expect and not is_expected(expect, status) then
    local err = unexpected(self, status)
    err.response = result
    return nil, err
  end
  return result
end

-- Whether another attempt is to be made: as often as the caller has said for whatever may go away by itself, or by the upstream's policy.
local function wants_retry(self, value, err)
  if self.n >= self.retries then return false end
  local policy = self.defaults.retry
  if self.options and self.options.retries or not policy then
    if not (value == nil and err and err.retryable) or not err.event and not err.answer then return false end
  else
    local status = err and err.answer or not err and self.status
    if not policy.on[status or err and err.event or ""] then return false end
  end
  return type(self.peer) ~= "table" or self.peer:may_retry()
end

-- Looks at one of the two attempts at once. True when the call is over.
local function look(self, which)
  local handle = self[which]
  if not handle or handle.state == abi.CALL_RUNS then return false end
  self[which] = nil
  local status = self.spans and handle.state >= 0 and tonumber(handle.status) or nil
  local value, err = take(self, handle)
  if self.spans then end_span(self, which, status, err) end
  local other = which == "handle" and "second" or "handle"
  if not value and err and self[other] then return false end -- the other one may still succeed
  if self[other] then
    C.tg_abi_call_free(self[other])
    self[other] = nil
    end_span(self, other, nil, CANCELLED)
  end
  if wants_retry(self, value, err) then
    self.due = vm.monotonic + random() * RETRY_PAUSE * 2 ^ self.n
    self.n = self.n + 1
    return false
  end
  finish(self, value, err)
  return true
end

--- call:poll() -> whether it is over: then `value` and `err` are set. To be called when the coroutine that started it is woken.
function Call:poll()
  if self.done or look(self, "handle") or look(self, "second") then return true end
  if self.due and vm.monotonic >= self.due then
    self.due = nil
    self.handle, self.err = begin_attempt(self, true)
    if not self.handle then
      finish(self, nil, self.err)
      return true
    end
  end
  if self.second_due and vm.monotonic >= self.second_due and self.handle then
    self.second_due = nil
    if type(self.peer) ~= "table" or self.peer:may_retry() then self.second = begin_attempt(self, true) end
  end
  return false
end

--- call:moment() -> when to poll at the latest, nil for no matter
function Call:moment()
  return self.due or self.second_due
end

--- call:cancel(): ends it.
function Call:cancel()
  if self.handle then C.tg_abi_call_free(self.handle) end
  if self.second then C.tg_abi_call_free(self.second) end
  end_span(self, "handle", nil, CANCELLED)
  end_span(self, "second", nil, CANCELLED)
  self.handle, self.second, self.due, self.done = nil, nil, nil, true
end

-- ---------------------------------------------------------------- calls of which nothing is asked but JSON

local bare_heads, bare_count = {}, 0 -- host -> path -> the first lines of its request

local function bare_head(host, path)
  local of_host = bare_heads[host]
  local head = of_host and of_host[path]
  if head then return head end
  check_target("GET", path)
  head = "GET " .. path .. " HTTP/1.1\r\nHost: " .. host
  if bare_count >= 1000 then bare_heads, bare_count, of_host = {}, 0, nil end
  if not of_host then
    of_host = {}
    bare_heads[host] = of_host
  end
  of_host[path], bare_count = head, bare_count + 1
  return head
end

local function is_bare(o)
  return type(o.path) == "string" and not (o.method or o.headers or o.forward or o.query or o.body or o.json or o.form or o.idempotency_key
    or o.read or o.result or o.expect or o.hedge or o.breaker or o.stream or o.fresh or o.connects)
end

--- about() -> the last lines of the heads of bare requests of the running exchange | nil: theirs differ, since they are recorded
function call.about()
  if trace.on then return nil end
  local ctx = call.exchange and call.exchange()
  return ctx and "\r\nX-Request-Id: " .. ctx.id .. trace.lines() .. "\r\n\r\n" or "\r\n\r\n"
end

--- begin_bare(peer, options, defaults, about) -> handle of the first attempt | nil: a call is needed, since more is asked for, or it could not
-- begin. `peer` is an object, see new. An object for each call is needed only when something goes wrong: see adopt.
function call.begin_bare(peer, options, defaults, about)
  if abi.validating or not is_bare(options) then return nil end
  local index, host = peer:next_target(nil, false)
  if not index then return nil end
  local head = bare_head(host, options.path)
  local connect, most = options.connect_timeout or defaults.connect_timeout, options.max_body or MAX_BODY
  local time = milliseconds(time_for(options, defaults))
  local handle = C.tg_abi_call_start(index, head, #head, about, #about, milliseconds(connect), time, most, 0)
  if handle == nil then return nil end
  return handle
end

--- settle_bare(handle, options, defaults, begun) -> whether all went well, and the value: then the handle is freed. Otherwise it runs, or is
-- to be adopted.
function call.settle_bare(handle, options, defaults, begun)
  if handle.state ~= abi.CALL_DONE then return false end
  local status = tonumber(handle.status)
  if status < 200 or status > 299 or C.tg_abi_call_find(handle, "content-encoding", 16) == 0 then return false end
  local body = to_string(handle.body.p, handle.body.n)
  local value, err = (options.lazy and json.lazy or json.read)(body, MAX_BODY)
  if err then return false end
  C.tg_abi_call_free(handle)
  defaults.times:add(vm.monotonic - begun)
  return true, value
end

--- adopt(handle, peer, options, defaults, form, begun) -> the call whose first attempt that is
function call.adopt(handle, peer, options, defaults, form, begun)
  local self = call.new("GET", options.path, peer.name, peer, options, defaults, form)
  self.handle, self.begun = handle, begun
  if self.retries > 0 then self.tried = { [peer.by_index[tonumber(handle.peer)]] = true } end
  return self
end

-- ---------------------------------------------------------------- calls that wait

local function write_piece(handle, value)
  value = stream.bytes(value, 2)
  local rc = C.tg_abi_call_write(handle, value, #value)
  while rc == abi.AGAIN do
    if vm.number > 0 then value = value:sub(tonumber(vm.number) + 1) end
    task.wait()
    rc = C.tg_abi_call_write(handle, value, #value)
  end
  -- After an early answer nobody wants the rest: what the call has to say comes with its result.
  return rc == 0
end

-- The body that a function writes; it raises out of here what it raises.
local function upload(handle, produce)
  local over = {}
  local ok, err = pcall(produce, function(value)
    if not write_piece(handle, value) then error(over, 0) end
  end)
  if not ok and err ~= over then
    C.tg_abi_call_free(handle)
    error(err, 0)
  end
  if ok then C.tg_abi_call_finish(handle) end
end

--- call:run() -> value | nil, err
function Call:run()
  self:start()
  if type(self.body) == "function" and self.handle then upload(self.handle, self.body) end
  -- Most calls wait once: a loop that is not entered is no loop to the compiler.
  if not self:poll() then task.wait_until(self:moment()) end
  while not self:poll() do task.wait_until(self:moment()) end
  return self.value, self.err
end

return call
