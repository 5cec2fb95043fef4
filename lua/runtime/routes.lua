--- routes: what each route is made of, built once a generation, so that a request only looks it up.
local abi = require "abi"
local authentication = require "runtime.authentication"
local barrier = require "runtime.barrier"
local chain = require "runtime.chain"
local constant_edits = require "runtime.constant_edits"
local core_steps = require "runtime.core_steps"
local guard = require "runtime.guard"
local handler = require "runtime.handler"
local identity = require "runtime.identity"
local own_uses = require "runtime.own_uses"
local pace = require "runtime.pace"
local router = require "runtime.router"
local shadow = require "runtime.shadow"
local shadow_messages = require "runtime.shadow_messages"
local slots = require "runtime.route_slots"
local upstreams = require "runtime.upstreams"

local C = abi.C
local routes = {}
local ADMIN_TIME = 30 -- seconds until a response of it begins

local function concat(a, b)
  local list = {}
  for _, value in ipairs(a) do list[#list + 1] = value end
  for _, value in ipairs(b) do list[#list + 1] = value end
  return list
end

local function level_of(uses, build, ends)
  return { access = build(uses, "access", false, ends), response = build(uses, "response", true, ends) }
end

-- nil when no use has `around`; else the uses up to the first that has, that one, and in `inner` all that it wraps.
local function levels(uses, build)
  for i, use in ipairs(uses) do
    if use.plugin.around then
      local level, rest = level_of({ unpack(uses, 1, i) }, build), { unpack(uses, i + 1) }
      level.around, level.when, level.label = chain.build({ use }, "around"), use.when, use.label
      level.inner = levels(rest, build) or level_of(rest, build, true)
      return level
    end
  end
  return nil
end

local AT_ONCE = 3 -- calls of plugins that LuaJIT has registers and spill slots for in one trace

local function calls(uses, phase)
  local count = 0
  for _, use in ipairs(uses) do
    if use.plugin[phase] then count = count + 1 end
  end
  return count
end

-- The same for consumers who have uses of their own. Nothing is taken out of it for the core to do, but for lines of logs.
local function own_phases(p, uses, logging)
  local own, build = {}, own_uses.builder(uses)
  for key, value in pairs(p) do own[key] = value end
  own.level = p.level and levels(uses, build) or nil
  own.access, own.response = build(uses, "access", false, true), build(uses, "response", true, true)
  own.log, own.logs, own.is_long = build(logging, "log", false, true), true, true
  own.wants = bit.bor(abi.WANT_RESPONSE, abi.WANT_LOG)
  return own
end

-- The phases of a list of uses; shared by all routes that have no uses of their own.
local function phases(uses, own, auth)
  local authenticate, challenge = authentication.build(uses, auth)
  local level = levels(uses, chain.build)
  local request_edits, at_access, response_edits, at_response = nil, uses, nil, uses
  if not level then
    request_edits, at_access = constant_edits.of_requests(uses, own)
    response_edits, at_response = constant_edits.of_responses(uses)
  end
  local ending, logging, logs = core_steps.ending(uses)
  local p = {
    authenticate = authenticate, challenge = challenge,
    request_edits = request_edits or abi.no_edits, response_edits = response_edits or abi.no_edits,
    access = chain.build(at_access, "access"),
    response = chain.build(at_response, "response", true),
    balance = chain.build(uses, "balance"),
    log = chain.build(logging, "log"), logs = logs, ending = ending,
    authenticate_shadow = chain.build(uses, "authenticate_shadow"),
    to_upstream = chain.build(uses, "websocket"), to_client = chain.build(uses, "websocket", true), level = level,
  }
  p.is_long = calls(uses, "rewrite") + calls(uses, "authenticate") + calls(uses, "access") > AT_ONCE
  p.any = (p.authenticate or p.access or p.response or p.balance or logs or p.level or p.to_client) ~= nil
  if own_uses.any and authenticate then p.own = own_phases(p, uses, logging) end
  return p
end

local function freeze(values)
  return setmetatable({}, {
    __index = values, __metatable = false,
    __newindex = function(_, key) error("ctx.route." .. tostring(key) .. " cannot be assigned", 2) end,
  })
end

local function milliseconds(seconds) return math.floor(seconds * 1000) end

-- What of abi.path_doubts the route refuses.
function routes.refused_doubts(conf)
  return (conf.encoded_slashes == "keep" and 0 or 1) + (conf.invalid_utf8 == "keep" and 0 or 2)
end

local function number_of(server, up)
  if not up then return 0 end
  local number = server.number_of[up] or #server.ups + 1
  server.number_of[up], server.ups[number] = number, up
  return number
end

local function set_head(server, index, of)
  local head, p = server.heads[index], of.p
  head.request_edits, head.response_edits, head.body_limit = p.request_edits, p.response_edits, of.body_limit
  head.route, head.timeout, head.counted, head.upstream = index, milliseconds(of.timeout), C.TG_METRIC_UNCOUNTED, number_of(server, of.up)
  head.wants = ((p.response or p.level) and abi.WANT_RESPONSE or 0) + (p.logs and abi.WANT_LOG or 0)
  head.doubts, head.more = of.doubts, of.more and 1 or 0
end

local function build_route(server, conf, global)
  local p = server.shared
  local lone = #conf.upgrade > 0 and shadow_messages.lone(concat(global, conf.use))
  if lone then error(("%s: route %q: %s"):format(conf.at, conf.name, lone), 0) end
  if #conf.use > 0 or type(conf.auth) == "table" or conf.auth == "required" then
    local ok, made = pcall(phases, concat(global, conf.use), conf.use, conf.auth)
    if not ok then error(("%s: route %q: %s"):format(conf.at, conf.name, tostring(made)), 0) end
    p = made
  end
  local up = conf.to and upstreams.by_name[conf.to] or nil
  -- Of a route's own uses: when it is known, before anybody is asked who he is.
  local own_rewrite = shadow.before(p, chain.build(conf.use, "rewrite"), conf.auth == "optional", concat(global, conf.use))
  local has_ctx = p.any or own_rewrite ~= nil or conf.handler ~= nil or up ~= nil and up.needs_ctx
  local prefix = conf.strip_path and conf.path[1]:match "^(.-)/%*$" or nil
  local route = { -- in the order of route_slots
    p, own_rewrite or false, prefix or false, up or false, #conf.upgrade > 0 and conf.upgrade,
    guard.new(conf) or false, has_ctx, name = conf.name, upstream = up,
    optional = conf.auth == "optional", tunnel_timeout = milliseconds(conf.tunnel_timeout),
    max_message = conf.max_message, message_deflate = conf.message_deflate and 1 or 0,
    public = freeze { name = conf.name, path = conf.path, to = conf.to, stripped = prefix },
  }
  if conf.handler then
    route.handler = handler.new(conf.handler)
  end
  local more = has_ctx or not up or route[slots.STRIP] or route[slots.UPGRADE] or route[slots.GUARD]
  set_head(server, conf.index, {
    p = p, timeout = conf.timeout, body_limit = conf.body_limit, up = up, doubts = routes.refused_doubts(conf), more = more,
  })
  server.names[conf.index] = conf.name
  return route
end

--- of_listener(cfg, listen) -> list of the routes that requests on a listener can have, as configured
function routes.of_listener(cfg, listen)
  local list = {}
  for _, conf in ipairs(cfg.route) do
    local on = not conf.listen
    for _, name in ipairs(conf.listen or {}) do on = on or name == listen.name end
    if on then list[#list + 1] = conf end
  end
  return list
end

-- What answers on the listener for operators: no plugin of the configuration has a say there. Index 0 is no route.
local function build_admin(server, conf, index, answer)
  local p = phases({}, {})
  set_head(server, index, { p = p, timeout = ADMIN_TIME, body_limit = 8 * 2 ^ 20, doubts = 0, more = true })
  server.routes[index] = {
    p, false, false, false, false, false, true, name = "admin", public = freeze { name = "admin" },
    handler = handler.plain(answer, conf),
  }
  return { only = index, is_admin = true }
end

--- build(cfg, uses, report, answer) -> server: all that is computed from routes, uses and listeners; `answer` handles requests of operators.
-- `routes` and `heads` by the index of a route, the latter what every request gets; `names`; `ups`: upstreams by number; `routers` by listener;
-- `shared`: phases of the gateway's own uses; `rewrite`: their phase before there is a route
function routes.build(cfg, uses, report, answer)
  local behind = #cfg.route + 1
  local server = {
    routes = {}, names = {}, routers = {}, ups = {}, number_of = {},
    shared = phases(cfg.use, {}), rewrite = chain.build(core_steps.opening(cfg.use), "rewrite"),
  }
  server.heads, server.heads_memory = abi.routes_of(behind)
  for _, conf in ipairs(cfg.route) do
    server.routes[conf.index] = build_route(server, conf, cfg.use)
    pace.breathe()
  end
  for i, listen in ipairs(cfg.listen) do
    server.routers[i] = listen.admin and build_admin(server, listen.admin, behind, answer) or router.build(routes.of_listener(cfg, listen), report)
  end
  server.number_of = nil
  identity.strip(uses)
  chain.forget()
  barrier.forget()
  return server
end

return routes
