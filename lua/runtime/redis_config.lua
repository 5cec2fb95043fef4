--- redis_config: the word `redis` of the configuration: its fields, and what is wrong with them together.
local address = require "runtime.address"
local schema = require "runtime.schema"
local upstream_tls = require "runtime.upstream_tls"

local t = schema.t
local MAX_CLIENTS, PORT, SENTINEL_PORT = 64, 6379, 26379 -- TG_HOST_REDIS
local redis_config = {}

redis_config.spec = {
  mode = t.enum { "single", "sentinel", "cluster", default = "single" },
  address = t.optional(t.string { len = 255 }),
  sentinels = t.optional(t.list(t.string { len = 255 }, { min = 1, max = 32 })), master = t.optional(t.string { match = "^[%w._-]+$", len = 63 }),
  nodes = t.optional(t.list(t.string { len = 255 }, { min = 1, max = 32 })),
  username = t.optional(t.string { match = "^[^%c]+$", len = 255 }), password = t.optional(t.secret()),
  sentinel_username = t.optional(t.string { match = "^[^%c]+$", len = 255 }), sentinel_password = t.optional(t.secret()),
  db = t.integer { default = 0, min = 0, max = 65535 }, connections = t.integer { default = 2, min = 1, max = 16 },
  timeout = t.duration { default = "50ms", min = 0.001, max = 60 }, connect_timeout = t.duration { default = "1s", min = 0.001, max = 60 },
  tls = t.optional(t.any { raw = true }),
}

-- The fields that name the servers, by mode; each needs all of its own and none of the others'.
local places = { single = { "address" }, sentinel = { "sentinels", "master" }, cluster = { "nodes" } }
local examples = {
  single = 'address = "127.0.0.1:6379"', sentinel = 'mode = "sentinel", sentinels = { "10.0.0.5:26379" }, master = "main"',
  cluster = 'mode = "cluster", nodes = { "10.0.0.5:6379", "10.0.0.6:6379" }',
}

-- "host:port", or the path of a socket -> { host, port }; nil when it was reported
local function read_place(text, default_port, path, item, report)
  if text:find "^unix:/" and #text < 108 + 5 and not text:find "%c" then return { host = text:sub(6), port = 0 } end
  local host, port = address.parse_authority(text)
  if not host then
    report:found(item.at, path, text, 'the address of a server: "10.0.0.5:6379", "unix:/run/redis.sock"')
    return nil
  end
  return { host = host:lower(), port = port or default_port }
end

local function check_places(conf, item, path, report)
  for _, mode in ipairs { "single", "sentinel", "cluster" } do
    for _, field in ipairs(places[mode]) do
      if mode == conf.mode and conf[field] == nil then
        report:problem(item.at, { path, field }, ('found     nothing\nexpected  redis "%s" { %s }'):format(item.name, examples[mode]))
      elseif mode ~= conf.mode and conf[field] ~= nil then
        report:problem(item.at, { path, field }, ('is for mode = "%s"; the mode is "%s"'):format(mode, conf.mode))
      end
    end
  end
end

--- read(cfg, item, conf, report): judges what the schema has let pass (nil: nothing), and adds it to the configuration.
function redis_config.read(cfg, item, conf, report)
  if not conf then return end
  local path = ('redis "%s"'):format(item.name)
  local before = report:count()
  if item.index > MAX_CLIENTS then report:problem(item.at, { path }, ("there are more than %d"):format(MAX_CLIENTS)) end
  if conf.tls == true then conf.tls = {} end
  if conf.tls == false then conf.tls = nil end
  if conf.tls ~= nil then upstream_tls.read(conf, item.at, { path }, report) end
  if conf.username and not conf.password then report:problem(item.at, { path, "username" }, "needs a password") end
  if conf.sentinel_username and not conf.sentinel_password then
    report:problem(item.at, { path, "sentinel_username" }, "needs a sentinel_password")
  end
  if conf.sentinel_password and conf.mode ~= "sentinel" then
    report:problem(item.at, { path, "sentinel_password" }, 'is for mode = "sentinel"')
  end
  if conf.mode == "cluster" and conf.db ~= 0 then report:problem(item.at, { path, "db" }, "a cluster has no databases but 0") end
  check_places(conf, item, path, report)
  local servers, field = {}, places[conf.mode][1]
  local list = conf[field]
  for i, text in ipairs(type(list) == "string" and { list } or list or {}) do
    local full = type(list) == "string" and { path, field } or { path, field, "[" .. i .. "]" }
    servers[#servers + 1] = read_place(text, conf.mode == "sentinel" and SENTINEL_PORT or PORT, full, item, report)
  end
  if report:count() > before then return end
  conf.servers, conf.name = servers, item.name
  cfg.redis[item.name] = conf
  cfg.redis_list[#cfg.redis_list + 1] = conf
end

return redis_config
