--- handler: the function of a route that answers in place of an upstream.
local abi = require "abi"
local barrier = require "runtime.barrier"
local budget = require "runtime.budget"
local plugin_times = require "runtime.plugin_times"
local response = require "tidegate.response"
local trace = require "tidegate.trace"

local vm = abi.vm
local error, type = error, type

local handler = {}

--- new(use) -> the handler of a route, made once a generation. Its plugin has none where it may not run: in shadow.
function handler.new(use)
  local f = use.plugin.handler
  plugin_times.prepare(use, "handler")
  return { handler = f, conf = use.conf, state = use.state, mark = use.index, needs_barrier = f ~= nil and barrier.needed(f), turn = 0, weight = 1,
    use = use }
end

--- plain(f, conf) -> one that is not measured
function handler.plain(f, conf)
  return { handler = f, conf = conf, state = nil, mark = 0, needs_barrier = false, turn = math.huge }
end

-- The first one stands for itself, and each later one for all since.
local function measured(self, ctx)
  plugin_times.begin(self.use, "handler", self.weight)
  self.turn, self.weight = plugin_times.EVERY - 1, plugin_times.EVERY
  local r = self.handler(ctx, self.conf, self.state)
  plugin_times.finish()
  return r
end

--- run(handler, ctx) -> response
function handler.run(self, ctx)
  vm.mark[0] = self.mark
  local frame = trace.on and trace.enter("handler", "handler")
  if self.needs_barrier then barrier.pass() end
  local turn, r = self.turn - 1
  self.turn = turn
  if turn < 0 then r = measured(self, ctx) else r = self.handler(ctx, self.conf, self.state) end
  if vm.grown ~= 0 then budget.weigh() end
  if frame then trace.leave(frame, r) end
  if not response.is(r) then error("a handler must return a response, returned a " .. type(r), 0) end
  return r
end

return handler
