--- source_consul: a source in the key-value store of Consul: a key a file below a prefix, asked for by queries that block until it changes.
local crypto = require "tidegate.crypto"
local source_http = require "runtime.source_http"

local source_consul = {}
local Source = {}
Source.__index = Source

--- new(conf) -> source: fetch, wait, tell, as sources.lua calls them
function source_consul.new(conf)
  return setmetatable({ conf = conf, client = source_http.new(conf, conf.consul), index = 0, session = nil }, Source)
end

local function send(self, method, path, options)
  options.headers = { ["X-Consul-Token"] = self.conf.token and self.conf.token:reveal() or nil }
  return self.client:send(method, path, options)
end

-- Result | nil, err: of all keys below the prefix, which may be none.
local function query(self, options)
  options.query = options.query or {}
  options.query.recurse = "true"
  local result, err = send(self, "GET", "/v1/kv/" .. self.conf.prefix, options)
  if not result and err.answer == 404 then return err.response end
  return result, err
end

function Source:fetch()
  local result, err = query(self, {})
  if not result then return nil, tostring(err) end
  self.index = tonumber(result.headers["x-consul-index"]) or 0
  local list, problem
  if result.status == 200 then list, problem = result:json() else list = {} end
  if type(list) ~= "table" then return nil, tostring(problem) end
  local files = {}
  for _, entry in ipairs(list) do
    local name = entry.Key:sub(#self.conf.prefix + 1)
    if name ~= "" and name:sub(-1) ~= "/" then -- what a browser of keys makes for a folder
      files[name] = type(entry.Value) == "string" and crypto.unbase64(entry.Value) or ""
    end
  end
  return files
end

-- The server waits up to a sixteenth longer. Without an index it would answer at once, for ever.
function Source:wait(seconds)
  local options = { query = { index = ("%d"):format(math.max(1, self.index)), wait = ("%ds"):format(seconds) } }
  options.timeout = seconds * 17 / 16 + self.conf.timeout
  local result, err = query(self, options)
  if not result then error(err, 0) end
end

-- Keys have no time to live; those of a session end with it.
local function renew(self, ttl)
  if self.session and send(self, "PUT", "/v1/session/renew/" .. self.session, {}) then return true end
  local result, err = send(self, "PUT", "/v1/session/create", { json = { TTL = ttl .. "s", Behavior = "delete", LockDelay = "0s" } })
  local made = result and result:json()
  self.session = made and made.ID
  return self.session ~= nil, err
end

function Source:tell(name, text, ttl)
  local ok, err = renew(self, ttl)
  if not ok then return nil, err end
  return send(self, "PUT", "/v1/kv/" .. self.conf.fleet .. name, { body = text, query = { acquire = self.session } })
end

return source_consul
