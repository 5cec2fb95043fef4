--- inspection: what a configuration would do with requests, without sending one: the route by the gateway's own router, its uses, its upstream.
-- One configuration in each process: what it declares is known to the whole runtime.
local boot = require "runtime.boot"
local json = require "tidegate.json"
local near = require "runtime.near"
local own_uses = require "runtime.own_uses"
local playback = require "tool.playback"
local query_string = require "tidegate.query"
local routes = require "runtime.routes"

local inspection = {}
local ENTRIES = { "gateway.lua", "gateway.yaml", "gateway.json" }
local UNDERSCORES = { drop = 0, allow = 1, reject = 2 } -- enum tg_underscores
local NEAR_MAX = 8

-- ---------------------------------------------------------------- the configuration

-- The files of a generation that a gateway keeps, as those that are pushed: by name, and which is the first.
local function sources_of(core, options)
  local status, text = core.ask(options.control or core.control, "sources " .. options.generation)
  if status ~= 0 then return nil, (text:gsub("%s+$", "")) end
  local files, count, entry = {}, 0, options.config
  for name, source in pairs(assert(json.decode_object(text))) do
    local kind, rest = name:match "^(%a+):(.*)$"
    files[kind == "plugin" and "plugins/" .. rest .. ".lua" or rest] = source
    if kind == "file" then count, entry = count + 1, entry or count == 0 and rest or nil end
  end
  for _, name in ipairs(count > 1 and not options.config and ENTRIES or {}) do
    if files[name] then entry = name break end
  end
  if not entry or not files[entry] then return nil, "which file of the generation is the first? --config NAME" end
  return json.encode(files), entry
end

