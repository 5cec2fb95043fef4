--- statistics: what was counted, as numbers for programs: totals, routes with quantiles, upstreams and peers, the last exchanges.
local abi = require "abi"
local buckets = require "runtime.buckets"
local cells = require "runtime.cells"
local consumers = require "tidegate.consumers"
local gateway_metrics = require "runtime.gateway_metrics"
local json = require "tidegate.json"
local peers = require "runtime.peers"
local upstreams = require "runtime.upstreams"

local C, vm = abi.C, abi.vm
local statistics = {}
local BUCKETS, CLASSES = C.TG_METRIC_BUCKETS, C.TG_METRIC_CLASSES

--- bounds() -> upper bounds of the buckets, seconds
function statistics.bounds()
  local list, bounds = {}, C.tg_abi_metric_bounds()
  for i = 0, BUCKETS - 2 do list[i + 1] = tonumber(bounds[i]) / 1e6 end
  return json.array(list)
end

local function histogram_of(histogram)
  local counts, bounds = {}, statistics.bounds()
  for i = 0, BUCKETS - 1 do counts[i + 1] = tonumber(histogram.counts[i]) end
  local function at(q) return buckets.quantile(counts, bounds, q) or abi.null end
  return { counts = json.array(counts), seconds = tonumber(histogram.micros) / 1e6, p50 = at(0.5), p95 = at(0.95), p99 = at(0.99) }
end

local function classes_of(sum)
  local classes = {}
  for class = 1, CLASSES do
    local n = 0
    for method = 0, C.TG_METRIC_METHODS - 1 do n = n + tonumber(sum.requests[method * CLASSES + class - 1]) end
    classes[class .. "xx"] = n
  end
  return classes
end

--- counts(turn) -> route name -> what was counted of it. turn: of tidegate/turn
function statistics.counts(turn)
  local found = {}
  for name, sum in gateway_metrics.routes(turn) do
    found[name] = {
      requests = classes_of(sum), aborted = tonumber(sum.aborted), bytes_in = tonumber(sum.bytes_in), bytes_out = tonumber(sum.bytes_out),
      duration = histogram_of(sum.duration), policy = histogram_of(sum.policy), upstream = histogram_of(sum.upstream),
    }
  end
  return found
end

--- totals() -> numbers of all workers together
function statistics.totals()
  local sum = gateway_metrics.sum
  local lag, lua = 0, 0
  for _, read in gateway_metrics.workers() do
    lag = math.max(lag, read(C.TG_COUNT_LAG_MICROS) / 1e6)
    lua = lua + read(C.TG_COUNT_LUA_BYTES)
  end
  local reached, limit = {}, 1
  while C.tg_abi_metric_limit(limit) == 0 do
    local name, n = abi.out(), sum(C.TG_COUNT_LIMITS + limit)
    if n > 0 then reached[name] = n end
    limit = limit + 1
  end
  return {
    connections = sum(C.TG_COUNT_ACTIVE), accepted = sum(C.TG_COUNT_CONNECTIONS), requests = sum(C.TG_COUNT_REQUESTS),
    failed = sum(C.TG_COUNT_FAILED), handshakes = sum(C.TG_COUNT_HANDSHAKES), log_lost = sum(C.TG_COUNT_LOG_LOST),
    loop_lag = lag, lua_bytes = lua, limits = reached,
  }
end

--- heaps() -> list of the workers' Lua memory: in use now, allocated and collected so far
function statistics.heaps()
  local list = {}
  for row, read in gateway_metrics.workers() do
    if read(C.TG_COUNT_GENERATIONS) > 0 then
      list[#list + 1] = { worker = row, lua_bytes = read(C.TG_COUNT_LUA_BYTES), allocated = read(C.TG_COUNT_LUA_MADE),
        collected = read(C.TG_COUNT_LUA_FREED), generations = read(C.TG_COUNT_GENERATIONS) }
    end
  end
  return json.array(list)
end

-- ---------------------------------------------------------------- upstreams

local BREAKER = { [0] = "closed", "open", "half-open", "half-open" }

