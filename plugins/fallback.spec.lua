local function gateway(chain, more)
  local upstream, options = test.upstream(function(req)
    if req.headers["x-mood"] == "bad" then return 503, "no" end
    return 200, "fresh " .. req.target, { ["X-Kept"] = "yes", ["Cache-Control"] = req.headers["x-control"] }
  end), { "fallback", chain = chain, dict = "copies", refresh = 0 }
  for name, value in pairs(more or {}) do options[name] = value end
  return test.gateway { dict = { copies = { size = "1MiB" } }, route = { all = { path = "/*", to = upstream, use = { options } } } }
end

local BAD = { headers = { ["X-Mood"] = "bad" } }

describe("fallback", function()
  it("gives a kept copy of the same address, and tells so", function()
    local gw = gateway { { stale = "1m" } }
    expect(gw:get("/a", BAD).status):equals(503)
    expect(gw:get("/a").headers["x-fallback"]):is_nil()
    local r = gw:get("/a", BAD)
    expect(r.status):equals(200)
    expect(r.body):equals "fresh /a"
    expect(r.headers["x-fallback"]):equals "stale"
    expect(r.headers["x-kept"]):equals "yes"
    expect(tonumber(r.headers.age) < 5):is_true()
    expect(gw:get("/b", BAD).status):equals(503)
  end)

  it("keeps nothing that is somebody's own", function()
    local gw = gateway { { stale = "1m" } }
    gw:get("/a", { headers = { Authorization = "Bearer x" } })
    gw:get("/b", { headers = { Cookie = "a=b" } })
    gw:get("/c", { headers = { ["X-Control"] = "private" } })
    gw:get("/d", { headers = { ["X-Control"] = "no-store" } })
    for _, path in ipairs { "/a", "/b", "/c", "/d" } do expect(gw:get(path, BAD).status):equals(503) end
    gw:get("/e")
    expect(gw:get("/e", { headers = { ["X-Mood"] = "bad", Authorization = "Bearer x" } }).status):equals(503)
  end)

  it("keeps nothing that is too large", function()
    local gw = gateway({ { stale = "1m" } }, { max_body = 4 })
    gw:get("/a")
    expect(gw:get("/a", BAD).status):equals(503)
  end)

  it("goes along its chain", function()
    local gw = gateway { { stale = "1m" }, { status = 200, body = "fixed" } }
    local r = gw:get("/x", BAD)
    expect(r.body):equals "fixed"
    expect(r.headers["x-fallback"]):equals "static"
  end)

  it("asks another upstream", function()
    local other = test.upstream(function(req) return 200, "other " .. req.target .. " " .. tostring(req.headers["x-mood"]) end)
    local bad = test.upstream(function() return 502, "no" end)
    local gw = test.gateway { upstream = { other = other }, route = { all = { path = "/*", to = bad,
      use = { { "fallback", chain = { { upstream = "other" }, { status = 503, body = "later" } } } } } } }
    local r = gw:get("/p?q=1", BAD)
    expect(r.body):equals "other /p?q=1 bad"
    expect(r.headers["x-fallback"]):equals "upstream"
    expect(gw:post("/p", "x").body):equals "later"
  end)

  it("needs a dictionary for copies", function()
    expect(function() gateway({ { stale = "1m" } }, { dict = false }) end):raises "dict"
  end)
end)
