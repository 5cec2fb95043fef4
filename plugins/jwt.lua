--- jwt: who brings a signed token is whom it names.
local jwt, claims_of = tg.jwt, tg.claims

-- Keys as they are given: PEM, a JWK, a secret; each with the algorithms that it serves.
local function key_of(text, kind)
  if type(text) ~= "table" or text.reveal then text = assert(tg.consumers.text_of(text)) end
  if kind == "secret" then return assert(tg.crypto.key { kty = "oct", k = tg.crypto.base64url(text) }) end
  if type(text) == "string" and text:find "^%s*{" then text = assert(tg.json.decode(text)) end
  return assert(tg.crypto.key(text))
end

local function keys_of(conf)
  if conf.jwks then return jwt.keys(conf.jwks, { refresh = conf.refresh, timeout = conf.timeout }) end
  local list = {}
  for _, text in ipairs(conf.keys) do list[#list + 1] = key_of(text) end
  if conf.secret then list[#list + 1] = key_of(conf.secret, "secret") end
  return list
end

-- The token of a cookie or of the query, the field of req that it is in, and its name there.
local function find_token(req, conf)
  local token = conf.cookie and req.cookies[conf.cookie]
  if token then return token, "cookies", conf.cookie end
  token = conf.query and req.query[conf.query]
  if token then return token, "query", conf.query end
end

-- A token that comes in two places is hidden in both: the upstream writes what it sees into logs.
local function hide(req, where, name, conf)
  req[where][name] = nil
  if conf.cookie and req.cookies[conf.cookie] then req.cookies[conf.cookie] = nil end
  if conf.query and req.query[conf.query] then req.query[conf.query] = nil end
end

-- What of a token must be known for each request with it. It is remembered by the whole text that it came in: `name` of req[where].
local function accept(req, where, name, conf, state, claims, err)
  if not claims then return nil, err end
  local entry = claims_of.entry(claims, conf)
  entry.credential = { id = entry.credential.id, claims = claims }
  if not state.verified then return entry end
  local stored = entry.consumer and entry.consumer.stored -- what Redis says of it may change
  local exp = jwt.claim(claims, "exp")
  if exp and not stored then state.verified:put(req[where][name], entry, exp + conf.leeway) end
  return entry
end

return {
  api = 1,
  doc = [[
Authenticate clients by JSON Web Tokens.
A token is verified by `keys` (PEM or JWK), by a shared `secret`, or by the keys that an issuer publishes at `jwks`; the algorithm must be in
`alg` *and* fit the kind of the key. `exp` is required, `nbf`, `iat`, `iss` and `aud` are checked. Tokens that name their own key (`jwk`, `jku`,
`x5u`), have critical headers, members twice, or more than `max` bytes are refused. The client becomes a consumer made of the claims: groups from
`groups_claim`, `meta` all of them; with `declared = true` the declared one that `consumer_claim` names. Who lacks a scope or a role gets 403, who
has no valid token 401 with the codes of RFC 6750. While the keys of an issuer could never be fetched the answer is 503. With `cache` a token that
was right is not verified again until it expires.]],

  schema = {
    keys = t.list(t.any_of { t.secret(), t.string(), t.map(t.any()) }, { default = {}, max = 100, doc = "Public keys: PEM, or a JWK." }),
    secret = t.optional(t.any_of { t.secret(), t.string(), doc = "Shared secret, for HS256 and the like." }),
    jwks = t.optional(t.string { match = "^https?://", doc = "URL of the issuer's JWK set." }),
    refresh = t.duration { default = "10m", min = 1, max = 86400, doc = "How old a fetched set may be." },
    timeout = t.duration { default = "5s", min = 0.01, max = 60, doc = "Time to fetch a set." },
    alg = t.list(t.enum { "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" },
      { min = 1, max = 13, doc = "Algorithms that are allowed." }),
    iss = t.optional(t.list(t.string(), { min = 1, max = 100, doc = "Issuers of which one must have made the token." })),
    aud = t.optional(t.list(t.string(), { min = 1, max = 100, doc = "Audiences of which it must be for one." })),
    leeway = t.duration { default = "30s", min = 0, max = 600, doc = "How far clocks may differ." },
    require = t.list(t.string(), { default = { "exp" }, max = 50, doc = "Claims that must be there." }),
    scopes = t.list(t.string(), { default = {}, max = 100, doc = "Scopes that the token must have, all of them." }),
    roles = t.list(t.string(), { default = {}, max = 100, doc = "Roles of which it must have one." }),
    scope_claim = t.string { default = "scope", doc = "Claim with the scopes." },
    roles_claim = t.string { default = "roles", doc = "Claim with the roles, by path: `realm_access.roles`." },
    groups_claim = t.string { default = "groups", doc = "Claim with the groups." },
    consumer_claim = t.string { default = "sub", doc = "Claim that names the consumer." },
    declared = t.boolean { default = false, doc = "Only declared consumers." },
    claims_to_headers = t.map(t.header(), { default = {}, doc = "Headers for the upstream, by claim; clients cannot send them." }),
    header = t.header { default = "Authorization", doc = "Header with the token; in `Authorization` behind `Bearer`." },
    cookie = t.optional(t.string { doc = "Cookie that may hold the token." }),
    query = t.optional(t.string { doc = "Query parameter that may hold the token." }),
    hide_credentials = t.boolean { default = true, doc = "Take the token out of the request before it goes upstream." },
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
    cache = t.integer { default = 10000, min = 0, max = 1e6, doc = "Tokens that are remembered; 0: each is verified each time." },
    max = t.size { default = "16KiB", min = 64, max = 65536, doc = "Longest token." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = {
  { "jwt", alg = "HS256", secret = "a secret of at least thirty-two bytes", iss = "https://id.example.com" } } }]],

  identity_headers = function(conf)
    local names = {}
    for _, name in pairs(conf.claims_to_headers) do names[#names + 1] = name end
    return names
  end,

  check = function(conf)
    local inline = #conf.keys > 0 or conf.secret ~= nil
    if inline == (conf.jwks ~= nil) then return "needs either `jwks`, or `keys` or `secret`" end
  end,

  challenge = claims_of.challenge,

  setup = function(conf)
    return {
      tell = claims_of.teller(conf.claims_to_headers),
      options = {
        keys = keys_of(conf), alg = conf.alg, iss = conf.iss, aud = conf.aud, leeway = conf.leeway, require = conf.require, max = conf.max,
      },
      verified = conf.cache > 0 and jwt.verified(conf.cache) or nil,
    }
  end,

  authenticate = function(ctx, conf, state)
    local req = ctx.req
    local headers, verified = req.headers, state.verified
    local where, name = "headers", conf.header
    local token, err
    local entry = verified and verified:get_in(headers, name)
    if not entry then entry, err = accept(req, where, name, conf, state, jwt.verify_in(headers, name, state.options)) end
    if not entry and not err then
      token, where, name = find_token(req, conf)
      if not token then return end
      entry = verified and verified:get(token)
      if not entry then entry, err = accept(req, where, name, conf, state, jwt.verify(token, state.options)) end
    end
    if err then
      if err.retryable then error(err, 0) end -- the keys are not there: 503, not 401
      return claims_of.refuse(conf, 401, "invalid_token", err.message)
    end
    if not entry.consumer then return claims_of.refuse(conf, 401, "invalid_token", "the token is of nobody who is known here") end
    if entry.forbidden then return claims_of.refuse(conf, 403, "insufficient_scope", "the token does not allow this") end
    if conf.hide_credentials then hide(req, where, name, conf) end
    if state.tell then state.tell(headers, entry.claims) end
    ctx:authenticate(entry.consumer, entry.credential) -- whose claims are ctx.vars.jwt
  end,
}
