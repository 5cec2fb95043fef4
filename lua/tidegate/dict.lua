--- dict: tg.dict "name": a dictionary shared by all workers, which survives reloads. Declared in the configuration.
local abi = require "abi"
local json = require "tidegate.json"

local C, vm, to_string = abi.C, abi.vm, abi.string

local Dict = { __name = "dict" }
Dict.__index = Dict

local dict = { declared = nil } -- set of names, while a configuration is validated

-- What `open` gives then: there is no worker that has the memory.
local Declared = { __name = "dict" }
Declared.__index = function(_, method)
  if Dict[method] then error("no dict while a configuration is loaded: move this into `start` or a phase", 2) end
end

local NUMBER, STRING, BOOLEAN, TABLE = 1, 2, 3, 4

local function fail(rc, level)
  if rc == abi.ELIMIT then return nil, "no room for a value of this size" end
  if rc == abi.EINVAL then error("a key is a string of 1 to 1024 bytes; incr needs a number", level + 1) end
  return nil, abi.code(rc)
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

local function store(self, key, value, ttl, only_new)
  local kind = type(value)
  ttl = ttl or 0
  if kind == "number" then
    return C.tg_abi_dict_set(self.id, key, #key, NUMBER, "", 0, value, ttl, only_new)
  elseif kind == "string" then
    return C.tg_abi_dict_set(self.id, key, #key, STRING, value, #value, 0, ttl, only_new)
  elseif kind == "boolean" then
    return C.tg_abi_dict_set(self.id, key, #key, BOOLEAN, "", 0, value and 1 or 0, ttl, only_new)
  elseif kind == "table" then
    local text = json.encode(value)
    return C.tg_abi_dict_set(self.id, key, #key, TABLE, text, #text, 0, ttl, only_new)
  end
  error("a dict keeps numbers, strings, booleans and tables, found a " .. kind, 3)
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

--- delete(key) -> whether it was there
function Dict:delete(key)
  return C.tg_abi_dict_delete(self.id, key, #key) == 0
end

--- ttl(key) -> seconds left, 0 for ever, nil when it is not there
function Dict:ttl(key)
  if C.tg_abi_dict_ttl(self.id, key, #key) ~= 0 then return nil end
  return vm.number
end

--- open(name) -> dict; an unknown name is an error at load.
function dict.open(name)
  if abi.validating then
    if dict.declared and not dict.declared[name] then error('there is no dict "' .. tostring(name) .. '"', 2) end
    return setmetatable({ id = 0, name = name }, Declared)
  end
  local id = C.tg_abi_dict_open(name, #name)
  if id < 0 then error('there is no dict "' .. tostring(name) .. '"', 2) end
  return setmetatable({ id = id, name = name }, Dict)
end

return dict
