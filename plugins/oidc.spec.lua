-- A provider that does what no honest one does; logins at an honest one are in tests/e2e/test_oidc.py. The key is that of RFC 7515, A.3.
local JWK = { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }
local PRIVATE = { d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI" }
for name, value in pairs(JWK) do PRIVATE[name] = value end
local KEY = assert(tg.crypto.key(PRIVATE))
local SECRET = ("s"):rep(32)

local function sign(claims) return assert(tg.jwt.sign(claims, { key = KEY, alg = "ES256" })) end

local function half_of(text) return tg.crypto.base64url(tg.crypto.sha256(text):sub(1, 16)) end

-- What the ID token says, by the first word of the code; what follows it is the nonce.
local cases = {
  good = function() end,
  hash = function(claims) claims.at_hash = half_of "token" end,
  parties = function(claims) claims.aud, claims.azp = { "gw", "other" }, "gw" end,
  wronghash = function(claims) claims.at_hash = half_of "another" end,
  nohash = function(claims) claims.at_hash = 1 end,
  azp = function(claims) claims.azp = "other" end,
  noazp = function(claims) claims.aud = { "gw", "other" } end,
  aud = function(claims) claims.aud = "other" end,
  iss = function(claims) claims.iss = claims.iss .. "/" end,
  expired = function(claims) claims.exp = os.time() - 100 end,
  noexp = function(claims) claims.exp = nil end,
  noiat = function(claims) claims.iat = nil end,
  nonce = function(claims) claims.nonce = claims.nonce .. "x" end,
  nononce = function(claims) claims.nonce = nil end,
  nosub = function(claims) claims.sub = "" end,
}

local function new_provider(change)
  return test.upstream(function(req)
    local issuer = "http://" .. req.headers.host
    if req.target:find "openid%-configuration" then
      local published = { issuer = issuer, authorization_endpoint = issuer .. "/auth", token_endpoint = issuer .. "/token",
        jwks_uri = issuer .. "/keys", userinfo_endpoint = issuer .. "/me" }
      for name, value in pairs(change or {}) do published[name] = value end
      return 200, published
    end
    if req.target == "/keys" then return 200, { keys = { JWK } } end
    if req.target == "/me" then return 200, { sub = "bob" } end
    local case, nonce = req.body:match "code=(%l+)%.([%w_-]+)"
    if case == "refused" then return 400, { error = "invalid_grant" } end
    if case == "client" then return 401, { error = "invalid_client" } end
    if case == "down" then return 500, "oops" end
    if case == "mac" then return 200, { access_token = "token", token_type = "mac", id_token = "x" } end
    if case == "notoken" then return 200, { access_token = "token", token_type = "Bearer" } end
    local claims = { iss = issuer, aud = "gw", sub = "ann", nonce = nonce, exp = os.time() + 100, iat = os.time() }
    cases[case](claims)
    local id_token = sign(claims)
    return 200, { access_token = "token", token_type = "bearer", id_token = case == "none" and "" or id_token, expires_in = 60 }
  end)
end

local function gateway(provider, conf)
  local use = { "oidc", issuer = "http://127.0.0.1:" .. provider.port, client_id = "gw", client_secret = "x", timeout = "1s",
    session = { secret = SECRET } }
  for name, value in pairs(conf or {}) do use[name] = value end
  if use.bearer_only then use.session, use.client_id, use.client_secret = nil, nil, nil end
  return test.gateway { http = { allow = { "127.0.0.1" } }, use = { use }, consumer = { ann = { groups = { "gold" } } },
    to = test.upstream(function(req)
      return 200, { id = req.headers["x-consumer-id"], mail = req.headers["x-mail"], auth = req.headers.authorization, cookie = req.headers.cookie }
    end) }
end

local BROWSER = { headers = { Accept = "text/html" } }

local function begin(gw, path)
  local r = gw:get(path or "/", BROWSER)
  expect(r.status):equals(302)
  local place, query = r.headers.location:match "^([^?]*)%?(.*)$"
  return tg.url.query(query), r.headers["set-cookie"], place
end

local function finish(gw, case, more)
  local asked, cookie = begin(gw)
  local query = tg.url.query { state = asked.state, code = case .. "." .. asked.nonce, iss = more }
  return gw:get("/callback?" .. query, { headers = { Cookie = cookie:match "^[^;]*" } })
end

describe("oidc", function()
  it("sends a browser to the provider", function()
    local provider = new_provider()
    local gw = gateway(provider, { scope = { "openid", "mail" }, params = { prompt = "login" } })
    local asked, cookie, place = begin(gw, "/orders?x=1")
    expect(place):equals("http://127.0.0.1:" .. provider.port .. "/auth")
    expect(asked.redirect_uri):equals "http://gateway.test/callback"
    expect(asked.scope .. asked.response_type .. asked.code_challenge_method .. asked.client_id .. asked.prompt):equals "openid mailcodeS256gwlogin"
    expect(#asked.state):equals(32)
    expect(#asked.code_challenge):equals(43)
    expect(cookie:gsub("[%w_-]+=[%w_-]+", "*", 1)):equals "*; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
    expect(cookie:sub(1, 21)):equals "__Host-session-login-"
    expect(begin(gw).state ~= asked.state):is_true()
    local r = gw:get("/", { headers = { Accept = "application/json" } })
    expect(r.status):equals(401)
    expect(r.headers["www-authenticate"]):equals 'Bearer realm="tidegate"'
  end)

  it("logs in whom the provider names, and nobody else", function()
    local gw = gateway(new_provider(), { upstream_token = "access" })
    for _, case in ipairs { "good", "hash", "parties" } do
      local r = finish(gw, case)
      expect(case .. " " .. r.status):equals(case .. " 302")
      expect(r.headers.location):equals "/"
      local session = r.headers["set-cookie"]:match "__Host%-session=1%.[%w_-]+"
      expect(r.headers["set-cookie"]):matches(session .. "; Path=/; HttpOnly; SameSite=Lax; Secure")
      expect(gw:get("/", { headers = { Cookie = "a=b; " .. session } }):json()):equals { id = "ann", auth = "Bearer token", cookie = "a=b" }
    end
    for case, status in pairs {
      wronghash = 403, nohash = 403, azp = 403, noazp = 403, aud = 403, iss = 403, expired = 403, noexp = 403, noiat = 403, nonce = 403,
      nononce = 403, nosub = 403, refused = 403, client = 502, down = 503, mac = 503, notoken = 502,
    } do
      local r = finish(gw, case)
      expect(case .. " " .. r.status):equals(case .. " " .. status)
      expect(r.headers["set-cookie"]:find "__Host%-session=" == nil):is_true()
    end
    expect(finish(gw, "good", "http://evil").status):equals(403)
  end)

  it("takes no claims of another one", function()
    expect(finish(gateway(new_provider(), { userinfo = true }), "good").status):equals(403)
  end)

  it("believes no provider that speaks of another", function()
    for _, change in ipairs { { issuer = "http://127.0.0.1:1" }, { jwks_uri = "file:///keys" }, { token_endpoint = 1 } } do
      expect(gateway(new_provider(change)):get("/", BROWSER).status):equals(503)
    end
    local gw = gateway(new_provider { authorization_response_iss_parameter_supported = true })
    expect(finish(gw, "good").status):equals(403)
  end)

  it("verifies access tokens, and strips what clients say of themselves", function()
    local provider = new_provider()
    local gw = gateway(provider, { bearer_only = true, aud = "api", scopes = { "read" }, claims_to_headers = { email = "X-Mail" } })
    local iss = "http://127.0.0.1:" .. provider.port
    local function ask(change, headers)
      local claims = { iss = iss, aud = { "api", "x" }, sub = "ann", scope = "read write", email = "a@b", exp = os.time() + 100 }
      for name, value in pairs(change) do claims[name] = value end
      headers = headers or {}
      headers.Authorization, headers.Accept = "Bearer " .. sign(claims), "text/html"
      return gw:get("/", { headers = headers })
    end
    for _ = 1, 2 do expect(ask({}):json()):equals { id = "ann", mail = "a@b" } end
    expect(ask({ email = false }, { ["X-Mail"] = "root@b" }):json()):equals { id = "ann", mail = "false" }
    expect(ask({ email = "a\nb" }, { ["X-Mail"] = "root@b" }):json()):equals { id = "ann" }
    expect(ask({ scope = "write" }).status):equals(403)
    for _, change in ipairs { { aud = "gw" }, { iss = iss .. "/" }, { exp = os.time() - 100 }, { sub = 7 } } do
      local r = ask(change)
      expect(r.status):equals(401)
      expect(r.headers["www-authenticate"]):matches 'error="invalid_token"'
    end
    expect(gw:get("/", BROWSER).status):equals(401)
    expect(gw:get("/callback?code=x", BROWSER).status):equals(401)
  end)

  it("lets nobody pass while the provider is away", function()
    local provider = new_provider()
    provider:stop()
    local token = sign { iss = "http://127.0.0.1:" .. provider.port, aud = "api", sub = "ann", exp = os.time() + 100 }
    local r = gateway(provider, { bearer_only = true, aud = "api" }):get("/", { headers = { Authorization = "Bearer " .. token } })
    expect(r.status):equals(503)
    expect(r.headers["retry-after"]):equals "1"
    expect(gateway(provider):get("/", BROWSER).status):equals(503)
  end)

  it("leaves browsers to others when it is told so", function()
    local provider = new_provider()
    expect(gateway(provider, { login = false }):get("/", BROWSER).status):equals(401)
    expect(provider.requests):equals(0)
  end)

  it("is told what is wrong with its configuration", function()
    local provider = { port = 1 }
    expect(function() gateway(provider, { session = { secret = "short" } }) end):raises "at least 32 bytes"
    expect(function() gateway(provider, { bearer_only = true }) end):raises "needs `aud`"
    expect(function() gateway(provider, { scope = { "mail" } }) end):raises "needs `openid`"
    expect(function() gateway(provider, { session = { secret = SECRET, store = "redis" } }) end):raises "belong together"
    expect(function() gateway(provider, { logout_path = "/callback" }) end):raises "two paths"
    expect(function() gateway(provider, { client_key = "x" }) end):raises "not both"
    expect(function() gateway(provider, { bearer_only = true, aud = "x", client_key = "no key" }) end):raises "the key is not served"
    expect(function() gateway(provider, { bearer_only = true, aud = "x", client_key = tg.json.encode(JWK) }) end):raises "a private key"
    expect(function() gateway(provider, { alg = { "none" } }) end):raises "alg"
    expect(function() gateway(provider, { alg = { "HS256" } }) end):raises "alg"
  end)
end)
