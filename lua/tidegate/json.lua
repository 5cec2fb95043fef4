--- json: encode and decode, on lua-cjson.
local abi = require "abi"
local cjson = require("cjson").new()
local failure = require "tidegate.failure"

cjson.decode_max_depth(32)
cjson.encode_max_depth(32)
cjson.decode_invalid_numbers(false)
cjson.encode_invalid_numbers(false)
cjson.encode_keep_buffer(true)
cjson.encode_number_precision(14)
cjson.encode_sparse_array(true, 10, 100)

local C, vm, to_string = abi.C, abi.vm, abi.string
local json = { null = cjson.null }

local MAX = 1024 * 1024
local Array = { __name = "array" }
local empty_array = setmetatable({}, Array)
local EMPTY = "\1tidegate:empty-array\1"

--- array(t) -> t, sent as a JSON array also when it is empty.
function json.array(t)
  if next(t) == nil then return empty_array end
  return t
end

-- cjson of Debian cannot tell an empty array from an empty object: a marker stands for it while it encodes.
local function mark(value, depth)
  if type(value) ~= "table" then return value, false end
  if value == empty_array then return EMPTY, true end
  if depth > 32 then error("too deep for JSON (more than 32)", 0) end
  local copy
  for key, item in pairs(value) do
    local marked, changed = mark(item, depth + 1)
    if changed then
      if not copy then
        copy = {}
        for k, v in pairs(value) do copy[k] = v end
      end
      copy[key] = marked
    end
  end
  return copy or value, copy ~= nil
end

--- encode(value) -> text. What has no form in JSON raises.
function json.encode(value)
  local marked, changed = mark(value, 1)
  local ok, text = pcall(cjson.encode, marked)
  if not ok then error("cannot be encoded as JSON: " .. tostring(text), 2) end
  if changed then
    text = text:gsub('"\\u0001tidegate:empty%-array\\u0001"', "[]")
  end
  return text
end

--- quote(text) -> a JSON string; bytes that are no UTF-8 become \\ufffd. For lines that are written by hand.
function json.quote(text)
  C.tg_abi_json_string(text, #text)
  return to_string(vm.out.p, vm.out.n)
end

-- What cjson passes over, as a message; nil when there is nothing.
local function find_problem(text)
  local rc = C.tg_abi_json_check(text, #text)
  if rc == 0 then return nil end
  local what = rc == abi.EBUSY and "stands twice in its object" or rc == abi.ELIMIT and "is one of more than 10000" or abi.code(rc)
  return ("the member %q %s, at character %d"):format(to_string(vm.out.p, vm.out.n), what, vm.number)
end

--- decode(text) -> value | nil, err. At most 1 MiB, 32 levels and 10,000 members an object; no member twice.
function json.decode(text)
  if type(text) ~= "string" then error("json.decode needs a string, found a " .. type(text), 2) end
  if #text > MAX then return nil, failure.new("too_large", "JSON of more than 1 MiB", 400) end
  local ok, value = pcall(cjson.decode, text)
  if not ok then return nil, failure.new("decode", "malformed JSON: " .. tostring(value), 400) end
  local problem = type(value) == "table" and find_problem(text)
  if problem then return nil, failure.new("decode", "malformed JSON: " .. problem, 400) end
  return value
end

return json
