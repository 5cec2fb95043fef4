--- consumers: those that the configuration declares.
local abi = require "abi"
local secret = require "tidegate.secret"

local C = abi.C

local consumers = {}
local by_id, list = {}, {}

-- The exchange of a message's fields; given by the runtime, which makes them.
consumers.exchange_of = nil

-- Called once a generation, before plugins are loaded.
function consumers.define(declared)
  for _, consumer in ipairs(declared) do
    local object = { id = consumer.id, groups = consumer.groups, meta = consumer.meta, credentials = consumer.credentials }
    by_id[consumer.id] = object
    list[#list + 1] = object
  end
end

--- find(id) -> consumer | nil
function consumers.find(id)
  return by_id[id]
end

local SIDE = 3 -- slot of a message's fields
local Credentials = { __index = {} }

-- The text of a credential; or what it is instead.
local function text_of(value)
  if secret.is(value) then return value:reveal() end
  if type(value) ~= "string" then return nil, "neither a text nor a secret, but a " .. type(value) end
  if secret.looks_like(value) then return nil, ('the name of a secret as a text: write secret "%s"'):format(value) end
  return value
end

--- credentials(kind) -> all credentials of this kind, to be made in `setup`. One that two consumers have raises.
function consumers.credentials(kind)
  local map = abi.map()
  local self = setmetatable({ map = map, consumers = list }, Credentials)
  for i, consumer in ipairs(list) do
    local values = consumer.credentials[kind]
    for _, item in ipairs(type(values) == "table" and not secret.is(values) and values or { values }) do
      local value, problem = text_of(item)
      if not value then error(("consumer %s: its %s is %s"):format(consumer.id, kind, problem), 2) end
      local rc = C.tg_abi_map_add(map, value, #value, i)
      local other = list[C.tg_abi_map_find(map, value, #value)]
      if rc == abi.EBUSY and other ~= consumer then
        error(("consumers %s and %s have the same %s"):format(other.id, consumer.id, kind), 2)
      elseif rc ~= 0 and rc ~= abi.EBUSY then
        error(("consumer %s: its %s cannot be kept: %s"):format(consumer.id, kind, abi.code(rc)), 2)
      end
    end
  end
  return self
end

--- credentials:find(value) -> consumer, its number | nil
function Credentials.__index:find(value)
  local i = C.tg_abi_map_find(self.map, value, #value)
  if i == 0 then return nil end
  return self.consumers[i], i
end

--- credentials:find_in(headers, name) -> consumer, its number | nil when unknown | false when there is no such field.
-- The same as find(headers[name]), but the credential never becomes a string of Lua.
function Credentials.__index:find_in(headers, name)
  local i = C.tg_abi_map_find_field(self.map, consumers.exchange_of(headers), headers[SIDE], name, #name)
  if i > 0 then return self.consumers[i], i end
  if i == 0 then return nil end
  return false
end

return consumers
