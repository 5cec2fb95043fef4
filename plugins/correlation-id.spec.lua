describe("correlation-id", function()
  local function echo()
    return test.upstream(function(req) return 200, { id = req.headers["x-request-id"] } end)
  end

  it("makes an id, sends it upstream and back", function()
    local gw = test.gateway { to = echo(), use = { "correlation-id" } }
    local answer = gw:get "/"
    expect(answer.headers["X-Request-Id"]:find "^%x+%-%x+%-7%x+%-[89ab]%x+%-%x+$" ~= nil and #answer.headers["X-Request-Id"]):equals(36)
    expect(answer:json().id):equals(answer.headers["X-Request-Id"])
    expect(gw:get("/").headers["X-Request-Id"] == answer.headers["X-Request-Id"]):equals(false)
  end)

  it("keeps the id that the client sent", function()
    local gw = test.gateway { to = echo(), use = { "correlation-id" } }
    local answer = gw:get("/", { headers = { ["X-Request-Id"] = "abc-123" } })
    expect(answer:json().id):equals "abc-123"
    expect(answer.headers["X-Request-Id"]):equals "abc-123"
  end)

  it("replaces one that is no token or too long", function()
    local gw = test.gateway { to = echo(), use = { "correlation-id" } }
    for _, bad in ipairs { "two words", ("x"):rep(129), '"quoted"' } do
      expect(#gw:get("/", { headers = { ["X-Request-Id"] = bad } }):json().id):equals(36)
    end
  end)

  it("holds where there is no route, when it is the gateway's", function()
    local gw = test.gateway { global = { "correlation-id" }, route = { one = { path = "/one", to = echo() } } }
    local answer = gw:get("/other", { headers = { ["X-Request-Id"] = "abc" } })
    expect(answer.status):equals(404)
    expect(answer.headers["X-Request-Id"]):equals "abc"
  end)

  it("makes plain digits", function()
    local gw = test.gateway { to = echo(), use = { { "correlation-id", generator = "hex" } } }
    expect(gw:get("/"):json().id:find "^%x+$" ~= nil and #gw:get("/"):json().id):equals(32)
  end)

  it("makes UUIDs, under another name, without echo", function()
    local origin = test.upstream(function(req) return 200, { id = req.headers["x-correlation"] } end)
    local gw = test.gateway { to = origin, use = { { "correlation-id", header = "X-Correlation", generator = "uuid", echo = false } } }
    local answer = gw:get "/"
    expect(answer:json().id:match "^%x+%-%x+%-4%x+%-[89ab]%x+%-%x+$" ~= nil):is_true()
    expect(answer.headers["X-Correlation"]):is_nil()
  end)
end)
