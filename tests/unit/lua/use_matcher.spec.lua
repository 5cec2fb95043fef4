-- `when` of a use as what a request must have.

local function gateway(when)
  return test.gateway { to = test.upstream(200), use = { { "headers", response = { set = { ["X-Met"] = "yes" } }, when = when } } }
end

local function meets(gw, method, path, headers) return gw:request(method, path, { headers = headers }).headers["X-Met"] == "yes" end

describe("when", function()
  it("asks for paths as a route does", function()
    local gw = gateway { path = { "/a/*", "/b/{id}" } }
    expect(meets(gw, "GET", "/a")):equals(true)
    expect(meets(gw, "GET", "/a/b/c")):equals(true)
    expect(meets(gw, "GET", "/x/../a/b")):equals(true)
    expect(meets(gw, "GET", "/b/1?x=/a")):equals(true)
    expect(meets(gw, "GET", "/b/1/2")):equals(false)
    expect(meets(gw, "GET", "/ab")):equals(false)
  end)

  it("asks for all that it names", function()
    local gw = gateway { methods = { "GET", "PUT" }, headers = { ["x-kind"] = "1" }, query = { q = "a b" }, scheme = "http", host = { "*.test" } }
    local met = { ["X-Kind"] = "1", Host = "some.test" }
    expect(meets(gw, "GET", "/?q=a+b", met)):equals(true)
    expect(meets(gw, "HEAD", "/?q=a%20b", met)):equals(true)
    expect(meets(gw, "POST", "/?q=a+b", met)):equals(false)
    expect(meets(gw, "GET", "/?q=a", met)):equals(false)
    expect(meets(gw, "GET", "/?q=a+b", { ["X-Kind"] = "2", Host = "some.test" })):equals(false)
    expect(meets(gw, "GET", "/?q=a+b", { Host = "some.test" })):equals(false)
    expect(meets(gw, "GET", "/?q=a+b", { ["X-Kind"] = "1", Host = "test" })):equals(false)
    expect(meets(gateway { scheme = "https" }, "GET", "/")):equals(false)
  end)

  it("sees a path as the router does, with the prefix that the route takes off", function()
    local function use(path) return { "headers", response = { add = { ["X-Met"] = path } }, when = { path = path } } end
    local gw = test.gateway { upstream = { u = test.upstream(200) }, global = { use "/api/a/*" },
      route = { r = { path = "/api/*", strip_path = true, to = "u", use = { use "/api/{any}/b", use "/a/*" } } } }
    local met = gw:get("/api/a/b").headers["X-Met"]
    expect(met):matches "/api/a/*"
    expect(met):matches "/api/{any}/b"
    expect(#met):equals(#"/api/a/*, /api/{any}/b") -- and nothing else
    expect(gw:get("/api/%61").headers["X-Met"]):equals "/api/a/*"
  end)

  it("is refused, with the place, when it is none", function()
    for _, case in ipairs {
      { {}, "use[1]\n    found     a table" }, { "GET", "what a request must have" }, { { pth = "/a" }, 'did you mean "path"?' },
      { { path = "a" }, "when › path" },
      { { path = "/{a" }, "a parameter is a whole segment" }, { { host = { "a:1" } }, "when › host" },
      { { headers = { ["a b"] = "c" } }, "a header name" },
      { { methods = { "get" } }, "when › methods" },
    } do
      expect(function() gateway(case[1]) end):raises(case[2])
    end
  end)
end)
