--- plugin_times: what plugins use: one of so many calls of a chain is measured, and counted for all: time, the processor's, and memory.
-- To measure each call would cost what a small plugin costs.
local abi = require "abi"
local metrics = require "tidegate.metrics"

local C, vm = abi.C, abi.vm
local used = vm.used
-- A prime: routes that take turns, however many, are then all measured, where of 64 calls it would always be the same one's.
local plugin_times = { EVERY = 61, each = 61 } -- each: how many a call that is measured stands for

local SAMPLE = (" One call of %d is measured, and counted for all."):format(plugin_times.EVERY)
local labels, by_route = { "plugin", "phase" }, { "route" }
local function counter(name, help, names) return metrics.counter(name, { help = help .. SAMPLE, labels = names }) end

local of_plugins = {
  calls = counter("tidegate_plugin_calls_total", "Calls of plugins.", labels),
  seconds = counter("tidegate_plugin_seconds_total", "What plugins took, waiting included.", labels),
  cpu = counter("tidegate_plugin_cpu_seconds_total", "Time of the processor that calls of plugins have used.", labels),
  bytes = counter("tidegate_plugin_lua_allocated_bytes_total", "Memory of Lua that calls of plugins have allocated, freed or not.", labels),
}
local of_routes = {
  cpu = counter("tidegate_route_plugin_cpu_seconds_total", "Time of the processor that plugins have used, by route.", by_route),
  bytes = counter("tidegate_route_plugin_lua_allocated_bytes_total", "Memory of Lua that plugins have allocated, freed or not, by route.", by_route),
}
plugin_times.errors = metrics.counter("tidegate_plugin_errors_total", { help = "Errors that plugins have raised.", labels = { "plugin" } })
plugin_times.route_name = function() return nil end -- by index; given by serve
local known, list, routes = {}, {}, {}

local function bind(of, given)
  local entry = {}
  for name, metric in pairs(of) do entry[name] = metric:with(given) end
  return entry
end

local function find(use, phase)
  local key = use.label .. "\1" .. phase
  local entry = known[key]
  if not entry then
    entry = bind(of_plugins, { plugin = use.label, phase = phase })
    entry.plugin, entry.phase, entry.number = use.label, phase, #list + 1
    known[key], list[#list + 1] = entry, entry
  end
  return entry
end

local function find_route(index)
  local entry = routes[index]
  if not entry then
    entry = bind(of_routes, { route = plugin_times.route_name(index) or "none" })
    routes[index] = entry
  end
  return entry
end

--- begin(use, phase, weight): what is called next is measured, and stands for so many calls
function plugin_times.begin(use, phase, weight)
  local times = use.times
  if not times then
    times = {}
    use.times = times
  end
  local entry = times[phase]
  if not entry then
    entry = find(use, phase)
    times[phase] = entry
  end
  C.tg_abi_meter_begin(entry.number, weight)
end

-- Counts what vm.used says.
local function count()
  local entry, route, weight = list[used.what], find_route(vm.mark[1]), used.weight
  local cpu, bytes = used.cpu * weight, used.bytes * weight
  entry.calls:inc(weight)
  entry.seconds:inc(used.seconds * weight)
  entry.cpu:inc(cpu)
  entry.bytes:inc(bytes)
  route.cpu:inc(cpu)
  route.bytes:inc(bytes)
end

--- finish(): it has returned. Nothing happens when nothing is measured.
function plugin_times.finish()
  if C.tg_abi_meter_end() ~= 0 then count() end
end

--- failed(): it has raised, and its coroutine has ended.
function plugin_times.failed()
  if used.what ~= 0 then
    count()
    used.what = 0
  end
end

--- prepare(use, phase): what it will be counted as, in all workers, also those that have not measured it yet
plugin_times.prepare = find

--- all() -> list of { plugin, phase, calls, seconds, cpu_seconds, lua_allocated_bytes } of all workers together
function plugin_times.all()
  local found = {}
  for i, entry in ipairs(list) do
    found[i] = { plugin = entry.plugin, phase = entry.phase, calls = entry.calls:value(), seconds = entry.seconds:value(),
      cpu_seconds = entry.cpu:value(), lua_allocated_bytes = entry.bytes:value() }
  end
  return found
end

-- What is only read takes no place: routes may be more than a metric has.
local function read(metric, name)
  local key = metric.name .. "\1" .. metrics.labels { { "route", name } }
  return C.tg_abi_metric_known(key, #key) ~= 0 and C.tg_abi_metric_series_sum(C.tg_abi_metric_series(key, #key)) or 0
end

--- of_route(name) -> { cpu_seconds, lua_allocated_bytes } of the plugins in it, of all workers together
function plugin_times.of_route(name)
  return { cpu_seconds = read(of_routes.cpu, name), lua_allocated_bytes = read(of_routes.bytes, name) }
end

return plugin_times
