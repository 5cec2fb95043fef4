describe("quota", function()
  local function routes(origin, fields)
    fields.group, fields.redis, fields.key, fields.timeout = "api", "main", "${header.X-Id}", "2s"
    local use, usage = { "quota" }, { "quota" }
    for key, value in pairs(fields) do use[key], usage[key] = value, value end
    usage.key = "${params.id}"
    return { api = { path = "/api", to = origin, use = { use } }, usage = { path = "/usage/{id}", handler = usage } }
  end

  it("refuses what is beyond the limit until the period ends, and tells the usage", function()
    local origin = test.upstream(200)
    local gw = test.gateway { redis = { main = test.redis() }, route = routes(origin, { limit = 2, period = "year" }) }
    local function ask(id) return gw:get("/api", { headers = { ["X-Id"] = id } }) end
    expect(ask("a").headers["RateLimit"]):matches '"api";r=1;t='
    expect(ask("a").status):equals(200)
    local refused = ask "a"
    expect(refused.status):equals(429)
    expect(tonumber(refused.headers["Retry-After"]) >= 1):is_true()
    expect(refused:json().used):equals(2)
    expect(ask("b").status):equals(200)
    expect(origin.requests):equals(3)
    local usage = gw:get("/usage/a"):json()
    expect(usage.used):equals(2)
    expect(usage.remaining):equals(0)
    expect(usage.from):matches "-01-01T00:00:00"
  end)

  it("is reset and set by its handler", function()
    local gw = test.gateway { redis = { main = test.redis() }, route = routes(test.upstream(200), { limit = 1 }) }
    local function ask() return gw:get("/api", { headers = { ["X-Id"] = "a" } }).status end
    expect(ask()):equals(200)
    expect(ask()):equals(429)
    expect(gw:delete("/usage/a").status):equals(200)
    expect(ask()):equals(200)
    expect(gw:put("/usage/a", { body = { used = 0.5 } }):json().remaining):equals(0.5)
    expect(ask()):equals(429)
  end)

  it("lets pass or refuses when Redis is away, as it is told", function()
    local db = test.redis()
    local open = test.gateway { redis = { main = db }, route = routes(test.upstream(200), { limit = 1 }) }
    local closed = test.gateway { redis = { main = db }, route = routes(test.upstream(200), { limit = 1, on_down = "deny" }) }
    db:stop()
    for _ = 1, 3 do expect(open:get("/api", { headers = { ["X-Id"] = "a" } }).status):equals(200) end
    expect(closed:get("/api", { headers = { ["X-Id"] = "a" } }).status):equals(503)
  end)

  it("refuses a request that has nothing to count by", function()
    local gw = test.gateway { redis = { main = test.redis() }, route = routes(test.upstream(200), { limit = 1 }) }
    expect(gw:get("/api").status):equals(400)
  end)
end)
