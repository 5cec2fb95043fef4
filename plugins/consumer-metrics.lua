--- consumer-metrics: requests by consumer, for Prometheus. Off unless it is used: who calls is nobody's business but that of who asks for it.
local requests = tg.metrics.counter("tidegate_consumer_requests_total",
  { help = "Requests that were answered, by who sent them and by class of the status.", labels = { "consumer", "route", "status" } })
local volume = tg.metrics.counter("tidegate_consumer_body_bytes_total",
  { help = "Bytes of bodies, by who sent the request.", labels = { "consumer", "direction" } })
local KNOWN_MAX = 1000 -- consumers whose counters are kept at hand, in each worker

local function class_of(ctx)
  local status = ctx.status
  return status and status >= 100 and status < 600 and math.floor(status / 100) .. "xx" or "none"
end

local function counters_of(state, consumer)
  local found = state.known[consumer]
  if found then return found end
  if state.count >= KNOWN_MAX then state.known, state.count = {}, 0 end
  found = { requests = {}, bytes_in = volume:with { consumer = consumer, direction = "in" },
    bytes_out = volume:with { consumer = consumer, direction = "out" } }
  state.known[consumer], state.count = found, state.count + 1
  return found
end

return {
  api = 1,
  doc = [[
Count requests by consumer: `tidegate_consumer_requests_total` (by route and class of the status, too) and
`tidegate_consumer_body_bytes_total`. Requests of nobody who is known count as `anonymous`. A metric has at most 1000 series: what is beyond
counts as the consumer `other`.]],

  schema = {
    by_route = t.boolean { default = true, doc = "Tell routes apart; otherwise `route` is empty, and there is room for more consumers." },
  },

  example = [[
use { "consumer-metrics" }]],

  setup = function() return { known = {}, count = 0 } end,

  log = function(ctx, conf, state)
    local consumer, route, class = ctx.consumer and ctx.consumer.id or "anonymous", "", class_of(ctx)
    if conf.by_route then route = ctx.route and ctx.route.name or "none" end
    local counters = counters_of(state, consumer)
    local key = route .. " " .. class
    local one = counters.requests[key]
    if not one then
      one = requests:with { consumer = consumer, route = route, status = class }
      counters.requests[key] = one
    end
    one:inc()
    counters.bytes_in:inc(ctx.bytes_in)
    counters.bytes_out:inc(ctx.bytes_out)
  end,
}
