--- stream: a body as a sequence of pieces: what `chunks`, transforms and streamed results give to a plugin.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local re = require "tidegate.re"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local type, error, setmetatable, tostring, tonumber = type, error, setmetatable, tostring, tonumber

local stream = {}
local LINE_MAX = 64 * 1024
local TEXT_MAX = 1024 * 1024

local Input = { __name = "input" }
Input.__index = Input

--- input(read) -> an iterator over pieces. read() -> piece | nil at the end; raises when the body is cut.
function stream.input(read)
  return setmetatable({ read = read, rest = nil }, Input)
end

--- input() -> the next piece | nil at the end: `for piece in input do`
function Input:__call()
  local rest = self.rest
  if rest then
    self.rest = nil
    return rest
  end
  return self.read()
end

--- input:chunks() -> itself, as for a message
function Input:chunks() return self end

--- input:text(max = 1 MiB) -> all that is left, as one string | nil, err
function Input:text(max)
  local parts, size = {}, 0
  max = max or TEXT_MAX
  for piece in self do
    size = size + #piece
    if size > max then return nil, failure.new("too_large", "the body is larger than " .. max .. " bytes") end
    parts[#parts + 1] = piece
  end
  return table.concat(parts)
end

-- The next line with its end, or what is left at the end of the body; nil when nothing is.
local function next_line(self, max)
  local parts, size = nil, 0
  while true do
    local piece = self()
    if not piece then return parts and table.concat(parts) or nil end
    local at = piece:find("\n", 1, true)
    local line = at and piece:sub(1, at) or piece
    size = size + #line
    if size > max then error(failure.new("too_large", "a line of more than " .. max .. " bytes"), 0) end
    if at and at < #piece then self.rest = piece:sub(at + 1) end
    if at and not parts then return line end
    parts = parts or {}
    parts[#parts + 1] = line
    if at then return table.concat(parts) end
  end
end

--- input:lines(max = 64 KiB) -> iterator over lines, without their ends (LF or CRLF). A longer line raises.
function Input:lines(max)
  max = max or LINE_MAX
  return function()
    local line = next_line(self, max)
    return line and (line:gsub("\r?\n$", ""))
  end
end

local Event = { __name = "event" }
Event.__index = Event

local function add_field(event, line)
  local name, value = line:match "^([^:]*):? ?(.*)$"
  if name == "data" then
    event.data = event.data and event.data .. "\n" .. value or value
  elseif name == "event" or name == "id" then
    event[name] = value
  elseif name == "retry" then
    event.retry = tonumber(value)
  end
end

--- input:events(max = 64 KiB) -> iterator over server-sent events: { event, id, retry, data, raw }. `raw` has its bytes as they came.
function Input:events(max)
  max = max or LINE_MAX
  return function()
    local event, raw, size = setmetatable({}, Event), {}, 0
    while true do
      local line = next_line(self, max)
      if not line then
        if #raw == 0 then return nil end
        event.raw = table.concat(raw) -- cut short: no event by the standard, but its bytes are the body's
        return event
      end
      raw[#raw + 1] = line
      size = size + #line
      if size > max then error(failure.new("too_large", "an event of more than " .. max .. " bytes"), 0) end
      local text = line:gsub("\r?\n$", "")
      if text == "" then
        event.raw = table.concat(raw)
        return event
      end
      if text:sub(1, 1) ~= ":" then add_field(event, text) end
    end
  end
end

-- The text of the next item; nil behind the last.
local function next_item(self, state, max)
  local parts, size = {}, 0
  while true do
    if not state.piece then
      state.piece = self()
      if not state.piece then
        error(failure.new("decode", "malformed JSON: the text ends " .. (state.begun and "within its array" or "before its array")), 0)
      end
    end
    local piece = state.piece
    local rc = C.tg_abi_items_take(state.items, piece, #piece)
    local used = tonumber(vm.number)
    state.piece = used < #piece and piece:sub(used + 1) or nil
    if rc == abi.ENONE and vm.type == 0 then return nil end
    if vm.out.n > 0 then
      state.begun = true
      parts[#parts + 1] = abi.out()
      size = size + #parts[#parts]
      if size > max then error(failure.new("too_large", "an item of more than " .. max .. " bytes"), 0) end
    end
    if rc == 0 or rc == abi.ENONE then
      state.last = rc == abi.ENONE
      return table.concat(parts)
    end
    if rc ~= abi.AGAIN then error(failure.new("decode", "malformed JSON: brackets that do not fit, or too many of them"), 0) end
  end
end

--- input:items(path?, max = 1 MiB) -> iterator over the items of a JSON array, decoded one at a time. `path` leads to it: "data.items"; without
-- one the text itself is the array. What is no JSON, or has no array there, raises.
function Input:items(path, max)
  max = max or TEXT_MAX
  local state = { items = abi.items(path or ""), piece = nil, begun = false, last = false }
  if not state.items then failure.misuse "items: a path of less than 256 bytes is needed" end
  return function()
    local text = not state.last and next_item(self, state, max)
    if not text then
      for _ in self do state.last = true end -- what stands behind the array belongs to the body
      return nil
    end
    local value, err = json.decode(text)
    if err then error(err, 0) end
    return value
  end
end

--- input:matches(pattern, flags?) -> iterator over text, captures | nil: all bytes in order, with the matches of a regular expression
-- (tg.re) across the borders of pieces
function Input:matches(pattern, flags)
  return re.matches(self, pattern, flags)
end

--- event { data =, event?, id?, retry? } -> the bytes (a table as data is sent as JSON) of a server-sent event
function stream.event(fields)
  local lines = {}
  for _, name in ipairs { "event", "id", "retry" } do
    local value = fields[name]
    if value ~= nil then
      value = tostring(value)
      if value:find "[\r\n%z]" then error(("%s of an event has a line break"):format(name), 3) end
      lines[#lines + 1] = name .. ": " .. value
    end
  end
  local data = fields.data
  if type(data) == "table" then data = json.encode(data) end
  for line in (tostring(data or "") .. "\n"):gmatch "(.-)\r?\n" do lines[#lines + 1] = "data: " .. line end
  return table.concat(lines, "\n") .. "\n\n"
end

--- bytes(value) -> what `write` sends for it: a string, a number, an event that was read, or a table that describes one
function stream.bytes(value, level)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  if kind == "table" then
    if value.raw then return value.raw end
    if value.data then return stream.event(value) end
  end
  error("write needs a string or an event, found a " .. kind, (level or 1) + 1)
end

-- ---------------------------------------------------------------- a pipe between two coroutines

local Pipe = {}
Pipe.__index = Pipe
local PIPE_MAX = 64 * 1024

--- pipe() -> what one coroutine writes another reads; the writer waits while more than 64 KiB are unread.
function stream.pipe()
  return setmetatable({ first = 1, last = 0, size = 0, waiting = nil, serial = nil, ended = false, err = nil }, Pipe)
end

local function wake(self)
  if self.waiting then
    C.tg_abi_wake(self.waiting, self.serial)
    self.waiting = nil
  end
end

local function wait(self)
  self.waiting, self.serial = vm.coroutine, vm.coroutine_serial
  task.wait()
end

function Pipe:write(value)
  value = stream.bytes(value, 2)
  if value == "" then return end
  while self.size >= PIPE_MAX do wait(self) end
  self.last = self.last + 1
  self[self.last] = value
  self.size = self.size + #value
  wake(self)
end

function Pipe:finish(err)
  self.ended, self.err = true, err
  wake(self)
end

function Pipe:read()
  while self.first > self.last do
    if self.err then error(self.err, 0) end
    if self.ended then return nil end
    wait(self)
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  self.size = self.size - #value
  wake(self)
  return value
end

return stream
