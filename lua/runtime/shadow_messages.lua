--- shadow_messages: what a use in shadow sees of a message of a WebSocket: what it would have said is noted, and the message goes on.
local messages = require "runtime.messages"

local error, type, tostring = error, type, tostring
local shadow_messages = {}
local MESSAGE, NOTE = 1, 2
local Held = { __metatable = false }

local function check_data(data, kind)
  if type(data) ~= "string" then error("a message needs a string, found a " .. type(data), 3) end
  if kind ~= nil and not messages.opcodes[kind] then
    error(('a message is "text", "binary", "ping" or "pong", found %q'):format(tostring(kind)), 3)
  end
end

local methods = {}

function methods.reply(self, data, kind)
  check_data(data, kind)
  self[NOTE]("answered a message")
  return true
end

function methods.send(self, data, kind)
  check_data(data, kind)
  self[NOTE]("sent a message of its own")
  return true
end

function methods.close(self, code, reason)
  if type(code) ~= "number" or reason ~= nil and type(reason) ~= "string" then error("close needs a code and a reason", 2) end
  self[NOTE]("closed the connection with " .. code)
  return false
end

function Held.__index(self, key) return methods[key] or self[MESSAGE][key] end

function Held.__newindex(_, key)
  error("message." .. tostring(key) .. " cannot be assigned: return what goes on in its place", 2)
end

--- hold(message, note) -> the same message, which nothing happens to; note(text) is told what would have
function shadow_messages.hold(message, note) return setmetatable({ message, note }, Held) end

--- judge(result, note) -> what is wrong with what a `websocket` phase has returned | nil: noted
function shadow_messages.judge(result, note)
  if result == false then
    note "held a message back"
  elseif type(result) == "string" then
    note "changed a message"
  else
    return ("websocket must return nothing, false or a string, returned a %s"):format(type(result))
  end
end

--- lone(uses) -> what is wrong where none but uses in shadow look at messages | nil. That they are looked at has limits, which would hold.
function shadow_messages.lone(uses)
  local lone
  for _, use in ipairs(uses) do
    if use.plugin.websocket and not use.shadow then return nil end
    lone = lone or use.plugin.websocket and use
  end
  return lone and ("%s cannot be in shadow here: nobody else looks at the messages of this route, and looking at them has limits, which would hold")
    :format(lone.label)
end

return shadow_messages
