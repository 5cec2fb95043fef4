--- config: evaluates a configuration, in Lua or JSON, and judges every word of it.
local report_of = require "runtime.report"
local schema = require "runtime.schema"

local t = schema.t
local config = { library = { tg = nil, t = nil } }

local positive = { min = 0.001 }
local function duration(default) return t.duration { default = default, min = positive.min } end

local name_type = t.optional(t.string { match = "^[%w_.%-]+$", len = 63 })
local specs = {
  listen = {
    name = name_type, address = t.string { default = "0.0.0.0", match = "^[%x:.]+$" }, port = t.integer { min = 1, max = 65535 },
    header_timeout = duration "10s", body_timeout = duration "15s", send_timeout = duration "30s",
    keepalive_timeout = duration "60s", keepalive_requests = t.integer { default = 10000, min = 1 },
    request_line = t.size { default = "8KiB", min = 64, max = 65536 }, field = t.size { default = "8KiB", min = 64, max = 65536 },
    head = t.size { default = "32KiB", min = 256, max = 262144 }, fields = t.integer { default = 100, min = 1, max = 500 },
  },
  dict = { size = t.size { default = "1MiB", min = 65536, max = 4e9 } },
  upstream = {
    targets = t.list(t.any_of { t.string(), t.record { url = t.string(), weight = t.integer { default = 1, min = 1, max = 1000 } } },
      { min = 1, doc = "where requests go" }),
    balance = t.enum { "round_robin", default = "round_robin" }, host = t.string "pass", timeout = duration "30s",
    connect_timeout = duration "2s", first_byte_timeout = duration "30s", idle_timeout = duration "30s",
    pool = t.record({
      idle = t.integer { default = 1024, min = 0 }, idle_timeout = duration "60s", requests = t.integer { default = 10000, min = 0 },
    }, { default = {} }),
  },
  consumer = {
    groups = t.list(t.string(), {}), credentials = t.map(t.any(), {}), meta = t.map(t.any(), {}),
  },
  route = {
    host = t.optional(t.list(t.string { match = "^[%w*][%w%-.]*$" })), path = t.list(t.string { match = "^/" }),
    methods = t.optional(t.list(t.string { match = "^%u+$" })), headers = t.optional(t.map(t.string())),
    query = t.optional(t.map(t.string())), listen = t.optional(t.list(t.string())), priority = t.integer(0),
    to = t.optional(t.string()), handler = t.optional(t.any()), use = t.any { default = {} }, timeout = t.optional(duration(nil)),
    body_limit = t.optional(t.size()), strip_path = t.boolean(false), auth = t.optional(t.enum { "optional", "required" }),
  },
  defaults = {
    timeout = duration "60s", body_limit = t.size "10MiB",
  },
  log = { level = t.enum { "debug", "info", "warn", "error", default = "info" } },
}

-- ---------------------------------------------------------------- evaluation

local Collector = {}
Collector.__index = Collector

local named = { dict = true, upstream = true, consumer = true, route = true }
local words = { "listen", "dict", "upstream", "consumer", "route", "use", "defaults", "log" }

