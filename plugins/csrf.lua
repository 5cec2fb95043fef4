--- csrf: a browser that another site has sent does nothing in the name of who is logged in.
local SAFE = { GET = true, HEAD = true, OPTIONS = true, TRACE = true }

local function origin_of(url) return url and url:match "^(https?://[^/?#]+)" end

-- Whether the request comes from a page of this site, or of one that is trusted; nil: nothing in it says so.
local function comes_from_here(req, conf, state)
  local headers = req.headers
  local origin = headers.origin
  if origin == nil or origin == "null" then
    local site = headers["sec-fetch-site"]
    if site == "same-origin" or site == "none" then return true end
    if site == "same-site" and conf.same_site then return true end
    if site or origin then return false end
    origin = origin_of(headers.referer)
    if not origin then return nil end
  end
  if state.trusted[origin:lower()] then return true end
  local host = req.original.headers.host or req.host
  return origin:lower() == (req.scheme .. "://" .. host):lower()
end

local function sign(state, value) return value .. "." .. tg.crypto.base64url(tg.crypto.hmac("sha256", state.secret, value)):sub(1, 32) end

local function is_ours(state, token)
  local value = token and token:match "^([%w_-]+)%.[%w_-]+$"
  return value ~= nil and tg.crypto.equal(sign(state, value), token)
end

-- Browsers open WebSockets to any site, with its cookies, and ask nobody before; it is a GET, but what comes through it may do anything.
local function opens_websocket(req)
  local upgrade = req.upgrade
  return upgrade ~= nil and upgrade:lower():find("websocket", 1, true) ~= nil
end

return {
  api = 1,
  doc = [[
Refuse requests that another site makes a browser send (cross-site request forgery).
For methods that change something, and for WebSockets, `Origin`, `Sec-Fetch-Site` or `Referer` must be of this site or in `trusted`; whoever sends
none of them is no browser, and passes when he has no cookie. With `secret` a signed token is asked for as well (double submit): the cookie
`cookie`, which is set with each answer that lacks it, must come back in `header`, too, but for WebSockets, to which pages add no headers. Refusals
are 403.]],

  schema = {
    trusted = t.list(t.string { match = "^https?://[^/%s]+$" }, { default = {}, max = 100, doc = "Other origins that may send." }),
    same_site = t.boolean { default = false, doc = "Whether other hosts of the same site may send." },
    secret = t.optional(t.secret { doc = "Key that signs tokens; without one none are asked for." }),
    cookie = t.string { default = "csrf_token", match = "^[%w_-]+$", doc = "Cookie with the token." },
    header = t.header { default = "X-CSRF-Token", doc = "Header in which it comes back." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "csrf", trusted = { "https://app.example.com" } } } }]],

  setup = function(conf)
    local trusted = {}
    for _, origin in ipairs(conf.trusted) do trusted[origin:lower()] = true end
    return { trusted = trusted, secret = conf.secret and conf.secret:reveal() }
  end,

  access = function(ctx, conf, state)
    local req = ctx.req
    local socket = opens_websocket(req)
    if SAFE[req.method] and not socket then return end
    local here = comes_from_here(req, conf, state)
    if here == nil then here = not req.headers.cookie end
    if not here then return tg.problem(403, "the request comes from another site") end
    if socket or not state.secret or not req.headers.cookie then return end
    local token = req.headers[conf.header]
    if not token or token ~= req.cookies[conf.cookie] or not is_ours(state, token) then
      return tg.problem(403, "the token against forgery is missing or wrong")
    end
  end,

  response = function(ctx, conf, state)
    if not state.secret or is_ours(state, ctx.req.cookies[conf.cookie]) then return end
    local token = sign(state, tg.crypto.base64url(tg.crypto.random(18)))
    local secure = ctx.req.scheme == "https" and "; Secure" or ""
    ctx.res:add_header("Set-Cookie", conf.cookie .. "=" .. token .. "; Path=/; SameSite=Lax" .. secure)
  end,
}
