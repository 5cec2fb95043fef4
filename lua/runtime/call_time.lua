--- call_time: uses with `call_time = "500ms"`: a call of a phase that takes longer, waiting included, ends with an error, and with it all that it has
-- begun. Each such call is a task of its own, which is what can be ended; uses that do not say so are as they were, and so are all in a generation
-- in shadow, which has limits of its own and is judged by what it has said when the exchange is over.
local abi = require "abi"
local schema = require "runtime.schema"
local task = require "tidegate.task"

local t = schema.t
local call_time = {}
-- `around` contains what others do, and a message of a WebSocket may wait for a slow reader.
local PHASES = { "rewrite", "authenticate", "access", "handler", "balance", "response", "log" }
local spec = { call_time = t.duration { min = 0.001, max = 3600 } }

--- judge(use, report): reads the word of a use whose plugin is known.
function call_time.judge(use, report)
  if use.call_time == nil then return end
  local read = schema.unfrozen(spec, { call_time = use.call_time }, { report = report, at = use.at, path = { unpack(use.path) } })
  use.call_time = read and read.call_time
  for _, phase in ipairs(PHASES) do
    if use.plugin[phase] then return end
  end
  report:problem(use.at, use.path, "`call_time` limits none of its phases: neither `around` nor `websocket`")
end

local function wrap(f, seconds)
  return function(ctx, conf, state)
    if abi.validating then return f(ctx, conf, state) end -- nothing can wait
    local r, ended = task.limit(seconds, f, ctx, conf, state)
    if ended then error(("it has taken longer than its call_time of %g s"):format(seconds), 0) end
    return r
  end
end

--- stand_in(use) -> what runs in place of its plugin
function call_time.stand_in(use)
  local stand_in = {}
  for name, value in pairs(use.plugin) do stand_in[name] = value end
  for _, phase in ipairs(PHASES) do
    if stand_in[phase] then stand_in[phase] = wrap(stand_in[phase], use.call_time) end
  end
  return stand_in
end

return call_time
