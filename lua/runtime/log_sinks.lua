--- log_sinks: what the sinks of the generation have dropped, as a metric.
local abi = require "abi"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local task = require "tidegate.task"

local log_sinks = {}
local EVERY = 1 -- seconds
local dropped_total = metrics.counter("tidegate_log_dropped_total", {
  help = "Lines that a sink had no room for, or could not write", labels = { "sink" },
})

local function tell()
  for _, sink in pairs(log.sinks) do
    local dropped = sink:dropped()
    if dropped > sink.told then
      dropped_total:inc(dropped - sink.told, { sink = sink.path })
      sink.told = dropped
    end
  end
end

--- start(): the generation is current.
function log_sinks.start()
  if next(log.sinks) == nil then return end
  task.start(abi.TASK_SERVICE, function()
    while true do
      task.sleep(EVERY)
      tell()
    end
  end)
end

return log_sinks
