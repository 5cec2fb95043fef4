describe("ext-auth", function()
  local function gateway(answer, conf)
    local auth = test.upstream(answer)
    local use = { "ext-auth", upstream = "auth", path = "/check", upstream_headers = { "X-User" } }
    for name, value in pairs(conf or {}) do use[name] = value end
    local app = test.upstream(function(req) return 200, { user = req.headers["x-user"] } end)
    return test.gateway { upstream = { auth = auth }, route = { all = { path = "/*", to = app, use = { use } } } }, auth
  end

  it("lets pass whom the service knows, and tells the upstream what it says", function()
    local gw, auth = gateway(function(req)
      if req.headers.authorization ~= "right" then return 401, "who?", { ["WWW-Authenticate"] = "Test", ["X-Secret"] = "no" } end
      local seen = { req.method, req.target, req.headers["x-forwarded-method"], req.headers["x-forwarded-uri"], req.headers["x-other"] or "-" }
      return 204, "", { ["X-User"] = table.concat(seen, " ") }
    end)
    local r = gw:post("/a%20b?c=1", { headers = { Authorization = "right", ["X-Other"] = "x", ["X-User"] = "root" }, body = "x" })
    expect(r:json()):equals { user = "GET /check POST /a%20b?c=1 -" }
    r = gw:get("/", { headers = { ["X-User"] = "root" } })
    expect(r.status):equals(401)
    expect(r.body):equals "who?"
    expect(r.headers["www-authenticate"]):equals "Test"
    expect(r.headers["x-secret"]):is_nil()
    expect(auth.requests):equals(2)
  end)

  it("denies when the service fails, unless that is allowed", function()
    expect(gateway(function() return 500 end):get("/").status):equals(503)
    expect(gateway(function() return 500 end, { on_failure = "allow" }):get("/").status):equals(200)
    local gw = test.gateway { upstream = { auth = { targets = { "http://127.0.0.1:1" } } },
      route = { all = { path = "/*", to = test.upstream(200), use = { { "ext-auth", upstream = "auth" } } } } }
    expect(gw:get("/").status):equals(503)
  end)

  it("passes a redirect to a login on, and shows bodies within its bound", function()
    local gw = gateway(function(req)
      if req.body == "open" then return 200 end
      return 302, "", { Location = "https://login.test/" }
    end, { max_body = 10, method = "POST" })
    local r = gw:post("/", { body = "shut" })
    expect(r.status):equals(302)
    expect(r.headers.location):equals "https://login.test/"
    expect(gw:post("/", { body = "open" }).status):equals(200)
    expect(gw:post("/", { body = ("x"):rep(11) }).status):equals(413)
  end)

  it("asks the same question once", function()
    local gw, auth = gateway(function(req) return req.headers.authorization and 200 or 401 end, { cache = "1m" })
    for _ = 1, 3 do expect(gw:get("/", { headers = { Authorization = "a" } }).status):equals(200) end
    for _ = 1, 3 do expect(gw:get("/").status):equals(401) end
    expect(auth.requests):equals(2)
  end)
end)
