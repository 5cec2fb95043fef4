--- probe: what the router may ask about a request; one object, pointed at the exchange in turn.
local abi = require "abi"
local exchange = require "runtime.exchange"

local C, vm, to_string = abi.C, abi.vm, abi.string
local probe = { x = nil }

function probe:header(name)
  if C.tg_abi_field_get(self.x, abi.REQUEST, name, #name) ~= 0 then return nil end
  return to_string(vm.out.p, vm.out.n)
end
-- The wanted value when the connection is of that kind.
function probe:connection(name, wanted)
  if name == "scheme" then return self.x.secure ~= 0 and "https" or "http" end
  if name == "alpn" then return C.tg_abi_tls(self.x, C.TG_TLS_ALPN) == 0 and to_string(vm.out.p, vm.out.n) or nil end
  if name == "sni" then
    local sni = C.tg_abi_tls(self.x, C.TG_TLS_SERVER_NAME) == 0 and to_string(vm.out.p, vm.out.n):lower() or nil
    local is_below = sni and wanted:sub(1, 2) == "*." and #sni >= #wanted and sni:sub(1 - #wanted) == wanted:sub(2)
    return is_below and wanted or sni
  end
  if wanted == "h2" or wanted == "http/1" then return self.x.version_major == 2 and "h2" or "http/1" end
  local kind = self:header(wanted == "grpc" and "content-type" or "upgrade")
  if not kind then return nil end
  if wanted == "grpc" then return kind:lower():find "^application/grpc" and not kind:lower():find "^application/grpc%-web" and "grpc" or nil end
  return kind:lower() == wanted and wanted or nil
end
function probe:query(name)
  return exchange.new(self.x).req.query[name]
end

return probe
