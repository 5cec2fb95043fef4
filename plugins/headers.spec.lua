describe("headers", function()
  local function echo()
    return test.upstream(function(req) return 200, req.headers, { Server = "origin", ["X-Old"] = "1" } end)
  end

  it("removes, renames, sets and adds fields of the request", function()
    local gw = test.gateway { to = echo(), use = { { "headers", request = {
      remove = { "X-Secret" }, rename = { ["X-From"] = "X-To" }, set = { ["X-Path"] = "${path}" }, add = { ["X-Tag"] = "b" },
    } } } }
    local seen = gw:get("/a", { headers = { ["X-Secret"] = "s", ["X-From"] = "v", ["X-Path"] = "forged", ["X-Tag"] = "a" } }):json()
    expect(seen["x-secret"]):is_nil()
    expect(seen["x-from"]):is_nil()
    expect(seen["x-to"]):equals "v"
    expect(seen["x-path"]):equals "/a"
    expect(seen["x-tag"]):equals "b"
  end)

  it("changes the fields of the response", function()
    local gw = test.gateway { to = echo(), use = { { "headers", response = {
      remove = { "Server" }, rename = { ["X-Old"] = "X-New" }, set = { ["X-By"] = "tidegate" },
    } } } }
    local headers = gw:get("/").headers
    expect(headers["Server"]):is_nil()
    expect(headers["X-Old"]):is_nil()
    expect(headers["X-New"]):equals "1"
    expect(headers["X-By"]):equals "tidegate"
  end)

  it("leaves a field alone when a variable of its value is missing", function()
    local gw = test.gateway { to = echo(), use = { { "headers", request = { set = { ["X-Who"] = "${consumer.id}" } } } } }
    expect(gw:get("/", { headers = { ["X-Who"] = "me" } }):json()["x-who"]):equals "me"
  end)

  it("refuses names that are none", function()
    expect(function() test.gateway { use = { { "headers", request = { set = { ["bad name"] = "x" } } } } } end):raises "is no header name"
  end)

  it("changes what other plugins and the gateway itself answer, in the order of the phases", function()
    local function set(value) return { "headers", response = { set = { ["X-A"] = value } } } end
    local remove = { "headers", response = { remove = { "X-A" } } }
    local gw = test.gateway {
      upstream = { dead = { targets = { "http://127.0.0.1:1" } } },
      route = {
        first = { path = "/first", to = echo(), use = { set "1", remove } },
        last = { path = "/last", to = echo(), use = { remove, set "1" } },
        between = { path = "/between", to = echo(), use = { set "2", set "${path}", set "3" } },
        dead = { path = "/dead", to = "dead", use = { set "1" } },
        refused = { path = "/refused", to = echo(), use = { set "1", "key-auth" } },
      },
      global = { { "headers", response = { set = { ["X-Everywhere"] = "yes" } } } },
    }
    gw:expect_errors()
    expect(gw:get("/first").headers["X-A"]):equals "1"
    expect(gw:get("/last").headers["X-A"]):is_nil()
    expect(gw:get("/between").headers["X-A"]):equals "2"
    expect(gw:get("/dead").headers["X-A"]):equals "1"
    expect(gw:get("/refused").headers["X-A"]):equals "1"
    expect(gw:get("/none").status):equals(404)
    expect(gw:get("/none").headers["X-Everywhere"]):equals "yes"
    expect(gw:get("/last").headers["X-Everywhere"]):equals "yes"
  end)

  it("answers 500 where a response cannot hold so many", function()
    local set = {}
    for i = 1, 1000 do set["X-" .. i] = "v" end
    local gw = test.gateway { to = echo(), use = { { "headers", response = { set = set } } } }
    gw:expect_errors()
    local answer = gw:get "/"
    expect(answer.status):equals(500)
    expect(answer.headers["X-1"]):is_nil()
  end)

  it("refuses what cannot be changed when it is loaded", function()
    expect(function() test.gateway { use = { { "headers", response = { set = { Connection = "close" } } } } } end):raises "cannot be set"
    expect(function()
      test.gateway { use = { { "headers", request = { rename = { ["Content-Length"] = "X-Length" } } } } }
    end):raises "cannot be renamed"
  end)

  it("never lets a value break a line", function()
    local gw = test.gateway { to = echo(), use = { { "headers", request = { set = { ["X-Q"] = "${query.q}" } } } } }
    gw:expect_errors()
    local answer = gw:get "/?q=a%0d%0aX-Evil:%20yes"
    expect(answer.status):equals(500)
    expect(answer.body):equals '{"title":"Internal Server Error","status":500,"detail":"a policy failed"}\n'
  end)
end)
