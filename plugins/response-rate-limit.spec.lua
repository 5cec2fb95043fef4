describe("response-rate-limit", function()
  local limits = { videos = { limit = 3, per = "1h" }, images = { limit = 10, per = "1h" } }

  it("charges what the upstream says, and refuses when one limit is used up", function()
    local origin = test.upstream(function() return 200, "ok", { ["X-Cost"] = "videos=2, images=1, other=9" } end)
    local gw = test.gateway { to = origin, use = { { "response-rate-limit", limits = limits } } }
    local answer = gw:get "/"
    expect(answer.status):equals(200)
    expect(answer.headers["X-Cost"]):is_nil()
    expect(answer.headers["RateLimit"]):matches '"all.images";r=9;t='
    expect(answer.headers["RateLimit"]):matches '"all.videos";r=1;t='
    test.sleep(0.05)
    expect(gw:get("/").status):equals(200) -- the last one may cost more than is left
    test.sleep(0.05)
    local refused = gw:get "/"
    expect(refused.status):equals(429)
    expect(tonumber(refused.headers["Retry-After"]) > 1):is_true()
    expect(refused.body):matches '"all.videos"'
    expect(origin.requests):equals(2)
  end)

  it("takes a number alone for the only limit, and costs nothing that is not told", function()
    local cost = "4"
    local origin = test.upstream(function(req) return 200, "ok", req.target == "/free" and {} or { ["X-Units"] = cost } end)
    local use = { "response-rate-limit", limits = { units = { limit = 4 } }, header = "X-Units", keep_header = true }
    local gw = test.gateway { to = origin, use = { use } }
    for _ = 1, 8 do expect(gw:get("/free").status):equals(200) end
    expect(gw:get("/").headers["X-Units"]):equals "4"
    test.sleep(0.05)
    expect(gw:get("/free").status):equals(429)
  end)

  it("refuses a configuration without limits", function()
    expect(function() test.gateway { use = { { "response-rate-limit", limits = {} } } } end):raises "needs at least one"
  end)
end)
