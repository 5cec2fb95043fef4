describe("rate-limit", function()
  it("lets `limit` requests pass, then answers 429 with Retry-After, and does not ask the upstream", function()
    local origin = test.upstream(200)
    local gw = test.gateway { to = origin, use = { { "rate-limit", limit = 3, per = "1h" } } }
    for left = 2, 0, -1 do
      local answer = gw:get "/"
      expect(answer.status):equals(200)
      expect(answer.headers["RateLimit-Policy"]):equals '"all";q=3;w=3600'
      expect(answer.headers["RateLimit"]):matches('"all";r=' .. left .. ";t=")
    end
    local refused = gw:get "/"
    expect(refused.status):equals(429)
    expect(tonumber(refused.headers["Retry-After"]) >= 1):is_true()
    expect(refused.headers["RateLimit"]):matches '"all";r=0;t='
    expect(origin.requests):equals(3)
  end)

  it("counts each value of the key by itself", function()
    local gw = test.gateway { use = { { "rate-limit", limit = 1, per = "1h", key = "${header.X-Tenant}" } } }
    expect(gw:get("/", { headers = { ["X-Tenant"] = "a" } }).status):equals(200)
    expect(gw:get("/", { headers = { ["X-Tenant"] = "b" } }).status):equals(200)
    expect(gw:get("/", { headers = { ["X-Tenant"] = "a" } }).status):equals(429)
  end)

  it("refuses a request that has nothing to count by", function()
    local gw = test.gateway { use = { { "rate-limit", limit = 1, key = "${header.X-Tenant}" } } }
    expect(gw:get("/").status):equals(400)
  end)

  it("begins anew with the next window", function()
    local gw = test.gateway { use = { { "rate-limit", limit = 1, per = "1s" } } }
    local passed = 0
    for _ = 1, 12 do
      if gw:get("/").status == 200 then passed = passed + 1 end
      test.sleep(0.2)
    end
    expect(passed >= 2 and passed <= 4):is_true()
  end)

  it("keeps its counters over a reload", function()
    local origin = test.upstream(200)
    local config = { to = origin, use = { { "rate-limit", limit = 2, per = "1h" } } }
    local gw = test.gateway(config)
    gw:get "/"
    config.use[2] = { "headers", response = { set = { ["X-New"] = "yes" } } }
    expect((gw:reload(config))):is_true()
    local answer = gw:get "/"
    expect(answer.headers["X-New"]):equals "yes"
    expect(answer.headers["RateLimit"]):matches "r=0"
    expect(gw:get("/").status):equals(429)
  end)

  it("tells it in the older form when asked to", function()
    local gw = test.gateway { use = { { "rate-limit", limit = 5, headers = { "x-ratelimit" } } } }
    local answer = gw:get "/"
    expect(answer.headers["X-RateLimit-Limit"]):equals "5"
    expect(answer.headers["X-RateLimit-Remaining"]):equals "4"
    expect(answer.headers["RateLimit"]):is_nil()
  end)

  it("counts in Redis for all gateways, and by itself when Redis is gone", function()
    local db = test.redis()
    local function gateway()
      local use = { "rate-limit", limit = 3, per = "1h", key = "all", group = "shared", store = "redis:main", timeout = "2s", nodes = 1 }
      return test.gateway { redis = { main = db }, use = { use } }
    end
    local one, two = gateway(), gateway()
    expect(one:get("/").status):equals(200)
    expect(two:get("/").headers["RateLimit"]):matches '"shared";r=1;t='
    expect(one:get("/").status):equals(200)
    expect(two:get("/").status):equals(429)
    expect(db:call("EXISTS", "tidegate:{all}:shared:sliding3600")):equals ":1"
    db:stop()
    expect(two:get("/").status):equals(429) -- it knows what was used
  end)

  it("says which field is wrong", function()
    local function refuses(fields, part)
      fields[1] = "rate-limit"
      expect(function() test.gateway { use = { fields } } end):raises(part)
    end
    refuses({}, "needs either `limit` or `limits`")
    refuses({ limit = 1, limits = { { limit = 1 } } }, "needs either `limit` or `limits`")
    refuses({ limit = 1, burst = 2 }, "`burst` is for gcra")
    refuses({ limit = 1, store = "redis:none" }, 'there is no redis "none"')
    refuses({ limits = { { limit = 1 }, { limit = 2 } } }, "two limits are sliding in 60 s")
    refuses({ limit = 0.5 }, "a number of at least 1")
    refuses({ limits = { { limit = 1, algorithm = "concurrency" }, { limit = 2 } } }, "concurrency stands by itself")
    refuses({ limit = 1, plan = "${consumer.id}" }, "there are none")
  end)

  it("refuses a limit that is none", function()
    expect(function() test.gateway { use = { { "rate-limit", limit = 0 } } } end):raises "limit\n    found     0"
  end)
end)
