--- protobuf_wire: messages of protocol buffers as bytes and as tables, by the types that protobuf_types.lua makes.
-- A message is a table by the names of its fields: numbers of 64 bits are text in digits, which nothing is lost of, enums are names (a number
-- where there is no name), maps have text as keys. https://protobuf.dev/programming-guides/encoding/
local abi = require "abi"

local wire = {}
local type, error, pairs, ipairs, tonumber, tostring = type, error, pairs, ipairs, tonumber, tostring
local byte, char, sub, find, concat, floor = string.byte, string.char, string.sub, string.find, table.concat, math.floor
local numbers = abi.numbers

local DEPTH_MAX = 100
local P31, P32 = 2 ^ 31, 2 ^ 32
local VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = 0, 1, 2, 3, 4, 5

wire.DEPTH_MAX = DEPTH_MAX
wire.of_kind = {
  int32 = VARINT, int64 = VARINT, uint32 = VARINT, uint64 = VARINT, sint32 = VARINT, sint64 = VARINT, bool = VARINT, enum = VARINT,
  fixed64 = FIXED64, sfixed64 = FIXED64, double = FIXED64, fixed32 = FIXED32, sfixed32 = FIXED32, float = FIXED32,
  string = BYTES, bytes = BYTES, message = BYTES, group = GROUP,
}

-- ---------------------------------------------------------------- what is wrong, and where

local trail = {} -- the names of the fields that lead to the one that is read or written

