--- consumers_config: the word `consumers` of the configuration: consumers in a file of their own that is followed, or in Redis.
local consumer_config = require "runtime.consumer_config"
local ordered = require "runtime.ordered"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"

local t = schema.t
local consumers_config = {}

consumers_config.spec = {
  file = t.optional(t.list(t.string { len = 4096 }, { min = 1, max = 100 })),
  redis = t.optional(t.string()), prefix = t.string { default = "tidegate", match = "^[%w_.{}:%-]+$", len = 63 },
  ttl = t.duration { default = "60s", min = 0.1, max = 3600 }, negative = t.duration { default = "5s", min = 0, max = 600 },
  timeout = t.duration { default = "50ms", min = 0.001, max = 10 }, max = t.integer { default = 10000, min = 100, max = 1e6 },
}

local EXPECTED = 'an object of names: { "acme": { "credentials": { ... } } }'

local function read_consumer(cfg, name, value, path, report)
  local word = ('consumer "%s"'):format(name)
  local other = cfg.consumer[name] or cfg.consumers:file_of(name)
  if #name > 63 or not name:find "^[%w_.%-]+$" then
    report:found(path, { "consumer" }, name, "a name of at most 63 letters, digits, '_', '.' and '-'")
  elseif other then
    report:problem(path, { word }, "there is one of this name already at " .. other)
  elseif type(value) ~= "table" then
    report:found(path, { word }, value, "a table")
  else
    local consumer = schema.unfrozen(consumer_config.spec, value, { report = report, at = path, path = { word } })
    consumer_config.read(cfg, { name = name, at = path, file = path }, consumer, report)
  end
end

local function read_file(cfg, path, item, report)
  local text, err = secret.source:follow(path)
  if not text then
    return report:problem(item.at, { "consumers", "file" }, ("found     %s, which cannot be read: %s\nexpected  a file of JSON"):format(path, err))
  end
  local value, problem = secret.source:json(text)
  if type(value) ~= "table" or #value > 0 then
    local line = problem and problem.line
    local found = problem and "found     " .. tostring(problem) or "found     another value than an object"
    return report:problem(line and path .. ":" .. line or path, nil, found .. "\nexpected  " .. EXPECTED)
  end
  for _, name in ipairs(ordered.keys(value)) do read_consumer(cfg, tostring(name), value[name], path, report) end
end

--- read(cfg, item, given, report): adds the consumers of the files, or where else they are looked up, to the configuration. `given`: as
-- the schema has let it pass, or nil.
function consumers_config.read(cfg, item, given, report)
  if not given then return end
  if (given.file ~= nil) == (given.redis ~= nil) then
    return report:problem(item.at, { "consumers" },
      'found     both or neither of `file` and `redis`\nexpected  consumers { file = "consumers.json" } or consumers { redis = "main" }')
  end
  for _, path in ipairs(given.file or {}) do read_file(cfg, path, item, report) end
  if not given.redis then return end
  if not cfg.redis[given.redis] then report:found(item.at, { "consumers", "redis" }, given.redis, "the name of a declared redis") end
  if cfg.consumer_store then
    report:problem(item.at, { "consumers", "redis" }, "consumers are looked up in one Redis already: at " .. cfg.consumer_store.at)
  end
  cfg.consumer_store = given
end

return consumers_config
