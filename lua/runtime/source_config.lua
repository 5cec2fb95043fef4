--- source_config: the word `source` of the configuration: where the rest of it comes from, and how that lies on top of the local files.
local schema = require "runtime.schema"
local upstream_tls = require "runtime.upstream_tls"

local t = schema.t
local source_config = {}

local urls = t.optional(t.list(t.string { match = "^https?://[%w.%-:%[%]]+$", len = 300 }, { min = 1, max = 16 }))
local place = t.optional(t.string { match = "^[%w_./:{}%-]+$", len = 200 })

source_config.spec = {
  redis = t.optional(t.string()), etcd = urls, consul = urls,
  key = place, channel = place, prefix = place, fleet = place, name = t.optional(t.string { match = "^[%w_.%-]+$", len = 200 }),
  entry = t.optional(t.string { match = "^[%w_./%-]+$", len = 200 }), every = t.duration { default = "30s", min = 1, max = 3600 },
  timeout = t.duration { default = "5s", min = 0.1, max = 60 },
  username = t.optional(t.string { match = "^[^%c]+$", len = 255 }), password = t.optional(t.secret()), token = t.optional(t.secret()),
  tls = t.optional(t.any { raw = true }),
}

-- What each kind takes of its own, with the default where it has one.
local kinds = {
  redis = { key = "tidegate:config", channel = false },
  etcd = { prefix = "/tidegate/", username = false, password = false, tls = false },
  consul = { prefix = "tidegate/", token = false, tls = false },
}
local own = { "key", "channel", "prefix", "username", "password", "token", "tls" }
local entries = { "gateway.lua", "gateway.yaml", "gateway.yml", "gateway.json" }
local EXPECTED = 'source { redis = "main" }, source { etcd = "http://127.0.0.1:2379" } or source { consul = "http://127.0.0.1:8500" }'

local function kind_of(conf)
  local found
  for kind in pairs(kinds) do
    if conf[kind] and found then return nil end
    found = conf[kind] and kind or found
  end
  return found
end

local function complete(conf, takes)
  for field, default in pairs(takes) do
    if conf[field] == nil and default then conf[field] = default end
  end
  if conf.kind == "redis" then
    conf.channel = conf.channel or conf.key .. ":changed"
    conf.fleet = conf.fleet or conf.key .. ":fleet:"
  else
    conf.fleet = conf.fleet or conf.prefix:gsub("/$", "") .. "-fleet/"
  end
end

--- read(cfg, item, conf, report) -> the source as it is followed | nil. `conf`: as the schema has let it pass, or nil.
function source_config.read(cfg, item, conf, report)
  if not conf then return nil end
  local kind = kind_of(conf)
  if not kind then return report:problem(item.at, { "source" }, "found     no place, or several\nexpected  " .. EXPECTED) end
  for _, field in ipairs(own) do
    if conf[field] ~= nil and kinds[kind][field] == nil then report:problem(item.at, { "source", field }, ("is not for %s"):format(kind)) end
  end
  if kind == "redis" and not cfg.redis[conf.redis] then report:found(item.at, { "source", "redis" }, conf.redis, "the name of a declared redis") end
  if (conf.username == nil) ~= (conf.password == nil) then report:problem(item.at, { "source" }, "username and password belong together") end
  conf.kind = kind
  complete(conf, kinds[kind])
  if kind ~= "redis" and conf.fleet:sub(1, #conf.prefix) == conf.prefix then
    report:found(item.at, { "source", "fleet" }, conf.fleet, "a place that is not below `prefix`")
  end
  if conf.tls ~= nil then upstream_tls.read(conf, item.at, { "source" }, report) end
  return conf
end

--- run_layer(collector, item, source) -> what is wrong | nil. Runs the configuration among the files of the source, if they have come.
function source_config.run_layer(collector, item, source)
  if not source.layer then return nil end
  local given = type(item.value) == "table" and item.value.entry
  local names = type(given) == "string" and { given } or entries
  for _, name in ipairs(names) do
    if source:has(name) then return collector:run("source:" .. name, item.at) end
  end
  return ("found     no %s among the files of the source\nexpected  the file that its configuration begins with"):format(table.concat(names, ", "))
end

return source_config
