describe("service-token", function()
  local function provider(answer)
    return test.upstream(function(req)
      if req.target == "/.well-known/openid-configuration" then
        local issuer = "http://" .. req.headers.host
        return 200, { issuer = issuer, authorization_endpoint = issuer .. "/a", token_endpoint = issuer .. "/token", jwks_uri = issuer .. "/k" }
      end
      return answer(req, tg.url.query(req.body))
    end)
  end

  local function gateway(origin, conf)
    local use = { "service-token", token_endpoint = "http://127.0.0.1:" .. origin.port .. "/token", client_id = "gw:1", client_secret = "a b" }
    for name, value in pairs(conf or {}) do use[name] = value end
    if use.issuer then use.token_endpoint = nil end
    return test.gateway { http = { allow = { "127.0.0.1" } }, use = { use }, to = test.upstream(function(req)
      return 200, { auth = req.headers.authorization, token = req.headers["x-token"] }
    end) }
  end

  local function given(more)
    return function(req, form)
      local basic = req.headers.authorization == "Basic " .. tg.crypto.base64 "gw%3A1:a%20b"
      local list = { basic and "basic" or form.client_secret, (form.grant_type:match "[^:]*$") }
      for _, name in ipairs { "subject_token", "scope", "audience" } do list[#list + 1] = form[name] end
      local answer = { access_token = table.concat(list, "."):gsub("[^%w.-]", "~"), token_type = "Bearer", expires_in = 60 }
      for name, value in pairs(more or {}) do answer[name] = value end
      return 200, answer
    end
  end

  it("gives the upstream a token of the gateway, and asks once", function()
    local origin = provider(given())
    local gw = gateway(origin, { scope = { "a", "b" }, audience = "orders" })
    for _ = 1, 3 do
      expect(gw:get("/", { headers = { Authorization = "Bearer x" } }):json().auth):equals "Bearer basic.client~credentials.a~b.orders"
    end
    expect(origin.requests):equals(1)
    gw = gateway(origin, { client_auth = "post", header = "X-Token" })
    expect(gw:get("/", { headers = { Authorization = "Basic x", ["X-Token"] = "root" } }):json()):equals {
      auth = "Basic x", token = "a~b.client~credentials" }
  end)

  it("finds the provider's endpoint by its issuer", function()
    local origin = provider(given())
    expect(gateway(origin, { issuer = "http://127.0.0.1:" .. origin.port }):get("/"):json().auth):equals "Bearer basic.client~credentials"
  end)

  it("asks again before the end", function()
    local origin = provider(given { expires_in = 2 })
    local gw = gateway(origin)
    expect(gw:get("/").status):equals(200)
    test.sleep(1.2)
    expect(gw:get("/").status):equals(200)
    expect(origin.requests):equals(2)
  end)

  it("exchanges the token of each client, and refuses who has none", function()
    local origin = provider(function(req, form)
      if form.subject_token == "bad" then return 400, { error = "invalid_grant" } end
      if form.subject_token_type ~= "urn:ietf:params:oauth:token-type:access_token" then return 500, "" end
      return given()(req, form)
    end)
    local gw = gateway(origin, { grant = "exchange", audience = "orders" })
    for _, name in ipairs { "one", "two", "one", "two" } do
      expect(gw:get("/", { headers = { Authorization = "Bearer " .. name } }):json().auth):equals("Bearer basic.token-exchange." .. name .. ".orders")
    end
    expect(origin.requests):equals(2)
    for _ = 1, 2 do expect(gw:get("/", { headers = { Authorization = "Bearer bad" } }).status):equals(403) end
    expect(origin.requests):equals(3)
    expect(gw:get("/").status):equals(401)
    expect(gw:get("/", { headers = { Authorization = "Basic x" } }).status):equals(401)
  end)

  it("lets nothing through without a token", function()
    for _, answer in ipairs {
      { 500, "" }, { 400, { error = "invalid_client" } }, { 200, {} }, { 200, "x" }, { 200, { access_token = "x", token_type = "mac" } },
      { 200, { access_token = "a b", token_type = "Bearer" } }, { 200, { access_token = "", token_type = "Bearer" } },
    } do
      expect(gateway(provider(function() return unpack(answer) end)):get("/").status):equals(503)
    end
    local origin = provider(given())
    origin:stop()
    local r = gateway(origin):get("/")
    expect(r.status):equals(503)
    expect(r.headers["retry-after"]):equals "1"
  end)

  it("is told what is wrong with its configuration", function()
    expect(function() test.gateway { use = { { "service-token", client_id = "gw", client_secret = "x" } } } end):raises "needs either `issuer`"
  end)
end)
