--- boot: makes a generation. `compile` in the validating process gives a bundle; `start` in a worker makes it serve.
require "tidegate.unread" -- before anything has taken `next` and `pairs` for its own
local pace = require "runtime.pace" -- from here on the loop turns between two modules
local jit_options = require "jit.opt"
local abi = require "abi"
local ask = require "admin.ask"
local budget = require "runtime.budget"
local json = require "tidegate.json"
local consumers = require "tidegate.consumers"
local dict = require "tidegate.dict"
local library = require "tidegate"
local listen_tls = require "runtime.listen_tls"
local ocsp = require "runtime.ocsp"
local call_time = require "runtime.call_time"
local config = require "runtime.config"
local own_uses = require "runtime.own_uses"
local plugin = require "runtime.plugin"
local quarantine = require "runtime.quarantine"
local report_of = require "runtime.report"
local redis = require "runtime.redis"
local route_summary = require "runtime.route_summary"
local sandbox = require "runtime.sandbox"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"
local routes = require "runtime.routes"
local serve = require "runtime.serve"
local shadow = require "runtime.shadow"
local sources = require "runtime.sources"
local upstreams = require "runtime.upstreams"
local vault = require "runtime.vault"

local boot = {}
local CANARY_SHARE = 0.05 -- of the requests, where nothing else is said
-- Percent, of LuaJIT's collector while a worker loads, and after that: what it takes at that time it never gives back.
local PAUSE, STEPS, USUAL_STEPS = 120, 1000, 200
local HOT = 56 -- turns of a loop until it is compiled: LuaJIT's own figure

local function names_of(map)
  local set = {}
  for name in pairs(map) do set[name] = true end
  return set
end

