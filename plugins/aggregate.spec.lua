local function upstream(body, status)
  return test.upstream(function() return status or 200, body end)
end

describe("aggregate", function()
  it("puts the answers under their names, byte by byte", function()
    local users, orders = upstream '{"id":1234567890123456789}', upstream "[1, 2]"
    local gw = test.gateway { upstream = { users = users, orders = orders }, route = { home = { path = "/", handler = { "aggregate", calls = {
      user = { upstream = "users", path = "/u" }, orders = { upstream = "orders", path = "/o/${answers.user.id}" } } } } } }
    local answer = gw:get "/"
    expect(answer.status):equals(200)
    expect(answer.body):matches '"user":{"id":1234567890123456789}'
    expect(answer.body):matches '"orders":[1, 2]'
    expect(answer.headers["X-Completed"]):equals "true"
  end)

  it("says what is missing", function()
    local users, broken = upstream '{"id":1}', upstream("no", 500)
    local gw = test.gateway { upstream = { users = users, broken = broken }, route = { home = { path = "/", handler = { "aggregate", calls = {
      user = { upstream = "users" }, ads = { upstream = "broken", optional = true } } } } } }
    local answer = gw:get "/"
    expect(answer:json()):equals { user = { id = 1 } }
    expect(answer.headers["X-Missing"]):equals "ads"
  end)

  it("fails as a whole when a needed one does", function()
    local users, broken = upstream '{"id":1}', upstream("no", 500)
    local gw = test.gateway { upstream = { users = users, broken = broken }, route = { home = { path = "/", handler = { "aggregate", calls = {
      user = { upstream = "users" }, orders = { upstream = "broken" } } } } } }
    expect(gw:get("/").status):equals(502)
  end)
end)
