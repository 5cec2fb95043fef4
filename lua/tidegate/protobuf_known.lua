--- protobuf_known: the messages of google.protobuf that have a form of their own in JSON.
-- print(type, message, depth, options) writes it; parse(type, value, depth, options) -> message. `text`: it has a text, true, or that of its value.
local abi = require "abi"
local json = require "tidegate.json"
local time = require "tidegate.time"
local wire = require "tidegate.protobuf_wire"

local null, raise, trail = abi.null, wire.raise, wire.trail
local floor = math.floor
local ipairs, pairs, type, tonumber, tostring = ipairs, pairs, type, tonumber, tostring

local known = { of = {} } -- by the full names of types
local printer, reader = {}, {} -- of protobuf_json.lua
known.printer, known.reader = printer, reader

local function define(name, special) known.of["google.protobuf." .. name] = special end
local function put(text) printer.put(text) end
local function kind_of(value) return reader.kind_of(value) end

local function need_text(value, depth, what)
  if type(value) ~= "string" then raise(depth, nil, ("found %s, expected %s"):format(kind_of(value), what)) end
  return value
end

-- ---------------------------------------------------------------- time

local SECOND_MIN, SECOND_MAX = -62135596800, 253402300799 -- of the years 1 and 9999
local DURATION_MAX = 315576000000

-- As many digits of a fraction as there are, by threes.
local function fraction(nanos)
  if nanos == 0 then return "" end
  local text = ("%09d"):format(nanos)
  return "." .. (text:sub(4) == "000000" and text:sub(1, 3) or text:sub(7) == "000" and text:sub(1, 6) or text)
end

local function nanos_of(digits) return digits == "" and 0 or tonumber((digits .. "00000000"):sub(1, 9)) end

local month_days = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function is_date(year, month, day)
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  return month_days[month] and day >= 1 and day <= month_days[month] and (month ~= 2 or day < 29 or leap)
end

define("Timestamp", {
  text = true,
  print = function(_, message, depth)
    local seconds, nanos = tonumber(message.seconds or 0), message.nanos or 0
    if seconds < SECOND_MIN or seconds > SECOND_MAX or nanos < 0 or nanos > 999999999 then raise(depth, nil, "no time of the years 1 to 9999") end
    local days = floor(seconds / 86400)
    local year, month, day = time.day(days)
    local rest = seconds - days * 86400
    put(('"%04d-%02d-%02dT%02d:%02d:%02d%sZ"'):format(year, month, day, floor(rest / 3600), floor(rest / 60) % 60, rest % 60, fraction(nanos)))
  end,
  parse = function(_, value, depth)
    local text = need_text(value, depth, 'a time: "2031-01-31T12:00:00Z"')
    local y, mo, d, h, mi, s, digits, zone = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d):(%d%d):(%d%d)%.?(%d*)([Zz+-].*)$"
    local sign, zh, zm = (zone or ""):match "^([+-])(%d%d):(%d%d)$"
    if not y or #digits > 9 or text:find("%.%D") or not sign and not zone:find "^[Zz]$" then
      raise(depth, nil, ('found %q, expected a time: "2031-01-31T12:00:00Z"'):format(text:sub(1, 40)))
    end
    local year, month, day, hour, minute, second = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi), tonumber(s)
    if not is_date(year, month, day) or hour > 23 or minute > 59 or second > 59 then
      raise(depth, nil, ("%q is no time that there is"):format(text:sub(1, 40)))
    end
    local seconds = time.days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    if sign then seconds = seconds - (sign == "-" and -1 or 1) * (tonumber(zh) * 3600 + tonumber(zm) * 60) end
    if seconds < SECOND_MIN or seconds > SECOND_MAX then raise(depth, nil, "no time of the years 1 to 9999") end
    return { seconds = seconds, nanos = nanos_of(digits) }
  end,
})

define("Duration", {
  text = true,
  print = function(_, message, depth)
    local seconds, nanos = tonumber(message.seconds or 0), message.nanos or 0
    if math.abs(seconds) > DURATION_MAX or math.abs(nanos) > 999999999 or seconds * nanos < 0 then raise(depth, nil, "no duration") end
    put(('"%s%.0f%ss"'):format((seconds < 0 or nanos < 0) and "-" or "", math.abs(seconds), fraction(math.abs(nanos))))
  end,
  parse = function(_, value, depth)
    local text = need_text(value, depth, 'a duration: "1.5s"')
    local sign, whole, dot, digits = text:match "^(%-?)(%d+)(%.?)(%d*)s$"
    if not whole or (dot == ".") ~= (digits ~= "") or #digits > 9 or tonumber(whole) > DURATION_MAX then
      raise(depth, nil, ('found %q, expected a duration: "1.5s"'):format(text:sub(1, 40)))
    end
    local factor = sign == "-" and -1 or 1
    return { seconds = factor * tonumber(whole), nanos = factor * nanos_of(digits) }
  end,
})

-- ---------------------------------------------------------------- wrappers, masks

local wrapper = {
  text = "value",
  print = function(kind, message, depth, options)
    local field = kind.by_name.value
    local value = message.value
    if value == nil then value = wire.zero_of(field) end
    printer.scalar(field, value, depth, options)
  end,
  parse = function(kind, value, depth, options)
    return { value = reader.scalar(kind.by_name.value, value, depth, options) }
  end,
}
for name in ("Double Float Int64 UInt64 Int32 UInt32 Bool String Bytes"):gmatch "%S+" do define(name .. "Value", wrapper) end

