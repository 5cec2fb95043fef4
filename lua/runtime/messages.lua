--- messages: what `websocket` phases see of the messages of a WebSocket: a view of one, whose data is fetched when asked for.
local abi = require "abi"
local failure = require "tidegate.failure"
local task = require "tidegate.task"

local C, vm, to_string = abi.C, abi.vm, abi.string
local REQUEST, RESPONSE = tonumber(abi.REQUEST), tonumber(abi.RESPONSE)
local setmetatable, type, error, tonumber, tostring, band = setmetatable, type, error, tonumber, tostring, bit.band

local messages = {}

-- Slots, as in exchange.lua.
local X, SERIAL, SIDE, OPCODE, COMPRESSED, SIZE, CODE, DATA, OVER = 1, 2, 3, 4, 5, 6, 7, 8, 9

local names = { [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong" }
local opcodes = { text = 1, binary = 2, ping = 9, pong = 10 }
local CLOSE, NO_CODE = 8, 1005

local Message = { __metatable = false }

local function live(self)
  local x = self[X]
  if x.serial ~= self[SERIAL] or self[OVER] then error("this message has gone: it must not be kept", 3) end
  return x
end

local function data_of(self)
  local data = self[DATA]
  if data then return data end
  if C.tg_abi_message(live(self), self[SIDE]) ~= 0 then error("this message has gone: the connection is closed", 3) end
  data = to_string(vm.out.p, vm.out.n)
  self[DATA] = data
  return data
end

-- Waits while whoever it is for does not read.
local function put(self, side, data, kind)
  if type(data) ~= "string" then error("a message needs a string, found a " .. type(data), 3) end
  local opcode = kind == nil and (self[OPCODE] < CLOSE and self[OPCODE] or opcodes.text) or opcodes[kind]
  if not opcode then error(('a message is "text", "binary", "ping" or "pong", found %q'):format(tostring(kind)), 3) end
  local rc = C.tg_abi_message_send(live(self), side, opcode, data, #data)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_message_send(live(self), side, opcode, data, #data)
  end
  if rc == 0 then return true end
  if rc == abi.EINVAL then error("no such message: text is UTF-8, and a ping or pong has at most 125 bytes", 3) end
  return nil, failure.new(abi.code(rc), "the message could not be sent: the connection is being closed")
end

local methods = {}

--- message:reply(data, type = its own) -> true | nil, err: a message back to whoever sent this one.
function methods.reply(self, data, kind) return put(self, 1 - self[SIDE], data, kind) end

--- message:send(data, type = its own) -> true | nil, err: another message, in front of this one.
function methods.send(self, data, kind) return put(self, self[SIDE], data, kind) end

--- message:close(code, reason = "") -> false: both sides are closed, and this message goes nowhere.
function methods.close(self, code, reason)
  reason = reason or ""
  if type(code) ~= "number" or type(reason) ~= "string" then error("close needs a code and a reason", 2) end
  local rc = C.tg_abi_message_close(live(self), code, reason, #reason)
  if rc == abi.EINVAL then error(("no connection is closed with %s: a code of RFC 6455 or from 3000 on, and at most 123 bytes of UTF-8")
    :format(tostring(code)), 2) end
  return false
end

local get = {
  direction = function(self) return self[SIDE] == REQUEST and "upstream" or "downstream" end,
  type = function(self) return names[self[OPCODE]] end,
  data = data_of,
  size = function(self) return self[SIZE] end,
  compressed = function(self) return self[COMPRESSED] end,
  code = function(self) return self[CODE] or nil end,
  reason = function(self) return self[OPCODE] == CLOSE and data_of(self) or nil end,
}

function Message.__index(self, key)
  local f = get[key]
  if f then return f(self) end
  return methods[key]
end

function Message.__newindex(_, key)
  error("message." .. tostring(key) .. " cannot be assigned: return what goes on in its place", 2)
end

--- new(x, side) -> the message that Lua was entered for | nil: it is over
function messages.new(x, side)
  if C.tg_abi_message(x, side) ~= 0 then return nil end
  local opcode = band(vm.type, 15)
  local code = opcode == CLOSE and vm.number ~= NO_CODE and tonumber(vm.number) or false
  return setmetatable({ x, x.serial, tonumber(side), opcode, band(vm.type, C.TG_MESSAGE_COMPRESSED) ~= 0, tonumber(vm.out.n), code,
    false, false }, Message)
end

--- over(message): the phase is through with it.
function messages.over(self) self[OVER] = true end

--- take(message, result, use) -> whether it goes no further
function messages.take(self, result, use)
  local rc
  if result == false then
    rc = C.tg_abi_message_drop(self[X], self[SIDE])
    if rc == 0 or self[OPCODE] == CLOSE then return true end -- a close goes on: both sides must hear of it
  elseif type(result) == "string" then
    rc = C.tg_abi_message_replace(self[X], self[SIDE], result, #result)
    self[DATA], self[SIZE], self[COMPRESSED] = result, #result, false
    if rc == 0 then return false end
  else
    error(("%s: websocket must return nothing, false or a string, returned a %s"):format(use.label, type(result)), 0)
  end
  if rc == abi.ENONE then return true end -- the connection is gone
  local why = rc == abi.EINVAL and "cannot go on as a " .. names[self[OPCODE]] or "could not be kept: " .. abi.code(rc)
  error(("%s: websocket returned what %s"):format(use.label, why), 0)
end

messages.REQUEST, messages.RESPONSE, messages.opcodes = REQUEST, RESPONSE, opcodes

return messages
