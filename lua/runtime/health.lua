--- health: active health checks. One worker asks for all, and what it finds holds for all; they end with the configuration that wants them.
local abi = require "abi"
local call = require "tidegate.call"
local log = require "tidegate.log"
local peers = require "runtime.peers"
local task = require "tidegate.task"
local upstream_tls = require "runtime.upstream_tls"

local C, vm = abi.C, abi.vm
local random = math.random

local health = {}
local UNHEALTHY = 4 -- TG_CELL_UNHEALTHY
local BODY_MAX = 64 * 1024
local SERVING = "\8\1" -- field 1 of grpc.health.v1.HealthCheckResponse, a varint: SERVING

-- grpc.health.v1.HealthCheckRequest with its length before it (RFC of gRPC over HTTP/2: one flag, four bytes).
local function grpc_request(service)
  local message = service == "" and "" or "\10" .. string.char(#service) .. service
  return "\0\0\0\0" .. string.char(#message) .. message
end

-- What makes one probe of this peer: a function that returns true, or false and why not.
local kinds = {}

local function run(one)
  local result, err = one:run()
  if not result then return nil, tostring(err) end
  return result
end

function kinds.tcp(conf, peer)
  local options = { connects = true, fresh = true, timeout = conf.timeout }
  return function()
    local ok, err = run(call.new("GET", "/", peer.host, peer.probed, options, { timeout = conf.timeout, connect_timeout = conf.timeout }))
    return ok and true or false, err
  end
end

function kinds.http(conf, peer, up)
  local options = { fresh = true, timeout = conf.timeout, max_body = BODY_MAX, headers = conf.headers }
  local host = up.host or peer.host
  return function()
    local result, err = run(call.new(conf.method, conf.path, host, peer.probed, options, { timeout = conf.timeout, connect_timeout = conf.timeout }))
    if not result then return false, err end
    if not conf.expect[result.status] then return false, "status " .. result.status end
    if conf.body and not conf.body:test(result:text() or "") then return false, "the body does not match" end
    return true
  end
end

function kinds.grpc(conf, peer, up)
  local body = grpc_request(conf.service)
  local headers = { ["Content-Type"] = "application/grpc", TE = "trailers" }
  for name, value in pairs(conf.headers) do headers[name] = value end
  local options = { timeout = conf.timeout, max_body = BODY_MAX, headers = headers, body = body }
  local host = up.host or peer.host
  return function()
    local result, err = run(call.new("POST", "/grpc.health.v1.Health/Check", host, peer.probed, options,
      { timeout = conf.timeout, connect_timeout = conf.timeout }))
    if not result then return false, err end
    if result.status ~= 200 then return false, "status " .. result.status end
    local code = result.headers["grpc-status"]
    if code and code ~= "0" then return false, "grpc-status " .. code end
    if result.body:sub(6, 7) ~= SERVING then return false, "it is not SERVING" end
    return true
  end
end

-- The peer itself, or another port of it.
local function probed(conf, peer, up)
  if not conf.port or conf.port == peer.port then return peer.index end
  local tls = peer.target.scheme == "https" and upstream_tls.number(up.conf) or 0
  return abi.peer(peer.address, conf.port, tls, up.conf.http2, { idle = 1, idle_timeout = 60, requests = 0 })
end

local function set_healthy(up, peer, healthy, why)
  local changed = C.tg_abi_cell_flag(peer.cell, healthy and 0 or UNHEALTHY, healthy and UNHEALTHY or 0) ~= 0
  if not changed then return end
  if healthy then C.tg_abi_cell_up(peer.cell, vm.monotonic) end
  peers.changed(up)
  log[healthy and "info" or "warn"](healthy and "peer healthy" or "peer unhealthy", { upstream = up.name, peer = peer.name, reason = why })
end

-- Asks again and again: so many good answers in a row bring the peer up, so many bad ones take it out.
local function watch(up, peer, probe)
  local conf = up.conf.health
  local good, bad = 0, 0
  task.sleep(conf.every * random()) -- not all peers at once
  while not peer.gone do
    local no_error, ok, why = pcall(probe)
    if not no_error then ok, why = false, tostring(ok) end
    good, bad = ok and good + 1 or 0, ok and 0 or bad + 1
    if good >= conf.rise then set_healthy(up, peer, true) end
    if bad >= conf.fall then set_healthy(up, peer, false, why) end
    local every = bit.band(peer.cell.flags, UNHEALTHY) ~= 0 and conf.every_unhealthy or conf.every
    task.sleep(every * (1 + conf.jitter * (random() * 2 - 1)))
  end
end

--- start(up): the generation is current.
function health.start(up)
  if vm.worker ~= 0 then return end
  for _, peer in ipairs(up.list) do
    local conf = up.conf.health
    if conf and not peer.probed then
      peer.probed = probed(conf, peer, up)
      task.start(abi.TASK_SERVICE, watch, up, peer, kinds[conf.type](conf, peer, up))
    elseif not conf then
      set_healthy(up, peer, true) -- what an earlier configuration has found
    end
  end
end

return health
