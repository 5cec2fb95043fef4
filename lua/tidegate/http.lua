--- http: calls to upstreams and to URLs. Every call waits; nothing blocks.
local abi = require "abi"
local cache = require "tidegate.cache"
local call = require "tidegate.call"
local failure = require "tidegate.failure"
local tls = require "tidegate.tls"
local url = require "tidegate.url"

local C = abi.C

local http = { allowed = nil } -- allowed(host): set by the runtime
local REDIRECTS_MAX = 10

local caches = {} -- "ttl/stale" -> cache

-- The results of a call with `cache = seconds`: kept for all who send the same, and loaded once.
local function through_cache(self, options)
  local stale = options.stale or 0
  local id = options.cache .. "/" .. stale
  caches[id] = caches[id] or cache.open("http/" .. id, { ttl = options.cache, stale = stale })
  local ctx, key = call.exchange and call.exchange(), { self.host, self.path }
  for _, name in ipairs(ctx and options.forward or {}) do key[#key + 1] = name .. ":" .. (ctx.req.headers[name] or "") end
  local names = {}
  for name in pairs(options.headers or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do key[#key + 1] = name .. ":" .. tostring(options.headers[name]) end
  local uncached
  local kept, err = caches[id]:get(table.concat(key, "\n"), function()
    local result, why = self:run()
    if not result then return nil, why end
    if result.status < 200 or result.status > 299 then
      uncached = result
      return nil, failure.new("status", "not kept")
    end
    return { status = result.status, headers = result.headers, body = result.body }
  end)
  if uncached then return uncached end
  if not kept then return nil, err end
  return call.result { status = kept.status, headers = setmetatable(kept.headers, call.Headers), body = kept.body }
end

--- send(method, path, host, peer, options, defaults, form) -> value | nil, err; as call.new, and waits.
function http.send(method, path, host, peer, options, defaults, form)
  local self = call.new(method, path, host, peer, options, defaults, form)
  if options and options.cache and method == "GET" and not options.stream then
    self.form, self.read = nil, nil
    local result, err = through_cache(self, options)
    if not result then return nil, err end
    if options.read then return options.read(result, options) end
    if form then return result[form](result) end
    return result
  end
  return self:run()
end

local verbs = { get = "GET", post = "POST", put = "PUT", patch = "PATCH", delete = "DELETE", head = "HEAD" }
local with_body = { post = true, put = true, patch = true }

--- Adds get, post, put, patch, delete, head, request and get_json to `object`; `send(self, method, path, options, form)` sends.
function http.add_verbs(object, send)
  for name, method in pairs(verbs) do
    if with_body[name] then
      object[name] = function(self, path, body, options)
        local o = {}
        for key, value in pairs(options or {}) do o[key] = value end
        if body ~= nil then o.body = body end
        return send(self, method, path, o)
      end
    else
      object[name] = function(self, path, options) return send(self, method, path, options) end
    end
  end
  object.request = function(self, o)
    return send(self, (o.method or "GET"):upper(), o.path or o.url, o)
  end
  object.get_json = function(self, path, options)
    return send(self, "GET", path, options, options and options.lazy and "lazy" or "json")
  end
end

local DEFAULTS = { -- by scheme; seconds
  http = { timeout = 30, connect_timeout = 2, scheme = "http" }, https = { timeout = 30, connect_timeout = 2, scheme = "https" },
}
local POOL = { idle = 16, idle_timeout = 60, requests = 10000 }
local url_peers = {} -- "host:port", and "/" with how TLS is spoken -> peer index

local function peer_of(host, port, tls_number)
  local key = tls_number == 0 and host .. ":" .. port or ("%s:%d/%d"):format(host, port, tls_number)
  local peer = url_peers[key]
  if peer then return peer end
  if http.allowed(host) then
    peer = abi.peer(host, port, tls_number, false, POOL)
  else
    peer = C.tg_abi_guarded_peer(host, #host, port, tls_number)
  end
  if peer >= 0 then url_peers[key] = peer end
  return peer
end

local function call_once(method, target, options, form)
  local scheme, host, port, path = target:match "^(https?)://([%w%.%-]+):?(%d*)([^#]*)$"
  if not host then scheme, host, port, path = target:match "^(https?)://%[([%x:%.]+)%]:?(%d*)([^#]*)$" end
  if not host then return nil, failure.new("protocol", "not an http:// or https:// URL: " .. target) end
  if path == "" or path:sub(1, 1) == "?" then path = "/" .. path end
  if path:sub(1, 1) ~= "/" then return nil, failure.new("protocol", "not an http:// or https:// URL: " .. target) end
  local usual = scheme == "https" and 443 or 80
  local number, tls_number = tonumber(port) or usual, 0
  if scheme == "https" then
    local problem
    tls_number, problem = tls.number(options and options.tls)
    if not tls_number then failure.misuse(problem) end
  end
  local peer = peer_of(host:lower(), number, tls_number)
  if peer == abi.ELIMIT then return nil, failure.new("busy", "too many hosts: " .. target) end
  if peer < 0 then return nil, failure.new("connect", "not a host and port: " .. target) end
  local name = host:find(":", 1, true) and "[" .. host .. "]" or host
  local result, err = http.send(method, path, number == usual and name or name .. ":" .. number, peer, options, DEFAULTS[scheme], form)
  if err and err.code == "denied" then
    err.message = target .. ": private addresses are closed to plugins; `http { allow = { ... } }` names those that are open"
  end
  return result, err
end

-- RFC 9110, section 15.4: where the answer points to, or nil.
local function next_url(result, target)
  local status, location = result.status, result.headers["location"]
  if not location or status < 301 or status > 308 or status == 304 or status > 303 and status < 307 then return nil end
  return (url.join(target, (location:match "^[^#]*")))
end

local function call_url(method, target, options, form)
  if type(target) ~= "string" then failure.misuse("a URL is a string, found a " .. type(target)) end
  if abi.validating then failure.no_worker() end
  local left = math.min(options and options.redirect or 0, REDIRECTS_MAX)
  while true do
    local result, err = call_once(method, target, options, form)
    local answer = result or err and err.response
    local url_of_next = left > 0 and answer and next_url(answer, target)
    if not url_of_next then return result, err end
    left = left - 1
    target = url_of_next
    if answer.status == 303 or (answer.status < 303 and method == "POST") then
      method = method == "HEAD" and "HEAD" or "GET"
      local copy = {}
      for key, value in pairs(options) do copy[key] = value end
      copy.body, copy.json, copy.form = nil, nil, nil
      options = copy
    end
  end
end

http.fetch = call_url

local verb_methods = {}
http.add_verbs(verb_methods, function(_, method, target, options, form) return call_url(method, target, options, form) end)
-- tg.http.get(url, ...) takes no self
for name, f in pairs(verb_methods) do
  http[name] = function(...) return f(nil, ...) end
end

return http
