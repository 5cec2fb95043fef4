local SECRET = ("s"):rep(32)
local KEY = assert(tg.crypto.key { kty = "oct", k = tg.crypto.base64url(SECRET) })

local function token(claims, options)
  options = options or {}
  options.key, options.alg = options.key or KEY, options.alg or "HS256"
  claims.exp = claims.exp or os.time() + 600
  if claims.exp == 0 then claims.exp = nil end
  return assert(tg.jwt.sign(claims, options))
end

local function gateway(conf)
  local use = { "jwt", secret = SECRET, alg = "HS256" }
  for name, value in pairs(conf or {}) do use[name] = value end
  return test.gateway { use = { use }, consumer = { ann = { groups = { "gold" } } }, to = test.upstream(function(req)
    return 200, { id = req.headers["x-consumer-id"], groups = req.headers["x-consumer-groups"], auth = req.headers.authorization,
      mail = req.headers["x-mail"], cookie = req.headers.cookie, target = req.target }
  end) }
end

local function with(text) return { headers = { Authorization = "Bearer " .. text } } end

-- A token of any header, signed.
local function made(header, payload)
  local text = tg.crypto.base64url(header) .. "." .. tg.crypto.base64url(payload)
  return text .. "." .. tg.crypto.base64url(KEY:sign("HS256", text))
end

describe("jwt", function()
  it("makes a consumer of the claims, and hides the token", function()
    local gw = gateway { claims_to_headers = { email = "X-Mail" } }
    local text = token { sub = "ann", groups = { "b", "a" }, email = "ann@example.com" }
    for _ = 1, 2 do
      expect(gw:get("/", with(text)):json()):equals { id = "ann", groups = "a, b", mail = "ann@example.com", target = "/" }
    end
    local r = gw:get("/", { headers = { Authorization = "Bearer " .. token { sub = "bob" }, ["X-Mail"] = "root@example.com" } })
    expect(r:json()):equals { id = "bob", target = "/" }
  end)

  it("finds the token in a cookie or the query", function()
    local gw = gateway { cookie = "token", query = "access_token" }
    local text = token { sub = "ann" }
    expect(gw:get("/", { headers = { Cookie = "a=b; token=" .. text } }):json()):equals { id = "ann", cookie = "a=b", target = "/" }
    expect(gw:get("/?b=1&access_token=" .. text, { headers = { Cookie = "a=b; token=" .. text, Authorization = "Bearer " .. text } }):json()):equals {
      id = "ann", cookie = "a=b", target = "/?b=1" }
    expect(gw:get("/x?access_token=" .. text .. "&y=1"):json()):equals { id = "ann", target = "/x?y=1" }
  end)

  it("refuses what is no valid token", function()
    local gw = gateway { iss = "me", aud = { "web", "app" }, leeway = "10s" }
    local now = os.time()
    local function good(more)
      local claims = { sub = "ann", iss = "me", aud = "web" }
      for name, value in pairs(more or {}) do claims[name] = value end
      return claims
    end
    expect(gw:get("/", with(token(good()))).status):equals(200)
    expect(gw:get("/", with(token(good { aud = { "other", "app" }, exp = now - 5, nbf = now + 5 }))).status):equals(200)
    local right = token(good())
    local head, payload, signature = right:match "^(.-)%.(.-)%.(.-)$"
    local none = tg.crypto.base64url '{"alg":"none","typ":"JWT"}' .. "." .. payload .. "."
    local long = ('{"sub":"ann","iss":"me","aud":"web","exp":%d}'):format(now + 100)
    local bad = {
      expired = token(good { exp = now - 20 }), early = token(good { nbf = now + 20 }), future = token(good { iat = now + 20 }),
      issuer = token(good { iss = "you" }), audience = token(good { aud = "other" }), ["no audience"] = token { sub = "ann", iss = "me" },
      ["no exp"] = token(good { exp = 0 }), ["text exp"] = token(good { exp = "never" }), ["no sub"] = token { iss = "me", aud = "web" },
      none = none, ["none without dot"] = none:sub(1, -2), ["no signature"] = head .. "." .. payload .. ".", parts = right .. ".x",
      other = token(good(), { key = assert(tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("t"):rep(32)) }) }),
      hs512 = token(good(), { alg = "HS512", key = assert(tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(64)) }) }),
      swapped = head .. "." .. token(good { sub = "root" }):match "%.(.-)%." .. "." .. signature,
      jwk = made('{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}', long), jku = made('{"alg":"HS256","jku":"http://evil"}', long),
      x5u = made('{"alg":"HS256","x5u":"http://evil"}', long), crit = made('{"alg":"HS256","crit":["b64"],"b64":false}', long),
      twice = made('{"alg":"HS256"}', '{"sub":"ann","sub":"root","iss":"me","aud":"web","exp":9999999999}'),
      ["alg twice"] = made('{"alg":"none","alg":"HS256"}', long), list = made('{"alg":"HS256"}', "[1]"), text = made('{"alg":"HS256"}', '"x"'),
      padded = head .. "=." .. payload .. "." .. signature, empty = "", junk = "a.b.c",
      spare = right:sub(1, -2) .. (right:sub(-1) == "A" and "B" or "A"),
    }
    for name, text in pairs(bad) do
      local r = gw:get("/", with(text))
      expect(name .. " " .. r.status):equals(name .. " 401")
    end
    expect(gw:get("/", with(bad.expired)).headers["www-authenticate"]):matches 'error="invalid_token"'
    expect(gw:get("/").headers["www-authenticate"]):equals 'Bearer realm="tidegate"'
    expect(gw:get("/", with(made('{"alg":"HS256"}', long))).status):equals(200)
  end)

  it("denies a token of which any byte is another", function()
    local gw = gateway { cache = 0 }
    local text = token { sub = "ann" }
    for i = 1, #text, 3 do
      local c = text:sub(i, i)
      local changed = text:sub(1, i - 1) .. (c == "." and "A" or c == "x" and "y" or "x") .. text:sub(i + 1)
      expect(i .. " " .. gw:get("/", with(changed)).status):equals(i .. " 401")
    end
  end)

  it("asks for scopes and roles", function()
    local gw = gateway { scopes = { "read", "list" }, roles = { "admin", "owner" }, roles_claim = "realm.roles" }
    local function status(claims)
      claims.sub = "ann"
      return gw:get("/", with(token(claims))).status
    end
    expect(status { scope = "read list", realm = { roles = { "owner" } } }):equals(200)
    expect(status { scope = { "list", "read" }, realm = { roles = { "x", "admin" } } }):equals(200)
    expect(status { scope = "read", realm = { roles = { "owner" } } }):equals(403)
    expect(status { scope = "read list", realm = { roles = { "x" } } }):equals(403)
    expect(status { scope = "read list" }):equals(403)
  end)

  it("may want declared consumers", function()
    local gw = gateway { declared = true }
    expect(gw:get("/", with(token { sub = "ann" })):json().groups):equals "gold"
    expect(gw:get("/", with(token { sub = "bob" })).status):equals(401)
  end)

  it("is told what is wrong with its configuration", function()
    expect(function() gateway { alg = "none" } end):raises "alg"
    expect(function() gateway { jwks = "https://id.example.com/keys" } end):raises "needs either"
    expect(function() gateway { keys = { "-----BEGIN PUBLIC KEY-----" } } end):raises "key"
  end)
end)
