--- cookie: values for Set-Cookie (RFC 6265): HttpOnly and SameSite=Lax always, and a prefix that binds the name to how it was set.
local cookie = {}

--- name(name, { secure, path, domain? }) -> it with __Host- or __Secure- where browsers honour it: no other host, and no plain text, sets it
function cookie.name(name, attributes)
  if not attributes.secure then return name end
  return (attributes.path == "/" and not attributes.domain and "__Host-" or "__Secure-") .. name
end

local function tail(attributes, seconds)
  local age = seconds and ("; Max-Age=%d"):format(seconds) or ""
  local domain = attributes.domain and "; Domain=" .. attributes.domain or ""
  return ("; Path=%s%s%s; HttpOnly; SameSite=Lax%s"):format(attributes.path, domain, age, attributes.secure and "; Secure" or "")
end

--- set(name, value, attributes, seconds?) -> text: kept for that long, otherwise until the browser ends
function cookie.set(name, value, attributes, seconds) return name .. "=" .. value .. tail(attributes, seconds) end

--- clear(name, attributes) -> text
function cookie.clear(name, attributes) return name .. "=" .. tail(attributes, 0) end

return cookie
