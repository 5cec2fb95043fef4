--- failure: the `err` of `nil, err`: code, message, status, retryable; tostring(err) is readable.
local abi = require "abi"

local Failure = { __name = "error" }
Failure.__index = Failure

function Failure:__tostring()
  return self.message
end

local failure = {}

local statuses = {
  timeout = 504, cancelled = 499, dns = 502, connect = 502, reset = 502, protocol = 502, too_large = 502, status = 502,
  decode = 502, busy = 503, open = 503, memory = 503,
}
local retryable = { timeout = true, dns = true, connect = true, reset = true, busy = true, open = true, memory = true }

--- new(code, message, status?) -> err. An uncaught one becomes the status that fits.
function failure.new(code, message, status)
  return setmetatable({
    code = code, message = message, status = status or statuses[code] or 500, retryable = retryable[code] or false,
  }, Failure)
end

--- misuse(message): raises it at the line of the plugin that called the library, however deep in it we are.
function failure.misuse(message)
  for level = 2, 20 do
    local info = debug.getinfo(level, "S")
    if not info then break end
    if info.what ~= "C" and not info.source:find "^@lua/[rt][ui]" and info.what ~= "tail" then error(message, level) end
  end
  error(message, 0)
end

--- no_worker(): raised, as misuse is, where a plugin asks others and there is nobody who could.
function failure.no_worker()
  abi.refused = "asks others"
  failure.misuse "no I/O while a configuration is loaded: move this into `start` or a phase"
end

function failure.is(value)
  return type(value) == "table" and getmetatable(value) == Failure
end

return failure
