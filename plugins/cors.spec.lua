local function gateway(conf, status)
  conf[1] = "cors"
  return test.gateway { consumer = { a = { credentials = { key = "k" } } }, use = { conf, "key-auth" }, to = test.upstream(function()
    return status or 200, "x", { ["Access-Control-Allow-Origin"] = "https://evil.example", Vary = "Accept" }
  end) }
end

local function preflight(gw, origin, more)
  local headers = { Origin = origin, ["Access-Control-Request-Method"] = "PUT", ["Access-Control-Request-Headers"] = "x-a, x-b" }
  for name, value in pairs(more or {}) do headers[name] = value end
  return gw:options("/", { headers = headers })
end

describe("cors", function()
  it("answers preflights before anybody has to say who he is", function()
    local gw = gateway { origins = { "https://app.example.com" }, credentials = true, private_network = true }
    local r = preflight(gw, "https://app.example.com", { ["Access-Control-Request-Private-Network"] = "true" })
    expect(r.status):equals(204)
    expect(r.headers["access-control-allow-origin"]):equals "https://app.example.com"
    expect(r.headers["access-control-allow-credentials"]):equals "true"
    expect(r.headers["access-control-allow-methods"]):equals "GET, HEAD, PUT, PATCH, POST, DELETE"
    expect(r.headers["access-control-allow-headers"]):equals "x-a, x-b"
    expect(r.headers["access-control-max-age"]):equals "600"
    expect(r.headers["access-control-allow-private-network"]):equals "true"
    expect(r.headers.vary):equals "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    expect(preflight(gw, "https://evil.example").status):equals(403)
    expect(gw:options("/", { headers = { Origin = "https://app.example.com" } }).status):equals(401)
  end)

  it("marks all answers, also those of the gateway, and replaces what the upstream says", function()
    local gw = gateway { origins = { "https://app.example.com" }, expose = { "X-Total" } }
    local function ask(origin, key)
      return gw:get("/", { headers = { Origin = origin, ["X-Api-Key"] = key } })
    end
    local r = ask("https://app.example.com", "k")
    expect(r.status):equals(200)
    expect(r.headers["access-control-allow-origin"]):equals "https://app.example.com"
    expect(r.headers["access-control-expose-headers"]):equals "X-Total"
    expect(r.headers.vary):equals "Accept, Origin"
    r = ask("https://app.example.com")
    expect(r.status):equals(401)
    expect(r.headers["access-control-allow-origin"]):equals "https://app.example.com"
    r = ask("https://evil.example", "k")
    expect(r.headers["access-control-allow-origin"]):is_nil()
    expect(r.headers.vary):equals "Accept, Origin"
  end)

  it("knows origins exactly", function()
    local gw = gateway {
      origins = { "https://*.example.com", "http://localhost:3000", "https://one.test" }, origin_patterns = { "https://pr-[0-9]+[.]preview[.]test" } }
    local good = { "https://a.example.com", "https://a.b.example.com", "http://localhost:3000", "https://pr-12.preview.test", "https://ONE.test" }
    local bad = { "https://example.com", "http://a.example.com", "https://a.example.com.evil.test", "https://aexample.com",
      "http://localhost:3001", "null", "https://pr-12.preview.test.evil.test", "https://evil.test/https://pr-1.preview.test", "https://one.test:444" }
    for _, origin in ipairs(good) do expect(origin .. preflight(gw, origin).status):equals(origin .. 204) end
    for _, origin in ipairs(bad) do expect(origin .. preflight(gw, origin).status):equals(origin .. 403) end
  end)

  it("may be open to all, but never with credentials", function()
    local r = preflight(gateway { origins = { "*" } }, "https://any.example")
    expect(r.headers["access-control-allow-origin"]):equals "*"
    expect(r.headers["access-control-allow-credentials"]):is_nil()
    expect(function() gateway { origins = { "*" }, credentials = true } end):raises "name the origins"
    expect(function() gateway { origins = { "https://app.example.com/" } } end):raises "no origin"
    expect(function() gateway { origins = { "https://*" } } end):raises "star"
    expect(function() gateway {} end):raises "needs"
  end)
end)
