--- tracer: which exchanges are recorded, what their server's span says, and where spans are sent. One for each use of the plugin `tracing`.
local abi = require "abi"
local batch = require "tidegate.batch"
local context = require "tidegate.trace_context"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local http = require "tidegate.http"
local mask = require "tidegate.mask"
local otlp = require "tidegate.otlp"
local steps = require "tidegate.steps"
local trace = require "tidegate.trace"
local zipkin = require "tidegate.zipkin"

local C, vm = abi.C, abi.vm
local REQUEST = abi.REQUEST
local FORCED_FOR = 3600 -- seconds that a signature may be valid ahead
local MADE = 256 -- of trace_join: there was none

local tracer = {}
local Tracer = { __name = "tracer" }
Tracer.__index = Tracer

-- ---------------------------------------------------------------- which exchanges

-- So many a second and worker, with as many at once.
local function permits(self)
  if not self.per_second then return true end
  local now = vm.monotonic
  self.tokens = math.min(math.max(1, self.per_second), self.tokens + (now - self.filled) * self.per_second)
  self.filled = now
  if self.tokens < 1 then return false end
  self.tokens = self.tokens - 1
  return true
end

-- sampled: what the caller has decided, nil for nothing.
local function is_wanted(self, sampled, share)
  if sampled ~= nil and self.follows then return sampled and permits(self) end
  return self.ratio > 0 and share >= 1 - self.ratio and permits(self)
end

--- forced(self, x) -> whether the request carries a signature that is valid now. The field goes no further.
local function forced(self, x)
  local value = trace.get_field(x, REQUEST, self.force_header)
  if not value then return false end
  trace.set_field(x, self.force_header, nil)
  local till, digits = value:match "^(%d+)%.(%x+)$"
  if not till or #till > 12 or tonumber(till) < vm.now or tonumber(till) > vm.now + FORCED_FOR then return false end
  return crypto.equal(crypto.hex(crypto.hmac("sha256", self.force_secret, till)), digits:lower())
end

