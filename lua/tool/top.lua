--- top: tidegate top. What happens now: differences between two looks at what was counted.
local buckets = require "runtime.buckets"
local client = require "tool.client"
local json = require "tidegate.json"

local top = {}
local INTERVAL = 2 -- seconds
local CLASSES = { "1xx", "2xx", "3xx", "4xx", "5xx" }
local PLUGIN_METRICS = { tidegate_plugin_calls_total = "calls", tidegate_plugin_seconds_total = "seconds",
  tidegate_plugin_cpu_seconds_total = "cpu", tidegate_plugin_lua_allocated_bytes_total = "allocated" }
local ROUTE_METRICS = { tidegate_route_plugin_cpu_seconds_total = "cpu", tidegate_route_plugin_lua_allocated_bytes_total = "allocated" }

-- ---------------------------------------------------------------- numbers

-- A look: { stats, status }.
local function look(core, options, ask)
  local stats, failure = ask(core, options, "stats")
  if not stats then return nil, failure end
  local status, other = ask(core, options, "status --json")
  if not status then return nil, other end
  local routes, workers = {}, {}
  for _, route in ipairs(stats.routes) do routes[route.name] = route end
  for _, worker in ipairs(status.workers) do workers[worker.worker] = worker end
  return { stats = stats, status = status, routes = routes, workers = workers }
end

-- What is more of the counts than before.
local function since(counts, before)
  local more = {}
  for i, n in ipairs(counts) do more[i] = n - (before and before[i] or 0) end
  return more
end

local function add(sum, counts)
  for i, n in ipairs(counts) do sum[i] = (sum[i] or 0) + n end
end

local function quantiles(into, counts, bounds)
  into.p50, into.p95, into.p99 = buckets.quantile(counts, bounds, 0.5), buckets.quantile(counts, bounds, 0.95), buckets.quantile(counts, bounds, 0.99)
  return into
end

-- `used`: by plugins, since the start; a request's is a mean of all, since it comes from a sample.
local function route_of(route, before, seconds, bounds, all, used)
  local found, requests, ever = { name = route.name }, 0, 0
  for _, class in ipairs(CLASSES) do
    local n = route.requests[class] - (before and before.requests[class] or 0)
    found[class] = n / seconds
    requests, ever = requests + n, ever + route.requests[class]
    all[class] = (all[class] or 0) + n / seconds
  end
  found.requests = requests / seconds
  found.plugin_cpu, found.plugin_allocated = (used and used.cpu or 0) / math.max(ever, 1), (used and used.allocated or 0) / math.max(ever, 1)
  found.aborted = (route.aborted - (before and before.aborted or 0)) / seconds
  found.bytes_out = (route.bytes_out - (before and before.bytes_out or 0)) / seconds
  local durations = since(route.duration.counts, before and before.duration.counts)
  add(all.durations, durations)
  all.requests, all.aborted = all.requests + found.requests, all.aborted + found.aborted
  found.policy_p95 = buckets.quantile(since(route.policy.counts, before and before.policy.counts), bounds, 0.95)
  found.upstream_p95 = buckets.quantile(since(route.upstream.counts, before and before.upstream.counts), bounds, 0.95)
  return quantiles(found, durations, bounds)
end

-- The value of a label, as it was before it was escaped.
local function unescaped(text) return (text:gsub("\\(.)", function(c) return c == "n" and "\n" or c end)) end

-- Plugin and phase -> { calls, seconds, cpu, allocated }; plugin -> errors; route -> { cpu, allocated } of the plugins in it.
local function plugins_in(stats)
  local times, errors, routes = {}, {}, {}
  for _, series in ipairs(stats.series) do
    local plugin, phase = series.labels:match '^{plugin="(.-)",phase="(%w+)"}$'
    local field = PLUGIN_METRICS[series.metric]
    if field and plugin then
      local key = plugin .. "\1" .. phase
      times[key] = times[key] or { plugin = plugin, phase = phase, calls = 0, seconds = 0, cpu = 0, allocated = 0 }
      times[key][field] = series.value
    elseif ROUTE_METRICS[series.metric] then
      local name = unescaped(series.labels:match '^{route="(.*)"}$' or "?")
      routes[name] = routes[name] or {}
      routes[name][ROUTE_METRICS[series.metric]] = series.value
    elseif series.metric == "tidegate_plugin_errors_total" then
      errors[series.labels:match '^{plugin="(.*)"}$' or "?"] = series.value
    end
  end
  return times, errors, routes
end

-- Times are of a sample of the calls: of the whole life, or a mean would be of one call.
local function plugins_of(now, before, seconds)
  local times, errors = plugins_in(now.stats)
  local earlier, list = plugins_in(before.stats), {}
  for key, entry in pairs(times) do
    local old, any = earlier[key], entry.calls > 0
    list[#list + 1] = { plugin = entry.plugin, phase = entry.phase, calls = (entry.calls - (old and old.calls or 0)) / seconds,
      mean = any and entry.seconds / entry.calls or nil, cpu = any and entry.cpu / entry.calls or nil,
      allocated = any and entry.allocated / entry.calls or nil, errors = errors[entry.plugin] or 0 }
  end
  table.sort(list, function(a, b)
    if a.calls ~= b.calls then return a.calls > b.calls end
    return a.plugin .. a.phase < b.plugin .. b.phase
  end)
  return list
end

