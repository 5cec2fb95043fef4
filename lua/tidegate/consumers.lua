--- consumers: who may ask: those that the configuration declares, and their credentials.
local abi = require "abi"
local consumer_list = require "tidegate.consumer_list"
local failure = require "tidegate.failure"
local secret = require "tidegate.secret"

local C, vm = abi.C, abi.vm

local consumers = {}
local list = consumer_list.new()
local sets -- kind -> { owners, values } of its credentials; nil when they have been read

-- The exchange of a message's fields; given by the runtime, which makes them.
consumers.exchange_of = nil

local store -- of those that are in Redis; nil: there are none

-- Called once a generation, before plugins are loaded. `declared`: a consumer_list; `credentials`: as consumer_config makes them. `stored`:
-- where others are looked up.
function consumers.define(declared, credentials, stored)
  store = stored and require("tidegate.consumer_store").new(stored)
  list, sets = declared, credentials
  for _, kind in ipairs(declared.kinds) do consumers.remember(kind) end
end

-- Called in each worker when its generation is current: plugins have read the credentials, and keep what they look up.
function consumers.start()
  sets = nil
  if store then store:start() end
end

--- all() -> list of those that the configuration declares
function consumers.all()
  local all = {}
  for consumer in list:each() do all[#all + 1] = consumer end
  return all
end

--- find(id) -> consumer | nil
function consumers.find(id)
  local place = list:place(id)
  if not place then return store and vm.exchange ~= nil and store:consumer(id) or nil end
  local consumer = list.at(place)
  return not consumer.disabled and consumer or nil
end

--- at(known) -> the consumer that consumers.know was given
function consumers.at(known) return type(known) == "number" and list.at(known) or known end

--- know(ctx, known, credential): ctx:authenticate, that takes for a consumer also the number of one of whom nobody has asked yet. The runtime's
-- ctx keeps it as that.
function consumers.know(ctx, known, credential) return ctx:authenticate(consumers.at(known), credential) end

--- is_disabled(id) -> whether there is one of this id that the configuration declares and has switched off
function consumers.is_disabled(id)
  local place = list:place(id)
  return place ~= nil and list.at(place).disabled == true
end

--- lookup(kind, name) -> consumer, credential { id, expires, fields } | nil: of those that are in Redis. Raises (503) while nobody can say.
function consumers.lookup(kind, name)
  if not store then return nil end
  return store:find(kind, name)
end

--- are_stored() -> whether there may be more than those that are declared: in Redis
function consumers.are_stored() return store ~= nil end

--- has_group(consumer, set) -> whether one of its groups is in the set { [group] = true }
function consumers.has_group(consumer, set)
  for _, group in ipairs(consumer.groups or {}) do
    if set[group] then return true end
  end
  return false
end

--- each(kind) -> iterator over consumer, credential { fields or value, id, expires } of this kind, for `setup`; disabled ones are left out
function consumers.each(kind)
  if not sets then error("credentials are read in setup", 2) end
  local set, i = sets[kind] or { owners = {} }, 0
  return function()
    while true do
      i = i + 1
      local place, value = set.owners[i], set.values and set.values[i]
      if not place then return nil end
      local owner = list.at(place)
      local entry = type(value) == "table" and value.fields and value or { value = value }
      if not owner.disabled and not entry.disabled then return owner, entry, place end
    end
  end
end

local SIDE = 3 -- slot of a message's fields
local SHA256 = "sha256:"
local Credentials = { __index = {} }
local DETAILED = 2 ^ 30 -- what a credential is known by: the place of its consumer, or, above this, the number of what it has of its own

local function place_of(self, i) return i < DETAILED and i or self.places[i - DETAILED] end

--- text_of(value) -> its text; a secret is revealed | nil, what it is instead
function consumers.text_of(value)
  if secret.is(value) then return value:reveal() end
  if type(value) ~= "string" then return nil, "neither a text nor a secret, but a " .. type(value) end
  if secret.looks_like(value) then return nil, ('the name of a secret as a text: write secret "%s"'):format(value) end
  return value
end

-- What is looked up: the text, or the digest of one that stands there as a digest only.
local function key_of(kind, entry)
  local fields = entry.fields
  if not fields then return consumers.text_of(entry.value) end
  if fields.sha256 ~= nil then
    local digest = type(fields.sha256) == "string" and #fields.sha256 == 64 and fields.sha256:find "^%x+$" and fields.sha256:lower()
    if not digest then return nil, "sha256 is not 64 hexadecimal digits" end
    return SHA256 .. digest, nil, true
  end
  return consumers.text_of(fields[kind])
end

--- credentials(kind) -> all credentials of this kind, to be made in `setup`. One that two consumers have raises. Each is a text, a secret, or
-- a table { [kind] = text or secret, or sha256 = hex; id =, expires =, disabled = }.
function consumers.credentials(kind)
  local map = abi.map()
  local self = setmetatable({ map = map, at = list.at, known = list.known, kind = kind, details = {}, places = {}, hashed = false }, Credentials)
  for consumer, entry, place in consumers.each(kind) do
    local value, problem, hashed = key_of(kind, entry)
    if not value then error(("consumer %s: its %s is %s"):format(consumer.id, kind, problem), 2) end
    local n = (entry.id or entry.expires) and #self.places + 1
    local rc = C.tg_abi_map_add(map, value, #value, n and DETAILED + n or place)
    if rc == 0 then
      if n then self.details[n], self.places[n] = { id = entry.id, expires = entry.expires or math.huge }, place end
      self.hashed = self.hashed or hashed
    elseif rc ~= abi.EBUSY then
      error(("consumer %s: its %s cannot be kept: %s"):format(consumer.id, kind, abi.code(rc)), 2)
    else
      local other = place_of(self, C.tg_abi_map_find(map, value, #value))
      if other ~= place then error(("consumers %s and %s have the same %s"):format(list.at(other).id, consumer.id, kind), 2) end
    end
  end
  return self
end

-- Most credentials have neither an id nor an end, and so nothing of their own.
local PLAIN = setmetatable({}, { __newindex = function() error("a credential cannot be changed", 2) end })

local function valid(self, i)
  if i < DETAILED then return self.at(i), PLAIN end
  local found = self.details[i - DETAILED]
  if vm.now >= found.expires then return nil end
  return self.at(self.places[i - DETAILED]), found
end

--- credentials:find(value) -> consumer, credential { id, expires } | nil: unknown, or expired
function Credentials.__index:find(value)
  local i = C.tg_abi_map_find(self.map, value, #value)
  if i == 0 and self.hashed then
    local digest = SHA256 .. self.digest(value)
    i = C.tg_abi_map_find(self.map, digest, #digest)
  end
  if value:sub(1, #SHA256) == SHA256 then return nil end
  if i == 0 then return consumers.lookup(self.kind, self.digest(value)) end
  return valid(self, i)
end

--- find_field(map, headers, name) -> the number in the map for the value of this field, which never becomes a string of Lua; 0: none, below:
-- there is no such field
function consumers.find_field(map, headers, name)
  return C.tg_abi_map_find_field(map, consumers.exchange_of(headers), headers[SIDE], name, #name)
end

--- credentials:authenticate_in(ctx, headers, name) -> true: from now on the client is the consumer whose credential is in this field |
-- nil when it is unknown | false when there is no such field. As a rule the credential never becomes a string of Lua, and no object of the
-- consumer is made before somebody asks for it.
function Credentials.__index:authenticate_in(ctx, headers, name)
  local consumer, credential
  if self.hashed or store then
    local value = headers[name]
    if not value then return false end
    consumer, credential = self:find(value)
  else
    local i = consumers.find_field(self.map, headers, name)
    if i < 0 then return false end
    if i > 0 and i < DETAILED then
      consumers.know(ctx, self.known(i), PLAIN)
      return true
    end
    if i > 0 then consumer, credential = valid(self, i) end
  end
  if not consumer then return nil end
  ctx:authenticate(consumer, credential)
  return true
end

function Credentials.__index.digest(value)
  local crypto = require "tidegate.crypto"
  return crypto.hex(crypto.sha256(value))
end

--- forbidden(message) -> err of status 403: the client is known, but not allowed
function consumers.forbidden(message) return failure.new("forbidden", message, 403) end

-- ---------------------------------------------------------------- what the upstream is told

--- Names of the fields that tell the upstream who asks; from clients they are never taken.
consumers.identity_headers = { "X-Consumer-ID", "X-Consumer-Username", "X-Consumer-Custom-ID", "X-Consumer-Groups", "X-Credential-Identifier",
  "X-Anonymous-Consumer" }

local told = {} -- groups of declared consumers -> as a text, or false

local function set(x, name, value)
  C.tg_abi_field_set(x, abi.REQUEST, name, #name, value, #value)
end

-- A claim of a token may be anything; what cannot stand in a field is not told.
local function printable(value)
  if type(value) == "number" then value = tostring(value) end
  return type(value) == "string" and value ~= "" and C.tg_abi_valid_value(value, #value) == 0 and value or nil
end

local function set_if_printable(x, name, value)
  value = printable(value)
  if value then set(x, name, value) end
end

local function put_if_printable(headers, name, value)
  value = printable(value)
  if value then headers[name] = value end
end

--- text_of_groups(list) -> what is told of them, or false. A group of a token may have any name; one with a comma would be told as two, of which
-- the second may be anybody's.
function consumers.text_of_groups(groups)
  local list_told = {}
  for _, group in ipairs(groups) do
    group = tostring(group)
    if not group:find(",", 1, true) then list_told[#list_told + 1] = group end
  end
  return #list_told > 0 and table.concat(list_told, ", ")
end

-- Whoever keeps a consumer for more than a request has made the text once, in groups_text.
local function groups_of(consumer)
  local groups, text = consumer.groups, consumer.groups_text
  if text == nil and type(groups) == "table" then text = consumers.text_of_groups(groups) end
  return text or nil
end

-- The groups of declared consumers as one text, made once.
function consumers.remember(consumer)
  if told[consumer.groups] == nil then told[consumer.groups] = groups_of(consumer) or false end
end

-- `put` for what was judged when it was read, `put_checked` for the rest.
local function tell(target, put, put_checked, consumer, groups, credential)
  put(target, "X-Consumer-ID", consumer.id)
  if consumer.username then put(target, "X-Consumer-Username", consumer.username) end
  if consumer.custom_id then put(target, "X-Consumer-Custom-ID", consumer.custom_id) end
  if groups then put(target, "X-Consumer-Groups", groups) end
  local id = type(credential) == "table" and credential.id
  if id then put_checked(target, "X-Credential-Identifier", id) end
  if consumer.anonymous then put(target, "X-Anonymous-Consumer", "true") end
end

-- Of one that has an id and groups alone, and whose credential has no id.
local function tell_place(x, place)
  local groups = told[list.kind(place).groups]
  C.tg_abi_field_set(x, abi.REQUEST, "X-Consumer-ID", 13, vm.out.p, vm.out.n)
  if groups then set(x, "X-Consumer-Groups", groups) end
end

--- tell(x, consumer, credential): the upstream hears who asks. `consumer`: it, or its number.
function consumers.tell(x, consumer, credential)
  if type(consumer) == "number" then return tell_place(x, consumer) end
  local groups = told[consumer.groups]
  if groups ~= nil then return tell(x, set, set_if_printable, consumer, groups, credential) end
  tell(x, set_if_printable, set_if_printable, consumer, groups_of(consumer), credential)
end

--- tell_in(headers, consumer, credential): the same, in fields that are no exchange's.
function consumers.tell_in(headers, consumer, credential)
  tell(headers, put_if_printable, put_if_printable, consumer, groups_of(consumer), credential)
end

return consumers
