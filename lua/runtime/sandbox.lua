--- sandbox: the environment of a plugin: tg, t, and the harmless part of the standard library, frozen.
-- It keeps plugins apart and stops accidents; it is no wall against hostile code, which needs a worker of its own.
local budget = require "runtime.budget"
local vm = require("abi").vm
local library = require "tidegate"
local schema = require "runtime.schema"
local unread = require "tidegate.unread"

local sandbox = {}

local function frozen(name, values)
  return setmetatable({}, {
    __index = values,
    __newindex = function(_, key) error(name .. "." .. tostring(key) .. " cannot be assigned: libraries are frozen", 2) end,
    __metatable = false,
  })
end

local function pick(names, from)
  local values = {}
  for name in names:gmatch "%S+" do values[name] = from[name] end
  return values
end

local MAX_REPEAT = 16 * 1024 * 1024

local strings = pick("byte char find format gmatch gsub len lower match rep reverse sub upper", string)
function strings.rep(text, n)
  if #text * math.max(0, n) > MAX_REPEAT then error("string.rep makes at most 16 MiB", 2) end
  if vm.grown ~= 0 then budget.weigh(3) end -- a loop is looked at every thousand turns, which is too late for such
  return string.rep(text, n)
end

-- A text's methods are these, too: ("x"):rep(2 ^ 30) would pass the cap by.
getmetatable("").__index = strings

local function load_text(text, name, _, env)
  if type(text) ~= "string" then error("load takes text only", 2) end
  if text:byte(1) == 27 then return nil, "bytecode is refused" end
  local f, err = budget.load(text, name, true)
  if f then setfenv(f, env or sandbox.environment()) end
  return f, err
end

local base = pick("assert error getmetatable ipairs next pairs pcall rawequal rawget rawset select setmetatable tonumber"
  .. " tostring type unpack xpcall", _G)
base.string = frozen("string", strings)
base.table = frozen("table", pick("concat insert maxn remove sort", table))
base.math = frozen("math", pick("abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max min"
  .. " modf pi pow rad random sin sinh sqrt tan tanh", math))
base.bit = frozen("bit", bit)
base.coroutine = frozen("coroutine", require("tidegate.task").library)
base.os = frozen("os", pick("time date clock difftime", os))
base.load = load_text
base.__poll = budget.poll
base.tg = library
base.t = schema.t
base.print = function(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  library.log.info(table.concat(parts, " "))
end
base.error = error
base.setmetatable, base.rawget, base.rawset = unread.setmetatable, unread.rawget, unread.rawset
base._VERSION = _VERSION

function base.getmetatable(value)
  if type(value) == "string" then return false end
  return unread.getmetatable(value)
end

--- environment() -> a fresh one: its globals are the plugin's own.
function sandbox.environment()
  local env = {}
  for name, value in pairs(base) do env[name] = value end
  env._G = env
  return env
end

return sandbox