-- The caller's context in one of the formats, written anew in those that go upstream.
local function begin_with_any(self, x, force)
  local function get(name)
    if C.tg_abi_field_nth(x, REQUEST, name, #name, 1) == 0 then return nil end
    return trace.get_field(x, REQUEST, name)
  end
  local function all(name)
    local parts = {}
    while C.tg_abi_field_nth(x, REQUEST, name, #name, #parts) == 0 do parts[#parts + 1] = abi.out() end
    return parts[1] and table.concat(parts, ",")
  end
  local incoming = context.read(self.extract, get, all)
  local made
  if incoming then
    C.tg_abi_trace_read(("00-%s-%s-00"):format(incoming.trace, incoming.span), 55)
  else
    C.tg_abi_trace_make()
    made = abi.out()
  end
  local share = vm.number
  for i = 1, #self.foreign do trace.set_field(x, self.foreign[i], nil) end
  if force or incoming and incoming.debug and self.follows or is_wanted(self, incoming and incoming.sampled, share) then
    return trace.open(x, self, incoming, made and made:sub(4, 35))
  end
  local onward = incoming or { trace = made:sub(4, 35), span = made:sub(37, 52) }
  onward.sampled, onward.debug = false, nil
  context.write(self.inject, onward, function(name, value) trace.set_field(x, name, value) end)
end

-- What most have: traceparent or nothing. One that is not recorded is passed on as it came, or a new one is made, without a word of Lua.
local function begin(self, x, force)
  local flags = C.tg_abi_trace_join(x)
  if flags >= MADE then
    if force or is_wanted(self, nil, vm.number) then return trace.open(x, self, nil, abi.out():sub(4, 35)) end
  elseif flags % 2 == 1 or force or not self.follows then
    return begin_with_any(self, x, force)
  end
end

--- tracer:begin(): decides about the running exchange, once.
function Tracer:begin()
  local x = vm.exchange
  if trace.record_of(x) then return end
  local force = self.force_header and forced(self, x) or false
  if self.plain then return begin(self, x, force) end
  return begin_with_any(self, x, force)
end

--- tracer:steps() -> what the core does in place of begin and finish with what is not recorded
function Tracer:steps()
  return {
    rewrite = self.plain and not self.force_header and steps.new("trace", { tracer = self }) or nil,
    log = #self.names == 0 and steps.new("failures", { on = self.errors }) or nil,
  }
end

-- ---------------------------------------------------------------- what the server's span says

local methods = {}
for method in ("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY"):gmatch "%S+" do methods[method] = true end

local function describe_request(span, ctx, self)
  local req, route = ctx.req, ctx.route
  local method = req.method
  local known = methods[method] ~= nil
  span.name = (known and method or "HTTP") .. (route and " " .. tostring(route.path[1]) or "")
  span:set("http.request.method", known and method or "_OTHER")
  if not known then span:set("http.request.method_original", method) end
  span:set("url.scheme", req.scheme)
  span:set("url.path", req.original.path)
  if self.query and req.original.query ~= "" then span:set("url.query", mask.query(req.original.query)) end
  span:set("server.address", req.host)
  span:set("server.port", req.port)
  span:set("client.address", req.client.ip)
  span:set("network.protocol.version", req.version)
  local agent = req.original.headers["user-agent"]
  span:set("user_agent.original", agent and agent:sub(1, 256))
  if route then
    span:set("http.route", tostring(route.path[1]))
    span:set("tidegate.route", route.name)
  end
end

local function describe_answer(span, ctx, x)
  local status = ctx.status
  span:set("http.response.status_code", status)
  span:set("http.request.body.size", ctx.bytes_in)
  span:set("http.response.body.size", ctx.bytes_out)
  span:set("tidegate.source", ctx.res and ctx.res.source)
  span:set("tidegate.request_id", ctx.id)
  span:set("tidegate.generation", ctx.generation)
  span:set("tidegate.consumer", ctx.consumer and ctx.consumer.id)
  if x.attempt > 1 then span:set("tidegate.attempts", tonumber(x.attempt)) end
  if status and status >= 500 then
    span:fail(tostring(status))
  elseif x.aborted ~= 0 then
    span:set("error.type", "aborted")
  end
end

local function describe(self, span, ctx, x)
  describe_request(span, ctx, self)
  describe_answer(span, ctx, x)
  for i = 1, #self.names do span:set(self.names[i], self.values[i](ctx)) end
end

-- The last attempt of one that was not recorded, as far as it is known.
local function attempt_of(root, ctx, x)
  local peer = ctx.peer
  if not peer then return nil end
  local span = setmetatable({}, getmetatable(root))
  for key, value in pairs(root) do span[key] = value end
  span.attributes, span.parent, span.id, span.kind, span.name = {}, root.id, context.new_id(16), trace.CLIENT, ctx.req.method
  span.failed, span.message, span.remote = false, nil, nil
  span:set("http.request.method", ctx.req.method)
  span:set("server.address", peer.address)
  span:set("server.port", peer.port)
  span:set("tidegate.upstream", ctx.upstream)
  if ctx.res and ctx.res.source == "upstream" then
    span:set("http.response.status_code", ctx.status)
    if ctx.status >= 400 then span:fail(tostring(ctx.status)) end
  else
    span:fail(x.error ~= 0 and abi.code(tonumber(x.error)) or "replaced")
  end
  return span
end

--- tracer:finish(ctx): the exchange is over; its spans wait to be sent.
function Tracer:finish(ctx)
  local x = vm.exchange
  local spans, lost = trace.take(x)
  if spans then
    describe(self, spans[1], ctx, x)
    spans[1].lost = lost > 0 and lost or nil
    C.tg_abi_metric_exemplar_set(x, spans[1].trace, #spans[1].trace)
    for i = 1, #spans do self.queue:add(spans[i]) end
  elseif self.errors and (x.status >= 500 or x.status == 0 and x.aborted == 0) then
    local root = trace.lone(x, self.extract)
    describe(self, root, ctx, x)
    C.tg_abi_metric_exemplar_set(x, root.trace, #root.trace)
    local attempt = attempt_of(root, ctx, x)
    self.queue:add(root)
    if attempt then self.queue:add(attempt) end
  end
end

-- ---------------------------------------------------------------- where to

local encoders = { protobuf = otlp.protobuf, json = otlp.json, zipkin = zipkin.json }
local types = { protobuf = "application/x-protobuf", json = "application/json", zipkin = "application/json" }

-- What the receiver refuses for good would be refused again (OTLP, "Failures").
local transient = { [408] = true, [429] = true, [502] = true, [503] = true, [504] = true }

local function sender(self, conf, send)
  local encode, headers = encoders[conf.protocol], { ["Content-Type"] = types[conf.protocol] }
  for name, value in pairs(conf.headers) do headers[name] = value:reveal() end
  local resource = self.resource
  return function(spans)
    local result, err = send(encode(resource, spans), { headers = headers, timeout = conf.timeout, retries = 0 })
    if not result then return nil, err end
    if result.status >= 200 and result.status <= 299 then return true end
    err = failure.new("status", "status " .. result.status)
    err.retry_after = tonumber(result.headers["retry-after"])
    err.lasting = not transient[result.status]
    return nil, err
  end
end

local function resource_of(conf)
  local list, names = { "service.name", conf.service, "telemetry.sdk.language", "lua", "telemetry.sdk.name", "tidegate" }, {}
  for name in pairs(conf.resource) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    list[#list + 1] = name
    list[#list + 1] = conf.resource[name]
  end
  return list
end

local function sorted_templates(map)
  local names, values = {}, {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do values[i] = map[name] end
  return names, values
end

--- new(conf, upstream?) -> tracer with begin() and finish(ctx), for the plugin `tracing`, whose schema says what is in conf
function tracer.new(conf, upstream)
  local self = setmetatable({
    ratio = conf.ratio, follows = conf.parent == "follow", per_second = conf.per_second, tokens = math.max(1, conf.per_second or 0), filled = 0,
    errors = conf.errors, query = conf.query, extract = conf.extract, inject = conf.inject, response_header = conf.response_header,
    force_header = conf.force and conf.force.header, force_secret = conf.force and conf.force.secret:reveal(), resource = resource_of(conf),
    plain = #conf.extract == 1 and conf.extract[1] == "w3c" and #conf.inject == 1 and conf.inject[1] == "w3c", foreign = {},
  }, Tracer)
  self.names, self.values = sorted_templates(conf.attributes)
  local written = {}
  for _, name in ipairs(context.fields(conf.inject)) do written[name] = true end
  for _, name in ipairs(context.fields(conf.extract)) do -- what was read and is not written anew would tell the upstream another story
    if not written[name] then self.foreign[#self.foreign + 1] = name end
  end
  local send = conf.url and function(body, options) return http.post(conf.url, body, options) end
    or function(body, options) return upstream:post(conf.path, body, options) end
  self.queue = batch.open { name = "tracing", size = conf.batch, every = conf.every, max_pending = conf.queue, send = sender(self, conf, send),
    backoff = 30, give_up = conf.give_up }
  if not abi.validating then
    trace.on = true
    trace.copies_of(conf.inject)
  end
  return self
end

return tracer
