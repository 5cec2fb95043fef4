--- config: evaluates a configuration, in Lua or JSON, and judges every word of it.
local abi = require "abi"
local admin_config = require "runtime.admin_config"
local address = require "runtime.address"
local budget = require "runtime.budget"
local consumer_config = require "runtime.consumer_config"
local consumer_list = require "tidegate.consumer_list"
local consumers_config = require "runtime.consumers_config"
local listen_tls = require "runtime.listen_tls"
local ordered = require "runtime.ordered"
local pace = require "runtime.pace"
local quarantine = require "runtime.quarantine"
local redis_config = require "runtime.redis_config"
local report_of = require "runtime.report"
local route_config = require "runtime.route_config"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"
local source_config = require "runtime.source_config"
local target = require "runtime.target"
local task = require "tidegate.task"
local unread = require "tidegate.unread"
local upstream_config = require "runtime.upstream_config"
local use_config = require "runtime.use_config"
local vault = require "runtime.vault"

local t = schema.t
local config = { library = { tg = nil, t = nil } }

-- The core counts milliseconds in 32 bits.
local MAX_WAIT = 7 * 86400
local NO_LIMIT = 2 ^ 53 -- body_limit = 0: none, which must be said
local MIN_SECRET = 16 -- bytes, of `explain`
local MAX_LISTENERS, MAX_DICTS = 64, 128 -- TG_LISTENERS_MAX, TG_GENERATION_DICTS: the master would leave out the rest
local function duration(default) return t.duration { default = default, min = 0.001, max = MAX_WAIT } end

local names_type = t.optional(t.list(t.string(), { min = 1, max = 20 }))
local auth_type = t.any_of { t.enum { "optional", "required" }, t.record { any = names_type, all = names_type } }
local name_type = t.optional(t.string { match = "^[%w_.%-]+$", len = 63 })
pace.breathe() -- what follows is long, and so is what comes behind it
local specs = {
  listen = {
    name = name_type, address = t.ip "0.0.0.0", port = t.integer { min = 1, max = 65535 },
    header_timeout = duration "10s", body_timeout = duration "15s", send_timeout = duration "30s",
    keepalive_timeout = duration "60s", keepalive_requests = t.integer { default = 10000, min = 1, max = 2 ^ 31 },
    request_line = t.size { default = "8KiB", min = 64, max = 65536 }, field = t.size { default = "8KiB", min = 64, max = 65536 },
    head = t.size { default = "32KiB", min = 256, max = 262144 }, fields = t.integer { default = 100, min = 1, max = 500 },
    body_rate = t.size { default = 500, min = 0, max = 2 ^ 31 }, client_connections = t.integer { default = 1000, min = 0, max = 2 ^ 31 },
    trusted_proxies = t.list(t.cidr(), { default = {}, max = 4096 }),
    trusted_header = t.enum { "x-forwarded-for", "forwarded", default = "x-forwarded-for" },
    proxy_protocol = t.boolean(false), merge_slashes = t.boolean(true),
    underscores = t.enum { "drop", "allow", "reject", default = "drop" },
    tls = t.optional(t.any { raw = true }), http2 = t.boolean(true), http2_streams = t.integer { default = 100, min = 1, max = 10000 },
    http2_resets = t.integer { default = 100, min = 1, max = 1e6 }, http2_controls = t.integer { default = 200, min = 10, max = 1e6 },
  },
  redis = redis_config.spec,
  source = source_config.spec,
  dict = { size = t.size { default = "1MiB", min = 65536, max = 4e9 } },
  upstream = upstream_config.spec,
  consumer = consumer_config.spec,
  consumers = consumers_config.spec,
  route = {
    path = t.list(route_config.path_type, { min = 1 }), listen = t.optional(t.list(t.string(), { min = 1 })),
    protocol = t.optional(t.enum { "http/1", "h2", "grpc", "websocket" }),
    alpn = t.optional(t.enum { "http/1.1", "h2" }), sni = t.optional(t.string { match = "^[%l%d*][%l%d.-]*$", len = 255 }),
    priority = t.integer { default = 0, min = -1e6, max = 1e6 },
    to = t.optional(t.string()), handler = t.optional(t.any { raw = true }), use = t.any { default = {}, raw = true },
    shadow = t.boolean(false),
    timeout = t.optional(duration(nil)),
    body_limit = t.optional(t.size()), strip_path = t.boolean(false), auth = t.optional(auth_type),
    breaker = t.optional(t.any { raw = true }), bulkhead = t.optional(t.any { raw = true }),
    upgrade = t.list(t.string { match = "^[%w!#$%%&'*+.^_`|~/-]+$", len = 63 }, {}), tunnel_timeout = duration "5m",
    max_message = t.size { default = "1MiB", min = 1, max = 2 ^ 28 }, message_deflate = t.boolean(false),
    encoded_slashes = t.enum { "reject", "keep", default = "reject" }, invalid_utf8 = t.enum { "reject", "keep", default = "reject" },
  },
  defaults = {
    timeout = duration "60s", body_limit = t.size "10MiB", budget = t.duration { default = "50ms", min = 0.001, max = 10 },
    call_memory = t.size { default = "64MiB", min = 2 ^ 20, max = 2 ^ 40 },
    quarantine = t.optional(t.record(quarantine.spec)),
  },
  resolver = { servers = t.list(t.string(), { default = {}, max = 8 }) },
  -- Hosts and "*.names" that plugins may reach by URL although they lead to private addresses.
  http = { allow = t.list(t.string(), { default = {}, max = 1000 }) },
  limits = { memory = t.optional(t.size { min = 16777216, max = 2 ^ 50 }), connections = t.optional(t.integer { min = 1, max = 2 ^ 31 }),
    lua_memory = t.size { default = "256MiB", min = 16777216, max = 2 ^ 40 } },
  admin = admin_config.spec,
  canary = { share = t.optional(t.number { min = 0.0001, max = 1 }), shadow = t.boolean(false),
    watch = t.duration { default = "60s", min = 1, max = 86400 }, header = t.optional(t.string { match = "^[%w_%-]+$", len = 63 }),
    max_errors = t.number { default = 0.01, min = 0.0001, max = 1 },
    max_latency = t.number { default = 1.5, min = 1, max = 1000 }, least = t.integer { default = 0, min = 0, max = 1e9 } },
  explain = { secret = t.secret() },
  log = {
    level = t.enum { "debug", "info", "warn", "error", default = "info" },
    rate = t.integer { default = 100, min = 0, max = 1000000 },
  },
}
for name, kind in pairs(route_config.asks) do specs.route[name] = kind end