define("FieldMask", {
  text = true,
  print = function(_, message, depth)
    local paths = {}
    for i, path in ipairs(message.paths or {}) do
      if path:find "%u" or path:find "_[^%l]" or path:find "_$" then raise(depth, nil, ("the path %q has no form in JSON"):format(path)) end
      paths[i] = path:gsub("_(%l)", string.upper)
    end
    printer.string(table.concat(paths, ","))
  end,
  parse = function(_, value, depth)
    local paths = {}
    for path in need_text(value, depth, "paths with commas between them"):gmatch "[^,]+" do
      if path:find "_" then raise(depth, nil, ("the path %q has an underscore"):format(path:sub(1, 40))) end
      paths[#paths + 1] = path:gsub("%u", function(letter) return "_" .. letter:lower() end)
    end
    return { paths = paths }
  end,
})

-- ---------------------------------------------------------------- any JSON

local print_value, parse_value

local function check_depth(depth)
  if depth > wire.DEPTH_MAX then raise(depth, nil, "more than " .. wire.DEPTH_MAX .. " levels") end
end

local function print_struct(_, message, depth)
  check_depth(depth)
  local keys, fields = {}, message.fields or {}
  for key in pairs(fields) do keys[#keys + 1] = key end
  table.sort(keys)
  put "{"
  for i, key in ipairs(keys) do
    if i > 1 then put "," end
    printer.string(key)
    put ":"
    trail[depth] = "fields"
    print_value(nil, fields[key], depth + 1)
  end
  put "}"
end

local function print_list(_, message, depth)
  check_depth(depth)
  put "["
  for i, value in ipairs(message.values or {}) do
    if i > 1 then put "," end
    trail[depth] = "values"
    print_value(nil, value, depth + 1)
  end
  put "]"
end

function print_value(_, message, depth)
  if message.string_value then return printer.string(message.string_value) end
  if message.bool_value ~= nil then return put(message.bool_value and "true" or "false") end
  if message.struct_value then return print_struct(nil, message.struct_value, depth + 1) end
  if message.list_value then return print_list(nil, message.list_value, depth + 1) end
  local number = message.number_value
  if not number then return put "null" end
  if number ~= number or number == math.huge or number == -math.huge then raise(depth, nil, "a number that JSON does not have") end
  printer.real(number)
end

local function parse_struct(_, value, depth)
  check_depth(depth)
  if kind_of(value) ~= "an object" then raise(depth, nil, ("found %s, expected an object"):format(kind_of(value))) end
  local fields = {}
  for key, item in pairs(value) do fields[key] = parse_value(nil, item, depth + 1) end
  return { fields = fields }
end

local function parse_list(_, value, depth)
  check_depth(depth)
  if kind_of(value) ~= "a list" then raise(depth, nil, ("found %s, expected a list"):format(kind_of(value))) end
  local values = {}
  for i = 1, #value do values[i] = parse_value(nil, value[i], depth + 1) end
  return { values = values }
end

function parse_value(_, value, depth)
  local kind = type(value)
  if value == null then return { null_value = 0 } end
  if kind == "string" then return { string_value = value } end
  if kind == "boolean" then return { bool_value = value } end
  if kind == "number" then return { number_value = value } end
  if json.is_integer(value) then return { number_value = tonumber(tostring(value)) } end
  if kind_of(value) == "a list" then return { list_value = parse_list(nil, value, depth + 1) } end
  return { struct_value = parse_struct(nil, value, depth + 1) }
end

define("Struct", { print = print_struct, parse = parse_struct })
define("ListValue", { print = print_list, parse = parse_list })
define("Value", { print = print_value, parse = parse_value })

-- ---------------------------------------------------------------- messages of a type that is known only then

local function type_of(options, url, depth)
  local found = type(url) == "string" and options.types[url:match "([^/]*)$"]
  if not found or found.is_enum then return nil, ("the type %q of an Any is not in the set"):format(tostring(url):sub(1, 100)), depth end
  return found
end

local function put_type(url)
  put '{"@type":'
  printer.string(url)
end

define("Any", {
  print = function(_, message, depth, options)
    local url, bytes = message.type_url or "", message.value or ""
    if url == "" and bytes == "" then return put "{}" end
    local kind, problem = type_of(options, url, depth)
    if not kind and not options.any_bytes then raise(depth, nil, problem) end
    local inner = kind and wire.decode(kind, bytes, depth)
    put_type(url)
    if not kind then
      put ',"value":'
      printer.bytes(bytes)
    elseif known.of[kind.name] then
      put ',"value":'
      printer.message(kind, inner, depth + 1, options)
    else
      check_depth(depth + 1)
      printer.members(kind, inner, depth + 1, options, true)
    end
    put "}"
  end,
  parse = function(_, value, depth, options)
    if kind_of(value) ~= "an object" then raise(depth, nil, ("found %s, expected an object"):format(kind_of(value))) end
    local url = value["@type"]
    if url == nil and next(value) == nil then return {} end
    local kind, problem = type_of(options, url, depth)
    if not kind then raise(depth, nil, problem) end
    local inner
    if known.of[kind.name] then
      inner = reader.message(kind, value.value, depth + 1, options)
    else
      inner = reader.members(kind, value, depth + 1, options, "@type")
    end
    return { type_url = url, value = wire.encode(kind, inner) }
  end,
})

return known
