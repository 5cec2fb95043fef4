--- access: who may use the admin interface: by a token, by a client certificate, or by a browser that has shown the token; and from where.
-- A page of somebody else that a browser has open must not command the gateway: Host is one of a few names, and a change comes from our own page.
local abi = require "abi"
local address = require "runtime.address"
local crypto = require "tidegate.crypto"
local dict = require "tidegate.dict"
local response = require "tidegate.response"

local C, vm = abi.C, abi.vm
local access = {}
local COOKIE, SESSION = "tidegate_admin", 12 * 3600 -- seconds
local FAILURES, WINDOW = 10, 60 -- wrong tokens of a client in so many seconds
local SAFE = { GET = true, HEAD = true, OPTIONS = true }

local function failures()
  return dict.open "rate-limit"
end

local function key_of(req) return "admin\1" .. (req.client.ip or "") end

-- The host of a name rebound by DNS is none of these.
local function is_known_host(host, conf)
  if host == "localhost" or address.is_ipv4(host) or address.is_ipv6((host:gsub("[%[%]]", ""))) then return true end
  for _, name in ipairs(conf.hosts) do
    if host == name then return true end
  end
  return false
end

local function comes_from_elsewhere(req)
  local headers = req.headers
  local site, origin = headers["Sec-Fetch-Site"], headers["Origin"]
  if site and site ~= "same-origin" and site ~= "none" then return true end
  return origin ~= nil and origin:match "^https?://(.*)$" ~= (headers["Host"] or "")
end

--- refuse_place(ctx, conf) -> response | nil: what no token makes good
function access.refuse_place(ctx, conf)
  local req = ctx.req
  if not conf.socket and not is_known_host(req.host, conf) then
    return response.problem(421, ("the admin interface is not called %s: name it in admin { hosts }"):format(req.host))
  end
  if not SAFE[req.method] and comes_from_elsewhere(req) then return response.problem(403, "changes come from the gateway's own page alone") end
end

local function sign(token, expires)
  return crypto.base64url(crypto.hmac("sha256", token, "admin session " .. expires))
end

local function has_session(req, token)
  local expires, signature = (req.cookies[COOKIE] or ""):match "^(%d+)%.([%w_-]+)$"
  return expires ~= nil and tonumber(expires) > vm.now and crypto.equal(signature, sign(token, expires))
end

--- session(token, secure) -> the value of Set-Cookie for who has shown the token
function access.session(token, secure)
  local expires = ("%d"):format(vm.now + SESSION)
  return ("%s=%s.%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict%s"):format(COOKIE, expires, sign(token, expires), SESSION,
    secure and "; Secure" or "")
end

--- no_session() -> the value of Set-Cookie that ends it
function access.no_session()
  return COOKIE .. "=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
end

--- is_token(req, given, token) -> whether it is the token, nil when this client has tried too often
function access.is_token(req, given, token)
  local key = key_of(req)
  if (failures():get(key) or 0) >= FAILURES then return nil end
  if crypto.equal(given, token) then return true end
  failures():incr(key, 1, WINDOW)
  return false
end

--- is_by_socket(conf) -> whether who may connect may command, as on the control socket
function access.is_by_socket(conf) return conf.socket ~= nil and not conf.token end

--- who(ctx, conf, token) -> name for the audit | nil, response
function access.who(ctx, conf, token)
  local req = ctx.req
  if access.is_by_socket(conf) then
    local uid = C.tg_abi_client_uid(vm.exchange)
    return uid >= 0 and ("uid %d"):format(uid) or "socket"
  end
  if conf.certificates and req.client.cert then return "certificate " .. req.client.cert.subject end
  local given = (req.headers["Authorization"] or ""):match "^[Bb]earer ([^ ]+)$"
  if not given and has_session(req, token) then return "browser" end
  local ok = given and access.is_token(req, given, token)
  if ok then return "token" end
  if given and ok == nil then return nil, response.problem(429, "too many wrong tokens", nil, { ["Retry-After"] = tostring(WINDOW) }) end
  return nil, response.problem(401, "the admin token is needed (see: tidegate token)", nil,
    { ["WWW-Authenticate"] = 'Bearer realm="tidegate admin"' })
end

return access