--- raise(depth, name?, what): the whole is malformed; `name` is the field at this depth. To be caught by wire.guard.
local function raise(depth, name, what)
  local path = {}
  for i = 1, depth - 1 do path[i] = trail[i] end
  path[#path + 1] = name
  error({ protobuf = #path > 0 and concat(path, ".") .. ": " .. what or what }, 0)
end
wire.raise, wire.trail = raise, trail

--- guard(f, ...) -> what f returns | nil, what was wrong
function wire.guard(f, ...)
  local ok, value = pcall(f, ...)
  if ok then return value end
  if type(value) == "table" and value.protobuf then return nil, value.protobuf end
  error(value, 0)
end

--- is_utf8(text)
function wire.is_utf8(text)
  if not find(text, "[\128-\255]") then return true end
  local at, last = 1, #text
  while at <= last do
    local a, b = byte(text, at, at + 1)
    local n = a < 128 and 0 or a < 0xC2 and -1 or a < 0xE0 and 1 or a < 0xF0 and 2 or a < 0xF5 and 3 or -1
    if n < 0 or at + n > last then return false end
    if a == 0xE0 and b < 0xA0 or a == 0xED and b > 0x9F or a == 0xF0 and b < 0x90 or a == 0xF4 and b > 0x8F then return false end
    for i = at + 1, at + n do
      local c = byte(text, i)
      if c < 128 or c > 191 then return false end
    end
    at = at + n + 1
  end
  return true
end
local is_utf8 = wire.is_utf8

-- ---------------------------------------------------------------- integers as two halves

-- A varint -> its low and high 32 bits, where the next byte is.
local function varint(bytes, at, stop, depth)
  if at > stop then raise(depth, nil, "the message is cut") end
  local b = byte(bytes, at)
  if b < 128 then return b, 0, at + 1 end
  local low, high = b - 128, 0
  for i = 1, 9 do
    at = at + 1
    if at > stop then raise(depth, nil, "the message is cut") end
    b = byte(bytes, at)
    local part = b % 128
    if i < 4 then
      low = low + part * 2 ^ (7 * i)
    elseif i == 4 then
      low, high = low + part % 16 * 2 ^ 28, floor(part / 16)
    elseif i < 9 then
      high = high + part * 2 ^ (7 * i - 32)
    else
      high = high + part % 2 * P31
    end
    if b < 128 then return low, high, at + 1 end
  end
  raise(depth, nil, "a number of more than ten bytes")
end

local one_byte = {}
for i = 0, 127 do one_byte[i] = char(i) end

local function varint_bytes(low, high)
  if high == 0 and low < 128 then return one_byte[low] end
  local text = ""
  while high > 0 or low >= 128 do
    text = text .. char(low % 128 + 128)
    low, high = floor(low / 128) + high % 128 * 2 ^ 25, floor(high / 128)
  end
  return text .. char(low)
end
wire.varint_bytes = varint_bytes

local function unsigned_text(low, high)
  if high < 2 ^ 21 then return ("%.0f"):format(high * P32 + low) end
  return sub(tostring((0ULL + high) * 4294967296ULL + low), 1, -4)
end

local function signed_text(low, high)
  if high < P31 then return unsigned_text(low, high) end
  return sub(tostring((0LL + (high - P32)) * 4294967296LL + low), 1, -3)
end

local function signed32(low)
  return low < P31 and low or low - P32
end

local function unzigzag(low, high)
  local odd = low % 2 == 1
  low, high = floor(low / 2) + high % 2 * P31, floor(high / 2)
  if odd then return P32 - 1 - low, P32 - 1 - high end
  return low, high
end

local function negated(low, high)
  return (P32 - low) % P32, (P32 - high - (low > 0 and 1 or 0)) % P32
end

-- Digits -> the halves of their value, nil when it has more than 64 bits.
local function halves_of(digits)
  local low, high = 0, 0
  local first = #digits % 6
  for at = first == 0 and 1 or first - 5, #digits, 6 do
    local total = low * 1e6 + tonumber(sub(digits, at < 1 and 1 or at, at + 5))
    low, high = total % P32, high * 1e6 + floor(total / P32)
    if high >= P32 then return nil end
  end
  return low, high
end

-- A whole number, as a number or as text -> negative, the halves of its amount | nil
local function whole(value)
  if type(value) == "string" then
    local minus, digits = value:match "^(%-?)0*(%d+)$"
    if digits then
      if #digits > 20 then return nil end
      local low, high = halves_of(digits)
      return minus == "-", low, high
    end
    value = find(value, "^%-?%d+%.?%d*[eE]?[+-]?%d*$") and tonumber(value) or nil
  end
  if type(value) ~= "number" or value % 1 ~= 0 or value <= -2 ^ 64 or value >= 2 ^ 64 then return nil end
  local amount = math.abs(value)
  return value < 0, amount % P32, floor(amount / P32)
end

local ranges = {
  int32 = "a whole number of 32 bits", sint32 = "a whole number of 32 bits", sfixed32 = "a whole number of 32 bits",
  uint32 = "a whole number of 32 bits that is not negative", fixed32 = "a whole number of 32 bits that is not negative",
  int64 = "a whole number of 64 bits", sint64 = "a whole number of 64 bits", sfixed64 = "a whole number of 64 bits",
  uint64 = "a whole number of 64 bits that is not negative", fixed64 = "a whole number of 64 bits that is not negative",
}

-- The two's complement of a value that fits its kind | nil
local function complement(kind, value)
  local negative, low, high = whole(value)
  if not low then return nil end
  local is_signed, is_short = not find(kind, "^[uf]"), find(kind, "32", 1, true)
  if negative and not is_signed and low + high > 0 then return nil end
  if is_short and (high > 0 or is_signed and (negative and low > P31 or not negative and low >= P31)) then return nil end
  if is_signed and not is_short and high >= P31 and not (negative and high == P31 and low == 0) then return nil end
  if negative then return negated(low, high) end
  return low, high
end

-- ---------------------------------------------------------------- fixed sizes

local function fixed32(bytes, at, stop, depth)
  if at + 3 > stop then raise(depth, nil, "the message is cut") end
  local a, b, c, d = byte(bytes, at, at + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

local function fixed32_bytes(n)
  return char(n % 256, floor(n / 256) % 256, floor(n / 65536) % 256, floor(n / 16777216))
end

local function fixed64(bytes, at, stop, depth)
  return fixed32(bytes, at, stop, depth), fixed32(bytes, at + 4, stop, depth), at + 8
end

local named = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

-- A number, or the text that JSON has for one | nil
local function real(value)
  if type(value) == "number" then return value end
  if type(value) ~= "string" then return nil end
  return named[value] or find(value, "^%-?%d+%.?%d*[eE]?[+-]?%d*$") and tonumber(value) or nil
end

-- ---------------------------------------------------------------- decode

local read = {}

function read.int32(bytes, at, stop, depth)
  local low, _, after = varint(bytes, at, stop, depth)
  return signed32(low), after
end

function read.uint32(bytes, at, stop, depth)
  local low, _, after = varint(bytes, at, stop, depth)
  return low, after
end

function read.sint32(bytes, at, stop, depth)
  local low, _, after = varint(bytes, at, stop, depth)
  low = unzigzag(low, 0)
  return signed32(low), after
end

function read.int64(bytes, at, stop, depth)
  local low, high, after = varint(bytes, at, stop, depth)
  return signed_text(low, high), after
end

function read.uint64(bytes, at, stop, depth)
  local low, high, after = varint(bytes, at, stop, depth)
  return unsigned_text(low, high), after
end

function read.sint64(bytes, at, stop, depth)
  local low, high, after = varint(bytes, at, stop, depth)
  return signed_text(unzigzag(low, high)), after
end

function read.bool(bytes, at, stop, depth)
  local low, high, after = varint(bytes, at, stop, depth)
  return low + high > 0, after
end

function read.enum(bytes, at, stop, depth, field)
  local low, _, after = varint(bytes, at, stop, depth)
  local value = signed32(low)
  return field.type.by_number[value] or value, after
end

function read.fixed32(bytes, at, stop, depth) return fixed32(bytes, at, stop, depth), at + 4 end
function read.sfixed32(bytes, at, stop, depth) return signed32(fixed32(bytes, at, stop, depth)), at + 4 end

function read.fixed64(bytes, at, stop, depth)
  local low, high, after = fixed64(bytes, at, stop, depth)
  return unsigned_text(low, high), after
end

function read.sfixed64(bytes, at, stop, depth)
  local low, high, after = fixed64(bytes, at, stop, depth)
  return signed_text(low, high), after
end

function read.float(bytes, at, stop, depth)
  numbers.halves[0] = fixed32(bytes, at, stop, depth)
  return tonumber(numbers.float32), at + 4
end

function read.double(bytes, at, stop, depth)
  local low, high, after = fixed64(bytes, at, stop, depth)
  numbers.halves[0], numbers.halves[1] = low, high
  return tonumber(numbers.float64), after
end

-- Where the bytes that come with their length begin, and their last one.
local function extent(bytes, at, stop, depth)
  local n, high, from = varint(bytes, at, stop, depth)
  if high ~= 0 or n > stop - from + 1 then raise(depth, nil, "the message is cut") end
  return from, from + n - 1
end

function read.bytes(bytes, at, stop, depth)
  local from, last = extent(bytes, at, stop, depth)
  return sub(bytes, from, last), last + 1
end

function read.string(bytes, at, stop, depth, field)
  local from, last = extent(bytes, at, stop, depth)
  local text = sub(bytes, from, last)
  if not is_utf8(text) then raise(depth, field.name, "the text is no UTF-8") end
  return text, last + 1
end

local decode_message

function read.message(bytes, at, stop, depth, field, into)
  local from, last = extent(bytes, at, stop, depth)
  trail[depth] = field.name
  return decode_message(field.type, bytes, from, last, depth + 1, nil, into), last + 1
end

function read.group(bytes, at, stop, depth, field, into)
  trail[depth] = field.name
  return decode_message(field.type, bytes, at, stop, depth + 1, field.number, into)
end

-- What belongs to no field that is known -> where the next one begins.
local function skip(number, kind, bytes, at, stop, depth)
  if kind == VARINT then
    local _, _, after = varint(bytes, at, stop, depth)
    return after
  elseif kind == FIXED64 or kind == FIXED32 then
    local after = at + (kind == FIXED64 and 8 or 4)
    if after > stop + 1 then raise(depth, nil, "the message is cut") end
    return after
  elseif kind == BYTES then
    local _, last = extent(bytes, at, stop, depth)
    return last + 1
  elseif kind == GROUP then
    trail[depth] = tostring(number)
    local _, after = decode_message(wire.nothing, bytes, at, stop, depth + 1, number)
    return after
  end
  raise(depth, nil, "field " .. number .. " has a form that there is not")
end

wire.nothing = { by_number = {} }

local function key_text(value)
  if type(value) == "number" then return ("%.0f"):format(value) end
  return tostring(value)
end

local zero = {
  int32 = 0, sint32 = 0, sfixed32 = 0, uint32 = 0, fixed32 = 0, int64 = "0", sint64 = "0", sfixed64 = "0", uint64 = "0", fixed64 = "0",
  float = 0, double = 0, bool = false, string = "", bytes = "",
}

--- zero_of(field) -> what a field without presence is when it is not there
function wire.zero_of(field)
  local kind = field.kind
  if kind == "message" or kind == "group" then return {} end
  if kind == "enum" then return field.type.zero end
  return zero[kind]
end

-- Whether a field without presence says with this what it says by not being there.
local function is_zero(field, value)
  local kind = field.kind
  if kind == "enum" then return value == 0 or field.type.by_name[value] == 0 end
  if kind == "double" or kind == "float" then return value == 0 and 1 / value > 0 end
  return value == zero[kind] or value == 0 and zero[kind] == "0"
end
wire.is_zero = is_zero

local function decode_entry(field, bytes, at, stop, depth, into)
  local entry, after = read.message(bytes, at, stop, depth, field)
  local key, value = entry.key, entry.value
  if key == nil then key = wire.zero_of(field.map.key) end
  if value == nil then value = wire.zero_of(field.map.value) end
  into[key_text(key)] = value
  return after
end

local function decode_packed(field, bytes, at, stop, depth, into)
  local from, last = extent(bytes, at, stop, depth)
  local reader = read[field.kind]
  while from <= last do
    into[#into + 1], from = reader(bytes, from, last, depth, field)
  end
  return from
end

-- One field of the kind that was expected -> where the next one begins.
local function decode_field(message, field, bytes, at, stop, depth)
  local name = field.name
  if field.repeated then
    local list = message[name]
    if not list then
      list = {}
      message[name] = list
    end
    if field.map then return decode_entry(field, bytes, at, stop, depth, list) end
    list[#list + 1], at = read[field.kind](bytes, at, stop, depth, field)
    return at
  end
  if field.siblings then
    for _, other in ipairs(field.siblings) do message[other] = nil end
  end
  local value, after = read[field.kind](bytes, at, stop, depth, field, message[name])
  if not field.presence and is_zero(field, value) then value = nil end
  message[name] = value
  return after
end

-- `group`: its number, when the end is not known before it is there.
function decode_message(kind, bytes, at, stop, depth, group, into)
  if depth > DEPTH_MAX then raise(depth, nil, "more than " .. DEPTH_MAX .. " levels") end
  local message, fields = into or {}, kind.by_number
  while at <= stop do
    local low, high, after = varint(bytes, at, stop, depth)
    local form, number = low % 8, floor(low / 8)
    if high ~= 0 or number == 0 then raise(depth, nil, "a field with a number that there is not") end
    if form == GROUP_END then
      if number ~= group then raise(depth, nil, "the end of a group that has not begun") end
      return message, after
    end
    local field = fields[number]
    if field and field.wire == form then
      at = decode_field(message, field, bytes, after, stop, depth)
    elseif field and form == BYTES and field.repeated and field.wire ~= GROUP then
      message[field.name] = message[field.name] or {}
      at = decode_packed(field, bytes, after, stop, depth, message[field.name])
    else
      at = skip(number, form, bytes, after, stop, depth)
    end
  end
  if group then raise(depth, nil, "the message is cut") end
  return message, at
end

--- decode(type, bytes, depth = 1) -> message. Raises what wire.guard catches.
function wire.decode(kind, bytes, depth)
  local message = decode_message(kind, bytes, 1, #bytes, depth or 1)
  return message
end

-- ---------------------------------------------------------------- encode

local function expected(depth, field, value, what)
  local found = type(value) == "string" and ("%q"):format(sub(value, 1, 40)) or type(value) == "number" and tostring(value) or "a " .. type(value)
  raise(depth, field.name, "found " .. found .. ", expected " .. what)
end

local write = {} -- kind -> function(value, depth, field) -> bytes

local function varint_writer(kind)
  write[kind] = function(value, depth, field)
    local low, high = complement(kind, value)
    if not low then expected(depth, field, value, ranges[kind]) end
    return varint_bytes(low, high)
  end
end
varint_writer "int32"
varint_writer "int64"
varint_writer "uint32"
varint_writer "uint64"

local function zigzag_writer(kind)
  write[kind] = function(value, depth, field)
    local low, high = complement(kind, value)
    if not low then expected(depth, field, value, ranges[kind]) end
    if high >= P31 then -- -n is 2n - 1
      low, high = P32 - 1 - low, P32 - 1 - high
      return varint_bytes(low % P31 * 2 + 1, high % P31 * 2 + floor(low / P31))
    end
    return varint_bytes(low % P31 * 2, high * 2 + floor(low / P31))
  end
end
zigzag_writer "sint32"
zigzag_writer "sint64"

local function fixed_writer(kind, is_long)
  write[kind] = function(value, depth, field)
    local low, high = complement(kind, value)
    if not low then expected(depth, field, value, ranges[kind]) end
    return is_long and fixed32_bytes(low) .. fixed32_bytes(high) or fixed32_bytes(low)
  end
end
fixed_writer("fixed32", false)
fixed_writer("sfixed32", false)
fixed_writer("fixed64", true)
fixed_writer("sfixed64", true)

function write.bool(value, depth, field)
  if type(value) ~= "boolean" then expected(depth, field, value, "true or false") end
  return value and "\1" or "\0"
end

function write.enum(value, depth, field)
  local number = type(value) == "string" and field.type.by_name[value]
  if not number and type(value) == "number" then number = value end
  if not number then expected(depth, field, value, "a value of " .. field.type.name) end
  local low, high = complement("int32", number)
  if not low then expected(depth, field, value, ranges.int32) end
  return varint_bytes(low, high)
end

function write.float(value, depth, field)
  local n = real(value)
  if not n then expected(depth, field, value, "a number") end
  if n ~= n then return "\0\0\192\127" end -- of the many that are no number, the usual one
  numbers.float32 = n
  if numbers.float32 ~= n and math.abs(numbers.float32) == math.huge then expected(depth, field, value, "a number that a float can be") end
  return fixed32_bytes(numbers.halves[0])
end

function write.double(value, depth, field)
  local n = real(value)
  if not n then expected(depth, field, value, "a number") end
  if n ~= n then return "\0\0\0\0\0\0\248\127" end
  numbers.float64 = n
  local low, high = numbers.halves[0], numbers.halves[1]
  return fixed32_bytes(low) .. fixed32_bytes(high)
end

local function with_length(text)
  return varint_bytes(#text, 0) .. text
end

function write.string(value, depth, field)
  if type(value) ~= "string" then expected(depth, field, value, "a text") end
  if not is_utf8(value) then raise(depth, field.name, "the text is no UTF-8") end
  return with_length(value)
end

function write.bytes(value, depth, field)
  if type(value) ~= "string" then expected(depth, field, value, "bytes") end
  return with_length(value)
end

local encode_message

function write.message(value, depth, field)
  trail[depth] = field.name
  return with_length(encode_message(field.type, value, depth + 1))
end

function write.group(value, depth, field)
  trail[depth] = field.name
  return encode_message(field.type, value, depth + 1) .. field.group_end
end

-- The key of a map is text in a table, whatever it is in the message.
local function key_of(field, key, depth)
  local kind = field.map.key.kind
  if kind == "bool" and type(key) == "string" then
    if key ~= "true" and key ~= "false" then expected(depth, field, key, 'a key of "true" or "false"') end
    return key == "true"
  end
  return key
end

local function put_map(field, value, parts, depth)
  local key, item = field.map.key, field.map.value
  local keys = {}
  for name in pairs(value) do keys[#keys + 1] = name end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end) -- the same message has the same bytes each time
  for _, name in ipairs(keys) do
    trail[depth] = field.name
    local text = key.tag .. write[key.kind](key_of(field, name, depth), depth + 1, key)
      .. item.tag .. write[item.kind](value[name], depth + 1, item)
    parts[#parts + 1] = field.tag .. with_length(text)
  end
end

local function put_list(field, value, parts, depth)
  local writer = write[field.kind]
  if field.packed and #value > 0 then
    local packed = {}
    for i = 1, #value do packed[i] = writer(value[i], depth, field) end
    parts[#parts + 1] = field.tag .. with_length(concat(packed))
    return
  end
  for i = 1, #value do parts[#parts + 1] = field.tag .. writer(value[i], depth, field) end
end

local function put_field(field, value, parts, depth)
  if field.repeated then
    if type(value) ~= "table" then expected(depth, field, value, field.map and "a map" or "a list") end
    if field.map then return put_map(field, value, parts, depth) end
    return put_list(field, value, parts, depth)
  end
  if not field.presence and is_zero(field, value) then return end
  parts[#parts + 1] = field.tag .. write[field.kind](value, depth, field)
end

local function refuse_unknown(kind, message, depth)
  for name in pairs(message) do
    if not kind.by_name[name] then raise(depth, tostring(name), "there is no such field in " .. kind.name) end
  end
end

function encode_message(kind, message, depth)
  if depth > DEPTH_MAX then raise(depth, nil, "more than " .. DEPTH_MAX .. " levels") end
  if type(message) ~= "table" then raise(depth, nil, "found a " .. type(message) .. ", expected a message of " .. kind.name) end
  local parts, fields, seen = {}, kind.fields, nil
  refuse_unknown(kind, message, depth)
  for i = 1, #fields do
    local field = fields[i]
    local value = message[field.name]
    if value ~= nil then
      if field.siblings then
        seen = seen or {}
        if seen[field.oneof] then raise(depth, field.name, "is set beside " .. seen[field.oneof] .. ", and only one of them may be") end
        seen[field.oneof] = field.name
      end
      put_field(field, value, parts, depth)
    end
  end
  return concat(parts)
end

--- encode(type, message) -> bytes. Raises what wire.guard catches.
function wire.encode(kind, message)
  return encode_message(kind, message, 1)
end

return wire
