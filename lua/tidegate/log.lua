--- log: tg.log.debug/info/warn/error(message, fields?). Request id, route, plugin and generation are added.
local abi = require "abi"
local json = require "tidegate.json"

local C, vm = abi.C, abi.vm

local log = { context = nil } -- context(): text about what runs, set by the runtime

local function write(level, message, fields)
  if level < C.tg_abi_log_level() then return end
  local text = tostring(message)
  if fields then
    local ok, encoded = pcall(json.encode, fields)
    text = text .. " " .. (ok and encoded or tostring(fields))
  end
  local about = log.context and vm.mark ~= nil and log.context()
  if about then text = text .. about end
  C.tg_abi_log(level, text, #text)
end

function log.debug(message, fields) write(0, message, fields) end
function log.info(message, fields) write(1, message, fields) end
function log.warn(message, fields) write(2, message, fields) end
function log.error(message, fields) write(3, message, fields) end

--- sink(path) -> object with :write(line). For plugins that write log files; never blocks, drops and counts when full.
local Sink = {}
Sink.__index = Sink

function log.sink(path)
  if abi.validating then return setmetatable({ id = -1 }, Sink) end
  local id = C.tg_abi_sink_open(path, #path)
  if id < 0 then error("log file " .. path .. " cannot be opened", 2) end
  return setmetatable({ id = id }, Sink)
end

function Sink:write(line)
  return C.tg_abi_sink_write(self.id, line, #line) == 0
end

function Sink:dropped()
  return tonumber(C.tg_abi_sink_dropped(self.id))
end

return log
