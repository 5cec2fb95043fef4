--- consumer_store: consumers that are kept in Redis: looked up by their credential when it comes, and remembered for a while.
-- Keys and values, all of them texts of JSON (PREFIX is `prefix`):
--   PREFIX:credential:key:<sha256 of the key in hex>   { "consumer": "acme", "id"?, "expires"?, "disabled"? }
--   PREFIX:credential:<kind>:<name>                    the same with the fields of that kind: basic (by user name: "password"), hmac (by key id:
--                                                      "secret" or "public_key"), mtls (by the fingerprint, SHA-256 in hex)
--   PREFIX:consumer:<id>                               { "username"?, "custom_id"?, "groups"?, "plan"?, "labels"?, "meta"?, "disabled"? }
-- Who changes one publishes the id of its consumer, or "*", on the channel PREFIX:changed.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local log = require "tidegate.log"
local redis = require "tidegate.redis"
local task = require "tidegate.task"
local time = require "tidegate.time"

local vm = abi.vm
local Store = {}
Store.__index = Store

local store = {}
local NAME_MAX = 512 -- bytes of what a client names; nobody's are longer

--- new { redis, prefix, ttl, negative, timeout, max } -> store
function store.new(conf)
  return setmetatable({
    conf = conf, db = redis.open(conf.redis):with { timeout = conf.timeout },
    known = { young = {}, old = {}, count = 0 }, unknown = { young = {}, old = {}, count = 0 }, epoch = 0,
  }, Store)
end

-- ---------------------------------------------------------------- memory

-- Two halves, of which the older goes. Unknown credentials have their own: a flood of them must not drive out those that are known.
local function put(self, memory, mark, entry)
  if memory.count >= self.conf.max / 2 then memory.old, memory.young, memory.count = memory.young, {}, 0 end
  memory.young[mark], memory.count = entry, memory.count + 1
end

local function get(memory, mark)
  local entry = memory.young[mark] or memory.old[mark]
  return entry and vm.monotonic < entry.till and entry or nil
end

local function forget(memory, id)
  for _, half in pairs { memory.young, memory.old } do
    for mark, entry in pairs(half) do
      if id == "*" or not entry.consumer or entry.consumer.id == id then half[mark] = nil end
    end
  end
end

--- forget(id): what is known of this consumer ("*": of all), and which credentials are unknown. An answer that is under way is not kept.
function Store:forget(id)
  self.epoch = self.epoch + 1
  forget(self.known, id)
  forget(self.unknown, "*")
end

--- start(): hears of changes, in this worker. What was published while the connection was away is not known, so all is forgotten when it is back.
function Store:start()
  task.start(abi.TASK_SERVICE, redis.listen, self.db.client, -1, self.conf.prefix .. ":changed", function(message) self:forget(message) end,
    function() self:forget "*" end)
end

-- ---------------------------------------------------------------- asking

-- Nobody passes whom a store in trouble does not vouch for.
local function unavailable(self, why)
  log.warn("consumers cannot be looked up", { redis = self.conf.redis, reason = tostring(why) })
  error(failure.new("busy", "consumers cannot be looked up: " .. tostring(why), 503), 0)
end

-- The object at a key | nil: there is none.
local function read(self, key, shown)
  local text, err = self.db:get(key)
  if err then unavailable(self, err) end
  if type(text) ~= "string" then return nil end
  local value = json.decode(text)
  if type(value) ~= "table" then unavailable(self, shown .. ": found no JSON object") end
  return value
end

local function is_text(value) return value == nil or type(value) == "string" and not value:find "%c" end
local function is_flag(value) return value == nil or type(value) == "boolean" end
local function is_map(value) return value == nil or type(value) == "table" and value ~= json.null end

local function has_texts(list)
  if list == nil then return true end
  if type(list) ~= "table" then return false end
  for key, value in pairs(list) do
    if type(key) ~= "number" or type(value) ~= "string" or value:find "[%c,]" then return false end
  end
  return true
end

local fields = {
  username = is_text, custom_id = is_text, plan = is_text, disabled = is_flag, labels = is_map, meta = is_map, groups = has_texts,
}

-- What is declared is judged by the schema; this, here.
local function check_consumer(self, id, value)
  if value.use ~= nil then unavailable(self, ("consumer %s: `use` is for consumers of the configuration and its files"):format(id)) end
  for field, is_right in pairs(fields) do
    if not is_right(value[field]) then unavailable(self, ("consumer %s: %s is not what it should be"):format(id, field)) end
  end
  return {
    id = id, username = value.username, custom_id = value.custom_id, groups = value.groups or {}, plan = value.plan, labels = value.labels or {},
    meta = value.meta or {}, disabled = value.disabled or false, stored = true,
  }
end

local function expiry_of(self, value, shown)
  if value == nil then return math.huge end
  local at = type(value) == "number" and value
    or type(value) == "string" and time.parse(value:find "^%d+%-%d+%-%d+$" and value .. "T00:00:00Z" or value)
  if not at then unavailable(self, shown .. ": expires is no date") end
  return at
end

-- Asks Redis -> { consumer, id, expires, fields } | nil: unknown
local function ask(self, kind, name, shown)
  local value = read(self, ("%s:credential:%s:%s"):format(self.conf.prefix, kind, name), shown)
  if not value or value.disabled then return nil end
  if type(value.consumer) ~= "string" or not is_flag(value.disabled) or not is_text(value.id) then
    unavailable(self, shown .. ": found no consumer, expected the id of one")
  end
  local consumer = self:consumer(value.consumer)
  if not consumer then return nil end
  return { consumer = consumer, id = value.id, expires = expiry_of(self, value.expires, shown), fields = value }
end

--- consumer(id) -> consumer | nil: there is none, or it is disabled. Asks each time.
function Store:consumer(id)
  local value = read(self, ("%s:consumer:%s"):format(self.conf.prefix, id), "consumer " .. id)
  local consumer = value and check_consumer(self, id, value)
  return consumer and not consumer.disabled and consumer or nil
end

--- find(kind, name) -> consumer, entry { consumer, id, expires, fields } | nil: unknown, or expired. Raises (503) while nobody can say.
-- `name` is what stands in the key; of a secret only its digest.
function Store:find(kind, name)
  if #name > NAME_MAX then return nil end
  local mark = kind .. "\0" .. name
  local entry = get(self.known, mark)
  if not entry then
    if get(self.unknown, mark) then return nil end
    local epoch = self.epoch
    entry = ask(self, kind, name, "a credential of " .. kind)
    if epoch == self.epoch and (entry or self.conf.negative > 0) then
      local kept = entry or {}
      kept.till = vm.monotonic + (entry and self.conf.ttl or self.conf.negative)
      put(self, entry and self.known or self.unknown, mark, kept)
    end
  end
  if not entry or vm.now >= entry.expires then return nil end
  return entry.consumer, entry
end

return store
