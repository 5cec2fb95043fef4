--- batch: tg.batch { ... }: items gathered in this worker and sent together, off the request path; bounded, flushed at the end.
local abi = require "abi"
local task = require "tidegate.task"

local batch = { all = {} } -- those of this generation
local SIZE, EVERY, PENDING = 100, 1, 10000

local Batch = { __name = "batch" }
Batch.__index = Batch

-- Takes at most `size` items; what could not be sent stays in front of what came meanwhile.
local function send_some(self)
  local items = {}
  for i = 1, math.min(self.size, #self.items) do items[i] = self.items[i] end
  local ok, sent, err = pcall(self.send, items)
  if not ok or (sent == nil and err ~= nil) then return false, ok and err or sent end
  local rest = {}
  for i = #items + 1, #self.items do rest[#rest + 1] = self.items[i] end
  self.items = rest
  return true
end

--- flush() -> true | false, err: all that is there, in portions.
function Batch:flush()
  if self.busy then return true end
  self.busy = true
  local ok, err = true, nil
  while ok and #self.items > 0 do ok, err = send_some(self) end
  self.busy = false
  if not ok then task.report(("batch %s: %s; %d items wait"):format(self.name, tostring(err), #self.items)) end
  return ok, err
end

--- add(item) -> true | false: too many wait, it is dropped and counted
function Batch:add(item)
  if #self.items >= self.max_pending then
    self.dropped = self.dropped + 1
    return false
  end
  self.items[#self.items + 1] = item
  if not self.started then
    self.started = true
    task.start(abi.TASK_SERVICE, function()
      while true do
        task.sleep(self.every)
        if #self.items > 0 then task.background("batch " .. self.name, self.flush, self):join() end
      end
    end)
  elseif #self.items >= self.size and not self.busy then
    pcall(task.background, "batch " .. self.name, self.flush, self)
  end
  return true
end

--- open { name, size = 100, every = 1, max_pending = 10000, send = f(items) } -> batch. send returns nil, err (or raises) to be tried again.
function batch.open(options)
  if type(options) ~= "table" or type(options.name) ~= "string" then error("a batch needs a name", 2) end
  if type(options.send) ~= "function" then error("a batch needs send = function(items)", 2) end
  local self = setmetatable({
    name = options.name, size = options.size or SIZE, every = options.every or EVERY, max_pending = options.max_pending or PENDING,
    send = options.send, items = {}, dropped = 0, busy = false, started = false,
  }, Batch)
  batch.all[#batch.all + 1] = self
  return self
end

--- Called when the generation ends.
function batch.flush_all()
  for _, each in ipairs(batch.all) do
    while each.busy do task.sleep(0.005) end
    each:flush()
  end
end

return batch
