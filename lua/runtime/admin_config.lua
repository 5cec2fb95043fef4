--- admin_config: the word `admin` of the configuration: a listener of its own for operators, which no route ever sees.
local schema = require "runtime.schema"

local t = schema.t
local admin_config = {}
local TOKEN_MIN, SOCKET_MAX = 16, 107 -- bytes; of the path of a socket, as the kernel has it

admin_config.spec = {
  address = t.ip "127.0.0.1", port = t.optional(t.integer { min = 1, max = 65535 }),
  socket = t.optional(t.string { match = "^/[^%s%c]+$", len = SOCKET_MAX }), token = t.optional(t.secret()), tls = t.optional(t.any { raw = true }),
  hosts = t.list(t.string { match = "^[%l%d.-]+$", len = 255 }, { default = {}, max = 100 }),
  public_metrics = t.boolean(false), dashboard = t.boolean(true), audit = t.optional(t.string { match = "^[^%z]+$", len = 4096 }),
}

local function is_loopback(address)
  return address:find "^127%." ~= nil or address == "::1"
end

--- listener(admin) -> what `listen` would say for it. A socket has no port; all of its clients have the same address.
function admin_config.listener(admin)
  return { address = admin.address, port = admin.port or 1, tls = admin.tls, client_connections = admin.socket and 0 or 100, body_timeout = "30s" }
end

--- place(admin, at, report) -> whether it says where it is, once
function admin_config.place(admin, at, report)
  if admin.socket and (admin.port or admin.tls ~= nil) then
    report:problem(at, { "admin", "socket" }, "found     a port or tls beside it\nexpected  a socket alone, or a port")
  elseif not admin.socket and not admin.port then
    report:problem(at, { "admin", "port" }, 'found     none\nexpected  a port, or a socket: socket = "/run/tidegate/admin.sock"')
  else
    return true
  end
end

--- read(admin, listen, at, report): `listen` is what was read of its listener
function admin_config.read(admin, listen, at, report)
  local tls = listen.tls
  local asks = type(tls) == "table" and tls.client_auth == "required"
  admin.certificates = asks or false
  if admin.socket then listen.address, listen.port = admin.socket, 0 end
  if not admin.socket and not is_loopback(admin.address) and not asks and not (tls and admin.token) then
    report:problem(at, { "admin", "address" }, ("found     %s, which others can reach\nexpected  "
      .. "tls that requires client certificates, or tls and a token; or 127.0.0.1 or ::1"):format(admin.address))
  end
  local token = admin.token and admin.token:reveal()
  if token and (#token < TOKEN_MIN or not token:find "^[%w%-._~+/]+=*$") then -- RFC 6750, section 2.1
    report:problem(at, { "admin", "token" }, ("found     a token of fewer than %d bytes, or with bytes that no bearer token has\n"
      .. "expected  one that nobody guesses, of letters, digits and -._~+/"):format(TOKEN_MIN))
  end
  listen.admin = admin
end

return admin_config