local function peer_of(peer)
  local cell, now = peer.cell, vm.monotonic
  local flags = cell.flags
  local state = peers.out_until(peer, now) == 0 and "up"
    or bit.band(flags, 1) ~= 0 and "down" or bit.band(flags, 2) ~= 0 and "drained" or bit.band(flags, 4) ~= 0 and "unhealthy"
    or cell.ejected_until > now and "ejected" or "broken"
  return {
    name = peer.name, state = state, breaker = BREAKER[bit.band(cell.breaker, 3)], in_flight = tonumber(cell.in_flight),
    requests = tonumber(cell.requests), failures = tonumber(cell.failures), latency = tonumber(cell.latency), weight = peer.weight,
  }
end

local function upstream_of(up)
  local cell, list = up.cell, {}
  for i, peer in ipairs(up.list) do list[i] = peer_of(peer) end
  return {
    name = up.name, breaker = BREAKER[bit.band(cell.breaker, 3)], in_flight = tonumber(cell.in_flight), waiting = tonumber(cell.waiting),
    retries = tonumber(cell.retries), peers = json.array(list),
  }
end

--- guard_of(conf of a route) -> state of its breaker | nil, its bulkhead: { in_flight, waiting } | nil
function statistics.guard_of(conf)
  if not conf.breaker and not conf.bulkhead then return nil end
  local cell = cells.want("r:" .. conf.name)
  return conf.breaker and BREAKER[bit.band(cell.breaker, 3)] or nil,
    conf.bulkhead and { in_flight = tonumber(cell.in_flight), waiting = tonumber(cell.waiting) } or nil
end

--- upstreams(name?) -> list, or the one of this name
function statistics.upstreams(name)
  if name then return upstreams.by_name[name] and upstream_of(upstreams.by_name[name]) or nil end
  local list = {}
  for _, up in pairs(upstreams.by_name) do list[#list + 1] = upstream_of(up) end
  table.sort(list, function(a, b) return a.name < b.name end)
  return json.array(list)
end

-- ---------------------------------------------------------------- exchanges

local SOURCES = { [0] = "gateway", "upstream", "plugin", "gateway" }
local REASONS = { [0] = "any", "failed", "slow" }
local trail = abi.trail()

local function text_of(array) return abi.string(array) end

local function trail_of(row, number)
  local upstream = trail.upstream_time
  local route = C.tg_abi_metric_route_name(trail.route) == 0 and abi.out() or "none"
  return {
    id = ("%d.%d"):format(row, number), at = trail.started, duration = trail.duration, upstream_time = upstream >= 0 and upstream or abi.null,
    method = text_of(trail.method), host = text_of(trail.host), path = text_of(trail.path), status = tonumber(trail.status),
    client = text_of(trail.client), peer = text_of(trail.peer), route = route, attempts = tonumber(trail.attempts),
    source = SOURCES[trail.source], aborted = trail.aborted ~= 0, reason = REASONS[trail.reason], bytes_out = tonumber(trail.bytes_out),
    generation = tonumber(trail.generation), error = trail.error ~= 0 and abi.code(trail.error) or abi.null,
  }
end

--- trails(failed, from, each) -> positions: each(trail) for all that rows have remembered since the positions `from` (nil: all that is there)
function statistics.trails(failed, from, each)
  local positions = {}
  for row in gateway_metrics.workers() do
    local next_number = C.tg_abi_trail_next(row, failed and 1 or 0)
    local number = math.max(from and from[row] or 0, next_number - C.TG_METRIC_TRAILS, 0)
    while number < next_number do
      if C.tg_abi_trail_read(row, failed and 1 or 0, number, trail) == 0 then each(trail_of(row, number)) end
      number = number + 1
    end
    positions[row] = next_number
  end
  return positions
end

-- ---------------------------------------------------------------- consumers

--- consumers() -> list without any credential
function statistics.consumers()
  local list = {}
  for _, consumer in ipairs(consumers.all()) do
    list[#list + 1] = { id = consumer.id, username = consumer.username, custom_id = consumer.custom_id,
      groups = json.array { unpack(consumer.groups or {}) }, plan = consumer.plan, disabled = consumer.disabled or false }
  end
  return json.array(list)
end

return statistics
