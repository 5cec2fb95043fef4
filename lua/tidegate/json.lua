--- json: encode and decode; parts of texts looked at and passed on as they are.
local abi = require "abi"
local failure = require "tidegate.failure"
local secret = require "tidegate.secret"
local unread = require "tidegate.unread"
local writer = require "tidegate.json_writer"

local C, vm, to_string, slice = abi.C, abi.vm, abi.string, abi.slice
local type, error, next, pairs, tostring, getmetatable, setmetatable = type, error, next, pairs, tostring, getmetatable, setmetatable
local byte, null, next_of = string.byte, abi.null, unread.next_of
local json = { null = null }

local MAX, DEPTH_MAX = 1024 * 1024, 32

-- ---------------------------------------------------------------- what has a form of its own

local Array = { __name = "array" }
--- array(t) -> t, sent as a JSON array also when it is empty.
function json.array(t)
  if type(t) ~= "table" then error("json.array needs a table, found a " .. type(t), 2) end
  unread.settle(t)
  return setmetatable(t, Array)
end

-- A text that was checked, or a part of one: text, offset, bytes.
local Document = { __name = "document" }
Document.__index = Document

function Document:__tostring()
  return self.text:sub(self.at + 1, self.at + self.n)
end

-- An integer that a number of Lua cannot hold.
local Exact = { __name = "integer" }
function Exact:__tostring() return self[1] end
function Exact.__concat(a, b) return tostring(a) .. tostring(b) end
function Exact.__eq(a, b) return a[1] == b[1] end

-- ---------------------------------------------------------------- encode

local raise -- function(message): what `put` calls; nothing else of ours is between it and the plugin's call
local put

