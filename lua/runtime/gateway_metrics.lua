--- gateway_metrics: what the core counts, as families of metrics: requests by route, latencies, connections, workers, generations.
-- The core counts in numbers that have places, not names; the names are given here, when somebody reads.
local abi = require "abi"
local metrics = require "tidegate.metrics"
local pace = require "runtime.pace"

local C, vm, to_string = abi.C, abi.vm, abi.string

local gateway_metrics = {}
local METHODS = { [0] = "other", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "other" }
local CLASSES = { "1xx", "2xx", "3xx", "4xx", "5xx" }
local BUCKETS = C.TG_METRIC_BUCKETS

-- The master counts in it.
metrics.counter("tidegate_reloads_total", { help = "Reloads by what came of them; tried: put on trial.", labels = { "outcome" } })
-- A generation in shadow counts in it, and is not asked.
local generation_shadow = metrics.counter("tidegate_generation_shadow_total",
  { help = "Requests that a generation in shadow has judged, by what would have been different.", labels = { "verdict" } })
generation_shadow.of_shadow = true
gateway_metrics.generation_shadow = generation_shadow
local upstream_by_route = {} -- name -> name
local info = {}

local bounds -- of all histograms of the core

local function find_bounds()
  bounds = {}
  local micros = C.tg_abi_metric_bounds()
  for i = 1, BUCKETS - 1 do bounds[i] = tonumber(micros[i - 1]) / 1e6 end
  return bounds
end

local function has_requests(sum)
  for i = 0, BUCKETS - 1 do
    if sum.duration.counts[i] > 0 then return true end
  end
  return false
end

--- routes() -> iterator of name, counts of all workers together (struct tg_abi_route_count, the same one each time), place. turn: of
-- tidegate/turn
function gateway_metrics.routes(turn)
  local route, sum = -1, abi.route_count()
  return function()
    repeat
      route = route + 1
      turn:breathe()
      if C.tg_abi_metric_route_name(route) ~= 0 then return nil end
      C.tg_abi_metric_route_sum(route, sum)
    until has_requests(sum)
    C.tg_abi_metric_route_name(route)
    return to_string(vm.out.p, vm.out.n), sum, route
  end
end

-- ---------------------------------------------------------------- routes

