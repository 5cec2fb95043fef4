--- upstream_metrics: what is known of upstreams and their peers, for metrics: written by one worker, every few seconds.
local abi = require "abi"
local metrics = require "tidegate.metrics"
local peers = require "runtime.peers"
local task = require "tidegate.task"

local vm = abi.vm
local upstream_metrics = {}
local EVERY = 2 -- seconds

local function gauge(name, help, labels) return metrics.gauge(name, { help = help, labels = labels }) end

local function write(all, by_upstream, by_peer)
  for _, up in pairs(all) do
    local cell = up.cell
    by_upstream.breaker:set(bit.band(cell.breaker, 3), { upstream = up.name })
    by_upstream.in_flight:set(tonumber(cell.in_flight), { upstream = up.name })
    by_upstream.waiting:set(tonumber(cell.waiting), { upstream = up.name })
    by_upstream.retries:set(tonumber(cell.retries), { upstream = up.name })
    for _, peer in ipairs(up.list) do
      local labels = { upstream = up.name, peer = peer.name }
      by_peer.up:set(peers.out_until(peer, vm.monotonic) == 0 and 1 or 0, labels)
      by_peer.requests:set(tonumber(peer.cell.requests), labels)
      by_peer.failures:set(tonumber(peer.cell.failures), labels)
      by_peer.latency:set(tonumber(peer.cell.latency), labels)
    end
  end
end

--- start(all): the generation is current.
function upstream_metrics.start(all)
  if next(all) == nil then return end
  local of_upstream, of_peer = { "upstream" }, { "upstream", "peer" }
  local by_upstream = {
    breaker = gauge("tidegate_upstream_breaker_state", "0 closed, 1 open, 2 and 3 half-open", of_upstream),
    in_flight = gauge("tidegate_upstream_requests_in_flight", "requests in flight, in all workers", of_upstream),
    waiting = gauge("tidegate_upstream_requests_waiting", "requests that wait for room", of_upstream),
    retries = gauge("tidegate_upstream_retries", "retries so far", of_upstream),
  }
  local by_peer = {
    up = gauge("tidegate_upstream_peer_up", "whether it gets requests", of_peer),
    requests = gauge("tidegate_upstream_peer_requests", "attempts so far", of_peer),
    failures = gauge("tidegate_upstream_peer_failures", "attempts that have failed so far", of_peer),
    latency = gauge("tidegate_upstream_peer_latency_seconds", "moving average up to the response head", of_peer),
  }
  if vm.worker ~= 0 then return end
  task.start(abi.TASK_SERVICE, function()
    while true do
      write(all, by_upstream, by_peer)
      task.sleep(EVERY)
    end
  end)
end

return upstream_metrics
