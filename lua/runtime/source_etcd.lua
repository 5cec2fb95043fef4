--- source_etcd: a source in etcd 3: a key a file below a prefix, read and watched through the JSON gateway of the server.
local crypto = require "tidegate.crypto"
local source_http = require "runtime.source_http"
local task = require "tidegate.task"

local source_etcd = {}
local Source = {}
Source.__index = Source
local TAIL = 64 -- bytes of a piece that are looked at again with the next one

-- The first key that does not begin with `prefix`.
local function end_of(prefix)
  return prefix:sub(1, -2) .. string.char(prefix:byte(-1) + 1)
end

--- new(conf) -> source: fetch, wait, tell, as sources.lua calls them
function source_etcd.new(conf)
  return setmetatable({
    conf = conf, client = source_http.new(conf, conf.etcd), token = nil, revision = 0,
    range = { key = crypto.base64(conf.prefix), range_end = crypto.base64(end_of(conf.prefix)) },
  }, Source)
end

local function headers_of(self)
  if self.conf.password and not self.token then
    local result, err = self.client:send("POST", "/v3/auth/authenticate",
      { json = { name = self.conf.username, password = self.conf.password:reveal() } })
    if not result then return nil, err end
    self.token = (result:json() or {}).token
  end
  return { Authorization = self.token }
end

-- A token ends some day: after any "no" the next call asks for another one.
local function post(self, path, options)
  local headers, err = headers_of(self)
  if not headers then return nil, err end
  options.headers = headers
  local result, problem = self.client:send("POST", path, options)
  if not result then self.token = nil end
  return result, problem
end

function Source:fetch()
  local result, err = post(self, "/v3/kv/range", { json = self.range })
  local answer, problem
  if result then answer, problem = result:json() end
  if type(answer) ~= "table" or type(answer.header) ~= "table" then return nil, tostring(err or problem or "the answer is not that of etcd") end
  local files = {}
  for _, entry in ipairs(answer.kvs or {}) do
    files[crypto.unbase64(entry.key):sub(#self.conf.prefix + 1)] = crypto.unbase64(entry.value or "")
  end
  self.revision = tonumber(answer.header.revision)
  return files
end

-- Until the first event, or until the server ends the watch: what it is about is asked for anew.
local function watch(self, seconds)
  local request = { key = self.range.key, range_end = self.range.range_end, start_revision = ("%d"):format(self.revision + 1) }
  local result, err = post(self, "/v3/watch", { json = { create_request = request }, stream = true, timeout = seconds + self.conf.timeout })
  if not result then error(err, 0) end
  local tail = ""
  for piece in result:chunks() do
    tail = tail .. piece
    if tail:find('"events"', 1, true) or tail:find('"canceled"', 1, true) or tail:find('"error"', 1, true) then return end
    tail = tail:sub(-TAIL)
  end
end

function Source:wait(seconds) task.within(seconds, watch, self, seconds) end

-- A lease a telling: each outlives the next one, and its key goes with the last.
function Source:tell(name, text, ttl)
  local result, err = post(self, "/v3/lease/grant", { json = { TTL = ttl } })
  local lease = result and result:json()
  if not lease then return nil, err end
  return post(self, "/v3/kv/put", { json = { key = crypto.base64(self.conf.fleet .. name), value = crypto.base64(text), lease = lease.ID } })
end

return source_etcd
