--- turn: what goes over very much, without holding the loop: it gives way when its turn has had enough.
local abi = require "abi"
local task = require "tidegate.task"

local C = abi.C
local SLICE, STEPS = 0.0005, 16 -- seconds that it goes on for; steps until somebody looks at the clock

local Turn = {}
Turn.__index = Turn

local turn = {}

--- new() -> object with breathe(), for the running coroutine
function turn.new() return setmetatable({ steps = 0, till = 0 }, Turn) end

--- breathe(): to be called with each step. What others change meanwhile may have changed when it returns.
function Turn:breathe()
  self.steps = self.steps + 1
  if self.steps < STEPS then return end
  self.steps = 0
  if C.tg_abi_clock() < self.till then return end
  task.sleep(0)
  self.till = C.tg_abi_clock() + SLICE
end

return turn
