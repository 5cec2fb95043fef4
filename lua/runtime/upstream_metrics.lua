--- upstream_metrics: what is known of upstreams and their peers, for metrics: read where all workers keep it, when somebody asks.
local abi = require "abi"
local metrics = require "tidegate.metrics"
local peers = require "runtime.peers"

local vm = abi.vm
local upstream_metrics = {}

local OF_UPSTREAM = {
  { "tidegate_upstream_breaker_state", "gauge", "0 closed, 1 open, 2 and 3 half-open.", function(cell) return bit.band(cell.breaker, 3) end },
  { "tidegate_upstream_requests_in_flight", "gauge", "Requests in flight.", function(cell) return cell.in_flight end },
  { "tidegate_upstream_requests_waiting", "gauge", "Requests that wait for room.", function(cell) return cell.waiting end },
  { "tidegate_upstream_retries_total", "counter", "Attempts that were retries.", function(cell) return cell.retries end },
}

local OF_PEER = {
  { "tidegate_upstream_peer_up", "gauge", "Whether it gets requests.", function(_, peer)
    return peers.out_until(peer, vm.monotonic) == 0 and 1 or 0
  end },
  { "tidegate_upstream_peer_requests_total", "counter", "Attempts.", function(cell) return cell.requests end },
  { "tidegate_upstream_peer_failures_total", "counter", "Attempts that have failed.", function(cell) return cell.failures end },
  { "tidegate_upstream_peer_requests_in_flight", "gauge", "Attempts in flight.", function(cell) return cell.in_flight end },
  { "tidegate_upstream_peer_latency_seconds", "gauge", "Moving average up to the response head.", function(cell) return cell.latency end },
}

-- Of those that have one each.
local PEER_BREAKER = { "tidegate_upstream_peer_breaker_state", "gauge", "Of its own breaker: 0 closed, 1 open, 2 and 3 half-open.",
  function(cell) return bit.band(cell.breaker, 3) end }

local function sorted(all)
  local list = {}
  for _, up in pairs(all) do list[#list + 1] = up end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function peers_of(writer, up, family)
  for _, peer in ipairs(up.list) do
    local labels = metrics.labels { { "upstream", up.name }, { "peer", peer.name } }
    writer:sample(family[1], labels, tonumber(family[4](peer.cell, peer)))
  end
end

--- start(all): the generation is current.
function upstream_metrics.start(all)
  if next(all) == nil then return end
  metrics.collect(function(writer)
    local list = sorted(all)
    for _, family in ipairs(OF_UPSTREAM) do
      writer:family(family[1], family[2], family[3])
      for _, up in ipairs(list) do
        writer:sample(family[1], metrics.labels { { "upstream", up.name } }, tonumber(family[4](up.cell)))
      end
    end
    for _, family in ipairs(OF_PEER) do
      writer:family(family[1], family[2], family[3])
      for _, up in ipairs(list) do peers_of(writer, up, family) end
    end
    local own = PEER_BREAKER
    writer:family(own[1], own[2], own[3])
    for _, up in ipairs(list) do
      if up.peer_breakers then peers_of(writer, up, own) end
    end
  end)
end

return upstream_metrics
