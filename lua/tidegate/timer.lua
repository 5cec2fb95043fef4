--- timer: tg.every and tg.after: work without a request, from `start` on, until the generation ends.
local abi = require "abi"
local task = require "tidegate.task"

local vm = abi.vm
local timer = {}

-- A tick is a task in the background: it ends in its own time, also when its generation is no longer the current one.
local function tick(name, f)
  local one = task.background(name, f)
  one:join()
end

local function wait(seconds, jitter)
  task.sleep(seconds * (1 + jitter * (math.random() * 2 - 1)))
end

local function check(what, seconds, f)
  task.need_worker()
  if type(seconds) ~= "number" or seconds ~= seconds or seconds <= 0 then error(what .. " needs seconds > 0", 3) end
  if type(f) ~= "function" then error(what .. " needs a function", 3) end
end

-- One worker does it for the gateway: the first, whose place the master always fills again.
local function is_mine(options, what)
  local on = options and options.on or "one"
  if on ~= "one" and on ~= "each" then error(what .. ': `on` is "one" or "each"', 3) end
  return on == "each" or vm.worker == 0
end

--- every(seconds, f, { on = "one"|"each", jitter = 0..1 }?): runs never overlap, ticks that were missed are left out, an error
-- does not end it. `on = "one"`: in one worker of the gateway.
function timer.every(seconds, f, options)
  check("every", seconds, f)
  if not is_mine(options, "every") then return end
  local jitter = options and options.jitter or 0
  task.start(abi.TASK_SERVICE, function()
    while true do
      wait(seconds, jitter)
      pcall(tick, "every", f)
    end
  end)
end

--- after(seconds, f, { on = "one"|"each" }?): once.
function timer.after(seconds, f, options)
  check("after", seconds, f)
  if not is_mine(options, "after") then return end
  task.start(abi.TASK_SERVICE, function()
    wait(seconds, 0)
    tick("after", f)
  end)
end

return timer
