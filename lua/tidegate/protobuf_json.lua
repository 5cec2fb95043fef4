--- protobuf_json: messages as JSON and back (https://protobuf.dev/programming-guides/json/). What types with a form of their own look like is in
-- protobuf_known.lua.
local abi = require "abi"
local json = require "tidegate.json"
local known = require "tidegate.protobuf_known"
local wire = require "tidegate.protobuf_wire"

local C, null = abi.C, abi.null
local raise, trail, DEPTH_MAX = wire.raise, wire.trail, wire.DEPTH_MAX
local type, pairs, ipairs, next, tostring, tonumber, getmetatable = type, pairs, ipairs, next, tostring, tonumber, getmetatable
local numbers = abi.numbers

local mapping = {}

-- ---------------------------------------------------------------- to JSON: into the core's text

local function put(text)
  if C.tg_abi_json_put(text, #text) ~= 0 then raise(1, nil, "a text of more than 256 MiB") end
end

local function put_string(text)
  if C.tg_abi_json_put_string(text, #text) ~= 0 then raise(1, nil, "a text of more than 256 MiB") end
end

local function put_real(value)
  if value ~= value then return put '"NaN"' end
  if value == math.huge then return put '"Infinity"' end
  if value == -math.huge then return put '"-Infinity"' end
  C.tg_abi_json_put_number(value)
end

-- As few digits as lead back to the same float.
local function put_float(value)
  if value ~= value or value == math.huge or value == -math.huge then return put_real(value) end
  for digits = 6, 9 do
    local text = ("%." .. digits .. "g"):format(value)
    numbers.float32 = tonumber(text)
    if numbers.float32 == value then return put(text) end
  end
  put_real(value)
end

local function put_number(value) C.tg_abi_json_put_number(value) end
local function put_quoted(value)
  put_string(type(value) == "number" and ("%.0f"):format(value) or tostring(value))
end

local put_message

local printers = {
  int32 = put_number, uint32 = put_number, sint32 = put_number, fixed32 = put_number, sfixed32 = put_number,
  int64 = put_quoted, uint64 = put_quoted, sint64 = put_quoted, fixed64 = put_quoted, sfixed64 = put_quoted,
  double = put_real, float = put_float, string = put_string,
  bool = function(value) put(value and "true" or "false") end,
  bytes = function(value)
    C.tg_abi_base64(value, #value, 0)
    put '"'
    C.tg_abi_json_put(abi.vm.out.p, abi.vm.out.n)
    put '"'
  end,
  enum = function(value, _, field, options)
    if field.type.name == "google.protobuf.NullValue" then return put "null" end
    if options.enum_numbers and type(value) == "string" then value = field.type.by_name[value] end
    if type(value) == "number" then return put_number(value) end
    put_string(value)
  end,
  message = function(value, depth, field, options)
    trail[depth] = field.name
    put_message(field.type, value, depth + 1, options)
  end,
}
printers.group = printers.message

local function put_list(field, list, depth, options)
  local print = printers[field.kind]
  put "["
  for i = 1, #list do
    if i > 1 then put "," end
    print(list[i], depth, field, options)
  end
  put "]"
end

local function put_map(field, map, depth, options)
  local keys, item = {}, field.map.value
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  trail[depth] = field.name
  put "{"
  for i, key in ipairs(keys) do
    if i > 1 then put "," end
    put_string(key)
    put ":"
    printers[item.kind](map[key], depth + 1, item, options)
  end
  put "}"
end

local function put_value(field, value, depth, options)
  if field.map then return put_map(field, value, depth, options) end
  if field.repeated then return put_list(field, value, depth, options) end
  printers[field.kind](value, depth, field, options)
end

-- What is printed for a field that is not there; nil: nothing.
local function default_of(field, options)
  if not options.defaults or field.presence then return nil end
  return field.repeated and {} or wire.zero_of(field)
end

-- `begun`: something stands in the object already.
local function put_members(kind, message, depth, options, begun)
  local fields = kind.fields
  for i = 1, #fields do
    local field = fields[i]
    local value = message[field.name]
    if value == nil or not field.presence and not field.repeated and wire.is_zero(field, value) then value = default_of(field, options) end
    if value ~= nil then
      if begun then put "," end
      begun = true
      put_string(options.names and field.name or field.json)
      put ":"
      put_value(field, value, depth, options)
    end
  end
end

function put_message(kind, message, depth, options)
  if depth > DEPTH_MAX then raise(depth, nil, "more than " .. DEPTH_MAX .. " levels") end
  local special = known.of[kind.name]
  if special then return special.print(kind, message, depth, options) end
  put "{"
  put_members(kind, message, depth, options, false)
  put "}"
end

local printer, reader = known.printer, known.reader
printer.put, printer.string, printer.real, printer.bytes = put, put_string, put_real, printers.bytes
printer.message, printer.members, printer.scalar = put_message, put_members, put_value

local NO_OPTIONS = {}

local function print_whole(kind, message, options)
  C.tg_abi_json_begin()
  put_message(kind, message, 1, options)
  C.tg_abi_json_end()
  return abi.out()
end

local function print_field(field, message, options)
  C.tg_abi_json_begin()
  local value = message[field.name]
  if value == nil and not (field.presence and field.type) then value = field.repeated and {} or wire.zero_of(field) end
  if value == nil then put "null" else put_value(field, value, 1, options) end
  C.tg_abi_json_end()
  return abi.out()
end

--- to_json(type, message, { defaults?, names?, enum_numbers?, set? }, field?) -> text; the one field alone. Raises what wire.guard catches.
function mapping.to_json(kind, message, options, field)
  if field then return print_field(field, message, options or NO_OPTIONS) end
  return print_whole(kind, message, options or NO_OPTIONS)
end

-- ---------------------------------------------------------------- from JSON

local function kind_of(value)
  if value == null then return "null" end
  if type(value) ~= "table" then return "a " .. type(value) end
  if json.is_integer(value) then return "a number" end
  return (value[1] ~= nil or next(value) == nil and getmetatable(value)) and "a list" or "an object"
end

local function expected(depth, field, value, what)
  raise(depth, field.name, ("found %s, expected %s"):format(kind_of(value), what))
end

local from_message

local function from_number(value, depth, field)
  if json.is_integer(value) then return tostring(value) end
  if type(value) ~= "number" and type(value) ~= "string" then expected(depth, field, value, "a number") end
  return value
end

-- Both alphabets, with padding or without.
local function from_base64(value, depth, field)
  if type(value) ~= "string" then expected(depth, field, value, "Base64") end
  local text = value:gsub("-", "+"):gsub("_", "/"):gsub("=*$", "")
  text = text .. ("="):rep(-#text % 4)
  if C.tg_abi_unbase64(text, #text, 0) ~= 0 then raise(depth, field.name, "the text is no Base64") end
  return abi.out()
end

local function from_enum(value, depth, field, options)
  if value == null and field.type.name == "google.protobuf.NullValue" then return 0 end
  if type(value) == "string" then
    if field.type.by_name[value] then return value end
    if options.ignore then return nil end
    raise(depth, field.name, ("%q is no value of %s"):format(value:sub(1, 40), field.type.name))
  end
  value = from_number(value, depth, field)
  return field.type.by_number[value] or value
end

local readers = {
  bool = function(value, depth, field)
    if type(value) ~= "boolean" then expected(depth, field, value, "true or false") end
    return value
  end,
  string = function(value, depth, field)
    if type(value) ~= "string" then expected(depth, field, value, "a text") end
    return value
  end,
  bytes = from_base64,
  enum = from_enum,
  message = function(value, depth, field, options)
    trail[depth] = field.name
    return from_message(field.type, value, depth + 1, options)
  end,
}
readers.group = readers.message
for kind in ("int32 uint32 sint32 fixed32 sfixed32 int64 uint64 sint64 fixed64 sfixed64 float double"):gmatch "%S+" do readers[kind] = from_number end

-- null means that nothing is there, but where it is a value itself.
local function takes_null(field)
  return field.type ~= nil and (field.type.name == "google.protobuf.Value" or field.type.name == "google.protobuf.NullValue")
end

local function from_list(field, value, depth, options)
  if kind_of(value) ~= "a list" then expected(depth, field, value, "a list") end
  local list, read = {}, readers[field.kind]
  for i = 1, #value do
    if value[i] == null and not takes_null(field) then raise(depth, field.name, "a list has no null in it") end
    list[#list + 1] = read(value[i], depth, field, options)
  end
  return list
end

local function from_map(field, value, depth, options)
  if kind_of(value) ~= "an object" then expected(depth, field, value, "an object") end
  local map, item = {}, field.map.value
  for key, given in pairs(value) do
    trail[depth] = field.name
    if given == null and not takes_null(item) then raise(depth, field.name, "a map has no null in it") end
    map[key] = readers[item.kind](given, depth + 1, item, options)
  end
  return map
end

local function from_field(field, value, depth, options)
  if value == null and (field.repeated or not takes_null(field)) then return nil end
  if field.map then return from_map(field, value, depth, options) end
  if field.repeated then return from_list(field, value, depth, options) end
  return readers[field.kind](value, depth, field, options)
end

-- `skip`: a member that is no field.
local function from_members(kind, value, depth, options, skip)
  local message = {}
  for name, given in pairs(value) do
    local field = kind.by_json[name] or kind.by_name[name]
    if field then
      if message[field.name] ~= nil then raise(depth, field.name, "is given twice, by both of its names") end
      message[field.name] = from_field(field, given, depth, options)
    elseif name ~= skip and not options.ignore then
      raise(depth, nil, ("there is no field %q in %s"):format(tostring(name):sub(1, 100), kind.name))
    end
  end
  return message
end

function from_message(kind, value, depth, options)
  if depth > DEPTH_MAX then raise(depth, nil, "more than " .. DEPTH_MAX .. " levels") end
  local special = known.of[kind.name]
  if special then return special.parse(kind, value, depth, options) end
  if kind_of(value) ~= "an object" then raise(depth, nil, ("found %s, expected an object"):format(kind_of(value))) end
  return from_members(kind, value, depth, options)
end

reader.message, reader.members, reader.scalar, reader.kind_of = from_message, from_members, from_field, kind_of

--- from_json(type, value, { ignore?, set? }, field?) -> message; of a field, its value. Raises what wire.guard catches.
function mapping.from_json(kind, value, options, field)
  if field then return from_field(field, value, 1, options or NO_OPTIONS) end
  return from_message(kind, value, 1, options or NO_OPTIONS)
end

-- ---------------------------------------------------------------- from texts, as they stand in paths and queries

-- The JSON value that a text stands for.
local function to_value(field, text, depth)
  local kind = field.kind
  if kind == "bool" then
    if text ~= "true" and text ~= "false" then raise(depth, field.name, ("found %q, expected true or false"):format(text:sub(1, 40))) end
    return text == "true"
  end
  if kind == "enum" and text:find "^%-?%d+$" then return tonumber(text) end
  if kind == "message" then
    local special = known.of[field.type.name]
    if not special or not special.text then raise(depth, field.name, "is a message, which has no text") end
    return special.text == true and text or to_value(field.type.by_name.value, text, depth)
  end
  if kind == "group" or field.map then raise(depth, field.name, "has no text") end
  return text
end

--- field_path(type, "shelf.name") -> the fields that lead there | nil, what is wrong. By both of their names.
function mapping.field_path(kind, path)
  local fields = {}
  for name in (path .. "."):gmatch "([^.]*)%." do
    local field = kind and (kind.by_name[name] or kind.by_json[name])
    if not field then return nil, ("there is no field %q in %s"):format(path:sub(1, 100), kind and kind.name or fields[#fields].name) end
    fields[#fields + 1] = field
    kind = not field.repeated and (field.kind == "message" or field.kind == "group") and field.type or nil
  end
  return fields
end

--- assign(message, fields, texts, options): sets the field at the end of the path; a list gets one item more for each text. Raises.
function mapping.assign(message, fields, texts, options)
  local last = fields[#fields]
  local depth = #fields
  for i = 1, depth - 1 do
    local name = fields[i].name
    trail[i] = name
    if message[name] == nil then message[name] = {} end
    message = message[name]
  end
  if last.map then raise(depth, last.name, "is a map, which has no text") end
  if not last.repeated then
    if #texts > 1 then raise(depth, last.name, "is given more than once") end
    message[last.name] = readers[last.kind](to_value(last, texts[1], depth), depth, last, options)
    return
  end
  local list = message[last.name] or {}
  for _, text in ipairs(texts) do list[#list + 1] = readers[last.kind](to_value(last, text, depth), depth, last, options) end
  message[last.name] = list
end

return mapping
