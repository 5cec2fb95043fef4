--- target: what an upstream leads to: "http://host:port", "https://host:port", a UNIX socket, the services of a name, or a listener of this gateway.
local address = require "runtime.address"

local target = {}

-- What the core knows a listener by, for upstreams that are the gateway itself: made of its name, so that it stays the same from one
-- generation to the next; 0 for one without a name.
function target.own_number(name)
  local hash = 5381
  for i = 1, #(name or "") do hash = (hash * 33 + name:byte(i)) % 2 ^ 31 end
  return name and 1 + hash % 65535 or 0
end

-- "listener:NAME": no network is between.
local function own_target(cfg, name, item, path, report)
  for _, listen in ipairs(cfg.listen) do
    if listen.name == name then return { scheme = "http", host = "@" .. name, port = listen.own, own = true } end
  end
  report:found(item.at, path, "listener:" .. name, "the name of a declared listener")
  return nil
end

local function read(cfg, value, item, path, report)
  local text = type(value) == "table" and value.url or value
  local own = text:match "^listener:(.+)$"
  if own then return own_target(cfg, own, item, path, report) end
  local socket = text:match "^unix:(/.+)$"
  if socket and #socket < 108 and not socket:find "%c" then return { scheme = "http", host = socket, port = 0, path = socket } end
  local service_scheme, service = text:match "^(https?)%+srv://(.+)$"
  if service and address.is_name(service) then return { scheme = service_scheme, service = service:lower() } end
  local scheme, authority = text:match "^(%a+)://(.*)$"
  local host, port
  if scheme == "http" or scheme == "https" then host, port = address.parse_authority(authority) end
  if not host then
    report:found(item.at, path, text, 'a target: "http://host:port", "https://host:port", "unix:/path", "http+srv://_http._tcp.name", '
      .. 'or "listener:NAME" for one of this gateway')
    return nil
  end
  return { scheme = scheme, host = host, port = port or scheme == "https" and 443 or 80 }
end

--- read(cfg, value, item, path, report) -> { scheme, host, port, weight, priority, zone?, own? } | nil: one of the targets of an upstream.
function target.read(cfg, value, item, path, report)
  local one = read(cfg, value, item, path, report)
  if not one then return nil end
  local more = type(value) == "table" and value or {}
  one.weight, one.priority, one.zone = more.weight or 1, more.priority or 0, more.zone
  return one
end

return target
