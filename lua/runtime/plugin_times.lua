--- plugin_times: how long plugins take: every so many calls of a chain are measured, and counted for all.
-- To measure each call would cost what a small plugin costs.
local abi = require "abi"
local metrics = require "tidegate.metrics"

local C = abi.C
local plugin_times = { EVERY = 64, each = 64 } -- each: how many a call that is measured stands for

local labels = { "plugin", "phase" }
local calls = metrics.counter("tidegate_plugin_calls_total", { help = "Calls of plugins; one of 64 is counted, as 64.", labels = labels })
local seconds = metrics.counter("tidegate_plugin_seconds_total",
  { help = "What plugins took, waiting included; one call of 64 is measured, and counted 64 times.", labels = labels })
plugin_times.errors = metrics.counter("tidegate_plugin_errors_total", { help = "Errors that plugins have raised.", labels = { "plugin" } })
local known, list = {}, {}

--- clock() -> seconds of a clock that is read now
function plugin_times.clock() return C.tg_abi_clock() end

local function find(use, phase)
  local key = use.label .. "\1" .. phase
  local entry = known[key]
  if not entry then
    local given = { plugin = use.label, phase = phase }
    entry = { plugin = use.label, phase = phase, calls = calls:with(given), seconds = seconds:with(given) }
    known[key], list[#list + 1] = entry, entry
  end
  return entry
end

--- add(use, phase, seconds): one call, which stands for all since the last one
function plugin_times.add(use, phase, took)
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
  entry.calls:inc(plugin_times.each)
  entry.seconds:inc(took * plugin_times.each)
end

--- prepare(use, phase): what it will be counted as, in all workers, also those that have not measured it yet
plugin_times.prepare = find

--- all() -> list of { plugin, phase, calls, seconds } of all workers together
function plugin_times.all()
  local found = {}
  for i, entry in ipairs(list) do
    found[i] = { plugin = entry.plugin, phase = entry.phase, calls = entry.calls:value(), seconds = entry.seconds:value() }
  end
  return found
end

return plugin_times
