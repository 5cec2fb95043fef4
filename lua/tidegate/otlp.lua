--- otlp: spans as the OpenTelemetry protocol has them (1.x, opentelemetry/proto/trace/v1): protobuf and JSON.
local abi = require "abi"
local json = require "tidegate.json"
local pb = require "tidegate.protobuf_writer"

local C = abi.C
local otlp = {}
local REMOTE = { [true] = 0x301, [false] = 0x101 } -- flags: sampled, and whether the parent is of another process (bits 8 and 9)

-- Strings are UTF-8 there; one that is not would void the whole portion.
local function utf8(text)
  if not text:find "[\128-\255]" then return text end
  return (json.decode(json.quote(text)))
end

local function unhex(digits)
  C.tg_abi_unhex(digits, #digits)
  return abi.out()
end

local function is_whole(value) return value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53 end

-- ---------------------------------------------------------------- protobuf

local function any_value(value)
  local kind = type(value)
  if kind == "string" then return pb.bytes(1, utf8(value)) end
  if kind == "boolean" then return pb.number(2, value and 1 or 0) end
  if is_whole(value) then return pb.number(3, value) end
  return pb.double(4, value)
end

local function attributes(out, field, list)
  for i = 1, #list, 2 do out[#out + 1] = pb.bytes(field, pb.bytes(1, utf8(list[i])) .. pb.bytes(2, any_value(list[i + 1]))) end
end

local function span_message(span)
  local out = { pb.bytes(1, unhex(span.trace)), pb.bytes(2, unhex(span.id)) }
  if span.state then out[#out + 1] = pb.bytes(3, span.state) end
  if span.parent then out[#out + 1] = pb.bytes(4, unhex(span.parent)) end
  out[#out + 1] = pb.bytes(5, utf8(span.name))
  out[#out + 1] = pb.number(6, span.kind)
  out[#out + 1] = pb.nanoseconds(7, span.start)
  out[#out + 1] = pb.nanoseconds(8, span.stop)
  attributes(out, 9, span.attributes)
  if span.lost then out[#out + 1] = pb.number(10, span.lost) end
  if span.failed then
    out[#out + 1] = pb.bytes(15, (span.message and pb.bytes(2, utf8(span.message)) or "") .. pb.number(3, 2))
  end
  out[#out + 1] = pb.fixed32(16, REMOTE[span.remote or false])
  return pb.join(out)
end

--- protobuf(resource, spans) -> an ExportTraceServiceRequest. resource: list of attributes, name and value in turn
function otlp.protobuf(resource, spans)
  local of_resource, scope = {}, { pb.bytes(1, pb.bytes(1, "tidegate")) }
  attributes(of_resource, 1, resource)
  for i, span in ipairs(spans) do scope[i + 1] = pb.bytes(2, span_message(span)) end
  return pb.bytes(1, pb.bytes(1, pb.join(of_resource)) .. pb.bytes(2, pb.join(scope)))
end

-- ---------------------------------------------------------------- JSON

local function json_value(value)
  local kind = type(value)
  if kind == "string" then return { stringValue = value } end
  if kind == "boolean" then return { boolValue = value } end
  if is_whole(value) then return { intValue = ("%.0f"):format(value) } end
  if value ~= value then return { doubleValue = "NaN" } end
  if value == math.huge or value == -math.huge then return { doubleValue = value > 0 and "Infinity" or "-Infinity" } end
  return { doubleValue = value }
end

local function json_attributes(list)
  local out = {}
  for i = 1, #list, 2 do out[#out + 1] = { key = list[i], value = json_value(list[i + 1]) } end
  return json.array(out)
end

local function nanoseconds(seconds)
  return ("%.0f000"):format(math.floor(seconds * 1e6 + 0.5))
end

local function json_span(span)
  return {
    traceId = span.trace, spanId = span.id, parentSpanId = span.parent, traceState = span.state, name = span.name, kind = span.kind,
    startTimeUnixNano = nanoseconds(span.start), endTimeUnixNano = nanoseconds(span.stop), attributes = json_attributes(span.attributes),
    droppedAttributesCount = span.lost, status = span.failed and { code = 2, message = span.message } or nil, flags = REMOTE[span.remote or false],
  }
end

--- json(resource, spans) -> the same as JSON
function otlp.json(resource, spans)
  local list = {}
  for i, span in ipairs(spans) do list[i] = json_span(span) end
  return json.encode { resourceSpans = json.array { {
    resource = { attributes = json_attributes(resource) }, scopeSpans = json.array { { scope = { name = "tidegate" }, spans = json.array(list) } },
  } } }
end

return otlp
