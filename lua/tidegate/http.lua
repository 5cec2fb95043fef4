--- http: calls to upstreams and to URLs. Every call waits; nothing blocks.
local abi = require "abi"
local coding = require "tidegate.coding"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local query = require "tidegate.query"
local stream = require "tidegate.stream"
local task = require "tidegate.task"
local url = require "tidegate.url"

local C, vm, to_string, slice = abi.C, abi.vm, abi.string, abi.slice

local http = { exchange = nil, allowed = nil } -- exchange() -> ctx of the running exchange; allowed(host): both set by the runtime
local MAX_BODY = 8 * 1024 * 1024
local RETRY_PAUSE, REDIRECTS_MAX = 0.025, 10 -- seconds before the first retry, doubled for each more; full jitter

local Result = {}
Result.__index = Result

-- The codings to undo, nil for none; an unknown one is a failure.
local function codings_of(result)
  local value = result.headers["content-encoding"]
  if not value then return nil end
  local list = coding.known(value)
  if list then return list[1] and list end
  return nil, failure.new("decode", ("a content coding that is not known: %q"):format(value))
end

--- result:text() -> string | nil, err: the body, its content codings undone; result.body has it as it came
function Result:text()
  local codings, err = codings_of(self)
  if codings then return coding.decode(self.body, codings) end
  if err then return nil, err end
  return self.body
end

function Result:json()
  local body, err = self:text()
  if not body then return nil, err end
  return json.decode(body)
end

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

-- The result of a call with `stream = true`: its body is read while it comes.
local Streamed = { is_stream = true }
Streamed.__index = Streamed

local function read_piece(call)
  local rc = C.tg_abi_call_read(call)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_call_read(call)
  end
  if rc == 0 then return to_string(vm.out.p, vm.out.n) end
  if rc == abi.ENONE then return nil end
  error(failure.new(abi.code(rc), "the body of the result broke: " .. abi.code(rc)), 0)
end

--- result:chunks() -> iterator over pieces as they come; with lines, events, text as the body of a message has
function Streamed:chunks()
  if not self.input then
    local call = self.call
    local function read() return read_piece(call) end
    local codings, err = codings_of(self)
    if err then error(err, 0) end
    self.input = stream.input(codings and coding.readers(read, codings) or read)
  end
  return self.input
end
function Streamed:lines(max) return self:chunks():lines(max) end
function Streamed:events(max) return self:chunks():events(max) end
function Streamed:text(max) return self:chunks():text(max or MAX_BODY) end
function Streamed:json(max)
  local body, err = self:text(max)
  if not body then return nil, err end
  return json.decode(body)
end

-- What `respond(status, result)` sends: the call goes on when the coroutine that began it has ended.
function Streamed:pass_on()
  local call = self.call
  if C.tg_abi_call_hand_over(call) ~= 0 then error("only one streamed result of this request can be passed on", 3) end
  return function(write)
    if C.tg_abi_call_take_over(call) ~= 0 then error("the streamed result has ended", 0) end
    while true do
      local piece = read_piece(call)
      if not piece then return end
      write(piece)
    end
  end
end

local Headers = {}
function Headers.__index(self, name)
  local list = rawget(self, name:lower())
  return list
end

local function read_headers(call)
  local headers, index = setmetatable({}, Headers), 0
  while C.tg_abi_call_field(call, index, slice) == 0 do
    local name = to_string(slice.p, slice.n):lower()
    local value = to_string(vm.out.p, vm.out.n)
    local before = rawget(headers, name)
    rawset(headers, name, before and before .. ", " .. value or value)
    index = index + 1
  end
  return headers
end