function Collector:add(word, name, value, at)
  local list = self.items[word]
  list[#list + 1] = { name = name, value = value, at = at }
end

function Collector:has(word, name)
  for _, item in ipairs(self.items[word]) do
    if item.name == name then return true end
  end
  return false
end

-- The line of the configuration file that runs now.
local function here(collector)
  for level = 2, 12 do
    local info = debug.getinfo(level, "Sl")
    if not info then break end
    local path = info.source:match "^@(.*)$"
    if path and collector.chunks[path] then return path .. ":" .. info.currentline end
  end
  return collector.entry
end

local function word_function(collector, word)
  if not named[word] then
    return function(value) collector:add(word, nil, value, here(collector)) end
  end
  return function(name)
    local at = here(collector)
    if type(name) ~= "string" or not name:match "^[%w_.%-]+$" or #name > 63 then
      error(("%s needs a name of letters, digits, '_', '.' and '-', found %s"):format(word, tostring(name)), 2)
    end
    return function(value) collector:add(word, name, value, at) end
  end
end

local function resolve_secret(collector, spec)
  local kind, name = tostring(spec):match "^(%a+):(.+)$"
  local value
  if kind == "env" then
    value = collector.source:getenv(name)
  elseif kind == "file" then
    value = collector.source:read(name)
    value = value and value:gsub("%s+$", "")
  else
    error(('secret needs "env:NAME" or "file:PATH", found %q'):format(tostring(spec)), 2)
  end
  if not value or value == "" then error(("the secret %q is not there"):format(spec), 2) end
  return value
end

local function environment(collector)
  local env = {
    tg = config.library.tg, t = config.library.t, string = string, table = table, math = math, bit = bit, coroutine = coroutine,
    os = { time = os.time, date = os.date }, pairs = pairs, ipairs = ipairs, pcall = pcall, error = error, assert = assert,
    type = type, tostring = tostring, tonumber = tonumber, select = select, unpack = unpack, next = next,
    setmetatable = setmetatable, rawget = rawget, rawset = rawset, rawequal = rawequal, print = function() end,
  }
  for _, word in ipairs(words) do env[word] = word_function(collector, word) end
  env.include = function(pattern) return collector:include(pattern, 2) end
  env.secret = function(spec) return resolve_secret(collector, spec) end
  env.redis = function() error("redis is not available in this version", 2) end
  env.tls = nil
  -- `api = 1` is an assignment; any other global is kept for the user's own helpers.
  return setmetatable(env, {
    __newindex = function(_, key, value)
      if key == "api" and value ~= 1 then error("api must be 1, found " .. tostring(value), 2) end
      rawset(env, key, value)
    end,
    __index = function(_, key)
      local nearest = type(key) == "string" and report_of.nearest(key, words)
      if nearest then error(('unknown word "%s"; did you mean "%s"?'):format(key, nearest), 2) end
      return nil
    end,
  })
end

local function run_lua(collector, path, text)
  local f, err = loadstring(text, "@" .. path)
  if not f then
    local line, message = err:match ":(%d+): (.*)$"
    collector.report:problem(path .. ":" .. (line or "?"), nil, "found     " .. (message or err) .. "\nexpected  valid Lua")
    return
  end
  collector.chunks[path] = true
  setfenv(f, collector.env)
  local ok, problem = pcall(f)
  if not ok then
    local file, line, message = tostring(problem):match "^(.-):(%d+): (.*)$"
    collector.report:problem(file and file .. ":" .. line or path, nil, message or tostring(problem))
  end
end

local function run_json(collector, path, text)
  local value, err = collector.source:json(text)
  if type(value) ~= "table" then
    collector.report:problem(path, nil, err and tostring(err) or "the file must hold one object")
    return
  end
  for key, entry in pairs(value) do
    if key == "include" then
      for _, pattern in ipairs(type(entry) == "table" and entry or { entry }) do collector:include(pattern, 2) end
    elseif named[key] and type(entry) == "table" then
      local names = {}
      for name in pairs(entry) do names[#names + 1] = tostring(name) end
      table.sort(names)
      for _, name in ipairs(names) do collector:add(key, name, entry[name], path) end
    elseif collector.items[key] then
      local list = key == "listen" and type(entry) == "table" and #entry > 0 and entry or { entry }
      for _, item in ipairs(list) do collector:add(key, nil, item, path) end
    elseif key ~= "api" then
      collector.report:unknown(path, {}, key, { unpack(words) })
    end
  end
end

function Collector:run(path)
  if self.depth >= 16 then
    self.report:problem(path, nil, "files include each other more than 16 deep")
    return
  end
  local text, err = self.source:read(path)
  if not text then
    self.report:problem(path, nil, "cannot be read: " .. tostring(err))
    return
  end
  self.depth = self.depth + 1
  if path:match "%.json$" then run_json(self, path, text) else run_lua(self, path, text) end
  self.depth = self.depth - 1
end

function Collector:include(pattern, level)
  if type(pattern) ~= "string" then error("include needs a path", level + 1) end
  local found = pattern:find "[*?%[]" and self.source:glob(pattern) or { pattern }
  for _, path in ipairs(found) do self:run(path) end
end

-- ---------------------------------------------------------------- judgement

local own_fields = { plugin = true, name = true, when = true, shadow = true, on_error = true }

-- One element of `use`: a name, a table that begins with it, or a function.
local function read_use(item, at, path, report)
  local use = { at = at, path = path, conf = {}, on_error = "deny" }
  if type(item) == "string" then
    use.plugin = item
  elseif type(item) == "function" then
    use.fn = item
  elseif type(item) == "table" and type(item[1] or item.plugin) == "string" then
    use.plugin = item[1] or item.plugin
    use.name, use.when, use.on_error = item.name, item.when, item.on_error or "deny"
    for key, value in pairs(item) do
      if key ~= 1 and not own_fields[key] then use.conf[key] = value end
    end
    if use.when ~= nil and type(use.when) ~= "function" then report:found(at, path, use.when, "a function of ctx as `when`") end
    if use.on_error ~= "deny" and use.on_error ~= "skip" then report:found(at, path, use.on_error, '"deny" or "skip" as `on_error`') end
    if item.shadow ~= nil then report:problem(at, path, "`shadow` is not available in this version") end
  else
    report:found(at, path, item, 'a plugin: "name", { "name", field = ... } or a function')
    return nil
  end
  if use.plugin then
    path[#path] = path[#path] .. " " .. use.plugin
    if not use.plugin:match "^[%w_%-]+$" then report:found(at, path, use.plugin, "the name of a plugin") end
  end
  return use
end

local function read_uses(list, at, prefix, report)
  local uses = {}
  if type(list) ~= "table" or (list[1] == nil and next(list) ~= nil) then
    report:found(at, { unpack(prefix) }, list, "a list of plugins")
    return uses
  end
  for i, item in ipairs(list) do
    local path = { unpack(prefix) }
    path[#path + 1] = "use[" .. i .. "]"
    uses[#uses + 1] = read_use(item, at, path, report)
  end
  return uses
end

local function read_target(target, item, path, report)
  local text = type(target) == "table" and target.url or target
  local weight = type(target) == "table" and target.weight or 1
  local scheme, host, port = text:match "^(%a+)://([%w%.%-]+):?(%d*)$"
  if not scheme then
    host, port = text:match "^http://%[([%x:]+)%]:?(%d*)$"
    scheme = host and "http"
  end
  if scheme == "https" then
    report:problem(item.at, path, ("%q: https is not available in this version"):format(text))
    return nil
  end
  local number = port == "" and 80 or tonumber(port)
  if scheme ~= "http" or not number or number < 1 or number > 65535 then
    report:found(item.at, path, text, 'a target: "http://host:port"')
    return nil
  end
  return { scheme = scheme, host = host, port = number, weight = weight }
end

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
    if other.port == listen.port and other.address == listen.address then
      report:problem(item.at, { "listen" }, ("%s:%d is listened on already at %s"):format(listen.address, listen.port, other.at))
    end
  end
  listen.index = #cfg.listen + 1
  cfg.listen[listen.index] = listen
end

function readers.dict(cfg, item, report)
  cfg.dict[item.name] = read_record("dict", item, report)
end

function readers.upstream(cfg, item, report)
  local up = read_record("upstream", item, report)
  if not up then return end
  local targets = {}
  for i, target in ipairs(up.targets) do
    targets[#targets + 1] = read_target(target, item, { ('upstream "%s"'):format(item.name), "targets", "[" .. i .. "]" }, report)
  end
  up.targets = targets
  up.index = #cfg.upstreams + 1
  cfg.upstreams[up.index] = up
  cfg.upstream[item.name] = up
end

function readers.consumer(cfg, item, report)
  local consumer = read_record("consumer", item, report)
  if not consumer then return end
  consumer.id = item.name
  cfg.consumer[item.name] = consumer
  cfg.consumers[#cfg.consumers + 1] = consumer
end

function readers.use(cfg, item, report)
  for _, use in ipairs(read_uses(item.value, item.at, { "use" }, report)) do cfg.use[#cfg.use + 1] = use end
end

function readers.defaults(cfg, item, report)
  cfg.defaults = read_record("defaults", item, report) or cfg.defaults
end

function readers.log(cfg, item, report)
  cfg.log = read_record("log", item, report) or cfg.log
end

local function check_target(cfg, route, item, path, report)
  if (route.to ~= nil) == (route.handler ~= nil) then
    report:problem(item.at, path, "exactly one of `to` and `handler` is needed")
  elseif route.to and not cfg.upstream[route.to] then
    local known = {}
    for name in pairs(cfg.upstream) do known[#known + 1] = name end
    table.sort(known)
    local nearest = report_of.nearest(route.to, known)
    path[#path + 1] = "to"
    report:found(item.at, path, route.to, "the name of an upstream" .. (nearest and ('; did you mean "%s"?'):format(nearest) or ""))
  end
end

local function check_paths(route, item, path, report)
  for _, pattern in ipairs(route.path) do
    local rest = pattern:gsub("{[%w_]+%??}", "x")
    if rest:find "[{}?#%s\\]" or rest:find("//", 1, true) or rest:gsub("/%*$", ""):find("*", 1, true)
      or pattern:find "{[%w_]+%?}." then
      report:found(item.at, path, pattern, 'a path: "/exact", "/prefix/*", "/with/{name}", "/with/{optional?}"')
    end
  end
end

function readers.route(cfg, item, report)
  local path = where_of("route", item, report).path
  local route = read_record("route", item, report)
  if not route then return end
  check_target(cfg, route, item, { path[1] }, report)
  check_paths(route, item, { path[1], "path" }, report)
  for _, name in ipairs(route.listen or {}) do
    local known = false
    for _, listen in ipairs(cfg.listen) do known = known or listen.name == name end
    if not known then report:found(item.at, { path[1], "listen" }, name, "the name of a listener") end
  end
  route.use = read_uses(route.use, item.at, path, report)
  if route.handler then route.handler = read_use(route.handler, item.at, { path[1], "handler" }, report) end
  route.timeout = route.timeout or cfg.defaults.timeout
  route.body_limit = route.body_limit or cfg.defaults.body_limit
  route.index = #cfg.route + 1
  cfg.route[route.index] = route
end

-- The order in which words are judged: what others refer to comes first.
local order = { "log", "defaults", "listen", "dict", "upstream", "consumer", "use", "route" }

local function refuse_duplicates(items, word, report)
  local first = {}
  for _, item in ipairs(items) do
    if item.name and first[item.name] then
      report:problem(item.at, { ('%s "%s"'):format(word, item.name) }, "there is one of this name already at " .. first[item.name])
    elseif item.name then
      first[item.name] = item.at
    end
  end
end

--- load(entry, source, report) -> cfg | nil. All errors are in the report.
function config.load(entry, source, report)
  local collector = setmetatable({ source = source, report = report, entry = entry, depth = 0, items = {}, chunks = {} }, Collector)
  for _, word in ipairs(words) do collector.items[word] = {} end
  collector.env = environment(collector)
  collector:run(entry)
  local cfg = {
    listen = {}, dict = {}, upstream = {}, upstreams = {}, consumer = {}, consumers = {}, use = {}, route = {},
    defaults = schema.unfrozen(specs.defaults, {}, { report = report }), log = { level = "info" },
  }
  -- What plugins count in when nobody declares a dictionary for it.
  if not collector:has("dict", "rate-limit") then collector:add("dict", "rate-limit", { size = "8MiB" }, entry) end
  for _, word in ipairs(order) do
    refuse_duplicates(collector.items[word], word, report)
    for _, item in ipairs(collector.items[word]) do readers[word](cfg, item, report) end
  end
  if #cfg.listen == 0 and report:count() == 0 then
    report:problem(entry, nil, "found     no listener\nexpected  at least one: listen { port = 8080 }")
  end
  return report:count() == 0 and cfg or nil
end

return config
