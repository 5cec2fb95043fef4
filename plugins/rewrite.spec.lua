local function gateway(conf, route)
  local echo = test.upstream(function(req)
    return 200, req.method .. " " .. req.target .. " " .. (req.headers["Host"] or req.headers["host"] or "")
  end)
  conf[1] = "rewrite"
  return test.gateway { route = { all = { path = route or "/*", to = echo, use = { conf } } } }
end

local function target(gw, path, method) return gw:request(method or "GET", path, {}).body:match "^%S+ (%S+)" end

describe("rewrite", function()
  it("strips and adds prefixes of whole segments", function()
    local gw = gateway { strip_prefix = { "/api/v1", "/api" }, add_prefix = "/internal" }
    expect(target(gw, "/api/v1/orders?x=1")):equals "/internal/orders?x=1"
    expect(target(gw, "/api")):equals "/internal/"
    expect(target(gw, "/apix")):equals "/internal/apix"
    expect(target(gw, "/api/%41%2Db")):equals "/internal/A-b"
  end)

  it("replaces by the first rule that matches", function()
    local gw = gateway { regex = {
      { match = [[^/users/(\d+)/orders/?$]], to = "/orders?user=$1" },
      { match = [[(?i)^/OLD/(?<rest>.*)]], to = "/new/${rest}" }, { match = "b", to = "c" },
    } }
    expect(target(gw, "/users/42/orders?limit=5")):equals "/orders?user=42&limit=5"
    expect(target(gw, "/users/42/orders")):equals "/orders?user=42"
    expect(target(gw, "/old/x/b")):equals "/new/x/b"
    expect(target(gw, "/abb")):equals "/acb"
    expect(target(gw, "/a%20c")):equals "/a%20c"
    expect(target(gw, "/b%2541%252e")):equals "/c%2541%252e"
  end)

  it("takes a template", function()
    local gw = gateway({ path = "/users/${params.id}/${query.part}" }, "/u/{id}")
    expect(target(gw, "/u/5?part=a%20b%2Fc%3F"):match "^[^?]*"):equals "/users/5/a%20b%2Fc%3F"
    expect(gw:get("/u/5").status):equals(400)
    expect(gw:get("/u/5?part=..").status):equals(400)
  end)

  it("never lets a capture climb", function()
    local gw = gateway { regex = { { match = [[^/x\.(.*)$]], to = "/files/$1" } } }
    expect(target(gw, "/x.y")):equals "/files/y"
    expect(gw:get("/x.../etc").status):equals(400)
  end)

  it("changes queries, host and method", function()
    local gw = gateway { query = { remove = { "debug" }, rename = { q = "query" }, set = { who = "${header.X-Who}" }, add = { limit = "10" } },
      host = "${header.X-Host}", method = "POST" }
    local answer = gw:get("/?debug=1&q=a&limit=3", { headers = { ["X-Who"] = "a b", ["X-Host"] = "inner.example" } })
    expect(answer.body):matches "POST /?"
    expect(answer.body):matches "inner.example"
    for _, part in ipairs { "query=a", "who=a%20b", "limit=3" } do expect(answer.body):matches(part) end
    expect(answer.body:find("debug", 1, true)):is_nil()
    expect(gw:get("/", { headers = { ["X-Host"] = "a b" } }).status):equals(400)
  end)

  it("fails closed when a pattern takes too long", function()
    local gw = gateway { regex = { { match = "^/(a+)+$", to = "/" } } }
    gw:expect_errors()
    expect(gw:get("/" .. ("a"):rep(5000) .. "!").status):equals(500)
    expect(target(gw, "/b")):equals "/b"
  end)

  it("names what is wrong with its configuration", function()
    for message, conf in pairs {
      ["missing closing parenthesis"] = { regex = { { match = "(", to = "/" } } }, ["no beginning of a path"] = { add_prefix = "x" },
      ["one way to the new path"] = { path = "/", add_prefix = "/x" }, ["a $ without a group"] = { regex = { { match = "a", to = "$1" } } },
    } do
      local ok, err = pcall(gateway, conf)
      expect(ok):equals(false)
      expect(err):matches(message)
    end
  end)
end)
