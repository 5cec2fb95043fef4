--- source_redis: a source in Redis: all files in one key, as a JSON object of texts by name, and a channel on which a change is told.
local abi = require "abi"
local json = require "tidegate.json"
local redis = require "tidegate.redis"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local source_redis = {}
local Source = {}
Source.__index = Source

--- new(conf) -> source: fetch, wait, tell, as sources.lua calls them
function source_redis.new(conf)
  local self = setmetatable({ conf = conf, db = redis.open(conf.redis):with { timeout = conf.timeout }, changed = false, waiter = nil }, Source)
  local function wake()
    self.changed = true
    if self.waiter then C.tg_abi_wake(self.waiter[1], self.waiter[2]) end
  end
  -- What was told while the connection was away is not known: so it counts as a change when it is there again.
  task.start(abi.TASK_SERVICE, redis.listen, self.db.client, -1, conf.channel, wake, wake)
  return self
end

function Source:fetch()
  self.changed = false
  local text, err = self.db:get(self.conf.key)
  if err then return nil, tostring(err) end
  if type(text) ~= "string" then return false, ("there is no key %s"):format(self.conf.key) end
  local files, problem = json.decode_object(text)
  if type(files) ~= "table" then return false, ("the key %s holds no JSON object of files: %s"):format(self.conf.key, tostring(problem)) end
  return files
end

function Source:wait(seconds)
  local till = vm.monotonic + seconds
  self.waiter = { vm.coroutine, vm.coroutine_serial }
  while not self.changed and vm.monotonic < till do task.wait_until(till) end
  self.waiter = nil
end

function Source:tell(name, text, ttl)
  return self.db:set(self.conf.fleet .. name, text, "EX", ttl)
end

return source_redis
