--- protobuf_writer: fields of Protocol Buffers' wire format, as bytes. Only what is written here; nothing is read.
local char, floor, frexp, concat = string.char, math.floor, math.frexp, table.concat

local writer = {}
local small = {} -- varints of one byte
for i = 0, 127 do small[i] = char(i) end

--- varint(value): a whole number, from -2^53 to 2^53; a negative one takes ten bytes.
function writer.varint(value)
  if small[value] then return small[value] end
  local bytes, n = {}, 0
  local high, low = floor(value / 2 ^ 28), value % 2 ^ 28
  local left = value < 0 and high % 2 ^ 36 or high -- two's complement of 64 bits
  for _ = 1, 4 do
    n, bytes[n + 1], low = n + 1, low % 128, floor(low / 128)
  end
  while left > 0 do
    n, bytes[n + 1], left = n + 1, left % 128, floor(left / 128)
  end
  while n > 1 and bytes[n] == 0 do n, bytes[n] = n - 1, nil end
  for i = 1, n - 1 do bytes[i] = bytes[i] + 128 end
  return char(unpack(bytes, 1, n))
end
local varint = writer.varint

local function little(value, n)
  local bytes = {}
  for i = 1, n do bytes[i], value = value % 256, floor(value / 256) end
  return char(unpack(bytes, 1, n))
end

--- tag(field, wire type): 0 varint, 1 eight bytes, 2 bytes with their length, 5 four bytes
function writer.tag(field, wire) return varint(field * 8 + wire) end

local tags = {} -- of bytes, by field
for field = 1, 32 do tags[field] = writer.tag(field, 2) end

--- bytes(field, text): a string, bytes, or a message that is written already
function writer.bytes(field, text) return tags[field] .. varint(#text) .. text end

--- number(field, value): an int64, an enum or a bool
function writer.number(field, value) return writer.tag(field, 0) .. varint(value) end

--- nanoseconds(field, seconds): fixed64, exact to the microsecond
function writer.nanoseconds(field, seconds)
  local micro = floor(seconds * 1e6 + 0.5)
  local low = micro % 2 ^ 32 * 1000
  local high = floor(micro / 2 ^ 32) * 1000 + floor(low / 2 ^ 32)
  return writer.tag(field, 1) .. little(low % 2 ^ 32, 4) .. little(high, 4)
end

--- fixed32(field, value)
function writer.fixed32(field, value) return writer.tag(field, 5) .. little(value, 4) end

-- IEEE 754, 64 bits, in two halves.
local function halves(value)
  if value ~= value then return 0x7ff80000, 0 end
  local sign = (value < 0 or 1 / value < 0) and 2 ^ 31 or 0
  value = math.abs(value)
  if value == 0 then return sign, 0 end
  if value == math.huge then return sign + 0x7ff00000, 0 end
  local fraction, exponent = frexp(value)
  exponent = exponent + 1022
  if exponent <= 0 then -- subnormal
    fraction, exponent = fraction * 2 ^ (exponent - 1), 0
    fraction = fraction * 2 ^ 53
  else
    fraction = (fraction * 2 - 1) * 2 ^ 52
  end
  return sign + exponent * 2 ^ 20 + floor(fraction / 2 ^ 32), fraction % 2 ^ 32
end

--- double(field, value)
function writer.double(field, value)
  local high, low = halves(value)
  return writer.tag(field, 1) .. little(low, 4) .. little(high, 4)
end

--- join(parts) -> the message
writer.join = concat

return writer