-- ---------------------------------------------------------------- evaluation

pace.breathe()

local Collector = {}
Collector.__index = Collector

local named = { dict = true, redis = true, upstream = true, consumer = true, route = true }
local words = {
  "source", "listen", "dict", "redis", "upstream", "consumer", "consumers", "route", "use", "defaults", "limits", "resolver", "http", "admin",
  "canary", "explain", "log", "vault",
}
local later = { metrics = true, tracing = true }
local MAX_FILES = 10000

local is_name = use_config.is_name

function Collector:add(word, name, value, at)
  local list = self.items[word]
  list[#list + 1] = { name = name, value = value, at = at, index = #list + 1 }
  if word == "vault" then vault.declare(self.source, list[#list], self.report) end -- before the first secret that names it
  pace.breathe()
end

function Collector:has(word, name)
  for _, item in ipairs(self.items[word]) do
    if item.name == name then return true end
  end
  return false
end

-- The configuration file that runs now, and its line.
local function running(collector)
  for level = 2, 64 do
    local info = debug.getinfo(level, "f")
    if not info then return nil end
    local path = collector.functions[info.func] -- there may be a hundred thousand words, and a name of its source is made for each question
    if path == nil then
      path = collector.chunks[debug.getinfo(level, "S").source] or false
      collector.functions[info.func] = path
    end
    if path then return path, debug.getinfo(level, "l").currentline end
  end
end

local function here(collector)
  local path, line = running(collector)
  return path and path .. ":" .. line or collector.entry
end

-- `route "x"` gives a function that takes the body; without one the word would do nothing, silently.
local function word_function(collector, word)
  local function still_reading()
    if collector.closed then error(("%s is a word of the configuration; it does nothing while requests are served"):format(word), 3) end
  end
  if not named[word] then
    return function(value)
      still_reading()
      if type(value) ~= "table" then
        error(("%s takes a table: %s { ... }, found %s"):format(word, word, report_of.text_of(value)), 2)
      end
      collector:add(word, nil, value, here(collector))
    end
  end
  return function(name, ...)
    still_reading()
    if not is_name(name) then
      error(("%s needs a name of letters, digits, '_', '.' and '-', found %s"):format(word, report_of.text_of(name)), 2)
    end
    if select("#", ...) > 0 then error(('%s takes its body after its name: %s "%s" { ... }'):format(word, word, name), 2) end
    local open = { word = word, name = name, at = here(collector) }
    collector.open[open] = true
    return function(value)
      still_reading()
      collector.open[open] = nil
      collector:add(word, name, value, open.at)
    end
  end
end

local function report_open(collector)
  local list = {}
  for open in pairs(collector.open) do list[#list + 1] = open end
  table.sort(list, function(a, b) return a.at .. a.word .. a.name < b.at .. b.word .. b.name end)
  for _, open in ipairs(list) do
    collector.report:problem(open.at, { ('%s "%s"'):format(open.word, open.name) },
      ('found     no body\nexpected  %s "%s" { ... }'):format(open.word, open.name))
  end
end

-- Copies: what a configuration does to its `string` must not reach the runtime's.
local function library_copy()
  local env = {
    pairs = pairs, ipairs = ipairs, pcall = pcall, error = error, assert = assert, type = type, tostring = tostring,
    tonumber = tonumber, select = select, unpack = unpack, next = next, setmetatable = unread.setmetatable, rawget = unread.rawget,
    rawset = unread.rawset, rawequal = rawequal, os = { time = os.time, date = os.date }, _VERSION = _VERSION,
  }
  for name, values in pairs { string = string, table = table, math = math, bit = bit, coroutine = task.library } do
    env[name] = {}
    for key, value in pairs(values) do env[name][key] = value end
  end
  env.string.dump = nil
  -- The metatable of strings leads to the runtime's own library.
  function env.getmetatable(value)
    if type(value) == "string" then return false end
    return unread.getmetatable(value)
  end
  function env.print(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = report_of.text_of((select(i, ...))) end
    if config.library.tg then config.library.tg.log.info(table.concat(parts, " ")) end
  end
  env.tg, env.t = config.library.tg, config.library.t
  return env
end

-- The words stand behind the environment, not in it, so that an assignment to one is seen: `use = { "key-auth" }` would
-- otherwise be a policy that is written down and not there. For the same reason what is not defined raises: in
-- `use = { key_auth }` the quotes are missing, and a list would just end before it.
local function environment(collector)
  local env, word = library_copy(), {}
  env.pairs = function(map) return (collector.closed and pairs or ordered.pairs)(map) end
  for _, name in ipairs(words) do word[name] = word_function(collector, name) end
  for name in pairs(later) do
    word[name] = function() error(name .. " is not available in this version", 2) end
  end
  word.include = function(pattern) return collector:include(pattern, here(collector)) end
  word.secret = secret.word()
  return setmetatable(env, {
    __metatable = false,
    __newindex = function(_, key, value)
      if key == "api" and value ~= 1 then error("api must be 1, found " .. report_of.text_of(value), 2) end
      if key == "api" then return end
      if word[key] then
        local call = named[key] and ('%s "name" { ... }'):format(key) or key == "include" and 'include "path"' or key .. " { ... }"
        error(("%s is a word of the configuration and takes no `=`: %s"):format(key, call), 2)
      end
      rawset(env, key, value)
    end,
    __index = function(_, key)
      if word[key] then return word[key] end
      if key == "__poll" then return budget.poll end
      if key == "api" then return 1 end
      local text = report_of.text_of(key)
      local nearest = report_of.nearest(text, words)
      error(nearest and ('unknown word "%s"; did you mean "%s"?'):format(text, nearest)
        or ('"%s" is not defined here; a name needs quotes: "%s"'):format(text, text), 2)
    end,
  })
end

local function run_lua(collector, path, text)
  if text:byte(1) == 27 and not collector.source.bundled then
    collector.report:problem(path, nil, "found     bytecode\nexpected  Lua as text")
    return
  end
  local f, err = budget.load(text, "@" .. path)
  if not f then
    local line, message = err:match ":(%d+): (.*)$"
    collector.report:problem(path .. ":" .. (line or "?"), nil, "found     " .. (message or err) .. "\nexpected  valid Lua")
    return
  end
  collector.chunks["@" .. path] = path
  setfenv(f, collector.env)
  local file, line
  local ok, problem = xpcall(f, function(raised)
    file, line = running(collector) -- nothing more: there may be no stack left
    return raised
  end)
  if not ok then
    problem = report_of.text_of(problem)
    local at = line and file .. ":" .. line or path
    local prefix = at .. ": "
    collector.report:problem(at, nil, problem:sub(1, #prefix) == prefix and problem:sub(#prefix + 1) or problem)
    -- The body that could not be made is not missing, too.
    for open in pairs(collector.open) do
      if open.at:sub(1, #path + 1) == path .. ":" then collector.open[open] = nil end
    end
  end
end

local function add_named(collector, word, entries, path)
  if type(entries) ~= "table" or #entries > 0 then
    collector.report:found(path, { word }, entries, ('an object of names: { "name": { ... } }'))
    return
  end
  for _, name in ipairs(ordered.keys(entries)) do
    if is_name(name) then
      collector:add(word, name, entries[name], path)
    else
      collector.report:found(path, { word }, name, "a name of at most 63 letters, digits, '_', '.' and '-'")
    end
  end
end

local function add_json(collector, key, entry, path)
  if named[key] then
    add_named(collector, key, entry, path)
  elseif collector.items[key] then
    local list = key == "listen" and type(entry) == "table" and #entry > 0 and entry or { entry }
    for _, item in ipairs(list) do collector:add(key, nil, item, path) end
  elseif key == "api" then
    if entry ~= 1 then collector.report:found(path, { "api" }, entry, "1") end
  elseif later[key] then
    collector.report:problem(path, { key }, "is not available in this version")
  elseif key ~= "include" then
    collector.report:unknown(path, {}, key, { "api", "include", unpack(words) })
  end
end

-- YAML says the same words; it becomes JSON, which is read. nil when it is malformed.
local function yaml_to_json(collector, path, text)
  if abi.C.tg_abi_yaml_to_json(text, #text) == 0 then return abi.out() end
  local line, message = abi.out():match "^(%d+):%d+: (.*)$"
  collector.report:problem(line and path .. ":" .. line or path, nil, message or abi.out())
  return nil
end

local function decode_json(collector, path, text, is_yaml)
  local value, err = collector.source:json(text)
  if type(value) == "table" then return value end
  local message, line = err and tostring(err) or "the file must hold one object", err and err.line
  if line and is_yaml then -- of a text that nobody has seen
    message, line = message:gsub("^malformed JSON: line %d+, column %d+: ", ""), nil
  end
  collector.report:problem(line and path .. ":" .. line or path, nil, message)
  return nil
end

-- An object has no order, so there is one here: what is included comes first, names by the alphabet.
local function run_json(collector, path, text, is_yaml)
  local value = decode_json(collector, path, text, is_yaml)
  if not value then return end
  local patterns = value.include
  for _, pattern in ipairs(type(patterns) == "table" and patterns or { patterns }) do
    if type(pattern) == "string" then
      collector:include(pattern, path .. "  include")
    else
      collector.report:found(path, { "include" }, pattern, "a path or a list of paths")
    end
  end
  for _, key in ipairs(ordered.keys(value)) do add_json(collector, key, value[key], path) end
end

-- `at` is where the file was included.
function Collector:run(path, at)
  self.files = self.files + 1
  if self.active[path] or self.files > MAX_FILES then
    if self.files <= MAX_FILES + 1 then
      self.report:problem(at, nil, self.active[path] and path .. " includes itself" or ("more than %d files"):format(MAX_FILES))
    end
    return
  end
  local text, err = self.source:read(path, true)
  if not text then
    self.report:problem(at, nil, ('"%s" cannot be read: %s'):format(path, tostring(err)))
    return
  end
  self.active[path] = true
  if path:match "%.ya?ml$" then
    local converted = yaml_to_json(self, path, text)
    if converted then run_json(self, path, converted, true) end
  elseif path:match "%.json$" then
    run_json(self, path, text)
  else
    run_lua(self, path, text)
  end
  self.active[path] = nil
end

function Collector:include(pattern, at)
  if type(pattern) ~= "string" then error("include needs a path, found " .. report_of.text_of(pattern), 3) end
  -- Files of a source include files of the source.
  if at:find "^source:" and not pattern:find "^source:" then pattern = "source:" .. pattern end
  local found = pattern:find "[*?%[]" and self.source:glob(pattern) or { pattern }
  for _, path in ipairs(found) do self:run(path, at) end
end

-- ---------------------------------------------------------------- judgement

local readers = {}

local function where_of(word, item, report)
  return { report = report, at = item.at, path = { item.name and ('%s "%s"'):format(word, item.name) or word } }
end

local function read_record(word, item, report)
  if type(item.value) ~= "table" then
    report:found(item.at, where_of(word, item, report).path, item.value, "a table")
    return nil
  end
  local value = schema.unfrozen(specs[word], item.value, where_of(word, item, report))
  if value then
    value.name = item.name or value.name
    value.at = item.at
  end
  return value
end

function readers.listen(cfg, item, report)
  local listen = read_record("listen", item, report)
  if not listen then return end
  for _, other in ipairs(cfg.listen) do
    if other.port == listen.port and other.address == listen.address and not item.has_no_port then
      report:problem(item.at, { "listen" }, ("%s:%d is listened on already at %s"):format(listen.address, listen.port, other.at))
    end
    if listen.name and other.name == listen.name then
      report:problem(item.at, { ('listen "%s"'):format(listen.name) }, "there is one of this name already at " .. other.at)
    end
  end
  listen.own = target.own_number(listen.name)
  for _, other in ipairs(cfg.listen) do
    if listen.name and other.own == listen.own and other.name ~= listen.name then
      report:problem(item.at, { ('listen "%s"'):format(listen.name) }, ("its number is that of %q: another name is needed"):format(other.name))
    end
  end
  if listen.proxy_protocol and #listen.trusted_proxies == 0 then
    report:problem(item.at, { "listen", "proxy_protocol" }, "needs trusted_proxies: who else sends its header could be any client it likes")
  end
  if listen.tls ~= nil then listen_tls.read(listen, item.at, report) end
  if #cfg.listen == MAX_LISTENERS then
    report:problem(item.at, { "listen" }, ("there are more than %d"):format(MAX_LISTENERS))
    return
  end
  listen.index = #cfg.listen + 1
  cfg.listen[listen.index] = listen
end

-- A listener like others, but for what answers there.
function readers.admin(cfg, item, report)
  local admin = read_record("admin", item, report)
  if not admin then return end
  if cfg.admin then return report:problem(item.at, { "admin" }, "there is one already at " .. cfg.admin.at) end
  cfg.admin = admin
  if not admin_config.place(admin, item.at, report) then return end
  local count = #cfg.listen
  readers.listen(cfg, { value = admin_config.listener(admin), at = item.at, has_no_port = admin.socket ~= nil }, report)
  if #cfg.listen > count then admin_config.read(admin, cfg.listen[#cfg.listen], item.at, report) end
end

function readers.dict(cfg, item, report)
  if item.index > MAX_DICTS then
    report:problem(item.at, { ('dict "%s"'):format(item.name) }, ("there are more than %d"):format(MAX_DICTS))
    return
  end
  cfg.dict[item.name] = read_record("dict", item, report)
end

function readers.redis(cfg, item, report) redis_config.read(cfg, item, read_record("redis", item, report), report) end

function readers.source(cfg, item, report)
  if cfg.source then return report:problem(item.at, { "source" }, "there is one already at " .. cfg.source.at) end
  cfg.source = source_config.read(cfg, item, read_record("source", item, report), report)
end

function readers.upstream(cfg, item, report) upstream_config.read(cfg, item, read_record("upstream", item, report), report) end

function readers.consumer(cfg, item, report) consumer_config.read(cfg, item, read_record("consumer", item, report), report) end

function readers.consumers(cfg, item, report) consumers_config.read(cfg, item, read_record("consumers", item, report), report) end

function readers.use(cfg, item, report)
  for _, use in ipairs(use_config.read_list(item.value, item.at, {}, report)) do cfg.use[#cfg.use + 1] = use end
end

-- A second one would not be added to the first, but replace it.
local function read_once(cfg, word, item, report)
  if cfg[word].at then
    report:problem(item.at, { word }, "there is one already at " .. cfg[word].at)
  end
  cfg[word] = read_record(word, item, report) or cfg[word]
end

function readers.defaults(cfg, item, report) read_once(cfg, "defaults", item, report) end
function readers.resolver(cfg, item, report)
  read_once(cfg, "resolver", item, report)
  for i, server in ipairs(cfg.resolver.servers or {}) do
    local host = address.parse_authority(server)
    if not host or not (address.is_ipv4(host) or address.is_ipv6(host)) then
      report:found(item.at, { "resolver", "servers", "[" .. i .. "]" }, server, 'the address of a name server: "10.0.0.2", "[::1]:5353"')
    end
  end
end

function readers.http(cfg, item, report)
  read_once(cfg, "http", item, report)
  for i, host in ipairs(cfg.http.allow or {}) do
    if not host:find "^%*?[%w%.:%-]+$" then
      report:found(item.at, { "http", "allow", "[" .. i .. "]" }, host, 'a host without its port, or "*.example.com"')
    end
  end
end

function readers.canary(cfg, item, report)
  cfg.canary = cfg.canary or {}
  read_once(cfg, "canary", item, report)
end

function readers.explain(cfg, item, report)
  cfg.explain = cfg.explain or {}
  read_once(cfg, "explain", item, report)
  local secret_of = cfg.explain.secret
  if secret_of and #secret_of:reveal() < MIN_SECRET then
    report:problem(item.at, { "explain", "secret" }, ("has less than %d bytes: it can be guessed"):format(MIN_SECRET))
  end
end

function readers.limits(cfg, item, report) read_once(cfg, "limits", item, report) end
function readers.log(cfg, item, report) read_once(cfg, "log", item, report) end

function readers.route(cfg, item, report)
  local path = where_of("route", item, report).path
  local route = read_record("route", item, report)
  if not route then return end
  route_config.check(cfg, route, item, path, report)
  upstream_config.read_route(route, item, path, report)
  for _, name in ipairs(route.listen or {}) do
    local known = false
    for _, listen in ipairs(cfg.listen) do known = known or listen.name == name end
    if not known then report:found(item.at, { path[1], "listen" }, name, "the name of a listener") end
  end
  route.use = use_config.read_list(route.use, item.at, path, report)
  for _, use in ipairs(route.shadow and route.use or {}) do use.shadow = true end
  if route.handler then route.handler = use_config.read(route.handler, item.at, { path[1], "handler" }, report) end
  route.timeout = route.timeout or cfg.defaults.timeout
  route.body_limit = route.body_limit or cfg.defaults.body_limit
  if route.body_limit == 0 then route.body_limit = NO_LIMIT end
  route.index = #cfg.route + 1
  cfg.route[route.index] = route
end

-- The order in which words are judged: what others refer to comes first.
local order = {
  "log", "canary", "explain", "limits", "resolver", "http", "defaults", "listen", "admin", "dict", "redis", "source", "upstream", "consumer",
  "consumers", "use", "route",
}

local function refuse_duplicates(items, word, report)
  local first = {}
  for _, item in ipairs(items) do
    pace.breathe()
    if item.name and first[item.name] then
      report:problem(item.at, { ('%s "%s"'):format(word, item.name) }, "there is one of this name already at " .. first[item.name])
    elseif item.name then
      first[item.name] = item.at
    end
  end
end

--- load(entry, source, report) -> cfg | nil. All errors are in the report.
function config.load(entry, source, report)
  local collector = setmetatable({
    source = source, report = report, entry = entry, files = 0, items = {}, chunks = {}, active = {}, open = {},
    functions = setmetatable({}, { __mode = "k" }),
  }, Collector)
  for _, word in ipairs(words) do collector.items[word] = {} end
  collector.env = environment(collector)
  collector:run(entry, entry)
  local where = collector.items.source[1]
  if not where then source.layer = nil end -- kept of a configuration that had one
  local problem = where and source_config.run_layer(collector, where, source)
  if problem then report:problem(where.at, { "source" }, problem) end
  collector.closed = true
  report_open(collector)
  local cfg = {
    listen = {}, dict = {}, redis = {}, redis_list = {}, upstream = {}, upstreams = {}, consumer = {}, consumer_uses = {}, credentials = {},
    consumers = consumer_list.new(), use = {}, route = {},
    defaults = schema.unfrozen(specs.defaults, {}, { report = report }), log = { level = "info", rate = 100 },
    limits = { lua_memory = 256 * 2 ^ 20 }, resolver = { servers = {} }, http = { allow = {} },
  }
  -- What plugins count in when nobody declares a dictionary for it.
  if not collector:has("dict", "rate-limit") then collector:add("dict", "rate-limit", { size = "8MiB" }, entry) end
  if where and not collector:has("dict", "source") then collector:add("dict", "source", { size = "1MiB" }, entry) end
  if not collector:has("dict", "cache") then collector:add("dict", "cache", { size = "16MiB" }, entry) end
  for _, word in ipairs(order) do
    refuse_duplicates(collector.items[word], word, report)
    for _, item in ipairs(collector.items[word]) do
      readers[word](cfg, item, report)
      pace.breathe()
    end
  end
  local waits = cfg.source and not source.layer -- it serves when the source has told what
  if #cfg.listen == (cfg.admin and 1 or 0) and not waits and report:count() == 0 then
    report:problem(entry, nil, "found     no listener\nexpected  at least one: listen { port = 8080 }")
  end
  cfg.vault = source.vault
  return report:count() == 0 and cfg or nil
end

return config
