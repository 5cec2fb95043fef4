describe("key-auth", function()
  local acme = { acme = { groups = { "gold", "beta" }, credentials = { key = "k1" } } }

  local function echo()
    return test.upstream(function(req)
      local headers = req.headers
      return 200, {
        target = req.target, key = headers["x-api-key"], id = headers["x-consumer-id"], groups = headers["x-consumer-groups"],
      }
    end)
  end

  it("knows the consumer by the key, tells the upstream, and hides the key", function()
    local gw = test.gateway { consumer = acme, to = echo(), use = { "key-auth" } }
    local answer = gw:get("/", { headers = { ["X-Api-Key"] = "k1" } })
    expect(answer.status):equals(200)
    expect(answer:json()):equals { target = "/", id = "acme", groups = "gold, beta" }
  end)

  it("answers 401 with a challenge for no key and for an unknown one, and does not ask the upstream", function()
    local origin = echo()
    local gw = test.gateway { consumer = acme, to = origin, use = { "key-auth" } }
    local none, wrong = gw:get "/", gw:get("/", { headers = { ["X-Api-Key"] = "k" } })
    expect(none.status):equals(401)
    expect(none.headers["WWW-Authenticate"]):equals 'Key realm="tidegate"'
    expect(wrong.status):equals(401)
    expect(wrong.headers["WWW-Authenticate"]):equals 'Key realm="tidegate", error="invalid_key"'
    expect(origin.requests):equals(0)
  end)

  it("takes identity headers from clients, also on routes without it", function()
    local origin = echo()
    local gw = test.gateway { consumer = acme, route = {
      open = { path = "/open", to = origin }, closed = { path = "/closed", to = origin, use = { "key-auth" } },
    } }
    local forged = { headers = { ["X-Consumer-ID"] = "root", ["X-Consumer-Groups"] = "admin" } }
    expect(gw:get("/open", forged):json()):equals { target = "/open" }
  end)

  it("reads the key from the query when asked to, and hides it there", function()
    local gw = test.gateway { consumer = acme, to = echo(), use = { { "key-auth", query = "apikey" } } }
    local answer = gw:get "/x?a=1&apikey=k1"
    expect(answer.status):equals(200)
    expect(answer:json().target):equals "/x?a=1"
  end)

  it("hides the key wherever it came, and each of several", function()
    local gw = test.gateway { consumer = acme, to = test.upstream(function(req)
      return 200, { target = req.target, cookie = req.headers.cookie, key = req.headers["x-api-key"] }
    end), use = { { "key-auth", query = "apikey", cookie = "apikey" } } }
    for _, headers in ipairs { { ["X-Api-Key"] = "k1", Cookie = "a=1; apikey=k1" }, { Cookie = "a=1; apikey=k1" } } do
      expect(gw:get("/x?apikey=k1&a=1&%61pikey=k1", { headers = headers }):json()):equals { target = "/x?a=1", cookie = "a=1" }
    end
  end)

  it("lets the anonymous pass where authentication is optional", function()
    local gw = test.gateway { consumer = acme, route = {
      all = { path = "/*", to = echo(), auth = "optional", use = { "key-auth" } },
    } }
    expect(gw:get("/").status):equals(200)
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "bad" } }).status):equals(401)
  end)

  it("refuses two consumers with the same key", function()
    local twins = { a = { credentials = { key = "same" } }, b = { credentials = { key = "same" } } }
    expect(function() test.gateway { consumer = twins, use = { "key-auth" } } end):raises "have the same key"
  end)
end)
