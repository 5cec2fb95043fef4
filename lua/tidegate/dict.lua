--- dict: tg.dict "name": a dictionary shared by all workers, which survives reloads. Declared in the configuration.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local task = require "tidegate.task"

local C, vm, to_string = abi.C, abi.vm, abi.string

local Dict = { __name = "dict" }
Dict.__index = Dict

local dict = { declared = nil } -- set of names, while a configuration is validated

-- What `open` gives then: there is no worker that has the memory.
local Declared = { __name = "dict" }
Declared.__index = function(_, method)
  if not Dict[method] then return nil end
  abi.refused = "keeps something in a dictionary"
  error("no dict while a configuration is loaded: move this into `start` or a phase", 2)
end

local NIL, NUMBER, STRING, BOOLEAN, TABLE = 0, 1, 2, 3, 4
local LEASE = 30 -- seconds after which the lock of one who died is free

local function fail(rc, level)
  if rc == abi.ELIMIT then return nil, "no room for a value of this size" end
  if rc == abi.EINVAL then error("a key is a string of 1 to 1024 bytes; incr needs a number", level + 1) end
  return nil, abi.code(rc)
end

-- What was deferred runs now.
local function release(entry, ok, ...)
  entry.done = true
  entry.f()
  if not ok then error((...), 0) end
  return ...
end

