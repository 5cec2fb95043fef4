--- test: tidegate test. Runs *.spec.lua, each case against real gateways and origins in processes of their own.
local abi = require "abi"
local json = require "tidegate.json"
local sandbox = require "runtime.sandbox"
local spec = require "tool.spec"

local tool = {}
local core
local running = {} -- processes of the case that runs: { pid, ... }

local function write_file(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

local function read_file(path)
  local f = io.open(path, "rb")
  if not f then return "" end
  local text = f:read "*a"
  f:close()
  return text
end

-- ---------------------------------------------------------------- origins

local Origin = {}
function Origin.__index(self, key)
  if key == "requests" then return core.requests(self.number) end
  return Origin[key]
end

local function header_lines(headers)
  local lines = {}
  for name, value in pairs(headers or {}) do
    for _, item in ipairs(type(value) == "table" and value or { value }) do lines[#lines + 1] = name .. ": " .. tostring(item) .. "\r\n" end
  end
  return table.concat(lines)
end

--- test.upstream(status or function(req) -> status, body?, headers?) -> origin. req: method, target, headers, body
local function new_upstream(behaviour)
  local handler = type(behaviour) == "function" and behaviour or function() return behaviour or 200, "ok\n" end
  local pid, port, number = core.serve(function(req)
    local status, body, headers = handler(req)
    if type(body) == "table" then
      body = json.encode(body)
      headers = headers or {}
      headers["Content-Type"] = "application/json"
    end
    return status, body or "", header_lines(headers)
  end)
  local origin = setmetatable({ pid = pid, port = port, number = number }, Origin)
  running[#running + 1] = { pid = pid }
  return origin
end

function Origin:stop()
  for i, process in ipairs(running) do
    if process.pid == self.pid then table.remove(running, i) end
  end
  core.stop(self.pid)
end

-- ---------------------------------------------------------------- Redis

local Redis = {}
Redis.__index = Redis

--- db:call("SET", "k", "v") -> what the server answers, as it is written: "+OK", ":1", "$1\r\nv"; stops the case when it does not answer
function Redis:call(...)
  local words = { ... }
  for i, word in ipairs(words) do words[i] = ("$%d\r\n%s\r\n"):format(#tostring(word), tostring(word)) end
  -- It closes the connection after QUIT, so all that comes before is the answer.
  local text = ("*%d\r\n%s*1\r\n$4\r\nQUIT\r\n"):format(#words, table.concat(words))
  local answer, err = core.exchange(self.port, text, 5)
  if not answer then error("redis does not answer: " .. err, 2) end
  return (answer:gsub("%+OK\r\n$", ""):gsub("\r\n$", ""))
end

function Redis:stop()
  for i, process in ipairs(running) do
    if process.pid == self.pid then table.remove(running, i) end
  end
  core.stop(self.pid)
end

--- test.redis(...) -> a redis-server on a free port, with these arguments; stopped after the case
local function new_redis(...)
  local folder, port = core.folder(), core.free_port()
  local pid = core.spawn(folder .. "/log", "/usr/bin/env", "redis-server", "--port", tostring(port), "--bind", "127.0.0.1",
    "--save", "", "--dir", folder, ...)
  local db = setmetatable({ pid = pid, port = port }, Redis)
  running[#running + 1] = { pid = pid, folder = folder }
  for _ = 1, 250 do
    local ok, answer = pcall(db.call, db, "PING")
    if ok and answer:find "PONG" then return db end
    core.sleep(0.02)
  end
  error("redis-server does not start:\n" .. read_file(folder .. "/log"), 2)
end

-- ---------------------------------------------------------------- gateways

local Answer = {}
Answer.__index = Answer
function Answer:json() return (json.decode(self.body)) end

local Headers = {}
function Headers.__index(self, name)
  return rawget(self, name:lower())
end

local function unchunk(body)
  local parts, at = {}, 1
  while true do
    local _, last, size = body:find("^(%x+)[^\r\n]*\r\n", at)
    local n = size and tonumber(size, 16)
    if not n or n == 0 then return table.concat(parts) end
    parts[#parts + 1] = body:sub(last + 1, last + n)
    at = last + n + 3
  end
end

local function parse_answer(text)
  local head, body = text:match "^(.-)\r\n\r\n(.*)$"
  while head and head:match "^HTTP/1%.1 1%d%d" do head, body = body:match "^(.-)\r\n\r\n(.*)$" end
  if not head then error("no answer: " .. ("%q"):format(text:sub(1, 200)), 3) end
  local headers = setmetatable({}, Headers)
  for name, value in head:gmatch "\n([^:\r\n]+): ?([^\r\n]*)" do
    local key = name:lower()
    headers[key] = rawget(headers, key) and headers[key] .. ", " .. value or value
  end
  if headers["transfer-encoding"] then body = unchunk(body) end
  return setmetatable({ status = tonumber(head:match "^HTTP/1%.1 (%d+)"), headers = headers, body = body }, Answer)
end

local Gateway = {}
Gateway.__index = Gateway

--- gw:request(method, path, { headers?, body? }) -> { status, headers, body, json() }
function Gateway:request(method, path, options)
  options = options or {}
  local body = options.body or ""
  if type(body) == "table" then body = json.encode(body) end
  local lines = { method .. " " .. path .. " HTTP/1.1\r\n", "Connection: close\r\n" }
  local headers = { Host = "gateway.test" }
  for name, value in pairs(options.headers or {}) do headers[name] = value end
  lines[#lines + 1] = header_lines(headers)
  if body ~= "" then lines[#lines + 1] = "Content-Length: " .. #body .. "\r\n" end
  local text, err = core.exchange(self.port, table.concat(lines) .. "\r\n" .. body, 10)
  if not text then error("the gateway does not answer: " .. err .. "\n" .. self:logs(), 2) end
  return parse_answer(text)
end

for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS" } do
  Gateway[method:lower()] = function(self, path, options) return self:request(method, path, options) end
end

--- gw:metric(sample) -> number | nil: there is none. sample: as it is written, 'requests_total{route="a"}'. For gateways with `metrics = true`.
function Gateway:metric(sample)
  if not self.metrics_port then error("test.gateway { metrics = true } has metrics", 2) end
  local text, err = core.exchange(self.metrics_port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 10)
  if not text then error("the gateway does not answer: " .. err, 2) end
  for line in parse_answer(text).body:gmatch "[^\n]+" do
    if line:sub(1, #sample + 1) == sample .. " " then return tonumber(line:sub(#sample + 2)) end
  end
end

--- gw:logs() -> all that it has written
function Gateway:logs() return read_file(self.folder .. "/log") end

--- gw:file(name) -> content of a file in its folder
function Gateway:file(name) return read_file(self.folder .. "/" .. name) end

--- gw:expect_errors(): error lines in its log are part of this case
function Gateway:expect_errors() self.errors_expected = true end

--- gw:reload(config) -> whether it went live, what was said
function Gateway:reload(config)
  write_file(self.folder .. "/gateway.json", json.encode(self.to_config(config)))
  local log = self.folder .. "/reload"
  local pid = core.spawn(log, "/proc/self/exe", "reload", "--control", self.folder .. "/control.sock")
  local status = core.stop(pid, 0)
  return status == 0, read_file(log)
end

local function to_use(use)
  if type(use) == "string" then return { plugin = use } end
  local copy = {}
  for key, value in pairs(use) do
    if key == 1 then copy.plugin = value else copy[key] = value end
  end
  return copy
end

local function to_uses(list)
  local uses = {}
  for i, use in ipairs(list or {}) do uses[i] = to_use(use) end
  return #uses > 0 and uses or nil
end

local function to_consumers(given)
  local consumers = {}
  for name, consumer in pairs(given) do
    local copy = {}
    for key, value in pairs(consumer) do copy[key] = value end
    copy.use = to_uses(consumer.use)
    consumers[name] = copy
  end
  return consumers
end

-- The configuration of a spec in the words of gateway.json; origins become upstreams.
local function to_config(given, port, metrics_port)
  local config = { api = 1, listen = { { address = "127.0.0.1", port = port } }, upstream = {}, route = {},
    consumer = to_consumers(given.consumer or {}), dict = given.dict, http = given.http, use = to_uses(given.global), log = { level = "info" } }
  local function upstream_of(origin)
    if type(origin) == "string" then return origin end
    local name = "origin-" .. origin.port
    config.upstream[name] = { targets = { "http://127.0.0.1:" .. origin.port } }
    return name
  end
  if metrics_port then config.admin = { port = metrics_port, public_metrics = true } end
  for name, redis in pairs(given.redis or {}) do
    config.redis = config.redis or {}
    config.redis[name] = getmetatable(redis) == Redis and { address = "127.0.0.1:" .. redis.port } or redis
  end
  for name, upstream in pairs(given.upstream or {}) do
    config.upstream[name] = getmetatable(upstream) == Origin and { targets = { "http://127.0.0.1:" .. upstream.port } } or upstream
  end
  local routes = given.route or { all = { path = "/*", to = given.to or new_upstream(200), use = given.use } }
  for name, route in pairs(routes) do
    local copy = {}
    for key, value in pairs(route) do copy[key] = value end
    copy.use = to_uses(route.use)
    if route.handler then copy.handler = to_use(route.handler) end
    if route.to then copy.to = upstream_of(route.to) end
    config.route[name] = copy
  end
  return config
end

local function wait_for(gateway)
  for _ = 1, 500 do
    local log = gateway:logs()
    if log:find("is live", 1, true) and core.exchange(gateway.port, "", 0.01) then return end
    if log:find("^tidegate:") or log:find "\ntidegate: " then error(log, 3) end
    core.sleep(0.02)
  end
  error("the gateway does not start:\n" .. gateway:logs(), 3)
end

--- test.gateway{ use=, to= } or { route=, upstream=, consumer=, dict=, redis=, http=, global= } -> gateway, stopped after the case. `files`: bytes by
-- the names that the configuration has for them. `metrics = true`: it has gw:metric.
local function new_gateway(given)
  local folder, port, metrics_port = core.folder(), core.free_port(), given.metrics and core.free_port() or nil
  local gateway = setmetatable({ folder = folder, port = port, metrics_port = metrics_port }, Gateway)
  gateway.to_config = function(config) return to_config(config, port, metrics_port) end
  local plugins = tool.plugin_folder or core.plugin_dirs[1]
  write_file(folder .. "/gateway.json", json.encode(gateway.to_config(given)))
  for name, bytes in pairs(given.files or {}) do write_file(folder .. "/" .. name, bytes) end
  local pid = core.spawn(folder .. "/log", "/proc/self/exe", "run", "--workers", "1", "--plugins", plugins, "--config",
    folder .. "/gateway.json", "--control", folder .. "/control.sock")
  running[#running + 1] = { pid = pid, gateway = gateway }
  wait_for(gateway)
  return gateway
end

-- ---------------------------------------------------------------- running

-- Ends what the case has started, and judges the logs.
local function clean_up(passed)
  local errors = {}
  for i = #running, 1, -1 do
    local process = running[i]
    core.stop(process.pid)
    local gateway, folder = process.gateway, process.folder
    if folder then
      for _, path in ipairs(core.glob(folder .. "/*")) do os.remove(path) end
      core.remove_folder(folder)
    end
    if gateway then
      local line = gateway:logs():match "[^\n]* error %[[^\n]*[^\n]*"
      if line and passed and not gateway.errors_expected then errors[#errors + 1] = line end
      for _, path in ipairs(core.glob(gateway.folder .. "/*")) do os.remove(path) end
      core.remove_folder(gateway.folder)
    end
    running[i] = nil
  end
  if #errors > 0 then error("an unexpected error in the log: " .. errors[1], 0) end
end

local function run_file(path, runner)
  local env = sandbox.environment()
  env.describe, env.it, env.expect = runner.describe, runner.it, runner.expect
  env.require, env.pcall, env.error = require, pcall, error
  env.test = { gateway = new_gateway, upstream = new_upstream, redis = new_redis, sleep = function(s) core.sleep(s) end }
  tool.plugin_folder = path:match "^(.*plugins)/[^/]+$"
  local f = assert(loadstring(read_file(path), "@" .. path))
  setfenv(f, env)
  f()
end

--- main(core, files ...) -> exit status
function tool.main(given, ...)
  core = given
  abi.validating = true
  local files = { ... }
  if #files == 0 then files = core.glob "plugins/*.spec.lua" end
  if #files == 0 then
    io.stderr:write "tidegate test: there are no plugins/*.spec.lua here\n"
    return 2
  end
  local runner = spec.new(clean_up)
  for _, path in ipairs(files) do
    local ok, err = pcall(run_file, path, runner)
    if not ok then
      runner.failed = runner.failed + 1
      print("FAILED " .. path .. "\n  " .. tostring(err))
    end
    pcall(clean_up, true)
  end
  print(("%d passed, %d failed"):format(runner.passed, runner.failed))
  return runner.failed == 0 and 0 or 1
end

return tool
