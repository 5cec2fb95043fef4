describe("anonymous", function()
  it("lets in nobody by a consumer that is disabled", function()
    for disabled, status in pairs { [true] = 401, [false] = 200 } do
      local gw = test.gateway { consumer = { guest = { disabled = disabled } }, to = test.upstream(200),
        use = { "key-auth", { "anonymous", consumer = "guest" } } }
      expect(gw:get("/").status):equals(status)
    end
  end)

  local consumers = { ann = { credentials = { key = "k" } }, guest = { groups = { "guests" }, plan = "free" } }
  local function gateway(use)
    return test.gateway { consumer = consumers, use = use, to = test.upstream(function(req)
      return 200, { id = req.headers["x-consumer-id"], groups = req.headers["x-consumer-groups"], anonymous = req.headers["x-anonymous-consumer"] }
    end) }
  end

  it("lets in who says nothing, as a consumer of its own", function()
    local gw = gateway { { "anonymous", consumer = "guest" }, "key-auth" }
    expect(gw:get("/"):json()):equals { id = "guest", groups = "guests", anonymous = "true" }
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "k" } }):json()):equals { id = "ann" }
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "wrong" } }).status):equals(401)
    expect(gw:get("/", { headers = { ["X-Anonymous-Consumer"] = "no", ["X-Consumer-Username"] = "root" } }):json().anonymous):equals "true"
  end)

  it("needs no declared consumer", function()
    expect(gateway { "key-auth", "anonymous" }:get("/"):json()):equals { id = "anonymous", anonymous = "true" }
  end)
end)
