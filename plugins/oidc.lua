--- oidc: browsers log in at an OpenID provider; applications bring its access tokens.
local claims_of, cookie, crypto, json, jwt, openid = tg.claims, tg.cookie, tg.crypto, tg.json, tg.jwt, tg.openid

local LOGIN_TIME, LOGINS_MAX = 600, 3 -- seconds for a login; begun at once in a browser
local RETURN_MAX = 800 -- bytes of the path that a browser comes back to: it stands in a cookie
local REFRESHED = 60 -- seconds that the new tokens are kept for requests that still come with the old ones
local REFUSED = "%s %s refuses this"

-- ---------------------------------------------------------------- answers

local escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local PAGE = [[<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%s</title>
<body style="font-family: sans-serif; margin: 4em auto; max-width: 32em"><h1>%s</h1><p>%s</p><p><a href="/">Back to the start</a></p></body></html>
]]

local titles = {
  [400] = "This does not fit", [403] = "No access", [500] = "Something is wrong", [502] = "The login failed", [503] = "Please try again",
}

local function accepts_html(req) return (req.headers.accept or ""):lower():find("text/html", 1, true) ~= nil end

-- A person looks at it: what scripts fetch cannot be sent to a login page.
local function is_navigation(req)
  local mode = req.headers["sec-fetch-mode"]
  return req.method == "GET" and accepts_html(req) and (mode == nil or mode == "navigate") and not req.headers["x-requested-with"]
end

-- For people a page, for programs a problem (RFC 9457).
local function answer(ctx, status, text, cookies)
  local headers = { ["Cache-Control"] = "no-store", ["Set-Cookie"] = cookies, ["Retry-After"] = status == 503 and "1" or nil }
  if not accepts_html(ctx.req) then return tg.problem(status, text, nil, headers) end
  headers["Content-Type"], headers["Content-Security-Policy"] = "text/html; charset=utf-8", "default-src 'none'; style-src 'unsafe-inline'"
  return tg.respond(status, PAGE:format(titles[status], titles[status], (text:gsub('[&<>"]', escapes))), headers)
end

local function move_to(location, cookies)
  return tg.respond(302, "", { Location = location, ["Cache-Control"] = "no-store", ["Set-Cookie"] = cookies })
end

-- The provider, or the store of sessions, gives no answer: nobody passes.
local function unavailable(ctx, conf, err, cookies)
  tg.log.warn("oidc gives no answer", { issuer = conf.issuer, reason = tostring(err) })
  return answer(ctx, 503, "nobody can say at the moment who you are", cookies)
end

-- ---------------------------------------------------------------- where we are

-- As the browser sees us.
local function origin_of(req, conf)
  if conf.origin then return conf.origin end
  local port = req.port
  return req.scheme .. "://" .. req.host .. (port and ":" .. port or "")
end

-- The path of this request, to come back to; never another site.
local function own_target(req)
  local target = req.original.target
  if #target > RETURN_MAX or not target:find "^/" or target:find "^//" or target:find "[%c%s\\]" then return "/" end
  return target
end

local function url_with(place, params)
  return place .. (place:find("?", 1, true) and "&" or "?") .. tg.url.query(params)
end

-- ---------------------------------------------------------------- a login, from here to the provider and back

local function login_name(state, id) return state.login_prefix .. id:sub(1, 8) end