local function workers_of(now, before, seconds)
  local list = {}
  for i, worker in ipairs(now.status.workers) do
    local old = before.workers[worker.worker]
    local same = old and old.pid == worker.pid
    list[i] = { worker = worker.worker, pid = worker.pid, connections = worker.connections, lua_bytes = worker.lua_bytes,
      requests = (worker.requests - (same and old.requests or 0)) / seconds, failed = worker.failed, generations = worker.generations }
  end
  return list
end

--- between(before, now) -> what has happened since, by second
function top.between(before, now)
  local seconds, bounds = math.max(now.stats.at - before.stats.at, 0.001), now.stats.bounds
  local all, routes = { requests = 0, aborted = 0, durations = {} }, {}
  local _, _, used = plugins_in(now.stats)
  for i, route in ipairs(now.stats.routes) do routes[i] = route_of(route, before.routes[route.name], seconds, bounds, all, used[route.name]) end
  table.sort(routes, function(a, b)
    if a.requests ~= b.requests then return a.requests > b.requests end
    return a.name < b.name
  end)
  quantiles(all, all.durations, bounds)
  all.durations = nil
  return { at = now.stats.at, seconds = seconds, generation = now.status.generation, uptime = now.status.uptime, all = all,
    routes = json.array(routes), plugins = json.array(plugins_of(now, before, seconds)), workers = json.array(workers_of(now, before, seconds)) }
end

-- ---------------------------------------------------------------- for people

local function rate(value)
  return tonumber(("%.1f"):format(value))
end

local function heading(found)
  local connections, lua, errors = 0, 0, found.all["5xx"] or 0
  for _, worker in ipairs(found.workers) do connections, lua = connections + worker.connections, lua + worker.lua_bytes end
  return {
    ("tidegate  generation %s, up %.0f s, %d worker%s, %d connection%s, Lua %s"):format(found.generation, found.uptime, #found.workers,
      #found.workers == 1 and "" or "s", connections, connections == 1 and "" or "s", client.bytes(lua)),
    ("%.1f requests/s, %.1f %% failed (5xx), p50 %s, p95 %s, p99 %s"):format(found.all.requests,
      found.all.requests > 0 and errors / found.all.requests * 100 or 0, client.seconds(found.all.p50), client.seconds(found.all.p95),
      client.seconds(found.all.p99)),
  }
end

local function append(lines, rows)
  lines[#lines + 1] = ""
  for _, line in ipairs(client.columns(rows)) do lines[#lines + 1] = line end
end

--- lines(found) -> list of text
function top.lines(found)
  local lines = heading(found)
  local rows = { { "WORKER", "PID", "CONNECTIONS", "REQ/S", "FAILED", "LUA", "GENERATIONS" } }
  for _, worker in ipairs(found.workers) do
    rows[#rows + 1] = { worker.worker, worker.pid, worker.connections, rate(worker.requests), worker.failed, client.bytes(worker.lua_bytes),
      worker.generations }
  end
  append(lines, rows)
  rows = { { "ROUTE", "REQ/S", "4XX/S", "5XX/S", "CUT/S", "P50", "P95", "P99", "POLICY P95", "UPSTREAM P95", "PLUGIN CPU", "PLUGIN LUA" } }
  for _, route in ipairs(found.routes) do
    rows[#rows + 1] = { route.name, rate(route.requests), rate(route["4xx"]), rate(route["5xx"]), rate(route.aborted), client.seconds(route.p50),
      client.seconds(route.p95), client.seconds(route.p99), client.seconds(route.policy_p95), client.seconds(route.upstream_p95),
      client.seconds(route.plugin_cpu), client.bytes(route.plugin_allocated) }
  end
  append(lines, rows)
  rows = { { "PLUGIN", "PHASE", "CALLS/S", "MEAN", "CPU", "LUA", "ERRORS" } }
  for _, plugin in ipairs(found.plugins) do
    rows[#rows + 1] = { plugin.plugin, plugin.phase, rate(plugin.calls), client.seconds(plugin.mean), client.seconds(plugin.cpu),
      plugin.allocated and client.bytes(plugin.allocated) or "-", plugin.errors }
  end
  append(lines, rows)
  return lines
end

-- What does not fit on a terminal is left out; each line is cleared to its end, so that nothing flickers.
local function show(found, columns, rows)
  local lines = top.lines(found)
  if not columns then
    io.write(table.concat(lines, "\n"), "\n")
    return
  end
  local parts = { "\27[H" }
  for i = 1, math.min(#lines, rows - 1) do parts[#parts + 1] = lines[i]:sub(1, columns) .. "\27[K\n" end
  parts[#parts + 1] = "\27[J"
  io.write(table.concat(parts))
end

--- main(core, options ...) -> exit status
function top.main(core, ...)
  local options, status = client.options("top", { json = "flag", once = "flag", interval = "number" }, ...)
  if not options then return status end
  local before, failure = look(core, options, client.ask)
  local once = options.once or not core.terminal()
  if before and not once and not options.json then io.write "\27[2J" end
  while before do
    core.sleep(options.interval or INTERVAL)
    local now
    now, failure = look(core, options, client.go_on)
    if now then
      local found = top.between(before, now)
      local columns, rows = core.terminal()
      if options.json then io.write(json.encode(found), "\n") else show(found, not once and columns or nil, rows) end
      io.flush()
      if once then return 0 end
    end
    before = now
  end
  return failure
end

return top
