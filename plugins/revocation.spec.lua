describe("revocation", function()
  local consumer = { bob = { credentials = { key = { { key = "c", id = "laptop" }, { key = "d", id = "phone" } } } } }
  local function gateway(redis, use)
    use[1] = "revocation"
    return test.gateway { redis = redis, consumer = consumer, route = { all = { path = "/*", to = test.upstream(200), use = { "key-auth", use } } } }
  end
  local function status(gw, key) return gw:get("/", { headers = { ["X-Api-Key"] = key } }).status end

  it("lets pass what nobody has revoked", function()
    local gw = gateway({ main = test.redis() }, { redis = "main", timeout = "2s" })
    for _ = 1, 3 do expect(status(gw, "c")):equals(200) end
    expect(gw:get("/").status):equals(401)
  end)

  it("denies what the configuration names", function()
    local gw = gateway(nil, { ids = { "credential:laptop", "token:1" } })
    expect(status(gw, "c")):equals(401)
    expect(status(gw, "d")):equals(200)
    expect(status(gateway(nil, { ids = { "consumer:bob" } }), "d")):equals(401)
  end)

  it("refuses a list of nothing, and names of nothing", function()
    expect(function() gateway(nil, {}) end):raises "needs `redis`, `file` or `ids`"
    expect(function() gateway(nil, { ids = { "tokn:1" } }) end):raises 'found     "tokn:1"'
    expect(function() gateway(nil, { file = "none.txt" }) end):raises "a file that can be read"
  end)

  it("denies without Redis, unless that is allowed", function()
    local function without(on_down) return status(gateway({ main = { address = "127.0.0.1:1" } }, { redis = "main", on_down = on_down }), "c") end
    expect(without "deny"):equals(503)
    expect(without "allow"):equals(200)
  end)
end)
