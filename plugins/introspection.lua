--- introspection: opaque tokens, of which their issuer says what they are (RFC 7662).
local claims_of, words, refuse = tg.claims, tg.jwt.words, tg.claims.refuse

-- What the issuer says: a table | nil, err
local function ask(conf, credentials, token)
  local res, err = tg.upstream(conf.upstream):request {
    method = "POST", path = conf.path, form = { token = token, token_type_hint = "access_token" }, timeout = conf.timeout, expect = 200,
    headers = { Authorization = credentials, Accept = "application/json" }, retries = 0,
  }
  if not res then return nil, err end
  local claims, problem = res:json()
  if type(claims) ~= "table" or type(claims.active) ~= "boolean" then return nil, problem or "it does not say whether the token is active" end
  return claims
end

-- Within its times, if it has any. A time that is none is no reason to let it live for ever.
local function is_current(claims)
  local exp, nbf, now = claims.exp or tg.null, claims.nbf or tg.null, tg.now()
  if exp ~= tg.null and not (type(exp) == "number" and now < exp) then return false end
  return nbf == tg.null or type(nbf) == "number" and now >= nbf
end

local function is_about_us(claims, conf)
  if conf.iss and claims.iss ~= conf.iss then return false end
  if not conf.aud then return true end
  local have = type(claims.aud) == "string" and { [claims.aud] = true } or words(claims.aud)
  for _, one in ipairs(conf.aud) do
    if have[one] then return true end
  end
  return false
end

return {
  api = 1,
  doc = [[
Authenticate clients by tokens of which their issuer says what they are.
The issuer is asked (RFC 7662) with `client_id` and `client_secret`; an answer is remembered for `cache`, by a digest of the token and never
beyond its `exp`. The client becomes a consumer made of the answer: its id is `consumer_claim`, its `meta` all of it, its groups `groups_claim`.
A token that is not active, or of another `iss` or `aud`, gets 401, one without the `scopes` 403. While the issuer is away the answer is 503:
nobody passes who is not remembered.]],

  schema = {
    upstream = t.upstream { doc = "The issuer." },
    path = t.string { default = "/introspect", match = "^/[^%c%s]*$", doc = "Path of its introspection." },
    client_id = t.string { match = "^[^:%c]+$", doc = "What we are known by there." },
    client_secret = t.secret { doc = "And our secret." },
    iss = t.optional(t.string { doc = "Issuer that the token must be of." }),
    aud = t.optional(t.list(t.string(), { min = 1, max = 100, doc = "Audiences of which it must be for one." })),
    scopes = t.list(t.string(), { default = {}, max = 100, doc = "Scopes that the token must have, all of them." }),
    consumer_claim = t.string { default = "sub", doc = "Member that names the consumer; without it `client_id`." },
    groups_claim = t.string { default = "groups", doc = "Member with the groups." },
    timeout = t.duration { default = "2s", min = 0.001, max = 60, doc = "Time for the answer." },
    cache = t.duration { default = "30s", min = 0, max = 3600, doc = "How long an answer holds; a token that is revoked passes for so long." },
    hide_credentials = t.boolean { default = true, doc = "Take the token out of the request before it goes upstream." },
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = {
  { "introspection", upstream = "users", client_id = "gateway", client_secret = "a secret" } } }]],

  challenge = claims_of.challenge,

  setup = function(conf)
    return {
      credentials = "Basic " .. tg.crypto.base64(conf.client_id .. ":" .. conf.client_secret:reveal()),
      cache = conf.cache > 0 and tg.cache("introspection " .. conf.upstream .. conf.path, { ttl = conf.cache }) or nil,
    }
  end,

  authenticate = function(ctx, conf, state)
    local headers = ctx.req.headers
    local token = claims_of.bearer(headers.authorization)
    if not token then return end
    if token == "" then return refuse(conf, 401, "invalid_token", "what is shown is no token") end
    -- The issuer may say of a token to one of its clients what it does not say to another.
    local function load() return ask(conf, state.credentials, token) end
    local claims, err
    if state.cache then
      claims, err = state.cache:get(tg.crypto.hex(tg.crypto.sha256(conf.client_id .. "\0" .. token)), load)
    else
      claims, err = load()
    end
    if not claims then
      tg.log.warn("introspection gives no answer", { upstream = conf.upstream, reason = tostring(err) })
      return tg.problem(503, "nobody can say whether this token is good", nil, { ["Retry-After"] = "1" })
    end
    if not claims.active or not is_current(claims) or not is_about_us(claims, conf) then
      return refuse(conf, 401, "invalid_token", "the token is not active")
    end
    local have = words(claims.scope)
    for _, scope in ipairs(conf.scopes) do
      if not have[scope] then return refuse(conf, 403, "insufficient_scope", "the token does not allow this") end
    end
    local id = claims[conf.consumer_claim] or claims.client_id
    if type(id) ~= "string" or id == "" then return refuse(conf, 401, "invalid_token", "the token is of nobody") end
    local groups = {}
    for group in pairs(words(claims[conf.groups_claim])) do groups[#groups + 1] = group end
    table.sort(groups)
    if conf.hide_credentials then headers.authorization = nil end
    ctx:authenticate({ id = id, username = type(claims.username) == "string" and claims.username or nil, groups = groups, meta = claims },
      { id = type(claims.jti) == "string" and claims.jti or nil })
  end,
}