local function check_header(name, value)
  value = tostring(value)
  if C.tg_abi_valid_name(name, #name) ~= 0 or C.tg_abi_valid_value(value, #value) ~= 0 then
    error(("header %q: %q has bytes that may not stand there"):format(name, value), 4)
  end
  return value
end

local reserved = { host = true, ["content-length"] = true, ["transfer-encoding"] = true, connection = true }

-- The parts of a head, each checked; the core sends them as they are.
local function build_head(method, path, host, options, body)
  if path:find "[%c%s#\127-\255]" or path:sub(1, 1) ~= "/" then error(("not a path: %q"):format(path), 3) end
  if not method:find "^%u+$" then error(("not a method: %q"):format(method), 3) end
  local lines = { method .. " " .. path .. " HTTP/1.1", "Host: " .. host }
  local seen = {}
  for name, value in pairs(options.headers or {}) do
    if reserved[name:lower()] then error("header " .. name .. " is set by the client itself", 3) end
    lines[#lines + 1] = name .. ": " .. check_header(name, value)
    seen[name:lower()] = true
  end
  local ctx = http.exchange and http.exchange()
  if ctx then
    if not seen["x-request-id"] then lines[#lines + 1] = "X-Request-Id: " .. ctx.id end
    for _, name in ipairs(options.forward or {}) do
      local value = ctx.req.headers[name]
      if value and not seen[name:lower()] then lines[#lines + 1] = name .. ": " .. check_header(name, value) end
    end
  end
  if options.content_type and not seen["content-type"] then
    lines[#lines + 1] = "Content-Type: " .. options.content_type
  end
  if options.idempotency_key then
    lines[#lines + 1] = "Idempotency-Key: " .. check_header("Idempotency-Key", options.idempotency_key)
  end
  if type(body) == "function" then
    lines[#lines + 1] = "Transfer-Encoding: chunked"
  elseif body ~= "" or method == "POST" or method == "PUT" or method == "PATCH" then
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function add_query(path, values)
  if not values then return path end
  return path .. (path:find("?", 1, true) and "&" or "?") .. url.query(values)
end

local function take_body(options)
  if options.json ~= nil then
    options.content_type = "application/json"
    return json.encode(options.json)
  end
  if options.form then
    options.content_type = "application/x-www-form-urlencoded"
    return url.query(options.form)
  end
  local body = options.body
  if type(body) == "table" then
    options.content_type = "application/json"
    return json.encode(body)
  end
  return body or ""
end

local function milliseconds(seconds)
  return math.max(1, math.floor(seconds * 1000))
end

-- The time that the call may take: its own, cut to what the exchange has left.
local function time_for(options, default)
  local seconds = options.timeout or default
  local ctx = http.exchange and http.exchange()
  if ctx then seconds = math.min(seconds, ctx:remaining()) end
  return seconds
end

local function write_piece(call, value)
  value = stream.bytes(value, 2)
  local rc = C.tg_abi_call_write(call, value, #value)
  while rc == abi.AGAIN do
    if vm.number > 0 then value = value:sub(tonumber(vm.number) + 1) end
    task.wait()
    rc = C.tg_abi_call_write(call, value, #value)
  end
  -- After an early answer nobody wants the rest: what the call has to say comes with its result.
  return rc == 0
end

-- The body that a function writes; it raises out of here what it raises.
local function upload(call, produce)
  local over = {}
  local ok, err = pcall(produce, function(value)
    if not write_piece(call, value) then error(over, 0) end
  end)
  if not ok and err ~= over then
    C.tg_abi_call_free(call)
    error(err, 0)
  end
  if ok then C.tg_abi_call_finish(call) end
end

local function attempt(method, path, host, peer, options, defaults, body)
  local head = build_head(method, path, host, options, body)
  local produce = type(body) == "function" and body
  local flags = (method == "HEAD" and abi.CALL_TO_HEAD or 0) + (options.stream and abi.CALL_STREAMS or 0) + (produce and abi.CALL_UPLOADS or 0)
  local sent = produce and "" or body
  local call = C.tg_abi_call_start(peer, head, #head, sent, #sent, milliseconds(options.connect_timeout or defaults.connect_timeout),
    milliseconds(time_for(options, defaults.timeout)), options.max_body or MAX_BODY, flags)
  if call == nil then return nil, failure.new("memory", "the call could not be started") end
  if options.stream then call = abi.held_call(call) end
  if produce then upload(call, produce) end
  while call.state == abi.CALL_RUNS do task.wait() end
  if call.state < 0 then
    local code = abi.code(tonumber(call.state))
    C.tg_abi_call_free(call)
    return nil, failure.new(code, ("%s %s%s: %s"):format(method, host, path, code))
  end
  local result
  if options.stream then
    result = setmetatable({ status = tonumber(call.status), headers = read_headers(call), call = call }, Streamed)
  else
    result = setmetatable({
      status = tonumber(call.status), headers = read_headers(call), body = to_string(call.body.p, call.body.n),
    }, Result)
    C.tg_abi_call_free(call)
  end
  if options.expect == "2xx" and (result.status < 200 or result.status > 299) then
    local err = failure.new("status", ("%s %s%s: status %d"):format(method, host, path, result.status))
    err.response = result
    return nil, err
  end
  return result
end

local idempotent = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true }

--- Sends to a peer and waits: result | nil, err. `peer` is its index, or a function that gives index and host for each attempt.
-- `defaults` has timeout and connect_timeout in seconds.
local function send(method, path, host, peer, options, defaults)
  if abi.validating then error("no I/O while a configuration is loaded: move this into `start` or a phase", 3) end
  local copy = {}
  for key, value in pairs(options or {}) do copy[key] = value end
  local body = take_body(copy)
  local full = add_query(path, copy.query)
  local retries = copy.retries or 0
  if not idempotent[method] and not copy.idempotency_key or type(body) == "function" then retries = 0 end
  for n = 0, retries do
    local index, name = peer, host
    if type(peer) == "function" then index, name = peer() end
    local result, err = attempt(method, full, name, index, copy, defaults, body)
    if result or n == retries or not err.retryable then return result, err end
    task.sleep(math.random() * RETRY_PAUSE * 2 ^ n)
  end
end

local verbs = { get = "GET", post = "POST", put = "PUT", patch = "PATCH", delete = "DELETE", head = "HEAD" }
local with_body = { post = true, put = true, patch = true }

--- Adds get, post, put, patch, delete, head, request and get_json to `object`; `call(self, method, path, options)` sends.
function http.add_verbs(object, call)
  for name, method in pairs(verbs) do
    if with_body[name] then
      object[name] = function(self, path, body, options)
        local o = {}
        for key, value in pairs(options or {}) do o[key] = value end
        if body ~= nil then o.body = body end
        return call(self, method, path, o)
      end
    else
      object[name] = function(self, path, options) return call(self, method, path, options) end
    end
  end
  object.request = function(self, o)
    return call(self, (o.method or "GET"):upper(), o.path or o.url, o)
  end
  object.get_json = function(self, path, options)
    local o = { expect = "2xx" }
    for key, value in pairs(options or {}) do o[key] = value end
    local result, err = call(self, "GET", path, o)
    if not result then return nil, err end
    return result:json()
  end
end

http.send = send

local url_peers = {} -- "host:port" -> peer index

local function peer_of(host, port)
  local key = host .. ":" .. port
  local peer = url_peers[key]
  if peer then return peer end
  if http.allowed(host) then
    peer = C.tg_abi_peer(host, #host, port, 16, 60000, 10000)
  else
    peer = C.tg_abi_guarded_peer(host, #host, port)
  end
  if peer >= 0 then url_peers[key] = peer end
  return peer
end

local function call_once(method, target, options)
  local host, port, path = target:match "^http://([%w%.%-]+):?(%d*)([^#]*)$"
  if not host then
    local literal
    literal, port, path = target:match "^http://%[([%x:%.]+)%]:?(%d*)([^#]*)$"
    host = literal
  end
  if not host then return nil, failure.new("protocol", "not an http:// URL: " .. target) end
  if path == "" or path:sub(1, 1) == "?" then path = "/" .. path end
  if path:sub(1, 1) ~= "/" then return nil, failure.new("protocol", "not an http:// URL: " .. target) end
  local number = tonumber(port) or 80
  local peer = peer_of(host:lower(), number)
  if peer == abi.ELIMIT then return nil, failure.new("busy", "too many hosts: " .. target) end
  if peer < 0 then return nil, failure.new("connect", "not a host and port: " .. target) end
  local name = host:find(":", 1, true) and "[" .. host .. "]" or host
  local result, err = send(method, path, number == 80 and name or name .. ":" .. number, peer, options, { timeout = 30, connect_timeout = 2 })
  if err and err.code == "denied" then
    err.message = target .. ": private addresses are closed to plugins; `http { allow = { ... } }` names those that are open"
  end
  return result, err
end

-- RFC 9110, section 15.4: where the answer points to, or nil.
local function next_url(result, target)
  local status, location = result.status, result.headers["location"]
  if not location or status < 301 or status > 308 or status == 304 or status > 303 and status < 307 then return nil end
  return (url.join(target, (location:match "^[^#]*")))
end

local function call_url(method, target, options)
  if type(target) ~= "string" then error("a URL is a string, found a " .. type(target), 3) end
  if abi.validating then error("no I/O while a configuration is loaded: move this into `start` or a phase", 3) end
  local left = math.min(options and options.redirect or 0, REDIRECTS_MAX)
  while true do
    local result, err = call_once(method, target, options)
    local answer = result or err and err.response
    local url_of_next = left > 0 and answer and next_url(answer, target)
    if not url_of_next then return result, err end
    left = left - 1
    target = url_of_next
    if answer.status == 303 or (answer.status < 303 and method == "POST") then
      method = method == "HEAD" and "HEAD" or "GET"
      local copy = {}
      for key, value in pairs(options) do copy[key] = value end
      copy.body, copy.json, copy.form = nil, nil, nil
      options = copy
    end
  end
end

local verb_methods = {}
http.add_verbs(verb_methods, function(_, method, target, options) return call_url(method, target, options) end)
-- tg.http.get(url, ...) takes no self
for name, f in pairs(verb_methods) do
  http[name] = function(...) return f(nil, ...) end
end

return http
