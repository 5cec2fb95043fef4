--- batch: tg.batch { ... }: items gathered in this worker and sent together, off the request path; bounded, flushed at the end.
local abi = require "abi"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local task = require "tidegate.task"

local vm = abi.vm
local batch = { all = {} } -- those of this generation
local SIZE, EVERY, PENDING = 100, 1, 10000
local COMPLAIN_EVERY = 60 -- seconds: a receiver that is away must not fill the error log

local sent_total = metrics.counter("tidegate_batch_sent_total", { help = "Items that batches have sent", labels = { "batch" } })
local dropped_total = metrics.counter("tidegate_batch_dropped_total", {
  help = "Items that batches had no room for, or could not send", labels = { "batch" },
})

local Batch = { __name = "batch" }
Batch.__index = Batch

-- Items wait in a list whose front moves: what is sent is not copied over and over.
local function count(self) return self.last - self.first + 1 end

local function drop_front(self, n)
  for i = self.first, self.first + n - 1 do
    local item = self.items[i]
    if type(item) == "string" then self.bytes = self.bytes - #item end
    self.items[i] = nil
  end
  self.first = self.first + n
  if self.first > self.last then self.first, self.last = 1, 0 end
end

-- Counted here, and told to all workers' metrics once in a while: under load a shared counter for each item would show.
local function tell(self)
  if self.dropped > self.told_dropped then
    dropped_total:inc(self.dropped - self.told_dropped, self.labels)
    self.told_dropped = self.dropped
  end
  if self.sent > self.told_sent then
    sent_total:inc(self.sent - self.told_sent, self.labels)
    self.told_sent = self.sent
  end
end

local function complain(self, err)
  if vm.monotonic < self.complained + COMPLAIN_EVERY then return end
  self.complained = vm.monotonic
  log.error(("batch %s: %s; %d items wait, %d were dropped"):format(self.name, tostring(err), count(self), self.dropped))
end

-- The next try is later each time, with half of the pause at random; a receiver may say itself when.
local function put_off(self, err)
  self.failures = self.failures + 1
  self.since = self.since or vm.monotonic
  local pause = math.min(self.backoff, self.every * 2 ^ (self.failures - 1))
  local asked = type(err) == "table" and tonumber(err.retry_after) or 0
  self.not_before = vm.monotonic + math.max(pause * (0.5 + math.random() / 2), math.min(asked, self.backoff))
end

-- Takes at most `size` items; what could not be sent stays in front of what came meanwhile.
local function send_some(self)
  local items = {}
  for i = 1, math.min(self.size, count(self)) do items[i] = self.items[self.first + i - 1] end
  local ok, sent, err = pcall(self.send, items)
  if ok and not (sent == nil and err ~= nil) then
    self.failures, self.since, self.not_before = 0, nil, 0
    self.sent = self.sent + #items
    drop_front(self, #items)
    return true
  end
  err = ok and err or sent
  put_off(self, err)
  if type(err) == "table" and err.lasting or self.give_up and vm.monotonic - self.since >= self.give_up then
    self.dropped, self.since = self.dropped + #items, nil
    drop_front(self, #items)
  end
  return false, err
end

--- flush() -> true | false, err: all that is there, in portions.
function Batch:flush()
  if self.busy then return true end
  self.busy = true
  local ok, err = true, nil
  while ok and count(self) > 0 do ok, err = send_some(self) end
  self.busy = false
  if not ok then complain(self, err) end
  tell(self)
  return ok, err
end

local function in_time(self)
  return count(self) > 0 and not self.busy and vm.monotonic >= self.not_before
end

local function work(self)
  while true do
    task.sleep(self.every)
    if in_time(self) then pcall(function() task.background("batch " .. self.name, self.flush, self):join() end) end
    tell(self)
  end
end

--- add(item) -> true | false: too many wait, it is dropped and counted
function Batch:add(item)
  if abi.in_shadow then return true end -- what it would tell has not happened
  local waiting = self.last - self.first + 1
  local size = type(item) == "string" and #item or 0
  if waiting >= self.max_pending or self.bytes + size > self.max_bytes then
    self.dropped = self.dropped + 1
    return false
  end
  self.last = self.last + 1
  self.items[self.last] = item
  self.bytes = self.bytes + size
  if not self.started then
    self.started = true
    task.start(abi.TASK_SERVICE, work, self)
  elseif waiting + 1 >= self.size and not self.busy and vm.monotonic >= self.not_before then
    pcall(task.background, "batch " .. self.name, self.flush, self)
  end
  return true
end

--- open { name, size = 100, every = 1, max_pending = 10000, max_bytes?, send = f(items), backoff = every, give_up? } -> batch. send returns
-- nil, err (or raises) to be tried again: after `every` seconds, then twice as long each time, up to `backoff`, or when err.retry_after says;
-- a portion that fails for `give_up` seconds, or whose err.lasting is true, is dropped and counted. max_bytes: of items that are strings, together.
function batch.open(options)
  if type(options) ~= "table" or type(options.name) ~= "string" then error("a batch needs a name", 2) end
  if type(options.send) ~= "function" then error("a batch needs send = function(items)", 2) end
  local every = options.every or EVERY
  local self = setmetatable({
    name = options.name, size = options.size or SIZE, every = every, max_pending = options.max_pending or PENDING, send = options.send,
    max_bytes = options.max_bytes or math.huge, backoff = options.backoff or every, give_up = options.give_up,
    items = {}, first = 1, last = 0, bytes = 0,
    dropped = 0, sent = 0, told_dropped = 0, told_sent = 0,
    labels = { batch = options.name }, busy = false, started = false, failures = 0, since = nil, not_before = 0, complained = -COMPLAIN_EVERY,
  }, Batch)
  batch.all[#batch.all + 1] = self
  return self
end

--- Called when the generation ends: each portion has one more try, and what cannot be sent is lost.
function batch.flush_all()
  for _, each in ipairs(batch.all) do
    while each.busy do task.sleep(0.005) end
    each:flush()
    local left = count(each)
    if left > 0 then
      each.dropped = each.dropped + left
      drop_front(each, left)
      tell(each)
      log.error(("batch %s: %d items are lost with the end of their generation"):format(each.name, left))
    end
  end
end

return batch
