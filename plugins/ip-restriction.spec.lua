local function status(conf, headers)
  conf[1] = "ip-restriction"
  local gw = test.gateway { use = { conf, "key-auth" }, consumer = { a = { credentials = { key = "k" } } }, to = test.upstream(200) }
  return gw:get("/", { headers = headers or { ["X-Api-Key"] = "k" } }).status
end

describe("ip-restriction", function()
  it("says from where a consumer may ask", function()
    local gw = test.gateway { consumer = { near = { credentials = { key = "n" } },
        far = { credentials = { key = "f" }, use = { { "ip-restriction", allow = { "10.0.0.0/8" } } } } },
      route = { all = { path = "/*", to = test.upstream(200), use = { "key-auth" } } } }
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "n" } }).status):equals(200)
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "f" } }).status):equals(403)
  end)

  it("allows and denies", function()
    expect(status { allow = { "127.0.0.1" } }):equals(200)
    expect(status { allow = { "127.0.0.0/8", "10.0.0.0/8" } }):equals(200)
    expect(status { allow = { "10.0.0.0/8" } }):equals(403)
    expect(status { deny = { "10.0.0.0/8" } }):equals(200)
    expect(status { deny = { "127.0.0.1/32" } }):equals(403)
    expect(status { allow = { "127.0.0.1" }, deny = { "127.0.0.0/24" }, status = 404 }):equals(404)
    expect(status { deny = { "::ffff:127.0.0.1/128" } }):equals(403)
  end)

  it("comes before authentication", function()
    expect(status({ deny = { "127.0.0.1" } }, {})):equals(403)
  end)

  it("refuses what is no network", function()
    expect(function() status { allow = { "10.0.0.0/33" } } end):raises "allow"
    expect(function() status {} end):raises "needs"
  end)
end)
