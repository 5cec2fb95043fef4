describe("introspection", function()
  local function gateway(answer, conf)
    local issuer = test.upstream(function(req)
      if req.headers.authorization ~= "Basic " .. tg.crypto.base64 "gw:s3cret" then return 401, {} end
      return answer(req.body:match "token=([^&]*)")
    end)
    local use = { "introspection", upstream = "issuer", client_id = "gw", client_secret = "s3cret" }
    for name, value in pairs(conf or {}) do use[name] = value end
    return test.gateway { upstream = { issuer = issuer }, route = { all = { path = "/*", use = { use }, to = test.upstream(function(req)
      return 200, { id = req.headers["x-consumer-id"], groups = req.headers["x-consumer-groups"], auth = req.headers.authorization }
    end) } } }, issuer
  end

  local function ask(gw, token) return gw:get("/", { headers = { Authorization = "Bearer " .. token } }) end

  local function one(claims)
    claims.active = claims.active == nil or claims.active
    return function() return 200, claims end
  end

  it("makes a consumer of what the issuer says, and asks once", function()
    local gw, issuer = gateway(function(token) return 200, { active = token == "good", sub = "ann", groups = { "b", "a" },
      exp = os.time() + 100 } end)
    for _ = 1, 3 do expect(ask(gw, "good"):json()):equals { id = "ann", groups = "a, b" } end
    for _ = 1, 3 do expect(ask(gw, "bad").status):equals(401) end
    expect(issuer.requests):equals(2)
    expect(gw:get("/").headers["www-authenticate"]):equals 'Bearer realm="tidegate"'
  end)

  it("judges what it is told", function()
    expect(ask(gateway(one { sub = "ann", exp = os.time() - 1 }), "x").status):equals(401)
    expect(ask(gateway(one { sub = "ann", nbf = os.time() + 100 }), "x").status):equals(401)
    expect(ask(gateway(one { sub = "ann", iss = "you" }, { iss = "me" }), "x").status):equals(401)
    expect(ask(gateway(one { sub = "ann", aud = { "a", "b" } }, { aud = "b" }), "x").status):equals(200)
    expect(ask(gateway(one { sub = "ann", aud = "c" }, { aud = "b" }), "x").status):equals(401)
    expect(ask(gateway(one { sub = "ann", scope = "read" }, { scopes = { "read", "list" } }), "x").status):equals(403)
    expect(ask(gateway(one { client_id = "app" }), "x"):json().id):equals "app"
    expect(ask(gateway(one {}), "x").status):equals(401)
  end)

  it("denies without an answer", function()
    for _, answer in ipairs { { 500, {} }, { 200, "junk" }, { 200, { active = "true" } }, { 200, {} }, { 401, {} } } do
      expect(ask(gateway(function() return unpack(answer) end), "x").status):equals(503)
    end
    local gw = gateway(one { sub = "x" }, { client_secret = "wrong" })
    expect(ask(gw, "x").status):equals(503)
  end)
end)
