-- People log in at an OpenID provider, applications bring its tokens, and one service is asked in the name of who is logged in.
listen { name = "public", port = 8080 }
-- The provider of this example is on this machine, which plugins otherwise do not reach.
http { allow = { "127.0.0.1" } }

local issuer = "http://127.0.0.1:8082"
-- Whatever needs one: secret "env:CLIENT_SECRET" or secret "file:/run/secrets/client".
local client_secret, session_secret = "a secret:of the gateway", "an example is no secret: thirty-two bytes"

-- Stands for a service, which knows nothing of logins: this is what it is told.
local function account(ctx)
  local headers = ctx.req.headers
  local token = headers.authorization or "none"
  return tg.respond(200, ("Hello, %s: %s, mail %s, token %s\n"):format(headers["x-consumer-id"], ctx.req.raw_path, headers["x-email"] or "-",
    token:find("-for-", 1, true) and token or #token > 20 and "Bearer ..." or token), { ["Content-Type"] = "text/plain" })
end

route "home" { path = "/", handler = function()
  return tg.respond(200, '<title>Home</title><h1>Home</h1><a href="/account">Log in</a>\n', { ["Content-Type"] = "text/html" })
end }

-- The provider answers at /callback, and /logout ends the session: the use must see both.
route "account" { path = { "/account", "/account/*", "/callback", "/logout" }, handler = account, use = {
  { "oidc", issuer = issuer, client_id = "gateway", client_secret = client_secret, scope = { "openid", "offline_access" },
    params = { prompt = "consent" }, session = { secret = session_secret }, claims_to_headers = { email = "X-Email" }, upstream_token = "access" },
} }

-- No browsers here: a token that is for this API, with the scope that it needs.
route "api" { path = "/api/*", handler = account, use = {
  { "oidc", issuer = issuer, bearer_only = true, aud = "https://api.example.com", scopes = { "read" }, consumer_claim = "client_id" },
} }

-- The token goes no further than here: the service behind gets one that is for it alone.
route "orders" { path = "/account/orders", handler = account, use = {
  { "oidc", issuer = issuer, client_id = "gateway", client_secret = client_secret, scope = { "openid", "offline_access" },
    session = { secret = session_secret } },
  { "service-token", issuer = issuer, client_id = "gateway", client_secret = client_secret, grant = "exchange", audience = "orders" },
} }
