--- service-token: what goes upstream carries a token of ours, or one in the name of the client.
local claims_of, crypto, openid = tg.claims, tg.crypto, tg.openid

local EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
local ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
local REFUSED = 10 -- seconds that a refusal is remembered
local refusals = { invalid_grant = true, invalid_request = true, invalid_target = true } -- what is due to the client's token

-- The token that the client has shown, or that his session holds.
local function subject_of(ctx)
  local session = ctx.vars.oidc
  if session then return session.access_token end
  return claims_of.bearer(ctx.req.original.headers.authorization)
end

local function form_of(conf, subject)
  local form = { audience = conf.audience, resource = conf.resource, scope = #conf.scope > 0 and table.concat(conf.scope, " ") or nil }
  if subject then
    form.grant_type, form.subject_token, form.subject_token_type = EXCHANGE, subject, ACCESS_TOKEN
    form.requested_token_type = ACCESS_TOKEN
  else
    form.grant_type = "client_credentials"
  end
  return form
end

-- { token }, { refused } when there is none for this client | nil, err; and how long that is good
local function ask(conf, state, subject)
  local got, err = state.provider:tokens(form_of(conf, subject))
  if got then
    local seconds = got.expires_in or conf.ttl
    return { token = got.access_token }, nil, math.max(1, seconds - math.min(conf.margin, seconds / 2))
  end
  if subject and refusals[err.error or ""] then return { refused = err.error }, nil, REFUSED end
  return nil, err
end

return {
  api = 1,
  doc = [[
Give requests to upstreams a token of this gateway, or one in the name of the client.
With `grant = "client_credentials"` the token is the gateway's own (RFC 6749, section 4.4); with "exchange" the access token of the client, of
its session or as it was shown, is exchanged for one that is for `audience` (RFC 8693): the use stands behind the authentication. Tokens are kept
until `margin` before they expire (half of their life at most), one for all workers. Who has no token to exchange gets 401, and 403 when the
provider refuses it. While the provider gives no token the answer is 503: nothing goes upstream without one.]],

  schema = {
    issuer = t.optional(t.string { match = "^https?://[^%s?#]+$", doc = "The provider, as it calls itself; it says where its tokens are." }),
    token_endpoint = t.optional(t.string { match = "^https?://[^%s#]+$", doc = "Where they are, when it does not." }),
    client_id = t.string { match = "^[^%c]+$", doc = "What we are known by there." },
    client_secret = t.optional(t.secret { doc = "And our secret." }),
    client_key = t.optional(t.secret { doc = "Instead of it a private key, PEM or JWK: we sign who we are (private_key_jwt)." }),
    client_auth = t.enum { "basic", "post", default = "basic", doc = "How the secret is shown." },
    grant = t.enum { "client_credentials", "exchange", default = "client_credentials", doc = "Whose token it is." },
    scope = t.list(t.string(), { default = {}, max = 100, doc = "Scopes that are asked for." }),
    audience = t.optional(t.string { doc = "Service that the token is for." }),
    resource = t.optional(t.string { doc = "The same as a URL (RFC 8707)." }),
    header = t.header { default = "Authorization", doc = "Header that carries it; in `Authorization` behind `Bearer`." },
    margin = t.duration { default = "10s", min = 0, max = 3600, doc = "How long before it expires it is replaced." },
    ttl = t.duration { default = "1m", min = 1, max = 86400, doc = "How long a token is good of which nobody says it." },
    timeout = t.duration { default = "5s", min = 0.01, max = 60, doc = "Time for an answer of the provider." },
    ca = t.optional(t.string { doc = "PEM of who certifies the provider; default: the system's." }),
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "service-token", token_endpoint = "https://id.example.com/token",
  client_id = "gateway", client_secret = "a secret", audience = "orders" } } }]],

  -- The header speaks for the gateway, which a client must not.
  identity_headers = function(conf) return conf.header:lower() ~= "authorization" and { conf.header } or {} end,

  check = function(conf)
    if (conf.issuer == nil) == (conf.token_endpoint == nil) then return "needs either `issuer` or `token_endpoint`" end
    if (conf.client_secret == nil) == (conf.client_key == nil) then return "needs either `client_secret` or `client_key`" end
  end,

  setup = function(conf)
    local place = conf.issuer or conf.token_endpoint
    local about = { place, conf.client_id, conf.audience or "", conf.resource or "", table.concat(conf.scope, " "), conf.grant }
    return {
      id = crypto.hex(crypto.sha256(table.concat(about, "\0"))),
      provider = openid.provider {
        issuer = place, token_endpoint = conf.token_endpoint, client_id = conf.client_id,
        client_secret = conf.client_secret, client_key = conf.client_key, client_auth = conf.client_auth, timeout = conf.timeout, ca = conf.ca,
      },
      cache = tg.cache("service tokens", { ttl = conf.ttl }),
    }
  end,

  access = function(ctx, conf, state)
    local subject
    if conf.grant == "exchange" then
      subject = subject_of(ctx)
      if not subject or subject == "" then
        return tg.problem(401, "there is no token to exchange", nil, { ["WWW-Authenticate"] = 'Bearer realm="tidegate"' })
      end
    end
    local key = subject and crypto.hex(crypto.sha256(state.id .. subject)) or state.id
    local kept, err = state.cache:get(key, function() return ask(conf, state, subject) end)
    if not kept then
      tg.log.warn("service-token gets no token", { provider = conf.issuer or conf.token_endpoint, reason = tostring(err) })
      return tg.problem(503, "there is no token for the upstream", nil, { ["Retry-After"] = "1" })
    end
    if kept.refused then return tg.problem(403, "the token of this client is not exchanged") end
    ctx.req.headers[conf.header] = conf.header:lower() == "authorization" and "Bearer " .. kept.token or kept.token
  end,
}
