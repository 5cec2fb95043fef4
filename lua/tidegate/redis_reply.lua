--- redis_reply: what Redis answers as values of Lua. Null is nil, inside of lists it is tg.null; what the server refuses is an err.
local abi = require "abi"
local failure = require "tidegate.failure"

local to_string, null = abi.string, abi.null
local NUMBER, STRING, STATUS, ERROR, LIST = tonumber(abi.REDIS_NUMBER), tonumber(abi.REDIS_STRING), tonumber(abi.REDIS_STATUS),
  tonumber(abi.REDIS_ERROR), tonumber(abi.REDIS_LIST)

local reply = {}

-- What passes by itself, or with another server.
local passing = {
  LOADING = true, READONLY = true, MASTERDOWN = true, CLUSTERDOWN = true, TRYAGAIN = true, BUSY = true, OOM = true, NOREPLICAS = true,
  MOVED = true, ASK = true,
}

--- refusal(text, what?) -> err with code `redis` and, as `kind`, the first word of what the server has said
function reply.refusal(text, what)
  local kind = text:match "^(%u+)%f[^%u]" or "ERR"
  local err = failure.new("redis", what and what .. ": " .. text or text, passing[kind] and 503 or 500)
  err.kind, err.retryable = kind, passing[kind] or false
  return err
end

--- error_of(command) -> the text of the server's error | nil: it is none
function reply.error_of(command)
  local value = command.values[0]
  if value.type ~= ERROR then return nil end
  return to_string(command.bytes + value.number, value.size)
end

local read

local function read_list(command, at, size)
  local list = {}
  for i = 1, size do
    local item
    item, at = read(command, at)
    if item == nil then item = null end
    list[i] = item
  end
  return list, at
end

-- The value at `at` in pre-order, and where the next one is.
function read(command, at)
  local value = command.values[at]
  local kind = value.type
  if kind == STRING or kind == STATUS then return to_string(command.bytes + value.number, value.size), at + 1 end
  if kind == NUMBER then return value.number, at + 1 end
  if kind == LIST then return read_list(command, at + 1, value.size) end
  if kind == ERROR then return reply.refusal(to_string(command.bytes + value.number, value.size)), at + 1 end
  return nil, at + 1
end

--- value(command) -> the reply
function reply.value(command)
  local value = read(command, 0)
  return value
end

--- map(command) -> a list of names and values as a map; what is no list as it is
function reply.map(command)
  local list = reply.value(command)
  if type(list) ~= "table" or failure.is(list) then return list end
  local map = {}
  for i = 1, #list - 1, 2 do map[list[i]] = list[i + 1] end
  return map
end

return reply