local function put_text(text)
  if C.tg_abi_json_put(text, #text) ~= 0 then raise "a text of more than 256 MiB" end
end

local function put_document(value)
  if C.tg_abi_json_put(abi.bytes(value.text) + value.at, value.n) ~= 0 then raise "a text of more than 256 MiB" end
end

local function line(pretty, depth)
  if pretty then put_text("\n" .. ("  "):rep(depth)) end
end

local function put_array(value, last, depth, options)
  C.tg_abi_json_put("[", 1)
  for i = 1, last do
    if i > 1 then C.tg_abi_json_put(",", 1) end
    if options then line(options.pretty, depth) end
    local item = value[i]
    if item == nil then item = null end
    put(item, depth + 1, options)
  end
  if options and last > 0 then line(options.pretty, depth - 1) end
  C.tg_abi_json_put("]", 1)
end

local function put_name(key, first, depth, options)
  if not first then C.tg_abi_json_put(",", 1) end
  if options then line(options.pretty, depth) end
  local kind = type(key)
  if kind == "number" then
    key = tostring(key)
  elseif kind ~= "string" then
    raise("a " .. kind .. " as the name of a member")
  end
  C.tg_abi_json_put_string(key, #key)
  C.tg_abi_json_put(":", 1)
  if options and options.pretty then C.tg_abi_json_put(" ", 1) end
end

local function put_member(key, item, first, depth, options)
  put_name(key, first, depth, options)
  put(item, depth + 1, options)
end

local function put_sorted(value, depth, options)
  local keys, first = {}, true
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    put_member(key, value[key], first, depth, options)
    first = false
  end
end

-- A text that is there already, of what was not looked into; false for all else.
local function put_unread(value)
  if type(value) ~= "table" then return false end
  if getmetatable(value) == Document then
    put_document(value)
    return true
  end
  local text = unread.is(value) and unread.text(value)
  if text then put_text(text) end
  return text and true
end

-- A loop inside of a request's path keeps that path from being compiled as a whole, and so does a function that calls itself: the first
-- members of the outermost object are put one behind the other. Gives the name of the last one, nil when there are no more.
local FEW_MEMBERS = 8
local few = ([[
local next_of, put_name, put_unread, put_inner = ...
return function(value)
  local first, key, item = true, nil, nil
]] .. ([[
  key, item = next_of(value, key)
  if key == nil then return nil end
  put_name(key, first, 1)
  if not put_unread(item) then put_inner(item) end
  first = false
]]):rep(FEW_MEMBERS) .. "  return key\nend")
local put_few = assert(loadstring(few, "@lua/tidegate/json.lua (few members)"))(next_of, put_name, put_unread, function(item) put(item, 2) end)

local function put_members(value, depth, options)
  local last = nil
  if depth == 1 and not options then
    last = put_few(value)
    if last == nil then return end
  end
  local first = last == nil
  for key, item in next_of, value, last do
    put_member(key, item, first, depth, options)
    first = false
  end
end

local function put_object(value, depth, options)
  C.tg_abi_json_put("{", 1)
  if options and options.sorted then put_sorted(value, depth, options) else put_members(value, depth, options) end
  if options and next_of(value) ~= nil then line(options.pretty, depth - 1) end
  C.tg_abi_json_put("}", 1)
end

-- How many items the table has as an array, nil for an object. A few holes are null; a table that is mostly holes is none.
local function array_size(value)
  local count, last = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then return nil end
    count = count + 1
    if key > last then last = key end
  end
  if last > 100 and last > count * 10 then return nil end
  return last
end

local function put_table(value, depth, options)
  if depth > DEPTH_MAX then raise "more than 32 levels" end
  local meta = getmetatable(value)
  if meta == Document then return put_document(value) end
  if unread.is(value) then
    local text = not options and unread.text(value)
    if text then return put_text(text) end
    unread.settle(value)
  end
  if meta == false and secret.is(value) then return put("***", depth, options) end
  if meta == Exact then
    C.tg_abi_json_put(value[1], #value[1])
  elseif meta == Array then
    local last = array_size(value)
    if not last then raise "an array with other names than numbers from 1, or with more holes than items" end
    put_array(value, last, depth, options)
  else
    local key = next(value)
    local last = type(key) == "number" and array_size(value)
    if last then return put_array(value, last, depth, options) end
    put_object(value, depth, options)
  end
end

function put(value, depth, options)
  local kind = type(value)
  if kind == "string" then
    if C.tg_abi_json_put_string(value, #value) ~= 0 then raise "a text of more than 256 MiB" end
  elseif kind == "number" then
    if C.tg_abi_json_put_number(value) ~= 0 then raise(tostring(value) .. ", which JSON has no number for") end
  elseif kind == "table" then
    put_table(value, depth, options)
  elseif kind == "boolean" then
    C.tg_abi_json_put(value and "true" or "false", value and 4 or 5)
  elseif value == null then
    C.tg_abi_json_put("null", 4)
  else
    raise("a " .. kind)
  end
end

function raise(what)
  error({ what }, 0)
end

--- encode(value, { pretty = false, sorted = false }?) -> text. What has no form in JSON raises.
function json.encode(value, options)
  C.tg_abi_json_begin()
  local ok, err = pcall(put, value, 1, options)
  if not ok then
    if type(err) == "table" then err = err[1] end
    failure.misuse("cannot be encoded as JSON: " .. tostring(err))
  end
  C.tg_abi_json_end()
  return to_string(vm.out.p, vm.out.n)
end

json.writer, writer.encode, writer.null = writer.new, json.encode, null

--- quote(text) -> a JSON string; bytes that are no UTF-8 become \\ufffd. For lines that are written by hand.
function json.quote(text)
  C.tg_abi_json_string(text, #text)
  return to_string(vm.out.p, vm.out.n)
end

-- ---------------------------------------------------------------- decode

local function place(text, offset)
  local row, start = 1, 0
  for position in text:sub(1, offset):gmatch "()\n" do row, start = row + 1, position end
  return row, offset - start + 1
end

-- nil when the text is well-formed; otherwise an err that says where it is not.
local function fault(text)
  local rc = C.tg_abi_json_check(text, #text)
  if rc == 0 then return nil end
  if rc == abi.ENOMEM then return failure.new("memory", "there is no memory to read JSON with") end
  local what, offset = to_string(vm.out.p, vm.out.n), tonumber(vm.number)
  local row, column = place(text, offset)
  local found
  if offset == #text then
    found = "the text"
  elseif rc == abi.EBUSY or what:find("one of more", 1, true) then
    found = "the member " .. text:sub(offset + 1, offset + 40):match '^"[^"]*"?'
  else
    found = ("%q"):format(text:sub(offset + 1, offset + 20):match "^[%w%.%-+]+" or text:sub(offset + 1, offset + 1)):gsub("\n", "n")
  end
  local err = failure.new("decode", ("malformed JSON: line %d, column %d: %s %s"):format(row, column, found, what), 400)
  err.line, err.column = row, column
  return err
end

local function check(name, text, max)
  if type(text) ~= "string" then error(name .. " needs a string, found a " .. type(text), 3) end
  if #text > (max or MAX) then return failure.new("too_large", ("JSON of more than %d bytes"):format(max or MAX), 400) end
  return fault(text)
end

local OBJECT, ARRAY, NAME, STRING, NUMBER, INTEGER, TRUE, FALSE, NULL = 1, 3, 5, 6, 7, 8, 9, 10, 11 -- enum tg_json_token

local function scalar(token)
  if token == STRING then return to_string(vm.out.p, vm.out.n) end
  if token == NUMBER then return tonumber(vm.number) end
  if token == TRUE then return true end
  if token == FALSE then return false end
  if token == NULL then return null end
  if token == INTEGER then return setmetatable({ to_string(vm.out.p, vm.out.n) }, Exact) end
  error("there is no memory to read JSON with", 0)
end

-- Without recursion, so that it is compiled as one loop. `root`: the table to fill, of an object.
local function decode_checked(text, at, n, root)
  C.tg_abi_json_read_from(abi.bytes(text) + at, n)
  local outer, names, counts, depth = {}, {}, {}, 0
  local current, name, count = nil, nil, nil
  while true do
    local token = C.tg_abi_json_read()
    if token == NAME then
      name = to_string(vm.out.p, vm.out.n)
    elseif token == OBJECT or token == ARRAY then
      depth = depth + 1
      outer[depth], names[depth], counts[depth] = current or false, name, count or false
      current, name, count = depth == 1 and root or {}, nil, token == ARRAY and 0 or nil
    else
      local value
      if token == OBJECT + 1 or token == ARRAY + 1 then
        value = count == 0 and setmetatable(current, Array) or current
        current, name, count = outer[depth] or nil, names[depth], counts[depth] or nil
        depth = depth - 1
      else
        value = scalar(token)
      end
      if not current then return value end
      if count then
        count = count + 1
        current[count] = value
      else
        current[name] = value
      end
    end
  end
end

-- A loop inside of a request's path keeps that path from being compiled as a whole: what is small and flat is read without one. The text
-- is well-formed; nil: it has too many members, or one that is no scalar.
local FLAT_MEMBERS = 12
local flat = { "local C, scalar, to_string, vm, abi = ...\nreturn function(text)\n  C.tg_abi_json_read_from(abi.bytes(text), #text)",
  ("  if C.tg_abi_json_read() ~= %d then return nil end\n  local object, token, name = {}, nil, nil"):format(OBJECT) }
for _ = 1, FLAT_MEMBERS do
  flat[#flat + 1] = ([[
  token = C.tg_abi_json_read() if token == %d then return object end
  name = to_string(vm.out.p, vm.out.n) token = C.tg_abi_json_read() if token < %d then return nil end
  object[name] = scalar(token)]]):format(OBJECT + 1, STRING)
end
flat[#flat + 1] = ("  if C.tg_abi_json_read() == %d then return object end\nend"):format(OBJECT + 1)
local decode_flat = assert(loadstring(table.concat(flat, "\n"), "@lua/tidegate/json.lua (flat)"))(C, scalar, to_string, vm, abi)

--- decode_object(text) -> as decode, for an object that mostly is small and flat.
function json.decode_object(text)
  local err = check("json.decode", text)
  if err then return nil, err end
  return decode_flat(text) or decode_checked(text, 0, #text)
end

--- decode(text) -> value | nil, err, which has line and column. At most 1 MiB, 32 levels and 10,000 members an object; no member
-- twice. An integer beyond 2^53 becomes a value that tostring and encode give back digit by digit.
function json.decode(text)
  local err = check("json.decode", text)
  if err then return nil, err end
  return decode_checked(text, 0, #text)
end

unread.fill = function(object, text) decode_checked(text, 0, #text, object) end

--- read(text) -> value | nil, err: as decode, for what may only be passed on: an object is an unread table.
function json.read(text)
  local err = check("json.read", text)
  if err then return nil, err end
  return byte(text) == 123 and unread.new(text) or decode_checked(text, 0, #text)
end

--- raw(text) -> a value that is sent as it is. Raises when the text is no JSON.
function json.raw(text)
  local err = check("json.raw", text, 256 * MAX)
  if err then error("json.raw: " .. err.message, 2) end
  return setmetatable({ text = text, at = 0, n = #text }, Document)
end

--- lazy(text, max = 8 MiB) -> document | nil, err: checked as a whole, decoded only where it is asked; encode sends it as it is.
function json.lazy(text, max)
  local err = check("json.lazy", text, max or 8 * MAX)
  if err then return nil, err end
  return setmetatable({ text = text, at = 0, n = #text }, Document)
end

local function part(self, at, n)
  return setmetatable({ text = self.text, at = at, n = n }, Document)
end

--- document:part("a.0.b") -> the document of that value | nil. Items of arrays have numbers from 0; a list of names serves for names
-- with dots.
function Document:part(path)
  local at, n = self.at, self.n
  if path == nil or path == "" then return self end
  local function step(name)
    local rc = C.tg_abi_json_find(abi.bytes(self.text) + at, n, name, #name)
    if rc ~= 0 then return false end
    at, n = at + tonumber(vm.number), tonumber(vm.out.n)
    return true
  end
  if type(path) == "table" then
    for _, name in ipairs(path) do
      if not step(tostring(name)) then return nil end
    end
  else
    for name in tostring(path):gmatch "[^.]+" do
      if not step(name) then return nil end
    end
  end
  return part(self, at, n)
end

--- document:get(path?) -> the value there, decoded | nil
function Document:get(path)
  local found = self:part(path)
  if not found then return nil end
  return decode_checked(found.text, found.at, found.n)
end

--- document:kind(path?) -> "object", "array", "string", "number", "boolean" or "null" | nil
function Document:kind(path)
  local found = self:part(path)
  local first = found and tostring(found):match "^[ \t\r\n]*(.)"
  if not first then return nil end
  return first == "{" and "object" or first == "[" and "array" or first == '"' and "string" or first == "n" and "null"
    or first:find "[tf]" and "boolean" or "number"
end

-- The name of a member as it is meant.
local function plain(spelled)
  local text = to_string(spelled.p, spelled.n)
  return text:find("\\", 1, true) and decode_checked('"' .. text .. '"', 0, #text + 2) or text
end

--- document:each(path?) -> iterator over name (or number, from 0), document
function Document:each(path)
  local found = self:part(path)
  local at, count = 0, -1
  return function()
    if not found or C.tg_abi_json_next(abi.bytes(found.text) + found.at, found.n, at, slice) ~= 0 then return nil end
    at, count = tonumber(vm.number), count + 1
    local name = slice.p ~= nil and plain(slice) or count
    return name, part(found, tonumber(vm.out.p - abi.bytes(found.text)), tonumber(vm.out.n))
  end
end

--- is_integer(value) -> whether it is an integer beyond 2^53, which only tostring and encode know
function json.is_integer(value)
  return getmetatable(value) == Exact
end

--- is_lazy(value) -> whether it is a document
function json.is_lazy(value)
  return getmetatable(value) == Document
end

return json
