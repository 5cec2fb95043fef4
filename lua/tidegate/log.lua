--- log: tg.log.debug/info/warn/error(message, fields?). Request id, route, plugin and generation are added.
local abi = require "abi"
local json = require "tidegate.json"

local C, vm = abi.C, abi.vm

local log = {
  context = nil, -- context(): text about what runs, set by the runtime
  rate = 100, -- lines of a line of code in ten seconds, in each worker; 0: no limit
  sinks = {}, -- id -> sink, of this generation
  line = require("tidegate.log_line").new,
}

-- ---------------------------------------------------------------- how often

-- A line of code that logs with each request would hide all others, and fill the disk: so many lines in ten seconds, then their number.
local WINDOW, SITES_MAX = 10, 1000
local sites, site_count = {}, 0

-- Whether the line goes out; and how many of this site did not before it.
local function admit(at)
  local site = sites[at]
  if not site then
    if site_count >= SITES_MAX then sites, site_count = {}, 0 end
    site, site_count = { since = vm.monotonic, n = 0, left_out = 0 }, site_count + 1
    sites[at] = site
  end
  local left_out = 0
  if vm.monotonic >= site.since + WINDOW then
    left_out, site.since, site.n, site.left_out = site.left_out, vm.monotonic, 0, 0
  end
  site.n = site.n + 1
  if log.rate == 0 or site.n <= log.rate then return true, left_out end
  site.left_out = site.left_out + 1
  return false, 0
end

local function put(level, text, at)
  local goes_out, left_out = true, 0
  if vm.mark ~= nil then goes_out, left_out = admit(at) end -- without a worker there is no clock, and no load
  if left_out > 0 then
    local note = ("%d more lines of %s were left out"):format(left_out, at)
    C.tg_abi_log(2, note, #note)
  end
  if goes_out then C.tg_abi_log(level, text, #text) end
end

--- raised(level, text, message): what a plugin has raised, as `text`; how often it is told goes by where the message says that it was.
function log.raised(level, text, message)
  if level >= C.tg_abi_log_level() then put(level, text, tostring(message):match "^[^\n]-:%d+:" or "an error") end
end

-- ---------------------------------------------------------------- lines

local CALLER = 3 -- who has called log.warn, which has called write

local function write(level, message, fields)
  if level < C.tg_abi_log_level() then return end
  local text = tostring(message)
  if fields then
    local ok, encoded = pcall(json.encode, fields)
    text = text .. " " .. (ok and encoded or tostring(fields))
  end
  local about = log.context and vm.mark ~= nil and log.context()
  if about then text = text .. about end
  local info = debug.getinfo(CALLER, "Sl")
  put(level, text, info and ("%s:%d"):format(info.short_src, info.currentline) or "a call")
end

function log.debug(message, fields) write(0, message, fields) end
function log.info(message, fields) write(1, message, fields) end
function log.warn(message, fields) write(2, message, fields) end
function log.error(message, fields) write(3, message, fields) end

-- Settings of librdkafka, as the core takes them: their values may be secrets.
local function settings_of(kafka)
  local names, lines = {}, {}
  for name in pairs(kafka or {}) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = name .. "=" .. kafka[name]:reveal() end
  return table.concat(lines, "\n")
end

--- judge(path, kafka?) -> nil: it can be a sink | what is wrong
function log.judge(path, kafka)
  for name, value in pairs(kafka or {}) do
    if name:find "[%c=]" or value:reveal():find "[%z\n]" then
      return ("kafka: %q is no name of a setting, or its value has a newline"):format(name)
    end
  end
  local settings = settings_of(kafka)
  if C.tg_abi_sink_judge(path, #path, settings, #settings) ~= 0 then return abi.out() end
end

--- sink(path, { rotate, keep, kafka }?) -> object with :write(line). For plugins that write log files; never blocks, drops and counts when full.
local Sink = {}
Sink.__index = Sink
-- That of a generation in shadow: what it would write is not what happens.
local Withheld = { write = function() return true end, dropped = function() return 0 end }
Withheld.__index = Withheld

-- `path`: a file, "-" (standard output), "tcp://host:port", "tcp+octets://host:port", "udp://host:port", "unix:/path", "unixgram:/path" or
-- "kafka://host:port/topic", with settings of librdkafka in `kafka`. rotate: from so many bytes on, a file becomes `path.1`, that `path.2`, up
-- to `keep`.
function log.sink(path, options)
  if abi.validating then return setmetatable({ id = -1 }, Sink) end
  if abi.in_shadow then return setmetatable({ id = -1 }, Withheld) end
  local id = C.tg_abi_sink_open(path, #path)
  if id < 0 then error("log file " .. path .. " cannot be opened", 2) end
  local rotate, settings = options and options.rotate, settings_of(options and options.kafka)
  C.tg_abi_sink_configure(id, settings, #settings)
  C.tg_abi_sink_rotate(id, rotate or 0, rotate and options.keep or 0)
  local self = setmetatable({ id = id, path = path, told = tonumber(C.tg_abi_sink_dropped(id)) }, Sink)
  log.sinks[id] = self
  return self
end

function Sink:write(line)
  return C.tg_abi_sink_write(self.id, line, #line) == 0
end

function Sink:dropped()
  return tonumber(C.tg_abi_sink_dropped(self.id))
end

return log
