--- exchange: ctx, ctx.req and ctx.res, as plugins see them. Views of the C struct, never copies of it.
-- Numbered slots hold the pointer and the serial of the exchange (and what was made on demand); a view that is kept too
-- long raises. Slots, since a table with an array part alone is one allocation and never grows; `false` is an empty slot.
local abi = require "abi"
local body = require "runtime.body"
local consumers = require "tidegate.consumers"
local query_string = require "tidegate.query"
local trace = require "tidegate.trace"

local C, vm, to_string = abi.C, abi.vm, abi.string
local slice = abi.slice
local rawget, setmetatable, type, error, tostring = rawget, setmetatable, type, error, tostring

local exchange = {}

-- Slots: 1 the exchange, 2 its serial; of a message 3 the side; the rest as named below.
local HEADERS, PARAMS, CLIENT, ORIGINAL, QUERY, COOKIES = 4, 5, 6, 7, 8, 9 -- of a message
local ROUTE, CONSUMER, UPSTREAM, REQ, RES, VARS, PEERS, CREDENTIAL, CTX_PARAMS, LEVEL = 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 -- of ctx

-- The names of the known methods: to make a string of a method's bytes for each request would show.
local methods = {}
while C.tg_abi_method_name(#methods + 1) == 0 do methods[#methods + 1] = abi.out() end

function exchange.method(x)
  return methods[x.method_id] or to_string(x.method.p, x.method.n)
end

local function live(self)
  local x = self[1]
  if x.serial ~= self[2] then error("this exchange has ended: its ctx must not be kept", 3) end
  return x
end
exchange.live = live

local function text(s)
  return to_string(s.p, s.n)
end

-- ---------------------------------------------------------------- fields

-- Slot of what passes for a ctx: the one behind it.
exchange.REAL = 14

--- direct(ctx) -> the exchange, where nothing that was made for it yet stands between: no view of its request, and ctx is itself no view. What
-- is read of it then costs no table. nil: ask ctx.
function exchange.direct(ctx)
  local x = ctx[1]
  if not x or ctx[REQ] or rawget(ctx, exchange.REAL) then return nil end
  return live(ctx)
end

--- header(x, name) -> the value of a field of the request | nil
function exchange.header(x, name)
  if C.tg_abi_field_get(x, abi.REQUEST, name, #name) ~= 0 then return nil end
  return to_string(vm.out.p, vm.out.n)
end

local Fields = { __metatable = false }

function Fields.__index(self, name)
  local x = live(self)
  if C.tg_abi_field_get(x, self[3], name, #name) ~= 0 then return nil end
  return to_string(vm.out.p, vm.out.n)
end

-- Without the value, which may be a credential.
local function refuse(rc, name)
  if rc == abi.EINVAL then
    error(("header %q cannot be set to this: hop-by-hop and framing fields are read-only, and neither name nor value may"
      .. " have control bytes"):format(tostring(name)), 3)
  end
  error("header " .. tostring(name) .. ": " .. abi.code(rc), 3)
end

local function to_value(name, value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  error("header " .. tostring(name) .. " needs a string, found a " .. kind, 3)
end

function Fields.__newindex(self, name, value)
  local x, side = live(self), self[3]
  if side == abi.ORIGINAL then error("req.original is read-only", 2) end
  local rc
  if value == nil then
    rc = C.tg_abi_field_remove(x, side, name, #name)
  else
    value = to_value(name, value)
    rc = C.tg_abi_field_set(x, side, name, #name, value, #value)
  end
  if rc ~= 0 then refuse(rc, name) end
end

local function next_field(self, index)
  local state = self
  local x = live(state.fields)
  local i = state.index
  if C.tg_abi_field_at(x, state.fields[3], i, slice) ~= 0 then return nil end
  state.index = i + 1
  return text(slice), to_string(vm.out.p, vm.out.n), index
end

--- headers "name" -> list of all its values; headers() -> iterator over name, value
function Fields.__call(self, name)
  if name == nil then return next_field, { fields = self, index = 0 } end
  local x, list = live(self), {}
  while C.tg_abi_field_nth(x, self[3], name, #name, #list) == 0 do
    list[#list + 1] = to_string(vm.out.p, vm.out.n)
  end
  return list
end

local function new_fields(self, side)
  return setmetatable({ self[1], self[2], side }, Fields)
end

-- ---------------------------------------------------------------- query and cookies

-- A map whose changes are written back by `save(owner, values)`.
local function new_map(owner, values, save)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name) return values:get(name) end,
    __newindex = function(_, name, value)
      live(owner)
      values:set(name, value)
      save(owner, values)
    end,
    __call = function(_, name)
      if name == nil then return values:each() end
      return values:all(name)
    end,
  })
end

exchange.new_map = new_map

local function set_query(req, value)
  local x = live(req)
  if C.tg_abi_set_query(x, value, #value) ~= 0 then error("not a query: " .. ("%q"):format(value), 3) end
end

local function save_query(req, values)
  set_query(req, values:encode())
end

local function save_cookies(req, values)
  local value = values:encode_cookies()
  req.headers["Cookie"] = value ~= "" and value or nil
end

-- ---------------------------------------------------------------- methods

local function add_header(self, name, value)
  local x = live(self)
  value = to_value(name, value)
  local rc = C.tg_abi_field_add(x, self[3], name, #name, value, #value)
  if rc ~= 0 then refuse(rc, name) end
end

-- Changes that tidegate/edits has prepared.
local function edit(self, group)
  local rc = C.tg_abi_edits_apply(group.prepared, live(self), self[3])
  if rc ~= 0 then error("headers: " .. abi.code(rc), 0) end
end

-- ---------------------------------------------------------------- request

local function tls_text(x, part)
  if C.tg_abi_tls(x, part) ~= 0 then return nil end
  return to_string(vm.out.p, vm.out.n)
end

local function tls_number(x, part)
  return C.tg_abi_tls(x, part) == 0 and vm.number or nil
end

-- What is known of the client's TLS connection, nil in plain text.
local function client_tls(x)
  local version = tls_text(x, C.TG_TLS_VERSION)
  return version and {
    version = version, cipher = tls_text(x, C.TG_TLS_CIPHER), server_name = tls_text(x, C.TG_TLS_SERVER_NAME),
    alpn = tls_text(x, C.TG_TLS_ALPN), resumed = tls_number(x, C.TG_TLS_RESUMED) == 1,
  }
end

-- The certificate that the client has shown and that was verified, or nil.
local function client_certificate(x)
  local subject = tls_text(x, C.TG_TLS_SUBJECT)
  if not subject then return nil end
  local names = {}
  for name in (tls_text(x, C.TG_TLS_NAMES) or ""):gmatch "[^\n]+" do names[#names + 1] = name end
  return {
    subject = subject, issuer = tls_text(x, C.TG_TLS_ISSUER), serial = tls_text(x, C.TG_TLS_SERIAL), names = names,
    fingerprint = tls_text(x, C.TG_TLS_FINGERPRINT), not_before = tls_number(x, C.TG_TLS_NOT_BEFORE),
    not_after = tls_number(x, C.TG_TLS_NOT_AFTER), pem = tls_text(x, C.TG_TLS_PEM),
  }
end

local Client = { __metatable = false }
function Client.__index(self, key)
  local x = live(self)
  if key == "tls" then return client_tls(x) end
  if key == "cert" then return client_certificate(x) end
  if key ~= "ip" and key ~= "port" and key ~= "network" then return nil end
  if key == "network" then C.tg_abi_client_network(x) else C.tg_abi_client_ip(x) end
  if key == "port" then return tonumber(x.client_port) end
  return to_string(vm.out.p, vm.out.n)
end

local Original = { __metatable = false }
function Original.__index(self, key)
  local x = live(self)
  if key == "headers" then
    return new_fields(self, abi.ORIGINAL)
  end
  C.tg_abi_original(x, slice)
  if key == "method" then return to_string(vm.out.p, vm.out.n) end
  if key == "target" then return text(slice) end
  local path, query = text(slice):match "^([^?]*)%??(.*)$"
  if key == "path" or key == "raw_path" then return path end
  if key == "query" then return query end
  return nil
end
function Original.__newindex() error("req.original is read-only", 2) end

local get = {
  method = function(_, x) return exchange.method(x) end,
  path = function(_, x) return text(x.path) end,
  raw_path = function(_, x) return text(x.raw_path) end,
  raw_query = function(_, x) return text(x.query) end,
  host = function(_, x) return text(x.host) end,
  port = function(_, x) return tonumber(text(x.authority):match ":(%d+)$") end,
  scheme = function(_, x) return x.secure ~= 0 and "https" or "http" end,
  upgrade = function(self) return self.headers["Upgrade"] end,
  version = function(_, x) return x.version_major == 2 and "2" or x.version_minor == 1 and "1.1" or "1.0" end,
  params = function(self) return self[PARAMS] end,
  headers = function(self) return new_fields(self, abi.REQUEST) end,
  client = function(self) return setmetatable({ self[1], self[2] }, Client) end,
  original = function(self) return setmetatable({ self[1], self[2] }, Original) end,
  query = function(self, x) return new_map(self, query_string.parse(text(x.query)), save_query) end,
  cookies = function(self)
    return new_map(self, query_string.parse_cookies(self.headers["Cookie"] or ""), save_cookies)
  end,
}
local kept = { headers = HEADERS, client = CLIENT, original = ORIGINAL, query = QUERY, cookies = COOKIES }
local methods_of_messages = { add_header = add_header, edit = edit }
for name, f in pairs(body.methods) do methods_of_messages[name] = f end

local Request = { __metatable = false }
function Request.__index(self, key)
  local slot = kept[key]
  if slot and self[slot] then return self[slot] end
  local getter = get[key]
  if not getter then return methods_of_messages[key] end
  local value = getter(self, live(self))
  if slot then self[slot] = value end
  return value
end

local function setter(name, call)
  return function(self, value)
    local x = live(self)
    if type(value) ~= "string" or call(x, value, #value) ~= 0 then
      error(("req.%s cannot be %q"):format(name, tostring(value)), 3)
    end
  end
end

local set = {
  method = setter("method", function(x, p, n) return C.tg_abi_set_method(x, p, n) end),
  path = setter("path", function(x, p, n) return C.tg_abi_set_path(x, p, n) end),
  raw_path = setter("raw_path", function(x, p, n) return C.tg_abi_set_path(x, p, n) end),
  host = setter("host", function(x, p, n) return C.tg_abi_set_host(x, p, n) end),
  raw_query = function(self, value)
    set_query(self, value)
    self[QUERY] = false
  end,
}
function Request.__newindex(self, key, value)
  local f = set[key]
  if not f then error("req." .. tostring(key) .. " cannot be assigned", 2) end
  f(self, value)
end

-- ---------------------------------------------------------------- response

local sources = { [0] = "gateway", [1] = "upstream", [2] = "plugin", [3] = "gateway" }

local Response = { __metatable = false }
function Response.__index(self, key)
  if key == "status" then return tonumber(live(self).status) end
  if key == "headers" then
    local fields = self[HEADERS] or new_fields(self, abi.RESPONSE)
    self[HEADERS] = fields
    return fields
  end
  if key == "source" then return sources[live(self).source] end
  if key == "trailers" then return new_fields(self, abi.TRAILERS) end
  return methods_of_messages[key]
end
function Response.__newindex(self, key, value)
  if key ~= "status" then error("res." .. tostring(key) .. " cannot be assigned", 2) end
  if C.tg_abi_set_status(live(self), value) ~= 0 then error("not a status: " .. tostring(value), 2) end
end

-- ---------------------------------------------------------------- ctx

exchange.CREDENTIAL = CREDENTIAL
exchange.ROUTE, exchange.CONSUMER, exchange.UPSTREAM, exchange.PEERS, exchange.LEVEL = ROUTE, CONSUMER, UPSTREAM, PEERS, LEVEL

local ctx_get = {
  req = function(self)
    local req = self[REQ]
    if not req then
      req = setmetatable({
        self[1], self[2], abi.REQUEST, false, self[CTX_PARAMS] or {}, false, false, false, false,
      }, Request)
      self[REQ] = req
    end
    return req
  end,
  res = function(self)
    local res = self[RES]
    if not res then
      if live(self).status == 0 then return nil end
      res = setmetatable({ self[1], self[2], abi.RESPONSE, false }, Response)
      self[RES] = res
    end
    return res
  end,
  vars = function(self)
    local vars = self[VARS]
    if not vars then
      vars = { jwt = exchange.claims_of(self[CREDENTIAL]) }
      self[VARS] = vars
    end
    return vars
  end,
  id = function(self)
    local x = live(self)
    if x.id.n == 0 then C.tg_abi_id(x, 0) end
    return (to_string(x.id.p, x.id.n))
  end,
  trace_id = function(self)
    local id = trace.ids(live(self))
    return id
  end,
  span_id = function(self)
    local _, id = trace.ids(live(self))
    return id
  end,
  peers = function(self) return self[PEERS] or nil end,
  credential = function(self) return self[CREDENTIAL] or nil end,
  route = function(self)
    local route = self[ROUTE]
    return route and route.public or nil
  end,
  consumer = function(self)
    local consumer = self[CONSUMER]
    if type(consumer) == "number" then
      consumer = consumers.at(consumer)
      self[CONSUMER] = consumer
    end
    return consumer or nil
  end,
  upstream = function(self)
    local up = self[UPSTREAM]
    return up and up.name or nil
  end,
  peer = function(self)
    local x = live(self)
    return x.attempt > 0 and exchange.peer_of(tonumber(x.peer)) or nil
  end,
  started = function(self) return live(self).started end,
  attempt = function(self) return { n = tonumber(live(self).attempt) } end,
  duration = function(self) return live(self).duration end,
  upstream_time = function(self)
    local seconds = live(self).upstream_time
    return seconds >= 0 and seconds or nil
  end,
  bytes_in = function(self) return tonumber(live(self).bytes_in) end,
  bytes_out = function(self) return tonumber(live(self).bytes_out) end,
  aborted = function(self) return live(self).aborted ~= 0 end,
  generation = function() return exchange.generation end,
  status = function(self)
    local status = live(self).status
    return status ~= 0 and tonumber(status) or nil
  end,
}

--- claims_of(credential) -> the claims of the token that it is | nil: ctx.vars.jwt, for which most requests would make a table that nobody looks into
function exchange.claims_of(credential) return type(credential) == "table" and credential.claims or nil end

--- authenticate(consumer, credential?): the client is this consumer from now on.
local function authenticate(self, consumer, credential)
  live(self)
  if type(consumer) ~= "table" or consumer.id == nil then
    error("ctx:authenticate needs a consumer: a table with an id", 2)
  end
  self[CONSUMER] = consumer
  self[CREDENTIAL] = credential or false
  if self[VARS] and exchange.claims_of(credential) then self[VARS].jwt = credential.claims end
  local tell = exchange.tell_consumer
  if tell then
    local id = tell(self)
    if id then C.tg_abi_set_consumer(live(self), id, #id) end
  end
end

--- know(ctx, known, credential): as consumers.know
function exchange.know(self, known, credential)
  local is_view = rawget(self, exchange.REAL) ~= nil
  if is_view or type(known) ~= "number" or exchange.tell_consumer then return self:authenticate(consumers.at(known), credential) end
  live(self)
  self[CONSUMER], self[CREDENTIAL] = known, credential
end

--- forget_consumer(ctx): he is nobody.
function exchange.forget_consumer(self)
  self[CONSUMER], self[CREDENTIAL] = false, false
  if exchange.tell_consumer then C.tg_abi_set_consumer(live(self), nil, 0) end
end

local function remaining(self)
  local x = live(self)
  return (math.max(0, tonumber(x.total_timeout) / 1000 - (vm.now - x.started)))
end

--- next() -> ctx.res: in `around`, runs all that it wraps.
local function next_level(self) return exchange.next(self) end

local ctx_methods = { authenticate = authenticate, remaining = remaining, next = next_level }

local Ctx = { __metatable = false }
function Ctx.__index(self, key)
  local getter = ctx_get[key]
  if getter then return getter(self) end
  return ctx_methods[key]
end
function Ctx.__newindex(self, key, value)
  if key == "upstream" then
    local up = exchange.upstream_of(value)
    if not up then error('there is no upstream "' .. tostring(value) .. '"', 2) end
    self[UPSTREAM] = up
    live(self).upstream = up.number
  elseif key == "id" then
    if type(value) ~= "string" or C.tg_abi_set_id(live(self), value, #value) ~= 0 then error("ctx.id must be a token", 2) end
  elseif key == "vars" or ctx_get[key] or ctx_methods[key] then
    error("ctx." .. tostring(key) .. " cannot be assigned", 2)
  else
    error("ctx." .. tostring(key) .. " does not exist; use ctx.vars", 2)
  end
end

function exchange.new(x, route, params)
  return (setmetatable({
    x, x.serial, route or false, false, route and route.upstream or false, false, false, false, false, false,
    params or false, false,
  }, Ctx))
end

--- fields(x, side) -> the fields of a message, as plugins see them
function exchange.fields(x, side) return new_fields({ x, x.serial }, side) end

--- unchanged(x) -> a ctx of which the request has the fields that the client has sent, whatever becomes of it meanwhile
function exchange.unchanged(x)
  local ctx = exchange.new(x)
  ctx.req[HEADERS] = exchange.fields(x, abi.ORIGINAL)
  return ctx
end

--- enter_unchanged(ctx, route, params): the route of such a ctx
function exchange.enter_unchanged(ctx, route, params)
  ctx[ROUTE] = route
  ctx[UPSTREAM] = route.upstream or false
  ctx.req[PARAMS] = params or {}
end

--- is_of(ctx, x): whether this is the ctx of the exchange that x is now
function exchange.is_of(ctx, x)
  return ctx[2] == x.serial
end

--- enter_route(ctx, route, params): the route of a ctx that was made before there was one
function exchange.enter_route(ctx, route, params)
  ctx[ROUTE] = route
  ctx[CTX_PARAMS] = params or false
  ctx[UPSTREAM] = route.upstream or false
  ctx[REQ] = false
end

return exchange
