--- pace: a worker builds the next generation while it serves: what goes over all routes gives way in between.
local abi = require "abi"

local pace = {}
local C, yield = abi.C, coroutine.yield

--- breathe(): goes on in the next turn of the loop when this one has had enough. Not below a function of C.
function pace.breathe()
  if not abi.validating and C.tg_abi_build_is_over() ~= 0 then yield() end
end

return pace
