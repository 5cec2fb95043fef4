describe("opa", function()
  local function gateway(decide)
    local agent = test.upstream(function(req)
      if req.method ~= "POST" or req.target ~= "/v1/data/httpapi/authz" then return 404 end
      return decide(tg.json.decode(req.body).input)
    end)
    local app = test.upstream(function(req) return 200, { role = req.headers["x-role"] } end)
    return test.gateway { upstream = { agent = agent }, consumer = { ann = { groups = { "gold" }, credentials = { key = "k" } } },
      route = { all = { path = "/orders/{id}", to = app,
        use = { { "key-auth" }, { "opa", upstream = "agent", policy = "httpapi/authz", upstream_headers = { "X-Role" } } } } } }
  end

  local function ask(gw, target) return gw:get(target or "/orders/7?x=1", { headers = { ["X-Api-Key"] = "k" } }) end

  it("does what the policy says of the request", function()
    local gw = gateway(function(input)
      local c = input.consumer
      local ok = input.method == "GET" and input.path == "/orders/7" and input.params.id == "7" and input.query.x == "1" and c.id == "ann"
        and c.groups[1] == "gold" and input.headers["x-api-key"] == nil and input.route == "all"
      return 200, { result = ok }
    end)
    expect(ask(gw).status):equals(200)
    expect(ask(gw, "/orders/8").status):equals(403)
  end)

  it("takes objects, too", function()
    local gw = gateway(function(input)
      if input.params.id == "7" then return 200, { result = { allow = true, request_headers = { ["X-Role"] = "admin" } } } end
      return 200, { result = { allow = false, status = 451, reason = "not here", headers = { ["X-Why"] = "law" } } }
    end)
    expect(ask(gw):json()):equals { role = "admin" }
    local r = ask(gw, "/orders/1")
    expect(r.status):equals(451)
    expect(r:json().detail):equals "not here"
    expect(r.headers["x-why"]):equals "law"
  end)

  it("denies without a decision", function()
    for _, answer in ipairs { { 200, {} }, { 200, "junk" }, { 500, { result = true } }, { 404, { result = true } } } do
      expect(ask(gateway(function() return unpack(answer) end)).status):equals(503)
    end
    expect(ask(gateway(function() return 200, { result = "yes" } end)).status):equals(403)
    expect(ask(gateway(function() return 200, { result = { allow = "true" } } end)).status):equals(403)
  end)
end)