--- load(core, { config, generation?, control?, plugins?, run?, salt? }) -> cfg, server | nil, err; `run`: plugins are to be run
function inspection.load(core, options)
  if options.run then playback.prepare() end
  local source = { glob = core.glob, entry = options.config or ENTRIES[1], plugin_dirs = {}, no_secrets = true }
  if options.generation then
    local pushed, entry = sources_of(core, options)
    if not pushed then return nil, entry end
    source.pushed, source.entry = pushed, entry
  end
  local dirs = source.plugin_dirs
  if options.plugins then dirs[1] = options.plugins end
  if not options.generation then dirs[#dirs + 1] = (source.entry:match "^(.*/)[^/]+$" or "") .. "plugins" end
  dirs[#dirs + 1] = core.plugin_dirs[#core.plugin_dirs] -- those that are built in
  local cfg, server = boot.inspect(source)
  if cfg and options.run then playback.start(cfg, options.salt) end
  return cfg, server
end

-- ---------------------------------------------------------------- a request

local Probe = {}
Probe.__index = Probe

function Probe:header(name)
  local fields = self.request.fields
  for i = 1, #fields, 2 do
    if fields[i]:lower() == name:lower() then return fields[i + 1] end
  end
end

function Probe:query(name)
  self.values = self.values or query_string.parse(self.request.query)
  return self.values:get(name)
end

-- As serve.lua asks a connection; offline the name that TLS was asked for is that of the request.
function Probe:connection(name, wanted)
  if name == "scheme" then return self.scheme end
  if name == "sni" then
    local host = self.scheme == "https" and self.request.host or nil
    local is_below = host and wanted:sub(1, 2) == "*." and #host >= #wanted and host:sub(1 - #wanted) == wanted:sub(2)
    return is_below and wanted or host
  end
  if wanted == "h2" or wanted == "http/1" then return self.protocol end
  local kind = self:header(wanted == "grpc" and "content-type" or "upgrade")
  if not kind then return nil end
  if wanted == "grpc" then return kind:lower():find "^application/grpc" and not kind:lower():find "^application/grpc%-web" and "grpc" or nil end
  return kind:lower() == wanted and wanted or nil
end

-- ---------------------------------------------------------------- what is said

local function use_of(use, phase)
  return { phase = phase, name = use.label, at = use.at, ["when"] = use.conditional or nil, shadow = use.shadow or nil,
    around = use.plugin.around and true or nil }
end

local function add(list, uses, phase, reverse)
  for i = reverse and #uses or 1, reverse and 1 or #uses, reverse and -1 or 1 do
    if uses[i].plugin[phase] then list[#list + 1] = use_of(uses[i], phase) end
  end
end

-- The phases of all uses in the order in which they run.
local function uses_of(cfg, conf)
  local list, all = {}, {}
  for _, use in ipairs(cfg.use) do all[#all + 1] = use end
  for _, use in ipairs(conf.use) do all[#all + 1] = use end
  add(list, cfg.use, "rewrite")
  add(list, conf.use, "rewrite")
  add(list, all, "authenticate_shadow")
  add(list, all, "authenticate")
  for _, use in ipairs(all) do
    if use.plugin.access or use.plugin.around then list[#list + 1] = use_of(use, use.plugin.access and "access" or "around") end
  end
  if conf.handler then list[#list + 1] = use_of(conf.handler, "handler") end
  add(list, all, "balance")
  add(list, all, "response", true)
  add(list, all, "log")
  for _, entry in ipairs(list) do entry.phase = entry.phase:gsub("_shadow$", "") end
  return list, all
end

local function limits_of(conf, uses)
  local list = {}
  for _, use in ipairs(uses) do
    local own = use.conf
    for _, each in ipairs(type(own) == "table" and (own.limits or own.limit and { own }) or {}) do
      list[#list + 1] = { name = use.label, limit = each.limit, per = each.per or each.period, algorithm = each.algorithm or own.algorithm,
        store = own.store }
    end
  end
  return list, { timeout = conf.timeout, body = conf.body_limit < 2 ^ 53 and conf.body_limit or nil, breaker = conf.breaker and true or nil,
    bulkhead = conf.bulkhead and true or nil }
end

local function upstream_of(cfg, conf)
  local up = conf.to and cfg.upstream[conf.to]
  if not up then return nil end
  local targets = {}
  for i, target in ipairs(up.targets or {}) do
    local name = target.path and "unix:" .. target.path or ("%s://%s:%d"):format(target.scheme, target.host, target.port)
    targets[i] = { name = name, weight = target.weight }
  end
  return { name = conf.to, at = up.at, targets = targets }
end

local function near_of(list, chosen)
  local found = {}
  for _, entry in ipairs(list) do
    if entry.conf ~= chosen and #found < NEAR_MAX then
      local miss = entry.misses[1]
      found[#found + 1] = { route = entry.conf.name, at = entry.conf.at, path = entry.pattern, what = miss and miss.what or "order",
        found = miss and miss.found, wanted = miss and miss.wanted }
    end
  end
  return found
end

local function conf_of(cfg, index)
  for _, conf in ipairs(cfg.route) do
    if conf.index == index then return conf end
  end
end

local function refused_path(conf, request)
  local doubts = request.doubts
  return doubts ~= 0 and (not conf or bit.band(doubts, routes.refused_doubts(conf)) ~= 0)
end

local function fill(said, cfg, conf)
  local all
  said.route = { name = conf.name, at = conf.at, shadow = conf.shadow or nil }
  said.uses, all = uses_of(cfg, conf)
  said.limits, said.bounds = limits_of(conf, all)
  for _, use in ipairs(all) do
    if use.plugin.authenticate then said.own = own_uses.told(cfg.consumer_uses, all) end
  end
  said.upstream = upstream_of(cfg, conf)
  said.handler = conf.handler and conf.handler.label
end

--- listener(cfg, name?) -> the one of this name, or the first that routes lead from | nil
function inspection.listener(cfg, name)
  for _, listen in ipairs(cfg.listen) do
    if not listen.admin and (not name or listen.name == name) then return listen end
  end
end

--- explain(core, cfg, server, listen, { head, scheme?, protocol, client?, response? }, options) -> what would become of it, as JSON has it;
-- options: `brief`: without near misses; `run`: with what its plugins do
function inspection.explain(core, cfg, server, listen, given, options)
  local said = { listen = listen.name or ("%s:%d"):format(listen.address, listen.port) }
  local request, status, why
  if given.problem then return { status = 400, why = given.problem } end
  request, status, why = core.parse(given.head, not listen.merge_slashes, UNDERSCORES[listen.underscores])
  if not request then
    said.status, said.why = status, why
    return said
  end
  said.method, said.host, said.path = request.method, request.host, request.path
  local scheme = given.scheme or (listen.tls and "https" or "http")
  local probe = setmetatable({ request = request, scheme = scheme, protocol = given.protocol }, Probe)
  local r = server.routers[listen.index]
  local index, params, allow = r:match(request.method, request.host, request.path, probe)
  local conf = index and conf_of(cfg, index)
  local confs = routes.of_listener(cfg, listen)
  said.near = not options.brief and near_of(near.routes(confs, request.method, request.host, request.path, probe), conf) or nil
  if refused_path(conf, request) then
    said.status, said.why = 400, request.doubts == 2 and "the path is no UTF-8" or "an encoded slash in the path"
  elseif not conf then
    said.status, said.allow, said.why = params, allow, params == 405 and "the method is not allowed here" or "no route matches"
  else
    fill(said, cfg, conf)
    said.params = params
    local prefix = conf.strip_path and conf.path[1]:match "^(.-)/%*$"
    said.upstream_path = conf.to and (prefix and request.raw_path:sub(#prefix + 1) or request.raw_path):gsub("^$", "/") or nil
  end
  if options.run then said.run = playback.run(server, r, request, given, probe, scheme) end
  return said
end

return inspection
