local function status(conf, headers)
  conf[1] = "ip-restriction"
  local gw = test.gateway { use = { conf, "key-auth" }, consumer = { a = { credentials = { key = "k" } } }, to = test.upstream(200) }
  return gw:get("/", { headers = headers or { ["X-Api-Key"] = "k" } }).status
end

describe("ip-restriction", function()
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
