--- consumer_list: the consumers that a configuration declares. There may be a hundred thousand in each worker: of most an id is kept, outside of
-- Lua, where the collector does not see it, and an object is made when somebody asks for one. That costs less than the cache misses of one
-- that is there.
local abi = require "abi"
local new_table = require "table.new"

local C, vm, to_string = abi.C, abi.vm, abi.string
local band, next, setmetatable = bit.band, next, setmetatable
local consumer_list = {}

local List = {}
List.__index = List
local RECENT = 1024 -- objects that are kept as they are, so that of few consumers each has one; a power of two
local NONE = setmetatable({}, { __metatable = false, __newindex = function() error("the configuration is read-only", 2) end })
local MORE = { "username", "custom_id", "plan", "disabled" } -- what most have nothing of

-- list.at(place) -> the consumer there: { id, groups, labels, meta, username?, custom_id?, plan?, disabled? }.
-- list.known(place) -> the same when it has an object for good, or else the place: of most consumers a request needs no object.
-- list.kind(place) -> what it has in common with others: { groups }; its id is in vm.out.
-- Functions of their own for each list: what they look into is constant for the JIT compiler, which could not hold it all in the path of a request.
local function readers(ids, kinds, whole)
  local recent, places = new_table(RECENT, 0), new_table(RECENT, 0)
  local function make(place, slot)
    if whole[place] then return whole[place] end
    local kind = kinds[C.tg_abi_map_at(ids, place)]
    local object = { id = to_string(vm.out.p, vm.out.n), groups = kind.groups, labels = NONE, meta = NONE }
    recent[slot], places[slot] = object, place
    return object
  end
  local function at(place)
    local slot = band(place, RECENT - 1)
    if places[slot] == place then return recent[slot] end
    return (make(place, slot))
  end
  return at, function(place) return whole[place] or place end, function(place) return kinds[C.tg_abi_map_at(ids, place)] end
end

--- new() -> list
function consumer_list.new()
  -- id -> number of its kind: what consumers that differ in their ids alone have; place -> object, of those that have more than that
  local ids, kinds, whole = abi.map(), {}, {}
  local at, known, kind = readers(ids, kinds, whole)
  return setmetatable({ ids = ids, kinds = kinds, numbers = {}, whole = whole, at = at, known = known, kind = kind }, List)
end

local function has_more(consumer)
  for _, field in ipairs(MORE) do
    if consumer[field] then return true end
  end
  return next(consumer.labels) ~= nil or next(consumer.meta) ~= nil
end

--- list:add(id, consumer { groups, labels, meta, more }, at?, kept?) -> its place, a number above 0 | nil: there is one of this id. `at`: the file of
-- many that it is in; `kept`: it has one object for good. Groups that are the same are one list from now on.
function List:add(id, consumer, at, kept)
  local name = (at or "") .. "\0" .. table.concat(consumer.groups, ",")
  local number = self.numbers[name] or #self.kinds + 1
  local rc = C.tg_abi_map_add(self.ids, id, #id, number)
  if rc == abi.EBUSY then return nil end
  if rc ~= 0 then error("consumers: " .. abi.code(rc), 0) end
  local kind = self.kinds[number] or { groups = consumer.groups, at = at }
  self.numbers[name], self.kinds[number] = number, kind
  local place = C.tg_abi_map_place(self.ids, id, #id)
  if kept or has_more(consumer) then
    local object = { id = id, groups = kind.groups, labels = consumer.labels, meta = consumer.meta }
    for _, field in ipairs(MORE) do
      if consumer[field] then object[field] = consumer[field] end
    end
    self.whole[place] = object
  end
  return place
end

--- list:place(id) -> its place | nil
function List:place(id)
  local place = C.tg_abi_map_place(self.ids, id, #id)
  return place ~= 0 and place or nil
end

--- list:file_of(id) -> the file of many that it is in | nil
function List:file_of(id)
  local number = C.tg_abi_map_find(self.ids, id, #id)
  return number ~= 0 and self.kinds[number].at or nil
end

--- list:each() -> iterator over consumers, in the order in which they were added
function List:each()
  local place = 0
  return function()
    place = C.tg_abi_map_next(self.ids, place)
    return place ~= 0 and self.at(place) or nil
  end
end

return consumer_list
