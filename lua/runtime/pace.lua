--- pace: a worker builds the next generation while it serves: what goes over all routes gives way in between.
local abi = require "abi"
local budget = require "runtime.budget"

local pace = {}

--- breathe(): goes on in the next turn of the loop when this one has had enough. Below a function of C, which nothing can leave, it goes on at once.
-- Its budget begins anew: what was judged as a whole, in a process of its own, must not be refused for the size of it.
function pace.breathe()
  if abi.validating then return end
  budget.forgive()
  abi.give_way()
end

return pace
