local otlp, zipkin = tg.trace.otlp, tg.trace.zipkin
local TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
local RESOURCE = { "service.name", "edge" }

local function span(more)
  local made = { trace = TRACE, id = SPAN, name = "GET /", kind = 2, start = 1700000000.25, stop = 1700000000.5, attributes = {}, failed = false }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

-- The one span of the portion.
local function json_of(more)
  return tg.json.decode(otlp.json(RESOURCE, { span(more) })).resourceSpans[1].scopeSpans[1].spans[1]
end

-- The message as lists of fields: number -> list of what is there.
local function read(bytes)
  local fields, at = {}, 1
  local function varint()
    local value, scale = 0, 1
    while true do
      local byte = bytes:byte(at)
      at, value, scale = at + 1, value + byte % 128 * scale, scale * 128
      if byte < 128 then return value end
    end
  end
  while at <= #bytes do
    local tag = varint()
    local field, wire = math.floor(tag / 8), tag % 8
    local value
    if wire == 0 then
      value = varint()
    else
      local n = wire == 1 and 8 or wire == 5 and 4 or varint()
      value, at = bytes:sub(at, at + n - 1), at + n
    end
    fields[field] = fields[field] or {}
    table.insert(fields[field], value)
  end
  return fields
end

local function span_of(bytes)
  local scope = read(read(read(bytes)[1][1])[2][1])
  return read(scope[2][1])
end

describe("otlp", function()
  it("has JSON as the protocol says: ids in hexadecimal, times as texts", function()
    local made = json_of { parent = PARENT, state = "a=1", attributes = { "a", "x", "b", 3, "c", true, "d", 0.5, "e", -7 } }
    expect(made.traceId):equals(TRACE)
    expect(made.parentSpanId):equals(PARENT)
    expect(made.startTimeUnixNano):equals "1700000000250000000"
    expect(made.endTimeUnixNano):equals "1700000000500000000"
    expect(made.kind):equals(2)
    expect(made.traceState):equals "a=1"
    expect(made.attributes):equals {
      { key = "a", value = { stringValue = "x" } }, { key = "b", value = { intValue = "3" } }, { key = "c", value = { boolValue = true } },
      { key = "d", value = { doubleValue = 0.5 } }, { key = "e", value = { intValue = "-7" } } }
    expect(made.status):is_nil()
    expect(json_of({ failed = true, message = "boom" }).status):equals { code = 2, message = "boom" }
  end)

  it("has no number in JSON that JSON has not", function()
    expect(json_of({ attributes = { "a", 0 / 0, "b", 1 / 0, "c", -1 / 0 } }).attributes):equals {
      { key = "a", value = { doubleValue = "NaN" } }, { key = "b", value = { doubleValue = "Infinity" } },
      { key = "c", value = { doubleValue = "-Infinity" } } }
  end)

  it("has protobuf: ids and times as they are", function()
    local bytes = otlp.protobuf(RESOURCE, { span { parent = PARENT, attributes = { "n", 300 }, failed = true, message = "m" } })
    local made = span_of(bytes)
    expect(tg.crypto.hex(made[1][1])):equals(TRACE)
    expect(tg.crypto.hex(made[2][1])):equals(SPAN)
    expect(tg.crypto.hex(made[4][1])):equals(PARENT)
    expect(made[6][1]):equals(2)
    expect(tg.crypto.hex(made[7][1]:reverse())):equals"17979cfe4510b280" -- 1700000000250000000
    expect(read(read(made[9][1])[2][1])[3][1]):equals(300)
    expect(read(made[15][1])):equals { [2] = { "m" }, [3] = { 2 } }
  end)

  it("counts negative numbers in two's complement, and others as IEEE 754", function()
    local function value_of(value)
      return read(read(span_of(otlp.protobuf(RESOURCE, { span { attributes = { "v", value } } }))[9][1])[2][1])
    end
    expect(value_of(-1)[3][1]):equals(2 ^ 64)
    expect(value_of(2 ^ 53)[3][1]):equals(2 ^ 53)
    expect(value_of(127)[3][1]):equals(127)
    expect(value_of(128)[3][1]):equals(128)
    for value, hex in pairs { [0.5] = "3fe0000000000000", [-1.1] = "bff199999999999a", [2 ^ 60] = "43b0000000000000", [1e300] = "7e37e43c8800759c",
      [5e-324] = "0000000000000001", [1 / 0] = "7ff0000000000000" } do
      expect(tg.crypto.hex(value_of(value)[4][1]:reverse())):equals(hex)
    end
  end)

  it("has strings of valid UTF-8 only", function()
    expect(span_of(otlp.protobuf(RESOURCE, { span { name = "a\255" } }))[5][1]):equals "a\239\191\189"
    expect(json_of({ name = "\195\164" }).name):equals "\195\164"
  end)
end)

describe("zipkin", function()
  it("has texts as tags and times in microseconds", function()
    local call = span { kind = 3, parent = PARENT, attributes = { "tidegate.upstream", "users", "n", 1 }, failed = true }
    local list = tg.json.decode(zipkin.json(RESOURCE, { call }))
    expect(list[1]):equals {
      traceId = TRACE, id = SPAN, parentId = PARENT, name = "GET /", kind = "CLIENT", timestamp = 1700000000250000, duration = 250000,
      localEndpoint = { serviceName = "edge" }, remoteEndpoint = { serviceName = "users" },
      tags = { ["tidegate.upstream"] = "users", n = "1", error = "true" } }
  end)
end)