--- get(key) -> value | nil
function Dict:get(key)
  if C.tg_abi_dict_get(self.id, key, #key) ~= 0 then return nil end
  local kind = vm.type
  if kind == NUMBER then return vm.number end
  if kind == BOOLEAN then return vm.number ~= 0 end
  local text = to_string(vm.out.p, vm.out.n)
  if kind == TABLE then return (json.decode(text)) end
  return text
end

-- A value as it is kept: type, text, number.
local function encode(value, level)
  local kind = type(value)
  if kind == "number" then return NUMBER, "", value end
  if kind == "string" then return STRING, value, 0 end
  if kind == "boolean" then return BOOLEAN, "", value and 1 or 0 end
  if kind == "table" then return TABLE, json.encode(value), 0 end
  if kind == "nil" then return NIL, "", 0 end
  error("a dict keeps numbers, strings, booleans and tables, found a " .. kind, level + 1)
end

local function store(self, key, value, ttl, only_new)
  local kind, text, number = encode(value, 3)
  return C.tg_abi_dict_set(self.id, key, #key, kind, text, #text, number, ttl or 0, only_new)
end

--- set(key, value, ttl?) -> true | nil, message. nil as value deletes.
function Dict:set(key, value, ttl)
  if value == nil then
    C.tg_abi_dict_delete(self.id, key, #key)
    return true
  end
  local rc = store(self, key, value, ttl, 0)
  if rc ~= 0 then return fail(rc, 2) end
  return true
end

--- add(key, value, ttl?) -> true | false when the key is there already
function Dict:add(key, value, ttl)
  local rc = store(self, key, value, ttl, 1)
  if rc == abi.EBUSY then return false end
  if rc ~= 0 then return fail(rc, 2) end
  return true
end

--- incr(key, by = 1, ttl?) -> the new number. A missing key begins at 0 and lives for ttl.
function Dict:incr(key, by, ttl)
  local rc = C.tg_abi_dict_incr(self.id, key, #key, by or 1, ttl or 0)
  if rc ~= 0 then return fail(rc, 2) end
  return vm.number
end

--- incr_in(scope, key, by = 1, ttl?): incr(scope .. key, by, ttl) without the joined string, which would be garbage.
function Dict:incr_in(scope, key, by, ttl)
  local rc = C.tg_abi_dict_incr_in(self.id, scope, #scope, key, #key, by or 1, ttl or 0)
  if rc ~= 0 then return fail(rc, 2) end
  return vm.number
end

--- compare_set(key, old, new, ttl?) -> true | false when something else than `old` is there. nil: nothing.
function Dict:compare_set(key, old, new, ttl)
  local old_kind, old_text, old_number = encode(old, 2)
  local kind, text, number = encode(new, 2)
  local rc = C.tg_abi_dict_compare_set(self.id, key, #key, old_kind, old_text, #old_text, old_number, kind, text, #text, number, ttl or 0)
  if rc == abi.EBUSY then return false end
  if rc ~= 0 then return fail(rc, 2) end
  return true
end

--- lock(key, timeout, f, ...) -> what f returns | nil, err (`busy`) when nobody gave it free in that time. One at a time among all
-- workers; f has 30 s.
function Dict:lock(key, timeout, f, ...)
  local name, till = "lock:" .. key, vm.monotonic + timeout
  C.tg_abi_uuid()
  local token = abi.out()
  local pause = 0.001
  while not self:add(name, token, LEASE) do
    if vm.monotonic >= till then return nil, failure.new("busy", ("the lock %q is held by another"):format(key)) end
    task.sleep(math.min(pause, math.max(0, till - vm.monotonic)))
    pause = math.min(pause * 2, 0.05)
  end
  local entry = task.defer(function() self:compare_set(name, token, nil) end)
  return release(entry, pcall(f, ...))
end

--- delete(key) -> whether it was there
function Dict:delete(key)
  return C.tg_abi_dict_delete(self.id, key, #key) == 0
end

--- ttl(key) -> seconds left, 0 for ever, nil when it is not there
function Dict:ttl(key)
  if C.tg_abi_dict_ttl(self.id, key, #key) ~= 0 then return nil end
  return vm.number
end

-- ---------------------------------------------------------------- in shadow

-- What a generation in shadow writes stands beside what is there, under keys of its own, for ten minutes at most: all its workers see it, and
-- nobody else does.
local Apart = { __name = "dict", lock = Dict.lock }
Apart.__index = Apart
local OWN, GONE, APART_TTL = "\2shadow\1", "\2gone", 600

local function ttl_of(ttl) return ttl and ttl > 0 and math.min(ttl, APART_TTL) or APART_TTL end

-- What others have written is copied before it is changed.
local function seed(self, key)
  local own = OWN .. key
  if Dict.get(self, own) ~= nil then return own end
  local value = Dict.get(self, key)
  if value ~= nil then Dict.add(self, own, value, ttl_of(Dict.ttl(self, key))) end
  return own
end

function Apart:get(key)
  local value = Dict.get(self, OWN .. key)
  if value == nil then return Dict.get(self, key) end
  if value == GONE then return nil end
  return value
end

function Apart:set(key, value, ttl)
  if value == nil then return Dict.set(self, OWN .. key, GONE, APART_TTL) end
  return Dict.set(self, OWN .. key, value, ttl_of(ttl))
end

function Apart:add(key, value, ttl)
  local own = seed(self, key)
  if Dict.compare_set(self, own, GONE, value, ttl_of(ttl)) then return true end
  return Dict.add(self, own, value, ttl_of(ttl))
end

function Apart:incr(key, by, ttl)
  local own = seed(self, key)
  Dict.compare_set(self, own, GONE, nil)
  return Dict.incr(self, own, by, ttl_of(ttl))
end

function Apart:incr_in(scope, key, by, ttl) return self:incr(scope .. key, by, ttl) end

function Apart:compare_set(key, old, new, ttl)
  local own = seed(self, key)
  if new == nil then new = GONE end
  if old == nil and Dict.compare_set(self, own, GONE, new, ttl_of(ttl)) then return true end
  return Dict.compare_set(self, own, old, new, ttl_of(ttl))
end

function Apart:delete(key)
  local was = self:get(key) ~= nil
  self:set(key, nil)
  return was
end

function Apart:ttl(key)
  local own = Dict.get(self, OWN .. key)
  if own == GONE then return nil end
  return Dict.ttl(self, own ~= nil and OWN .. key or key)
end

--- open(name) -> dict; an unknown name is an error at load.
function dict.open(name)
  if abi.validating and not abi.withholds then
    if dict.declared and not dict.declared[name] then error('there is no dict "' .. tostring(name) .. '"', 2) end
    return setmetatable({ id = 0, name = name }, Declared)
  end
  local id = C.tg_abi_dict_open(name, #name)
  if id < 0 then error('there is no dict "' .. tostring(name) .. '"', 2) end
  return setmetatable({ id = id, name = name }, abi.in_shadow and Apart or Dict)
end

return dict
