describe("revocation", function()
  it("lets pass what nobody has revoked", function()
    local gw = test.gateway { redis = { main = test.redis() }, consumer = { bob = { credentials = { key = "c" } } },
      route = { all = { path = "/*", to = test.upstream(200), use = { "key-auth", { "revocation", redis = "main", timeout = "2s" } } } } }
    for _ = 1, 3 do expect(gw:get("/", { headers = { ["X-Api-Key"] = "c" } }).status):equals(200) end
    expect(gw:get("/").status):equals(401)
  end)

  it("denies without Redis, unless that is allowed", function()
    local function status(on_down)
      local gw = test.gateway { redis = { main = { address = "127.0.0.1:1" } }, consumer = { bob = { credentials = { key = "c" } } },
        route = { all = { path = "/*", to = test.upstream(200), use = { "key-auth", { "revocation", redis = "main", on_down = on_down } } } } }
      return gw:get("/", { headers = { ["X-Api-Key"] = "c" } }).status
    end
    expect(status "deny"):equals(503)
    expect(status "allow"):equals(200)
  end)
end)
