--- zipkin: spans as version 2 of Zipkin's interface has them (https://zipkin.io/zipkin-api/): JSON.
local json = require "tidegate.json"

local zipkin = {}
local kinds = { [2] = "SERVER", [3] = "CLIENT" }

local function micro(seconds) return math.floor(seconds * 1e6 + 0.5) end

local function span_of(span, service)
  local tags, remote = {}, nil
  for i = 1, #span.attributes, 2 do tags[span.attributes[i]] = tostring(span.attributes[i + 1]) end
  if span.failed then tags.error = span.message or tags["error.type"] or "true" end
  if span.kind == 3 then remote = { serviceName = tags["tidegate.upstream"] or tags["server.address"] } end
  return {
    traceId = span.trace, id = span.id, parentId = span.parent, name = span.name, kind = kinds[span.kind], timestamp = micro(span.start),
    duration = math.max(1, micro(span.stop) - micro(span.start)), localEndpoint = { serviceName = service }, remoteEndpoint = remote, tags = tags,
  }
end

--- json(resource, spans) -> text. resource: list of attributes, name and value in turn; service.name among them
function zipkin.json(resource, spans)
  local service, list = "tidegate", {}
  for i = 1, #resource, 2 do
    if resource[i] == "service.name" then service = resource[i + 1] end
  end
  for i, span in ipairs(spans) do list[i] = span_of(span, service) end
  return json.encode(json.array(list))
end

return zipkin