-- Those that have had requests: list of { name, labels, place }. To look at all others for each family would be what a scrape takes.
local function active(writer)
  local list, route, sum = {}, 0, abi.route_count()
  while C.tg_abi_metric_route_name(route) == 0 do
    local name = to_string(vm.out.p, vm.out.n)
    C.tg_abi_metric_route_sum(route, sum)
    if has_requests(sum) then list[#list + 1] = { name = name, labels = metrics.labels { { "route", name } }, place = route } end
    route = route + 1
    writer:breathe()
  end
  return list
end

local counted = abi.route_count() -- of the route that is being written

local function requests(writer, routes)
  writer:family("tidegate_requests_total", "counter", "Requests that were answered, by class of the status.")
  for _, route in ipairs(routes) do
    C.tg_abi_metric_route_sum(route.place, counted)
    local samples = {}
    for i = 0, C.TG_METRIC_REQUESTS - 1 do
      local n = tonumber(counted.requests[i])
      if n > 0 then samples[#samples + 1] = { i, n } end
    end
    for _, sample in ipairs(samples) do
      local method, class = METHODS[math.floor(sample[1] / C.TG_METRIC_CLASSES)], CLASSES[sample[1] % C.TG_METRIC_CLASSES + 1]
      writer:sample("tidegate_requests_total", metrics.labels {
        { "route", route.name }, { "upstream", upstream_by_route[route.name] or "" }, { "method", method }, { "status", class } }, sample[2])
    end
  end
end

-- Of each bucket the last exchange whose trace was recorded, by number of the bucket.
local exemplar = abi.exemplar()
local function exemplars_of(place, of)
  local found = {}
  for i = 1, BUCKETS do
    if C.tg_abi_metric_exemplar(place, of, i - 1, exemplar) == 0 then
      found[i] = { trace = to_string(exemplar.trace, 32), seconds = exemplar.seconds, at = exemplar.at }
    end
  end
  return found
end

local EXEMPLARS = { duration = C.TG_EXEMPLAR_DURATION, upstream = C.TG_EXEMPLAR_UPSTREAM }

local function distribution(writer, routes, name, field, help)
  local limits, of = bounds or find_bounds(), writer.open and EXEMPLARS[field] or nil
  writer:family(name, "histogram", help)
  for _, route in ipairs(routes) do
    C.tg_abi_metric_route_sum(route.place, counted)
    local histogram, counts = counted[field], {}
    for i = 1, BUCKETS do counts[i] = tonumber(histogram.counts[i - 1]) end
    writer:histogram(name, route.labels, limits, counts, tonumber(histogram.micros) / 1e6, of and exemplars_of(route.place, of))
  end
end

local function totals(writer, routes, name, field, help)
  writer:family(name, "counter", help)
  for _, route in ipairs(routes) do
    C.tg_abi_metric_route_sum(route.place, counted)
    writer:sample(name, route.labels, tonumber(counted[field]))
  end
end

-- ---------------------------------------------------------------- workers

--- workers() -> iterator of row, read: read(number) is one of enum tg_abi_worker_count
function gateway_metrics.workers()
  local row, rows = -1, C.tg_abi_metric_rows()
  return function()
    repeat row = row + 1 until row >= rows or C.tg_abi_metric_worker(row, C.TG_COUNT_CONNECTIONS) >= 0
    if row >= rows then return nil end
    return row, function(number) return C.tg_abi_metric_worker(row, number) end
  end
end

--- sum(number) -> of all workers, also those that are gone
function gateway_metrics.sum(number)
  local sum = 0
  for _, read in gateway_metrics.workers() do sum = sum + read(number) end
  return sum
end

local COUNTERS = {
  { "tidegate_connections_total", C.TG_COUNT_CONNECTIONS, "Connections of clients that were accepted." },
  { "tidegate_http2_connections_total", C.TG_COUNT_SESSIONS, "Of these, connections of HTTP/2." },
  { "tidegate_gateway_failures_total", C.TG_COUNT_FAILED, "Requests that the gateway itself answered with 5xx, or that were cut." },
  { "tidegate_tls_resumptions_total", C.TG_COUNT_RESUMED, "Handshakes with clients that went on with an earlier session." },
  { "tidegate_tls_handshake_failures_total", C.TG_COUNT_UNSHAKEN, "Handshakes that were refused, ended by the client, or too late." },
  { "tidegate_tls_kernel_total", C.TG_COUNT_KERNEL_TLS, "Handshakes with clients after which the kernel encrypts what is sent." },
  { "tidegate_upstream_connections_total", C.TG_COUNT_OPENED, "Connections to peers that were opened for a request." },
  { "tidegate_upstream_connections_reused_total", C.TG_COUNT_REUSED, "Attempts that went out on a connection that was there." },
  { "tidegate_lua_allocated_bytes_total", C.TG_COUNT_LUA_MADE, "Lua memory that was allocated." },
  { "tidegate_lua_collected_bytes_total", C.TG_COUNT_LUA_FREED, "Lua memory that the collector has freed." },
  { "tidegate_log_lines_dropped_total", C.TG_COUNT_LOG_LOST, "Lines of logs that were lost." },
}

local STATES = { -- of a worker that lives
  { "tidegate_connections", C.TG_COUNT_ACTIVE, "Connections of clients that are open.", 1 },
  { "tidegate_upstream_connections_open", C.TG_COUNT_PEERS_OPEN, "Connections to peers, in use or idle.", 1 },
  { "tidegate_upstream_connections_idle", C.TG_COUNT_PEERS_IDLE, "Connections to peers that wait in a pool.", 1 },
  { "tidegate_lua_memory_bytes", C.TG_COUNT_LUA_BYTES, "Lua memory of the current generation.", 1 },
  { "tidegate_worker_generations", C.TG_COUNT_GENERATIONS, "Generations that are alive.", 1 },
  { "tidegate_loop_lag_seconds", C.TG_COUNT_LAG_MICROS, "The longest that the event loop was late, in the last seconds.", 1e6 },
  { "tidegate_memory_pressure", C.TG_COUNT_PRESSURE, "0 none, 1 no keep-alive, 2 requests are refused, 3 nothing is accepted.", 1 },
}

local function workers(writer)
  for _, counter in ipairs(COUNTERS) do
    writer:family(counter[1], "counter", counter[3])
    writer:sample(counter[1], "", gateway_metrics.sum(counter[2]))
  end
  writer:family("tidegate_tls_handshakes_total", "counter", "Handshakes of TLS with clients that went well.")
  local all, new = gateway_metrics.sum(C.TG_COUNT_HANDSHAKES), gateway_metrics.sum(C.TG_COUNT_TLS13)
  writer:sample("tidegate_tls_handshakes_total", '{version="1.3"}', new)
  writer:sample("tidegate_tls_handshakes_total", '{version="1.2"}', all - new)
  for _, state in ipairs(STATES) do
    writer:family(state[1], "gauge", state[3])
    for row, read in gateway_metrics.workers() do
      if read(C.TG_COUNT_GENERATIONS) > 0 then
        writer:sample(state[1], ('{worker="%d"}'):format(row), read(state[2]) / state[4])
      end
    end
  end
end

local function limits(writer)
  writer:family("tidegate_limits_reached_total", "counter", "How often a limit of the gateway was reached.")
  local limit = 1
  while C.tg_abi_metric_limit(limit) == 0 do
    local name = to_string(vm.out.p, vm.out.n)
    writer:sample("tidegate_limits_reached_total", metrics.labels { { "limit", name } }, gateway_metrics.sum(C.TG_COUNT_LIMITS + limit))
    limit = limit + 1
  end
end

local function generations(writer)
  writer:family("tidegate_generation_info", "gauge", "The generation that serves.")
  writer:sample("tidegate_generation_info", metrics.labels { { "generation", info.id } }, 1)
end

local function write(writer)
  local routes = active(writer)
  requests(writer, routes)
  distribution(writer, routes, "tidegate_request_duration_seconds", "duration", "From the first byte of a request to the last one of its response.")
  distribution(writer, routes, "tidegate_policy_duration_seconds", "policy", "What the gateway's policies took before the first attempt at a peer.")
  distribution(writer, routes, "tidegate_upstream_duration_seconds", "upstream", "From the first attempt at a peer to the response head.")
  totals(writer, routes, "tidegate_request_body_bytes_total", "bytes_in", "Bytes of the bodies of requests.")
  totals(writer, routes, "tidegate_response_body_bytes_total", "bytes_out", "Bytes of the bodies of responses.")
  totals(writer, routes, "tidegate_requests_aborted_total", "aborted", "Requests whose client went away, or whose response was cut.")
  workers(writer)
  limits(writer)
  generations(writer)
end

--- start(cfg, id): the generation `id` is current
function gateway_metrics.start(cfg, id)
  info.id = id
  for _, route in ipairs(cfg.route) do
    pace.breathe()
    upstream_by_route[route.name] = route.to
  end
  metrics.collect(write)
end

return gateway_metrics
