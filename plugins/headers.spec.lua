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

  it("never lets a value break a line", function()
    local gw = test.gateway { to = echo(), use = { { "headers", request = { set = { ["X-Q"] = "${query.q}" } } } } }
    gw:expect_errors()
    local answer = gw:get "/?q=a%0d%0aX-Evil:%20yes"
    expect(answer.status):equals(500)
    expect(answer.body):equals '{"title":"Internal Server Error","status":500,"detail":"a policy failed"}\n'
  end)
end)