-- Every use of the configuration, in a fixed order; its position is what marks and messages name it by.
local function all_uses(cfg)
  local uses = {}
  local function add(list, route)
    pace.breathe()
    for _, use in ipairs(list) do
      use.route = route
      uses[#uses + 1] = use
      use.index = #uses
      use.plugin_name, use.plugin = use.plugin, nil
      use.label = use.name or use.plugin_name or "inline function"
    end
  end
  add(cfg.use)
  for _, route in ipairs(cfg.route) do
    add(route.use, route)
    if route.handler then
      route.handler.is_handler = true
      add({ route.handler }, route)
    end
  end
  for _, entry in ipairs(cfg.consumer_uses) do add(entry.uses) end
  return uses
end

-- A use of a consumer runs once he is known, or is refused.
local function make_own(use, report)
  local problem = own_uses.problem(use)
  if problem then return report:problem(use.at, use.path, problem) end
  use.plugin = own_uses.plugin_of(use.plugin)
end

-- Loads the plugin of each use once, checks its configuration and runs its set-up.
local function prepare_uses(cfg, source, report)
  local loaded, names = {}, {
    upstream = names_of(cfg.upstream), dict = names_of(cfg.dict), redis = names_of(cfg.redis),
  }
  local uses = all_uses(cfg)
  for _, use in ipairs(uses) do
    pace.breathe()
    local name = use.plugin_name
    if not name then
      use.plugin = use.built_in or { [use.is_handler and "handler" or "access"] = use.fn }
    else
      if loaded[name] == nil then
        local text, path = source:plugin(name)
        if text then
          loaded[name] = plugin.load(name, text, path, sandbox.environment(), report, source.bundled) or false
        else
          report:problem(use.at, use.path, plugin.not_found(name, source:plugin_names()))
          loaded[name] = false
        end
      end
      use.plugin = loaded[name]
    end
    if use.plugin and name then
      use.conf = plugin.configure(use.plugin, use, report, names)
    end
    if use.plugin and use.is_own then make_own(use, report) end
    if abi.in_shadow and use.plugin and use.plugin.shadow == false then use.plugin, use.plugin_name = {}, nil end
    if abi.offline and use.plugin and (use.plugin.shadow == false or use.built_in) then use.plugin = shadow.without_effect(use.plugin) end
    if use.plugin and not use.built_in then
      call_time.judge(use, report)
      quarantine.judge(use, cfg.defaults.quarantine, report)
    end
  end
  if report:count() > 0 then return nil end
  for _, use in ipairs(uses) do
    pace.breathe()
    if use.plugin_name then
      local _, state = plugin.setup(use.plugin, use, use.conf, report)
      use.state = state
      if report:count() == 0 then use.plugin = plugin.without_idle(use.plugin, use, report) end
    end
    if use.call_time and not abi.in_shadow then use.plugin = call_time.stand_in(use) end
    use.conditional = use.when ~= nil
    if use.shadow then
      use.plugin, use.when = shadow.stand_in(use), nil
    elseif use.quarantine then
      use.plugin = quarantine.stand_in(use)
    end
  end
  return report:count() == 0 and uses or nil
end

local function build(source, entry, report)
  config.library = { tg = library, t = schema.t }
  local cfg = config.load(entry, source, report)
  if not cfg or report:count() > 0 then return nil end
  if cfg.explain and not abi.in_shadow then table.insert(cfg.use, 1, require("runtime.explain").use(cfg.explain)) end
  dict.declared = names_of(cfg.dict)
  upstreams.define(cfg.upstreams)
  redis.define(cfg.redis_list)
  consumers.define(cfg.consumers, cfg.credentials, cfg.consumer_store)
  local uses = prepare_uses(cfg, source, report)
  if not uses then return nil end
  own_uses.define(cfg.consumer_uses)
  local server = routes.build(cfg, uses, report, cfg.admin and require("admin.service").handle)
  if report:count() > 0 then return nil end
  return cfg, uses, server
end

-- Reads and judges all; `source` gives the files. Later there are no secrets: what is not in the bundle, no worker has.
local function load(source, entry, report)
  secret.source = source
  local cfg, uses, server = build(source, entry, report)
  secret.source = nil
  return cfg, uses, server
end

-- ---------------------------------------------------------------- in the validating process

local FileSource = {}
FileSource.__index = FileSource

local function read_file(path)
  local f, err = io.open(path, "rb")
  if not f then return nil, err end
  local text = f:read "*a"
  f:close()
  if not text then return nil, path .. ": is no file" end
  return text
end

-- Paths are relative to the folder of the configuration; what was read goes into the bundle under the same name. Files of a layer are called
-- "source:NAME": as configuration only by that name, so that the files of the disk stay what they are; as anything else by their own, too.
function FileSource:read(path, is_configuration)
  local layer = self.layer
  local name = layer and (path:match "^source:(.*)$" or not is_configuration and layer[path] and path)
  if name then
    self.files["file:source:" .. name] = layer[name]
    return layer[name], not layer[name] and "it is not among the files of the source" or nil
  end
  local full = path:sub(1, 1) == "/" and path or self.folder .. path
  local pushed = self.pushed and self.pushed[path]
  local text, err = pushed, nil
  if not text then text, err = read_file(full) end
  if not text then return nil, err end
  self.files["file:" .. path] = text
  if not pushed then self.paths[full] = true end
  return text
end

--- has(path) -> whether the layer has a file of this name
function FileSource:has(path) return self.layer[path] ~= nil end

-- Of files that were pushed, no others are meant than those that came along.
local function glob_pushed(self, files, prefix, pattern)
  local lua_pattern = "^" .. pattern:gsub("[%^%$%(%)%%%.%+%-]", "%%%0"):gsub("%*", "[^/]*"):gsub("%?", "[^/]") .. "$"
  local found = {}
  for path in pairs(files) do
    if path:find(lua_pattern) then found[#found + 1] = prefix .. path end
  end
  table.sort(found)
  self.files["glob:" .. prefix .. pattern] = table.concat(found, "\n")
  return found
end

-- The same for a file that is watched also without --watch.
function FileSource:follow(path)
  local text, err = self:read(path)
  if text and not (self.layer and self.layer[path]) then self.live[path:sub(1, 1) == "/" and path or self.folder .. path] = true end
  return text, err
end

function FileSource:glob(pattern)
  local name = self.layer and pattern:match "^source:(.*)$"
  if name then return glob_pushed(self, self.layer, "source:", name) end
  if self.pushed then return glob_pushed(self, self.pushed, "", pattern) end
  local full = pattern:sub(1, 1) == "/" and pattern or self.folder .. pattern
  local folder = full:match "^(.*)/[^/]*$"
  if folder and not folder:find "[*?%[]" then self.folders[folder] = true end -- where more may come
  local found = self.core.glob(full)
  for i, path in ipairs(found) do
    if path:sub(1, #self.folder) == self.folder and pattern:sub(1, 1) ~= "/" then found[i] = path:sub(#self.folder + 1) end
  end
  self.files["glob:" .. pattern] = table.concat(found, "\n")
  return found
end

-- Kept apart from other files: their bytes are in no name, and in no hash but a slow one.
local function read_secret(self, kind, name)
  local value, err
  if kind == "env" then
    value = os.getenv(name)
  elseif kind == "vault" then
    value, err = vault.read(self, name)
    if not value then return nil, err end
  else
    local full = name:sub(1, 1) == "/" and name or self.folder .. name
    value, err = read_file(full)
    if not value then return nil, "cannot be read: " .. err:match "[^:]*$":gsub("^ ", "") end
    self.paths[full] = true
  end
  if not value then return nil, "is not there" end
  self.files["secret:" .. kind .. ":" .. name] = value
  return value
end

-- Who only looks may not have them.
function FileSource:secret(kind, name)
  local value, err = read_secret(self, kind, name)
  if not value and self.core.no_secrets then return ("*"):rep(64) end
  return value, err
end

-- As follow: it is watched also without --watch.
function FileSource:follow_secret(name)
  self.live[name:sub(1, 1) == "/" and name or self.folder .. name] = true
end

function FileSource.json(_, text) return json.decode(text) end

function FileSource:plugin(name)
  local files, path_of_it = self.pushed or self.layer, "plugins/" .. name .. ".lua"
  local pushed = files and files[path_of_it]
  if pushed then
    if self.layer then path_of_it = "source:" .. path_of_it end
    self.files["plugin:" .. name] = pushed
    self.files["path:" .. name] = path_of_it
    return pushed, "@" .. path_of_it
  end
  for _, dir in ipairs(self.core.plugin_dirs) do
    local path = dir .. "/" .. name .. ".lua"
    local text = read_file(path)
    if text then
      self.files["plugin:" .. name] = text
      self.files["path:" .. name] = path
      self.paths[path] = true
      return text, "@" .. path
    end
  end
  return nil
end

function FileSource:plugin_names()
  local names = {}
  for _, dir in ipairs(self.core.plugin_dirs) do
    for _, path in ipairs(self.core.glob(dir .. "/*.lua")) do
      local name = path:match "([^/]+)%.lua$"
      if name and not name:find(".spec", 1, true) then names[#names + 1] = name end
    end
  end
  return names
end

local function milliseconds(seconds)
  return math.floor(seconds * 1000)
end

local underscores = { drop = 0, allow = 1, reject = 2 } -- enum tg_underscores

-- As the master reads them from its control socket, too.
local function canary_words(canary)
  return ("--%s=%g%% --watch=%g --by=%s --max-errors=%g%% --max-latency=%g%% --least=%d"):format(canary.shadow and "shadow" or "canary",
    (canary.share or canary.shadow and 1 or CANARY_SHARE) * 100, canary.watch,
    canary.header and "header:" .. canary.header or "client", canary.max_errors * 100, canary.max_latency * 100, canary.least)
end

local function add_paths(lines, word, paths)
  local sorted = {}
  for path in pairs(paths) do sorted[#sorted + 1] = path end
  table.sort(sorted)
  for _, path in ipairs(sorted) do lines[#lines + 1] = word .. " " .. path end
end

local function asks_for_kernel_tls(cfg)
  for _, listen in ipairs(cfg.listen) do
    if listen.tls and listen.tls.ktls then return true end
  end
  for _, up in pairs(cfg.upstream) do
    if up.tls and up.tls.ktls then return true end
  end
  return false
end

-- What the master reads: a word and its values a line.
local function manifest(cfg, uses, source)
  local lines = { "log " .. cfg.log.level, ("limits %d %d %d"):format(cfg.limits.memory or 0, cfg.limits.connections or 0, cfg.limits.lua_memory) }
  if #cfg.resolver.servers > 0 then lines[#lines + 1] = "resolver " .. table.concat(cfg.resolver.servers, ",") end
  for i, listen in ipairs(cfg.listen) do
    local words = { "listen", i, listen.address, listen.port }
    for _, name in ipairs { "request_line", "field", "head", "fields", "keepalive_requests", "body_rate", "client_connections" } do
      words[#words + 1] = ("%s=%d"):format(name, listen[name])
    end
    for _, name in ipairs { "header_timeout", "body_timeout", "send_timeout", "keepalive_timeout" } do
      words[#words + 1] = ("%s=%d"):format(name, milliseconds(listen[name]))
    end
    words[#words + 1] = ("http2=%d streams=%d resets=%d controls=%d"):format(listen.http2 and 1 or 0, listen.http2_streams,
      listen.http2_resets, listen.http2_controls)
    words[#words + 1] = "underscores=" .. underscores[listen.underscores]
    words[#words + 1] = "keep_slashes=" .. (listen.merge_slashes and 0 or 1)
    words[#words + 1] = "proxy_protocol=" .. (listen.proxy_protocol and 1 or 0)
    words[#words + 1] = "own=" .. listen.own
    words[#words + 1] = "trust=" .. (listen.trusted_header == "forwarded" and 2 or 1)
    if listen.tls then
      words[#words + 1] = ("handshakes=%d handshake_timeout=%d plain_text=%d"):format(listen.tls.handshakes,
        milliseconds(listen.tls.handshake_timeout), listen.tls.plain_text and 1 or 0)
    end
    lines[#lines + 1] = table.concat(words, " ")
    for _, line in ipairs(listen.tls and listen_tls.lines(listen, i) or {}) do lines[#lines + 1] = line end
    for _, network in ipairs(listen.trusted_proxies) do lines[#lines + 1] = ("trust %d %s"):format(i, network) end
  end
  if cfg.canary then lines[#lines + 1] = "canary " .. canary_words(cfg.canary) end
  if cfg.source then lines[#lines + 1] = "source " .. cfg.source.kind end
  if asks_for_kernel_tls(cfg) then lines[#lines + 1] = "ktls 1" end
  local dicts = {}
  for name in pairs(cfg.dict) do dicts[#dicts + 1] = name end
  table.sort(dicts)
  for _, name in ipairs(dicts) do lines[#lines + 1] = ("dict %s %d"):format(name, cfg.dict[name].size) end
  lines[#lines + 1] = ocsp.dict_line(listen_tls.fetched(cfg.listen))
  for _, route in ipairs(cfg.route) do
    lines[#lines + 1] = ("route %d %s"):format(route.index, route.name)
    lines[#lines + 1] = ("about %d %s"):format(route.index, json.encode(route_summary.of(route), { sorted = true }))
  end
  for _, use in ipairs(uses) do lines[#lines + 1] = ("use %d %s"):format(use.index, use.label) end
  add_paths(lines, "file", source.paths)
  add_paths(lines, "folder", source.folders)
  add_paths(lines, "live", source.live)
  return table.concat(lines, "\n") .. "\n"
end

-- Lua text goes as bytecode, ten times faster to load, and again as text, for people.
local function add_code(entries, kind, name, text, chunk_name)
  entries[#entries + 1] = { kind .. ":" .. name, budget.dump(text, chunk_name) or text }
  entries[#entries + 1] = { "source:" .. kind .. ":" .. name, text }
end

-- The id of a generation is shown to everybody, and must change with a secret: but nobody shall try words against it until it fits.
-- So it is made of a hash that is slow for each try, of all secrets together.
local function add_fingerprint(entries, source, names)
  local secrets = {}
  for _, name in ipairs(names) do
    if name:find "^secret:" then secrets[#secrets + 1] = ("%d:%s%d:%s"):format(#name, name, #source.files[name], source.files[name]) end
  end
  if #secrets == 0 then return end
  local text = table.concat(secrets)
  if abi.C.tg_abi_slow_hash(text, #text) ~= 0 then error("memory is short", 0) end
  entries[#entries + 1] = { "secrets", abi.out() }
end

local function bundle(core, source, entry, cfg, uses)
  local entries, names, unhashed = { { "entry", entry }, { "manifest", manifest(cfg, uses, source) } }, {}, {}
  for i, listen in ipairs(cfg.listen) do
    if listen.tls then listen_tls.entries(listen, i, source.files, unhashed) end
  end
  if source.layer and cfg.source then entries[#entries + 1] = { "pushed", core.pushed } end
  if source.kept then unhashed["secret:self-signed"] = source.kept end
  for name, data in pairs(unhashed) do entries[#entries + 1] = { name, data } end
  for name in pairs(source.files) do names[#names + 1] = name end
  table.sort(names) -- the hash of the bundle is the generation's id: the order must not depend on a table
  add_fingerprint(entries, source, names)
  for _, name in ipairs(names) do
    local kind, rest = name:match "^(%a+):(.*)$"
    if kind == "plugin" then
      add_code(entries, kind, rest, source.files[name], "@" .. source.files["path:" .. rest])
    elseif kind == "file" and rest:match "%.lua$" then
      add_code(entries, kind, rest, source.files[name], "@" .. rest)
    elseif kind == "file" then
      entries[#entries + 1] = { name, source.files[name] }
      entries[#entries + 1] = { "source:" .. name, source.files[name] }
    else
      entries[#entries + 1] = { name, source.files[name] }
    end
  end
  return entries
end

-- The files that came in place of those of the disk, or on top of them, by name | nil, what is wrong with them.
local function pushed_files(core, entry)
  if not core.pushed then return nil end
  local files, err = json.decode_object(core.pushed)
  if type(files) ~= "table" then return nil, "what was pushed is no JSON object of files: " .. tostring(err) end
  for name, text in pairs(files) do
    if type(name) ~= "string" or type(text) ~= "string" or name:sub(1, 1) == "/" or ("/" .. name .. "/"):find("/../", 1, true) then
      return nil, ("pushed file %s: found no text, or a name that leads elsewhere\nexpected  texts by names such as %s or plugins/mine.lua")
        :format(tostring(name), entry)
    end
  end
  if not core.layered and not files[entry] then return nil, ("found no %s among the files that were pushed"):format(entry) end
  return files
end

-- The files that a configuration is made of, and what it is -> source, entry, cfg, uses, server | nil, all that is wrong with it
local function judge(core)
  abi.validating = true
  local folder, entry = core.entry:match "^(.*/)([^/]+)$"
  folder, entry = folder or "", entry or core.entry
  local pushed, problem = pushed_files(core, entry)
  if problem then return nil, problem end
  local source = setmetatable({ core = core, folder = folder, files = {}, paths = {}, folders = {}, live = {}, kept = core.kept,
    pushed = not core.layered and pushed or nil, layer = core.layered and pushed or nil }, FileSource)
  local report = report_of.new()
  local cfg, uses, server = load(source, entry, report)
  if not cfg then return nil, report:text() end
  return source, entry, cfg, uses, server
end

--- compile(core) -> list of { name, data } | nil, all that is wrong with the configuration
function boot.compile(core)
  local source, entry, cfg, uses = judge(core)
  if not source then return nil, entry end
  return bundle(core, source, entry, cfg, uses)
end

--- inspect(core) -> cfg, server | nil, all that is wrong: for tools that only look. With core.no_secrets those that are absent here get a stand-in.
function boot.inspect(core)
  local source, entry, cfg, _, server = judge(core)
  if not source then return nil, entry end
  return cfg, server
end

-- ---------------------------------------------------------------- in a worker

local BundleSource = { bundled = true }
BundleSource.__index = BundleSource

function BundleSource:read(path, is_configuration)
  local text = not is_configuration and self.files["file:source:" .. path] or self.files["file:" .. path]
  if not text then return nil, path .. " is not in the bundle" end
  return text
end

-- Read once: these are the large ones.
function BundleSource:follow(path)
  local text, err = self:read(path)
  self.files["file:source:" .. path], self.files["file:" .. path] = nil, nil
  return text, err
end

function BundleSource:has(path) return self.files["file:source:" .. path] ~= nil end

function BundleSource:glob(pattern)
  local found = {}
  for path in (self.files["glob:" .. pattern] or ""):gmatch "[^\n]+" do found[#found + 1] = path end
  return found
end

function BundleSource:secret(kind, name)
  local value = self.files["secret:" .. kind .. ":" .. name]
  if not value then return nil, "was not asked for when the configuration was checked" end
  return value
end

function BundleSource.json(_, text) return json.decode(text) end

function BundleSource:plugin(name)
  local code = self.files["plugin:" .. name]
  if not code then return nil end
  return code, "@" .. self.files["path:" .. name]
end

function BundleSource.plugin_names() return {} end

-- What the JIT compiles and what it gives up, for the test that no request path is interpreted.
local function log_traces()
  local path = os.getenv "TIDEGATE_JIT_LOG"
  if path then require("jit.v").start(path) end
end

-- What only loading needs: of consumers there may be many.
local function forget(cfg, files)
  cfg.consumer, cfg.consumers, cfg.credentials = nil, nil, nil
  for name in pairs(files) do files[name] = nil end
end

--- start(core) -> the function that coroutines run, the judge of errors, whether every exchange is logged, whether there are `stop` hooks
function boot.start(core)
  abi.in_shadow = core.shadow
  abi.look_up()
  collectgarbage("setpause", PAUSE)
  collectgarbage("setstepmul", STEPS)
  log_traces()
  local pushed = core.files.pushed
  local source = setmetatable({ files = core.files, layer = pushed ~= nil }, BundleSource)
  local report = report_of.new()
  local cfg, uses, server = load(source, core.files.entry, report)
  if not cfg then error(report:text(), 0) end
  ocsp.define(core.files)
  if cfg.vault then vault.keep(cfg.vault, core.files) end
  forget(cfg, core.files)
  core.files = nil
  collectgarbage("setstepmul", USUAL_STEPS)
  jit_options.start("hotloop=" .. HOT) -- requests are what comes often; loading was not
  if cfg.admin and not abi.in_shadow then require("admin.service").start(cfg, uses) end
  if cfg.explain and not abi.in_shadow then
    local confs = {}
    for i, listen in ipairs(cfg.listen) do confs[i] = routes.of_listener(cfg, listen) end
    require("runtime.explain").start(server.routers, confs)
  end
  if cfg.source and not abi.in_shadow then sources.prepare(cfg.source, pushed, core.id, ask.text) end
  serve.ask = ask.text
  return serve.start(server, cfg, uses, core.id)
end

return boot
