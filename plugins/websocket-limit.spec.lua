local HELLO = { Upgrade = "websocket", ["Sec-WebSocket-Version"] = "13", ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==" }

describe("websocket-limit", function()
  local function refuses(use, words)
    local ok, message = pcall(test.gateway, { use = { use } })
    expect(ok):equals(false)
    expect(tostring(message)):matches(words)
  end

  it("does not count requests that ask for no WebSocket", function()
    local gw = test.gateway { use = { { "websocket-limit", consumer_connections = 1 } } }
    for _ = 1, 3 do expect(gw:get("/").status):equals(200) end
  end)

  it("lets a place go when its connection was refused by the upstream", function()
    local origin = test.upstream(403)
    local gw = test.gateway { route = { all = { path = "/*", to = origin, upgrade = { "websocket" },
      use = { { "websocket-limit", consumer_connections = 1 } } } } }
    for _ = 1, 3 do expect(gw:get("/", { headers = HELLO }).status):equals(403) end
    expect(origin.requests):equals(3)
  end)

  it("refuses kinds that are none, and rates of nothing", function()
    refuses({ "websocket-limit", types = { "close" } }, 'found     "close"')
    refuses({ "websocket-limit", messages = 0 }, "found     0")
    refuses({ "websocket-limit", over = "later" }, 'one of "close", "drop", "wait"')
  end)
end)
