--- json_writer: a JSON text that is streamed, so that a long answer is never whole in memory.
local writer = { encode = nil, null = nil } -- set by json.lua

local MAX_DEPTH = 32
local PIECE = 8192 -- bytes that are gathered before they are written

local Writer = { __name = "JSON writer" }
Writer.__index = Writer

--- flush() -> writer: what is gathered goes out now
function Writer:flush()
  if self.size > 0 then
    local text = table.concat(self.parts)
    self.parts, self.size = {}, 0
    self.write(text)
  end
  return self
end

local function emit(self, text)
  self.parts[#self.parts + 1] = text
  self.size = self.size + #text
  if self.size >= PIECE then self:flush() end
end

-- Before each value: the comma; or what is wrong.
local function begin_value(self)
  local open = self.open[#self.open]
  if not open then return self.done and "the JSON text is complete" or nil end
  if open.closes == "}" then
    if not open.has_key then return "a value in an object needs its key first" end
    open.has_key = false
  else
    if open.count > 0 then emit(self, ",") end
    open.count = open.count + 1
  end
end

local function end_value(self)
  if #self.open > 0 then return end
  self.done = true
  self:flush()
end

local function open_value(self, opens, closes)
  if #self.open == MAX_DEPTH then return "too deep for JSON (more than 32)" end
  local problem = begin_value(self)
  if problem then return problem end
  self.open[#self.open + 1] = { closes = closes, count = 0, has_key = false }
  emit(self, opens)
end

--- object() -> writer: begins an object, whose members are key() and a value each
function Writer:object()
  local problem = open_value(self, "{", "}")
  if problem then error(problem, 2) end
  return self
end

--- array() -> writer: begins an array
function Writer:array()
  local problem = open_value(self, "[", "]")
  if problem then error(problem, 2) end
  return self
end

--- key(name) -> writer: of the member that comes next
function Writer:key(name)
  local open = self.open[#self.open]
  if type(name) ~= "string" then error("a key is a string, found a " .. type(name), 2) end
  if not open or open.closes ~= "}" then error("a key stands in an object only", 2) end
  if open.has_key then error("a key needs its value before the next key", 2) end
  if open.count > 0 then emit(self, ",") end
  open.count, open.has_key = open.count + 1, true
  emit(self, writer.encode(name) .. ":")
  return self
end

--- value(v) -> writer: a whole value, as encode(v) writes it; nil is null
function Writer:value(v)
  if v == nil then v = writer.null end
  local ok, text = pcall(writer.encode, v)
  if not ok then error(text, 0) end
  local problem = begin_value(self)
  if problem then error(problem, 2) end
  emit(self, text)
  end_value(self)
  return self
end

--- close() -> writer: ends the object or array that began last; when none is open any more, all is written
function Writer:close()
  local open = self.open[#self.open]
  if not open then error("nothing is open", 2) end
  if open.has_key then error("a key needs its value", 2) end
  self.open[#self.open] = nil
  emit(self, open.closes)
  end_value(self)
  return self
end

--- new(write) -> writer with object, array, key, value, close and flush, which all give it back. write(text) gets pieces, and may wait.
function writer.new(write)
  local meta = type(write) == "table" and getmetatable(write)
  if type(write) ~= "function" and not (type(meta) == "table" and meta.__call) then
    error("json.writer needs a function that takes text, found a " .. type(write), 2)
  end
  return setmetatable({ write = write, parts = {}, size = 0, open = {}, done = false }, Writer)
end

return writer