-- Cookies that clear the logins that this browser has begun: they take room in a field that is not endless.
local function cleared_logins(req, state)
  local list = {}
  for name in req.cookies() do
    if name:sub(1, #state.login_prefix) == state.login_prefix then list[#list + 1] = cookie.clear(name, state.attributes) end
  end
  return list
end

local function begin_login(ctx, conf, state)
  local req = ctx.req
  local found, err = state.provider:metadata()
  if not found then return unavailable(ctx, conf, err) end
  local cookies = cleared_logins(req, state)
  if #cookies < LOGINS_MAX then cookies = {} end
  for _, one in ipairs(state.sessions:drop(req) or {}) do cookies[#cookies + 1] = one end
  local id, nonce = crypto.base64url(crypto.random(24)), crypto.base64url(crypto.random(24))
  local verifier, proof = openid.pkce()
  local name, redirect_uri = login_name(state, id), origin_of(req, conf) .. conf.redirect_path
  local login = { state = id, nonce = nonce, verifier = verifier, to = own_target(req), at = tg.now(), redirect_uri = redirect_uri }
  cookies[#cookies + 1] = cookie.set(name, state.logins:seal(json.encode(login), name), state.attributes, LOGIN_TIME)
  local params = {
    response_type = "code", client_id = conf.client_id, redirect_uri = redirect_uri, scope = table.concat(conf.scope, " "), state = id,
    nonce = nonce, code_challenge = proof, code_challenge_method = "S256",
  }
  for key, value in pairs(conf.params) do params[key] = value end
  if conf.par then
    params, err = state.provider:push(params)
    if not params then return unavailable(ctx, conf, err) end
  end
  return move_to(url_with(found.authorization_endpoint, params), cookies)
end

-- The login that this answer of the provider belongs to, and its cookie; nil: it was not begun in this browser, or too long ago.
local function login_of(req, state)
  local given = req.query.state
  if not given or #given ~= 32 or given:find "[^%w_-]" then return nil end
  local name = login_name(state, given)
  local sealed = req.cookies[name]
  local login = sealed and json.decode(state.logins:open(sealed, name) or "")
  if not login or not crypto.equal(login.state, given) or tg.now() >= login.at + LOGIN_TIME then return nil end
  return login, name
end

-- What the provider says instead of a code; nil: there is one. RFC 9207: another provider's answer is not for this one.
local function front_problem(query, conf, found)
  local iss = query.iss
  if iss ~= conf.issuer and (iss or found.iss_parameter) then return "the answer is of another provider" end
  local code = query.error
  if code then
    local text = (query.error_description or ""):gsub("[^%w%s.,;:'!?()/_-]", ""):sub(1, 200)
    return REFUSED:format("the provider", "(" .. code:gsub("[^%w_.-]", ""):sub(1, 50) .. ")") .. (text ~= "" and ": " .. text or "")
  end
  if not query.code or query.code == "" then return "the answer of the provider has no code" end
end

local function data_of(got, conf, before)
  local now, seconds = tg.now(), got.expires_in
  return {
    a = got.access_token, r = got.refresh_token or before and before.r, i = got.id_token or before.i, u = before and before.u,
    s = got.scope or before and before.s or table.concat(conf.scope, " "),
    e = seconds and now + seconds, f = seconds and now + seconds - math.min(conf.refresh_before, seconds / 2),
  }
end

-- The code becomes tokens, and these become a session -> data | nil, status, text, err
local function redeem(conf, state, login, code)
  local provider = state.provider
  local got, err = provider:tokens {
    grant_type = "authorization_code", code = code, redirect_uri = login.redirect_uri, code_verifier = login.verifier }
  if not got and err.error == "invalid_grant" then return nil, 403, "the code is not good, or not any more", err end
  if not got then return nil, err.retryable and 503 or 502, "the provider does not finish the login", err end
  if not got.id_token then return nil, 502, "the provider gives no ID token", "no id_token" end
  local claims
  claims, err = provider:check_id_token(got.id_token, { nonce = login.nonce, access_token = got.access_token })
  if not claims then return nil, err.retryable and 503 or 403, "the ID token of the provider is not accepted", err end
  local data = data_of(got, conf)
  if conf.userinfo then
    data.u, err = provider:userinfo(got.access_token, claims.sub)
    if not data.u then return nil, err.retryable and 503 or 403, "the provider does not say more of you", err end
  end
  return data
end

local function end_login(ctx, conf, state)
  local req = ctx.req
  local login, name = login_of(req, state)
  if not login then return answer(ctx, 400, "this login was not begun in this browser, or too long ago") end
  local cookies = { cookie.clear(name, state.attributes) }
  local found, err = state.provider:metadata()
  if not found then return unavailable(ctx, conf, err) end
  local problem = front_problem(req.query, conf, found)
  if problem then return answer(ctx, 403, problem, cookies) end
  local data, status, text, why = redeem(conf, state, login, req.query.code)
  if not data then
    tg.log.warn("oidc: a login failed", { issuer = conf.issuer, reason = tostring(why) })
    return answer(ctx, status, text, cookies)
  end
  local set
  set, err = state.sessions:save(req, state.sessions:start(data))
  if not set then
    if err.status ~= 500 then return unavailable(ctx, conf, err, cookies) end
    tg.log.error("oidc: the session cannot be kept", { reason = tostring(err) })
    return answer(ctx, 500, "your session cannot be kept", cookies)
  end
  if #set > 1 then cookies = cleared_logins(req, state) end
  for _, one in ipairs(set) do cookies[#cookies + 1] = one end
  return move_to(login.to, cookies)
end

-- ---------------------------------------------------------------- sessions

local function ask_for_new(conf, state, data)
  local provider, old = state.provider, openid.claims_in(data.i)
  local got, err = provider:tokens { grant_type = "refresh_token", refresh_token = data.r }
  if not got then
    if err.error then return { refused = err.error } end
    return nil, err
  end
  if got.id_token then
    local claims
    claims, err = provider:check_id_token(got.id_token, { sub = old.sub, access_token = got.access_token })
    if not claims and err.retryable then return nil, err end
    if not claims then return { refused = err.message } end
    if claims.nonce ~= nil and claims.nonce ~= old.nonce then return { refused = "another nonce" } end
  end
  return { data = data_of(got, conf, data) }
end

-- One refresh a session in the whole gateway, whose result also serves those that still come with the old cookie -> { data } or { refused } |
-- nil, err
local function refresh(conf, state, data)
  local key = crypto.hex(crypto.sha256(data.r))
  local sealed, err = state.refreshed:get(key, function()
    local result, why = ask_for_new(conf, state, data)
    if not result then return nil, why end
    return state.refreshes:seal(json.encode(result), key)
  end)
  if not sealed then return nil, err end
  return json.decode(state.refreshes:open(sealed, key) or "null") or { refused = "another secret" }
end

-- New tokens for those of a session, if it still has them -> set of cookies | false: it has ended | nil, err
local function renew_alone(ctx, conf, state, session, data)
  return state.sessions:alone(ctx.req, session, function(one)
    if one.data.a ~= data.a then -- another gateway was first
      session.data = one.data
      return {}
    end
    local result, err = refresh(conf, state, data)
    if not result then return nil, err end
    if result.refused then
      tg.log.info("oidc: a session is not renewed", { reason = result.refused })
      return false
    end
    one.data, session.data, session.is_due = result.data, result.data, false
    return state.sessions:save(ctx.req, one)
  end)
end

-- -> whether the session goes on, set of cookies | nil, nil, err
local function renew(ctx, conf, state, session)
  local data, now = session.data, tg.now()
  if not data.f or now < data.f then return true end
  if not data.r then return now < data.e end
  local set, err = renew_alone(ctx, conf, state, session, data)
  if set then return true, set end
  if set == false then return false end
  if now < data.e then return true end
  return nil, nil, err
end

-- What its claims are: those of the ID token, and what the provider has said beyond.
local function claims_in(data)
  local claims = openid.claims_in(data.i)
  for name, value in pairs(data.u or {}) do
    if claims[name] == nil then claims[name] = value end
  end
  return claims
end

local function hide_cookies(req, state)
  state.sessions:hide(req)
  if not (req.headers.cookie or ""):find(state.login_prefix, 1, true) then return end
  local names = {}
  for name in req.cookies() do
    if name:sub(1, #state.login_prefix) == state.login_prefix then names[#names + 1] = name end
  end
  for _, name in ipairs(names) do req.cookies[name] = nil end
end

local function enter(ctx, conf, state, session)
  local req, data = ctx.req, session.data
  local claims = claims_in(data)
  local entry = claims_of.entry(claims, conf, data.s)
  if not entry.consumer then return answer(ctx, 403, "you are logged in, but nobody who is known here") end
  if entry.forbidden then return answer(ctx, 403, "you are logged in, but may not do this") end
  hide_cookies(req, state)
  local token = conf.upstream_token == "access" and data.a or conf.upstream_token == "id" and data.i
  if token then req.headers.Authorization = "Bearer " .. token end
  if state.tell then state.tell(req.headers, claims) end
  ctx.vars.oidc = { claims = claims, access_token = data.a, id_token = data.i }
  ctx:authenticate(entry.consumer, { id = entry.credential.id or type(claims.sid) == "string" and claims.sid or nil })
end

-- There is no session, or none any more.
local function without_session(ctx, conf, state)
  local req, sessions = ctx.req, state.sessions
  if conf.login and is_navigation(req) then return begin_login(ctx, conf, state) end
  if not sessions:is_shown(req) then return end
  ctx.vars.oidc_cookies = { set = sessions:drop(req) or {} }
  return claims_of.refuse(conf, 401, "invalid_token", "the session has ended")
end

local function by_session(ctx, conf, state)
  local req, sessions = ctx.req, state.sessions
  local session, err = sessions:read(req)
  if err then return unavailable(ctx, conf, err) end
  if not session then return without_session(ctx, conf, state) end
  local goes_on, set
  goes_on, set, err = renew(ctx, conf, state, session)
  if err then return unavailable(ctx, conf, err) end
  if not goes_on then return without_session(ctx, conf, state) end
  if not set and session.is_due then
    set, err = sessions:save(req, session)
    if not set then return unavailable(ctx, conf, err) end
  end
  if set then ctx.vars.oidc_cookies = { set = set, till = session.data.f } end
  return enter(ctx, conf, state, session)
end

-- A refresh token that is lost does not live on (RFC 7009).
local function revoke(conf, provider, place, token)
  local done, err = provider:post(place, { token = token, token_type_hint = "refresh_token" })
  if not done then tg.log.warn("oidc: a refresh token is not revoked", { issuer = conf.issuer, reason = tostring(err) }) end
end

local function logout(ctx, conf, state)
  local req, provider = ctx.req, state.provider
  local session, err = state.sessions:read(req)
  local cookies = not err and state.sessions:drop(req)
  if not cookies then return unavailable(ctx, conf, err) end
  local after = conf.after_logout:find "^/" and origin_of(req, conf) .. conf.after_logout or conf.after_logout
  local found = session and provider:metadata()
  if not found then return move_to(after, cookies) end
  local data = session.data
  if found.revocation_endpoint and data.r then
    pcall(tg.background, "oidc logout", revoke, conf, provider, found.revocation_endpoint, data.r)
  end
  if not found.end_session_endpoint then return move_to(after, cookies) end
  return move_to(url_with(found.end_session_endpoint, {
    id_token_hint = data.i, post_logout_redirect_uri = after, client_id = conf.client_id }), cookies)
end

-- ---------------------------------------------------------------- bearer tokens

local function accept(token, conf, state)
  local keys, err = state.provider:keys()
  if not keys then return nil, err end
  local claims
  claims, err = jwt.verify(token, { keys = keys, alg = conf.alg, iss = conf.issuer, aud = conf.aud, leeway = conf.leeway, require = state.require })
  if not claims then return nil, err end
  local entry = claims_of.entry(claims, conf)
  if state.verified then state.verified:put(token, entry, claims.exp + conf.leeway) end
  return entry
end

local function by_token(ctx, conf, state)
  local headers = ctx.req.headers
  local token = claims_of.bearer(headers.authorization)
  if not token then return end
  local entry = state.verified and state.verified:get(token)
  if not entry then
    local err
    entry, err = accept(token, conf, state)
    if not entry and err.retryable then return unavailable(ctx, conf, err) end
    if not entry then return claims_of.refuse(conf, 401, "invalid_token", err.message) end
  end
  if not entry.consumer then return claims_of.refuse(conf, 401, "invalid_token", "the token is of nobody who is known here") end
  if entry.forbidden then return claims_of.refuse(conf, 403, "insufficient_scope", "the token does not allow this") end
  if conf.upstream_token == "none" then headers.authorization = nil end
  if state.tell then state.tell(headers, entry.claims) end
  ctx.vars.oidc = { claims = entry.claims, access_token = token }
  ctx:authenticate(entry.consumer, entry.credential)
end

-- ---------------------------------------------------------------- set-up

local function secrets_of(list)
  local texts = {}
  for i, one in ipairs(list) do texts[i] = one:reveal() end
  return texts
end

local function set_up_sessions(conf, state)
  local session = conf.session
  local secrets = secrets_of(session.secret)
  -- Who has logged in at one provider is not known at the next, nor is what one of them answers taken for another's.
  local about = crypto.hex(crypto.sha256(conf.issuer .. "\0" .. conf.client_id))
  state.sessions = tg.session.open {
    name = session.name, secrets = secrets, store = session.store, redis = session.redis, prefix = session.prefix, idle = session.idle,
    absolute = session.absolute, secure = session.secure, domain = session.domain,
    cookies = session.cookies, about = about,
  }
  state.logins, state.refreshes = tg.session.sealer(secrets, "login at " .. about), tg.session.sealer(secrets, "refresh at " .. about)
  state.attributes = { path = "/", secure = session.secure }
  state.login_prefix = cookie.name(session.name .. "-login-", state.attributes)
  state.refreshed = tg.cache("oidc refresh", { ttl = REFRESHED })
end

return {
  api = 1,
  doc = [[
Authenticate people by an OpenID provider, and applications by its access tokens.
A browser without a session is sent to the provider (code flow with PKCE, `state` and `nonce`) and comes back to the path that it asked for;
whoever is no browser gets 401. The provider answers at `redirect_path`, which this use must cover, as it must `logout_path`. The session is
sealed into cookies, or kept in Redis (`session`); the access token is renewed before it expires, by one request for all, and without a refresh
token the session ends with it. `logout_path` ends it here and at the provider. With `bearer_only` there are no sessions: access tokens are
verified as by `jwt`, and must be for `aud`. The client becomes a consumer made of the claims; who lacks a scope or a role gets 403. While the
provider is away nobody logs in (503); sessions go on as long as their tokens.]],

  schema = {
    issuer = t.string { match = "^https?://[^%s?#]+$", doc = "The provider, exactly as it calls itself." },
    client_id = t.optional(t.string { match = "^[^%c]+$", doc = "What we are known by there." }),
    client_secret = t.optional(t.secret { doc = "And our secret; without one we are a public client." }),
    client_key = t.optional(t.secret { doc = "Instead of it a private key, PEM or JWK: we sign who we are (private_key_jwt)." }),
    client_auth = t.optional(t.enum { "basic", "post", "none", doc = "How the secret is shown; default: basic when there is one." }),
    scope = t.list(t.string(), { default = { "openid" }, max = 100, doc = "Scopes that are asked for; `offline_access` for a refresh token." }),
    params = t.map(t.string(), { default = {}, doc = "More parameters for the provider: `prompt`, `audience` ..." }),
    par = t.boolean { default = false, doc = "Push the parameters of a login to the provider first (RFC 9126): the browser sees none." },
    origin = t.optional(t.string { match = "^https?://[^/%s]+$", doc = "Scheme and host that browsers see; default: those of the request." }),
    redirect_path = t.string { default = "/callback", match = "^/[^%c%s?#]*$", doc = "Path at which the provider answers." },
    logout_path = t.string { default = "/logout", match = "^/[^%c%s?#]*$", doc = "Path that ends the session." },
    after_logout = t.string { default = "/", match = "^[h/][^%c%s\\]*$", doc = "Path or URL behind that." },
    login = t.boolean { default = true, doc = "Send browsers to the provider; otherwise they get 401, or another use or guest answers." },
    session = t.optional(t.record({
      secret = t.list(t.secret(), { min = 1, max = 10, doc = "At least 32 bytes; the first seals, the others still open." }),
      store = t.enum { "cookie", "redis", default = "cookie", doc = "Where it is kept; a copy of a cookie outlives a logout, in Redis none does." },
      redis = t.optional(t.redis { doc = "Of which Redis." }),
      prefix = t.string { default = "session", match = "^[%w_.:-]+$", len = 63, doc = "What its keys begin with." },
      name = t.string { default = "session", match = "^[%w_]+$", len = 63, doc = "Name of the cookie, behind `__Host-`; one for each provider." },
      idle = t.duration { default = "15m", min = 1, max = 31536000, doc = "How long it lives without a request." },
      absolute = t.duration { default = "24h", min = 1, max = 31536000, doc = "How long it lives at most." },
      secure = t.boolean { default = true, doc = "Cookies for https only; without it they have no prefix." },
      cookies = t.integer { default = 2, min = 1, max = 4, doc = "Of 4 KiB, that it may take; more than 2 need a larger `field` of `listen`." },
      domain = t.optional(t.string { match = "^[%w.-]+$", doc = "Other hosts of this domain get it, too." }),
    }, { doc = "How it is known who has logged in; needed unless `bearer_only`." })),
    refresh_before = t.duration { default = "30s", min = 0, max = 3600, doc = "How long before it expires an access token is renewed." },
    userinfo = t.boolean { default = false, doc = "Ask for the claims of the userinfo endpoint, once a login." },
    upstream_token = t.enum { "access", "id", "none", default = "none", doc = "Token that goes upstream as `Authorization: Bearer`." },
    bearer_only = t.boolean { default = false, doc = "Access tokens only, no browsers." },
    aud = t.optional(t.list(t.string(), { min = 1, max = 100, doc = "Audiences of which an access token must be for one." })),
    alg = t.list(t.enum { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" },
      { default = { "RS256", "PS256", "ES256", "EdDSA" }, min = 1, max = 10, doc = "Algorithms that are allowed." }),
    leeway = t.duration { default = "30s", min = 0, max = 600, doc = "How far clocks may differ." },
    scopes = t.list(t.string(), { default = {}, max = 100, doc = "Scopes that the token must have, all of them." }),
    roles = t.list(t.string(), { default = {}, max = 100, doc = "Roles of which it must have one." }),
    scope_claim = t.string { default = "scope", doc = "Claim of an access token with the scopes." },
    roles_claim = t.string { default = "roles", doc = "Claim with the roles, by path: `realm_access.roles`." },
    groups_claim = t.string { default = "groups", doc = "Claim with the groups." },
    consumer_claim = t.string { default = "sub", doc = "Claim that names the consumer." },
    declared = t.boolean { default = false, doc = "Only declared consumers." },
    claims_to_headers = t.map(t.header(), { default = {}, doc = "Headers for the upstream, by claim; clients cannot send them." }),
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
    cache = t.integer { default = 10000, min = 0, max = 1e6, doc = "Access tokens that are remembered; 0: each is verified each time." },
    refresh = t.duration { default = "10m", min = 1, max = 86400, doc = "How old what the provider publishes may be." },
    timeout = t.duration { default = "5s", min = 0.01, max = 60, doc = "Time for an answer of the provider." },
    ca = t.optional(t.string { doc = "PEM of who certifies the provider; default: the system's." }),
  },

  example = [[
route "app" { path = "/*", to = "orders", use = {
  { "oidc", issuer = "https://id.example.com", client_id = "gateway", client_secret = "a secret", scope = { "openid", "offline_access" },
    session = { secret = "a secret of at least thirty-two bytes" }, claims_to_headers = { email = "X-Email" } } } }]],

  identity_headers = function(conf)
    local names = {}
    for _, name in pairs(conf.claims_to_headers) do names[#names + 1] = name end
    return names
  end,

  check = function(conf)
    if conf.bearer_only then
      if not conf.aud then return "needs `aud` with `bearer_only`: the provider gives out tokens for others, too" end
      if conf.upstream_token == "id" then return "has no ID token for the upstream with `bearer_only`" end
      return
    end
    if not conf.client_id or not conf.session then return "needs `client_id` and `session`, or `bearer_only`" end
    if (conf.session.store == "redis") ~= (conf.session.redis ~= nil) then return '`session.store = "redis"` and `session.redis` belong together' end
    if conf.client_auth and conf.client_auth ~= "none" and not conf.client_secret then return "needs `client_secret`" end
    if conf.client_key and (conf.client_secret or conf.client_auth) then return "needs `client_secret` or `client_key`, not both" end
    if conf.redirect_path == conf.logout_path then return "needs two paths for `redirect_path` and `logout_path`" end
    for _, name in ipairs(conf.scope) do
      if name == "openid" then return end
    end
    return "needs `openid` in `scope`"
  end,

  challenge = claims_of.challenge,

  setup = function(conf)
    local state = {
      tell = claims_of.teller(conf.claims_to_headers), require = { "exp" },
      verified = conf.bearer_only and conf.cache > 0 and jwt.verified(conf.cache) or nil,
      provider = openid.provider {
        issuer = conf.issuer, client_id = conf.client_id, client_secret = conf.client_secret, client_auth = conf.client_auth,
        client_key = conf.client_key, alg = conf.alg,
        leeway = conf.leeway, timeout = conf.timeout, refresh = conf.refresh, ca = conf.ca, only_keys = conf.bearer_only,
      },
    }
    if not conf.bearer_only then set_up_sessions(conf, state) end
    return state
  end,

  authenticate = function(ctx, conf, state)
    if conf.bearer_only then return by_token(ctx, conf, state) end
    local req = ctx.req
    local path = req.original.path
    if path == conf.redirect_path and req.method == "GET" then return end_login(ctx, conf, state) end
    if path == conf.logout_path and (req.method == "GET" or req.method == "POST") then return logout(ctx, conf, state) end
    return by_session(ctx, conf, state)
  end,

  response = function(ctx)
    local due = ctx.vars.oidc_cookies
    if not due then return end
    ctx.vars.oidc_cookies = nil
    -- Another request has newer ones by now: an answer that took long must not bring the old ones back.
    if due.till and tg.now() >= due.till then return end
    for _, one in ipairs(due.set) do ctx.res:add_header("Set-Cookie", one) end
  end,
}
