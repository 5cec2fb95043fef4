--- upstream_tls: what `upstream { tls = ... }` may say, read and judged. It holds for the targets that begin with https://.
local abi = require "abi"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"
local tls = require "tidegate.tls"

local t = schema.t
local upstream_tls = {}

local spec = {
  verify = t.boolean(true), ca = t.optional(t.string { len = 4 * 2 ^ 20 }), cert = t.optional(t.string { len = 65536 }),
  key = t.optional(t.any_of { t.secret(), t.string { len = 65536 } }), name = t.optional(t.string { match = "^[%w_.%-:]+$", len = 255 }),
  pins = t.list(t.string(), { default = {}, max = 16 }), min_version = t.enum { "1.2", "1.3", default = "1.2" }, ktls = t.boolean(false),
}

local function is_pem(text) return text:find("-----BEGIN", 1, true) ~= nil end

-- The file that `value` names, unless it is PEM itself.
local function pem_of(value, is_key)
  if secret.is(value) then value = value:reveal() end
  if is_pem(value) then return value end
  if is_key then return secret.source:secret("file", value) end
  return secret.source:read(value)
end

local function judge(options)
  local C = abi.C
  if options.ca and C.tg_abi_certificate_check(options.ca, #options.ca, nil, 0) ~= 0 then return "ca", abi.out() end
  if options.cert and C.tg_abi_certificate_check(options.cert, #options.cert, options.key, #options.key) ~= 0 then return "cert", abi.out() end
  for _, pin in ipairs(options.pins) do
    if not tls.pin(pin) then return "pins", 'a pin is "sha256//" with the 32 bytes of a SHA-256 in Base64' end
  end
  return nil
end

--- read(up, at, path, report): replaces up.tls by what tidegate.tls takes, with contents in place of names of files.
function upstream_tls.read(up, at, path, report)
  local place = { path[1], "tls" }
  if type(up.tls) ~= "table" or secret.is(up.tls) then
    report:found(at, place, up.tls, "a table")
    up.tls = nil
    return
  end
  local options = schema.unfrozen(spec, up.tls, { report = report, at = at, path = place })
  up.tls = options or nil
  if not options then return end
  if (options.cert == nil) ~= (options.key == nil) then
    report:problem(at, place, "cert and key belong together")
    return
  end
  for _, field in ipairs { "ca", "cert", "key" } do
    if options[field] then
      local text, problem = pem_of(options[field], field == "key")
      if not text then
        report:problem(at, { path[1], "tls", field }, field == "key" and "the private key " .. problem or "cannot be read: " .. problem)
        return
      end
      options[field] = text
    end
  end
  local field, problem = judge(options)
  if field then report:problem(at, { path[1], "tls", field }, problem) end
end

--- number(up) -> how its https targets are spoken to
function upstream_tls.number(up)
  local options = up.tls or {}
  options.http2 = up.http2
  local number, problem = tls.number(options)
  if not number then error(("upstream %q: tls: %s"):format(up.name, problem), 0) end
  return number
end

return upstream_tls
