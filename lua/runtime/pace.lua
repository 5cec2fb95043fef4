--- pace: a worker builds the next generation while it serves: what goes over all routes gives way in between.
local abi = require "abi"

local pace = {}
local C, yield = abi.C, coroutine.yield

--- breathe(): goes on in the next turn of the loop when this one has had enough. Below a function of C, which nothing can leave, it goes on at once.
function pace.breathe()
  if not abi.validating and C.tg_abi_build_is_over() ~= 0 then pcall(yield) end
end

return pace
