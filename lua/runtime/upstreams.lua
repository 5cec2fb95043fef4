--- upstreams: the upstreams of the generation: their peers, whose turn it is, and calls from Lua to them.
local abi = require "abi"
local call = require "tidegate.call"
local http = require "tidegate.http"
local upstream_tls = require "runtime.upstream_tls"

local C = abi.C

local Upstream = { __name = "upstream" }
Upstream.__index = Upstream

local upstreams = { by_name = {} }
local by_peer = {} -- peer index -> { address, port }

-- Weights become a sequence that is walked round and round: smooth weighted round robin, computed once a generation.
local function build_sequence(targets)
  local sequence, current, total = {}, {}, 0
  for i, target in ipairs(targets) do
    current[i] = 0
    total = total + (target.weight or 1)
  end
  for _ = 1, math.min(total, 1000) do
    local best
    for i, target in ipairs(targets) do
      current[i] = current[i] + (target.weight or 1)
      if not best or current[i] > current[best] then best = i end
    end
    current[best] = current[best] - total
    sequence[#sequence + 1] = targets[best].peer
  end
  return sequence
end

local function intern(target, conf)
  if abi.validating then return 0 end
  local pool, tls = conf.pool, target.scheme == "https" and upstream_tls.number(conf) or 0
  local peer = C.tg_abi_peer(target.host, #target.host, target.port, tls, conf.http2 and 1 or 0, pool.idle, pool.idle_timeout * 1000, pool.requests)
  if peer < 0 then error(("target %s:%d: %s"):format(target.host, target.port, abi.code(peer)), 0) end
  return peer
end

--- Makes the upstreams of a configuration known; called once, before plugins are loaded.
function upstreams.define(list)
  for _, conf in ipairs(list) do
    local up = setmetatable({ name = conf.name, conf = conf, cursor = 0, list = {} }, Upstream)
    local targets = {}
    for i, target in ipairs(conf.targets) do
      local peer = intern(target, conf)
      targets[i] = { peer = peer, weight = target.weight }
      up.list[i] = {
        address = target.host, port = target.port, weight = target.weight or 1, index = peer,
        default_port = target.scheme == "https" and 443 or 80,
        name = target.host .. ":" .. target.port, host = target.own and "localhost" or target.host .. ":" .. target.port,
      }
      by_peer[peer] = up.list[i]
    end
    up.sequence = build_sequence(targets)
    up.length = #up.sequence
    up.attempts = math.min(2, #up.list)
    up.host = conf.host ~= "pass" and conf.host ~= "target" and conf.host or nil
    up.host_of_target = conf.host == "target"
    up.defaults = { timeout = conf.timeout or 30, connect_timeout = conf.connect_timeout }
    upstreams.by_name[conf.name] = up
  end
end

--- The peer whose turn it is.
function Upstream:next_peer()
  local i = self.cursor + 1
  if i > self.length then i = 1 end
  self.cursor = i
  return self.sequence[i]
end

--- upstream:peers() -> list of { address, port, weight, in_flight }
function Upstream:peers()
  local peers = {}
  for i, peer in ipairs(self.list) do
    peers[i] = {
      address = peer.address, port = peer.port, weight = peer.weight, index = peer.index,
      in_flight = abi.validating and 0 or tonumber(C.tg_abi_peer_in_flight(peer.index)),
    }
  end
  return peers
end

function upstreams.peer(index)
  return by_peer[index]
end

--- host_for(peer) -> what goes to it as Host, or nil for what the client sent
function Upstream:host_for(peer)
  if self.host then return self.host end
  if not self.host_of_target then return nil end
  local target = by_peer[peer]
  return target.port == target.default_port and target.address or target.host
end

-- For one attempt: whose turn it is, and what goes to it as Host.
function Upstream:next_target()
  local peer = self:next_peer()
  local target = by_peer[peer]
  return peer, self.host or target.host
end

http.add_verbs(Upstream, function(self, method, path, options, form)
  return http.send(method, path, self.name, self, options, self.defaults, form)
end)

--- tg.upstream(name)
function upstreams.get(name)
  local up = upstreams.by_name[name]
  if not up then error('there is no upstream "' .. tostring(name) .. '"', 2) end
  return up
end

local function form_of(request)
  if request.result or request.read then return nil end
  return request.lazy and "lazy" or "json"
end

--- request { upstream, path, method = "GET", lazy = false, result = false, read?, ... } -> a call that has not begun, and gives decoded
-- JSON, a document, the whole result, or what read(result, request) makes of it; what a branch of fetch_all is that was given as a table
function upstreams.request(request)
  local up = upstreams.by_name[request.upstream]
  if not up then error('there is no upstream "' .. tostring(request.upstream) .. '"', 0) end
  return call.new(request.method or "GET", request.path, up.name, up, request, up.defaults, form_of(request))
end

--- fetch(request) -> decoded JSON | nil, err; the same for one with `url`, or with `cache`, and waits.
function upstreams.fetch(request)
  local form = form_of(request)
  if request.url then return http.fetch(request.method or "GET", request.url, request, form) end
  local up = upstreams.by_name[request.upstream]
  if not up then error('there is no upstream "' .. tostring(request.upstream) .. '"', 0) end
  return http.send(request.method or "GET", request.path, up.name, up, request, up.defaults, form)
end

return upstreams
