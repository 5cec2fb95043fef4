--- time: tg.now, tg.time. Seconds, always.
local abi = require "abi"

local vm = abi.vm
local floor, date = math.floor, os.date

local time = {}

local now = setmetatable({}, {
  __call = function() return vm.now end,
})

--- now() -> wall clock; now.monotonic() -> a clock that never jumps. Both read once a turn of the loop.
function now.monotonic()
  return vm.monotonic
end

time.now = now

--- http_date(seconds) -> "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, section 5.6.7)
function time.http_date(seconds)
  return date("!%a, %d %b %Y %H:%M:%S GMT", floor(seconds))
end

--- iso(seconds) -> "1994-11-06T08:49:37Z" (RFC 3339)
function time.iso(seconds)
  return date("!%Y-%m-%dT%H:%M:%SZ", floor(seconds))
end

return time
