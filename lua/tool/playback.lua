--- playback: the phases of a configuration, run on a request of a file: what plugins would answer and change, without a worker, and so without a
-- word to anybody else. As a generation in shadow judges a live request (runtime/rehearsal_phases); in place of the response of its upstream stands
-- the recorded one. What a plugin can only do in a worker is unknown: to wait, to ask others, to keep something.
local abi = require "abi"
local budget = require "runtime.budget"
local chain = require "runtime.chain"
local cidr = require "tidegate.cidr"
local consumers = require "tidegate.consumers"
local crypto = require "tidegate.crypto"
local exchange = require "runtime.exchange"
local limit = require "tidegate.limit"
local limit_local = require "tidegate.limit_local"
local mask = require "tidegate.mask"
local phases = require "runtime.rehearsal_phases"
local secret = require "tidegate.secret"
local shadow = require "runtime.shadow"
local upstreams = require "runtime.upstreams"

local C, vm = abi.C, abi.vm
local playback = { salt = nil }
local NOBODY = "127.0.0.1" -- whom it comes from where nobody has recorded that
local ID = ("0"):rep(32)
local CREDENTIALS = { authorization = true, ["proxy-authorization"] = true, cookie = true, ["set-cookie"] = true }
local SECRET = { "key", "token", "secret", "signature", "password", "session" } -- in names of fields whose values are not told
local VALUE_MAX = 256

-- ---------------------------------------------------------------- once

-- Nobody's limits are used up, so that all have room.
local function take(_, limits, _, _, cost)
  local out = limit_local.out
  for i, one in ipairs(limits) do out.ok[i], out.left[i], out.retry[i], out.reset[i] = true, math.max(0, one.rate - cost), 0, 0 end
  out.wait = 0
  return true
end

-- As in consumers.lua, where the core reads the fields of an exchange.
local function find_field(map, headers, name)
  local value = headers[name]
  return value and C.tg_abi_map_find(map, value, #value) or -1
end

--- prepare(): before the configuration is loaded
function playback.prepare()
  abi.offline = true
  secret.keep()
end

--- start(cfg, salt?): it is loaded, and its phases are run from now on. With a salt, values of credentials are told as digests.
function playback.start(cfg, salt)
  playback.salt = salt
  abi.in_shadow = true -- metrics do not count
  limit_local.take, limit_local.add = take, function() end
  limit_local.hold = function(_, one) return true, one.rate - 1 end
  for _, limiter in ipairs(limit.all) do limiter.shared = nil end
  consumers.find_field = find_field
  exchange.upstream_of = function(name) return upstreams.by_name[name] end
  budget.soft, budget.loading, budget.report = cfg.defaults.budget, false, function() end
  function chain.report() budget.forgive() end
end

-- ---------------------------------------------------------------- an exchange

local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do
    local key = list[i]:lower()
    local values = fields[key] or {}
    fields[key], values[#values + 1] = values, list[i + 1]
  end
  return fields
end

local function is_address(text)
  return text ~= nil and not text:find("/", 1, true) and pcall(cidr.set, text)
end

-- What plugins see as ctx below the view that takes their changes.
local function new_ctx(x, request, given, scheme)
  local headers = shadow.known_fields(x, x.serial, abi.REQUEST, fields_of(request.fields))
  local ip = is_address(given.client) and given.client or NOBODY
  local target = request.raw_path .. (request.query ~= "" and "?" .. request.query or "")
  local req = {
    x, x.serial, method = request.method, path = request.path, raw_path = request.raw_path, raw_query = request.query, host = request.host,
    port = tonumber(request.authority:match ":(%d+)$"), scheme = scheme, upgrade = headers.upgrade,
    version = given.protocol == "h2" and "2" or "1." .. request.minor, headers = headers, params = {},
    client = { ip = ip, port = 0, network = cidr.network(ip) },
    original = { method = request.method, target = target, path = request.raw_path, raw_path = request.raw_path, query = request.query,
      headers = headers },
  }
  return { req = req, id = ID, started = vm.now, attempt = { n = 0 }, remaining = function() return 60 end }
end

local function enter_route(ctx, route, params)
  ctx.route, ctx.upstream, ctx.req.params = route.public, route.upstream and route.upstream.name, params or {}
end

-- ---------------------------------------------------------------- what came of it

local function is_secret(key)
  if CREDENTIALS[key] then return true end
  for _, word in ipairs(SECRET) do
    if key:find(word, 1, true) then return true end
  end
  return false
end

-- With a salt that nobody else has, a digest tells that two values differ, and not what they are. A secret may stand under any name.
local function told(key, list)
  local text = table.concat(list, ", ")
  if text == "" or not is_secret(key) and secret.hide(text) == text then return (text:sub(1, VALUE_MAX):gsub("[%c\127-\255]", "?")) end
  return playback.salt and "***" .. crypto.hex(crypto.hmac("sha256", playback.salt, text)) or "***"
end

local function to_upstream(record)
  local view, ctx = record.view, record.ctx
  local changed = {}
  for key, list in pairs(shadow.edits(view)) do
    local value, was = told(key, list or {}), told(key, ctx.req.headers(key))
    if value ~= was then changed[key] = list and value or false end
  end
  local req = view.req
  return { method = req.method, path = secret.hide(req.raw_path), query = mask.query(secret.hide(req.raw_query)), headers = changed }
end

local function to_client(view)
  local headers = {}
  for name in view.res.headers() do
    local key = name:lower()
    headers[key] = headers[key] or told(key, view.res.headers(key))
  end
  return { status = view.res.status, headers = headers }
end

local function unknown_of(record)
  if record.unknown then return record.unknown end
  if abi.refused then return "a plugin " .. abi.refused end
  local raised = record.raised or record.response_raised
  return raised and raised:find("tg_abi_exchange", 1, true) and "a plugin needs a connection" or nil
end

local function describe(record)
  local unknown = unknown_of(record)
  if unknown then return { unknown = unknown } end
  local raised = record.raised or record.response_raised
  local said = { answers = record.status, raised = raised and secret.hide(raised), unclear = record.unclear }
  if not record.status then
    local upstream, handles = phases.way(record)
    said.upstream, said.handler = not handles and upstream or nil, handles or nil
    if not handles then said.request = to_upstream(record) end
  end
  if not said.raised and not said.unclear and record.done then said.response = to_client(record.view) end
  return said
end

--- run(server, router, request, given, probe, scheme) -> { unknown = why } or { answers = status | nil, raised?, upstream?, handler?, request =
-- { method, path, query, headers = those that plugins change }?, response = { status, headers }?, unclear = why there is no response }
function playback.run(server, router, request, given, probe, scheme)
  local x = { serial = 1, slot = 0, path_doubts = request.doubts, id = { p = ID, n = #ID } }
  local record = { x, x.serial, serial = x.serial, counted = 0, deferred = {}, router = router, probe = probe, enter_route = enter_route,
    head = given.response or false }
  abi.refused = nil
  vm.now, vm.monotonic = os.time(), C.tg_abi_clock()
  budget.forgive()
  record.ctx = new_ctx(x, request, given, scheme)
  phases.run(record, x, server)
  return describe(record)
end

return playback
