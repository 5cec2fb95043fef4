--- admin_config: the word `admin` of the configuration: a listener of its own for operators, which no route ever sees.
local schema = require "runtime.schema"

local t = schema.t
local admin_config = {}
local TOKEN_MIN = 16 -- bytes

admin_config.spec = {
  address = t.ip "127.0.0.1", port = t.integer { min = 1, max = 65535 }, token = t.optional(t.secret()), tls = t.optional(t.any { raw = true }),
  hosts = t.list(t.string { match = "^[%l%d.-]+$", len = 255 }, { default = {}, max = 100 }),
  public_metrics = t.boolean(false), dashboard = t.boolean(true), audit = t.optional(t.string { match = "^[^%z]+$", len = 4096 }),
}

local function is_loopback(address)
  return address:find "^127%." ~= nil or address == "::1"
end

--- listener(admin) -> what `listen` would say for it
function admin_config.listener(admin)
  return { address = admin.address, port = admin.port, tls = admin.tls, client_connections = 100, body_timeout = "30s" }
end

--- read(admin, listen, at, report): `listen` is what was read of its listener
function admin_config.read(admin, listen, at, report)
  local tls = listen.tls
  local asks = type(tls) == "table" and tls.client_auth == "required"
  admin.certificates = asks or false
  if not is_loopback(admin.address) and not asks and not (tls and admin.token) then
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
