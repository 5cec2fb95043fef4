--- http: calls to upstreams and to URLs. Every call waits; nothing blocks.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local query = require "tidegate.query"
local task = require "tidegate.task"
local url = require "tidegate.url"

local C, vm, to_string, slice = abi.C, abi.vm, abi.string, abi.slice

local http = { exchange = nil } -- exchange() -> ctx of the running exchange, set by the runtime
local MAX_BODY = 8 * 1024 * 1024

local Result = {}
Result.__index = Result

function Result:text() return self.body end
function Result:json() return json.decode(self.body) end
function Result:form() return query.parse(self.body):map() end

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
  if body ~= "" or method == "POST" or method == "PUT" or method == "PATCH" then
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function add_query(path, values)
  if not values then return path end
  local parts, names = {}, {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do parts[#parts + 1] = url.encode(name) .. "=" .. url.encode(values[name]) end
  return path .. (path:find("?", 1, true) and "&" or "?") .. table.concat(parts, "&")
end

local function take_body(options)
  if options.json ~= nil then
    options.content_type = "application/json"
    return json.encode(options.json)
  end
  if options.form then
    options.content_type = "application/x-www-form-urlencoded"
    return add_query("", options.form):sub(2)
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

--- Sends to a peer and waits: result | nil, err. `defaults` has timeout and connect_timeout in seconds.
local function send(method, path, host, peer, options, defaults)
  if abi.validating then error("no I/O while a configuration is loaded: move this into `start` or a phase", 3) end
  local copy = {}
  for key, value in pairs(options or {}) do copy[key] = value end
  local body = take_body(copy)
  local head = build_head(method, add_query(path, copy.query), host, copy, body)
  local call = C.tg_abi_call_start(peer, head, #head, body, #body,
    milliseconds(copy.connect_timeout or defaults.connect_timeout), milliseconds(time_for(copy, defaults.timeout)),
    copy.max_body or MAX_BODY, method == "HEAD" and 1 or 0)
  if call == nil then return nil, failure.new("memory", "the call could not be started") end
  while call.state == 1 do task.wait() end
  if call.state ~= 0 then
    local code = abi.code(tonumber(call.state))
    C.tg_abi_call_free(call)
    return nil, failure.new(code, ("%s %s%s: %s"):format(method, host, path, code))
  end
  local result = setmetatable({
    status = tonumber(call.status), headers = read_headers(call), body = to_string(call.body.p, call.body.n),
  }, Result)
  C.tg_abi_call_free(call)
  if copy.expect == "2xx" and (result.status < 200 or result.status > 299) then
    local err = failure.new("status", ("%s %s%s: status %d"):format(method, host, path, result.status))
    err.response = result
    return nil, err
  end
  return result
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

local function call_url(method, target, options)
  local host, port, path = target:match "^http://([%w%.%-]+):?(%d*)(.*)$"
  if not host then return nil, failure.new("protocol", "not an http:// URL: " .. target) end
  if path == "" or path:sub(1, 1) == "?" then path = "/" .. path end
  local number = tonumber(port) or 80
  if abi.validating then error("no I/O while a configuration is loaded: move this into `start` or a phase", 3) end
  local peer = C.tg_abi_peer(host, #host, number, 16, 60000, 10000)
  if peer < 0 then return nil, failure.new("connect", "not a host and port: " .. target) end
  return send(method, path, number == 80 and host or host .. ":" .. number, peer, options, { timeout = 30, connect_timeout = 2 })
end

local verb_methods = {}
http.add_verbs(verb_methods, function(_, method, target, options) return call_url(method, target, options) end)
-- tg.http.get(url, ...) takes no self
for name, f in pairs(verb_methods) do
  http[name] = function(...) return f(nil, ...) end
end

return http
