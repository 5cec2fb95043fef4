--- routes: tidegate routes. What the configuration says of each route, and what was counted of it.
local buckets = require "runtime.buckets"
local client = require "tool.client"
local json = require "tidegate.json"

local routes = {}

-- What was counted, for programs and for people.
local function counts_of(counted, bounds)
  local total = 0
  for _, n in pairs(counted.requests) do total = total + n end
  return {
    requests = counted.requests, total = total, aborted = counted.aborted, bytes_in = counted.bytes_in, bytes_out = counted.bytes_out,
    p50 = buckets.quantile(counted.duration.counts, bounds, 0.5), p95 = buckets.quantile(counted.duration.counts, bounds, 0.95),
    p99 = buckets.quantile(counted.duration.counts, bounds, 0.99),
  }
end

local function list(value)
  return value and #value > 0 and table.concat(value, " ") or "-"
end

local function row_of(route)
  local counts = route.counts
  return { route.name, list(route.methods), list(route.host), list(route.path), route.to or route.handler or "-", list(route.use),
    counts and counts.total or 0, counts and counts.requests["5xx"] or 0, client.seconds(counts and counts.p50),
    client.seconds(counts and counts.p95) }
end

--- main(core, options ...) -> exit status
function routes.main(core, ...)
  local options, status = client.options("routes", { json = "flag" }, ...)
  if not options then return status end
  local answer, failure = client.ask(core, options, "routes")
  if not answer then return failure end
  local stats, other = client.ask(core, options, "stats")
  if not stats then return other end
  local by_name = {}
  for _, counted in ipairs(stats.routes) do by_name[counted.name] = counts_of(counted, stats.bounds) end
  for _, route in ipairs(answer.routes) do route.counts = by_name[route.name] end
  if options.json then
    answer.none = by_name.none
    print(json.encode(answer, { sorted = true }))
    return 0
  end
  local rows = { { "ROUTE", "METHODS", "HOST", "PATH", "TO", "PLUGINS", "REQUESTS", "5XX", "P50", "P95" } }
  for _, route in ipairs(answer.routes) do rows[#rows + 1] = row_of(route) end
  if by_name.none then rows[#rows + 1] = row_of { name = "(none)", counts = by_name.none } end
  client.print_columns(rows)
  return 0
end

return routes
