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

  it("moves and appends, in an answer and in the whole", function()
    local a = upstream '{"items":[{"d":{"price":1}},{"d":{"price":2}}],"more":[3],"all":[1,2],"x":{"y":"z"},"up":{"in":{"it":9},"was":1}}'
    local b = upstream '{"list":[4,5]}'
    local gw = test.gateway { upstream = { a = a, b = b }, route = { home = { path = "/", handler = { "aggregate",
      calls = {
        one = { upstream = "a",
          move = { { from = "items.d.price", to = "items.price" }, { from = "x.y", to = "deep.er.y" }, { from = "no", to = "x.no" },
            { from = "up.in.it", to = "up" } },
          append = { { from = "more", to = "all" } }, deny = { "unknown" } },
        two = { upstream = "b" } },
      append = { { from = "two.list", to = "one.all" } }, move = { { from = "two", to = "rest" } } } } } }
    expect(gw:get("/"):json()):equals {
      one = { items = { { d = {}, price = 1 }, { d = {}, price = 2 } }, all = { 1, 2, 3 }, x = {}, deep = { er = { y = "z" } }, up = 9 },
      rest = { list = { 4, 5 } } }
  end)

  it("changes no fallback, and looks into what a loop has found", function()
    local a, item, broken = upstream '{"ids":[1,2]}', upstream '{"v":{"w":1}}', upstream("no", 500)
    local gw = test.gateway { upstream = { a = a, item = item, broken = broken }, route = { home = { path = "/", handler = { "aggregate", calls = {
      a = { upstream = "a" }, list = { upstream = "item", path = "/${item}", each = "answers.a.ids" },
      none = { upstream = "broken", fallback = { all = { 0 } } } },
      append = { { from = "a.ids", to = "none.all" } }, move = { { from = "list.v.w", to = "list.w" } } } } } }
    for _ = 1, 3 do
      expect(gw:get("/"):json()):equals { a = {}, list = { { v = {}, w = 1 }, { v = {}, w = 1 } }, none = { all = { 0, 1, 2 } } }
    end
  end)

  it("leaves what cannot be moved where it is, and names a rule that moves something into itself", function()
    local a = upstream '{"n":1,"list":[{"v":1}],"m":2}'
    local gw = test.gateway { upstream = { a = a }, route = { home = { path = "/", handler = { "aggregate", calls = {
      one = { upstream = "a", group = "", move = { { from = "m", to = "n.m" }, { from = "list.v", to = "v" } } } } } } } }
    expect(gw:get("/"):json()):equals { n = 1, list = { { v = 1 } }, m = 2 }
    expect(function()
      test.gateway { upstream = { a = a }, route = { home = { path = "/", handler = { "aggregate", calls = {
        one = { upstream = "a", move = { { from = "a.b", to = "a.b.c" } } } } } } } }
    end):raises "calls.one.move[1].to"
    expect(function()
      test.gateway { upstream = { a = a }, route = { home = { path = "/", handler = { "aggregate", calls = {
        one = { upstream = "a", move = { { from = "a.b", to = "a..b" } } } } } } } }
    end):raises "calls.one.move[1].to"
  end)

  it("reads XML and text", function()
    local feed = upstream '<rss><channel><item id="1"><title>a &amp; b</title></item><item id="2"><title>c</title></item></channel></rss>'
    local note, wrong, bytes = upstream 'he said "no"', upstream "<a><b></a>", upstream "\255\254"
    local gw = test.gateway { upstream = { feed = feed, note = note, wrong = wrong, bytes = bytes }, route = { home = { path = "/",
      handler = { "aggregate", calls = {
        news = { upstream = "feed", format = "xml", target = "rss.channel.item", deny = { "@id" } }, note = { upstream = "note", format = "text" },
        wrong = { upstream = "wrong", format = "xml", optional = true }, bytes = { upstream = "bytes", format = "text", optional = true } } } } } }
    local answer = gw:get "/"
    expect(answer:json()):equals { news = { { title = "a & b" }, { title = "c" } }, note = 'he said "no"', bytes = "\239\191\189\239\191\189" }
    expect(answer.headers["X-Missing"]):equals "wrong"
  end)

  it("sends a mirrored call when the others are over, and does not wait for its answer", function()
    local users, mirrored = upstream '{"id":7}', test.upstream(500)
    local gw = test.gateway { upstream = { users = users, mirrored = mirrored }, route = { home = { path = "/", handler = { "aggregate", calls = {
      user = { upstream = "users" },
      copy = { upstream = "mirrored", mirror = true, path = "/seen/${answers.user.id}" } } } } } }
    local answer = gw:get "/"
    expect(answer:json()):equals { user = { id = 7 } }
    expect(answer.headers["X-Completed"]):equals "true"
    for _ = 1, 40 do
      if mirrored.requests > 0 then break end
      test.sleep(0.05)
    end
    expect(mirrored.requests):equals(1)
  end)

  it("adds what is static as it is told", function()
    local users, broken = upstream '{"id":1}', upstream("no", 500)
    local function answer(upstream_of_ads, when)
      local gw = test.gateway { upstream = { users = users, ads = upstream_of_ads }, route = { home = { path = "/", handler = { "aggregate", calls = {
        user = { upstream = "users" }, ads = { upstream = "ads", optional = true, hidden = true } },
        static = { data = { ads = { "none" }, v = 2 }, when = when } } } } }
      return gw:get("/"):json()
    end
    expect(answer(broken, "incomplete")):equals { user = { id = 1 }, ads = { "none" }, v = 2 }
    expect(answer(users, "incomplete")):equals { user = { id = 1 } }
    expect(answer(users, "complete")):equals { user = { id = 1 }, ads = { "none" }, v = 2 }
    expect(answer(broken, "complete")):equals { user = { id = 1 } }
    expect(answer(broken)):equals { user = { id = 1 }, ads = { "none" }, v = 2 }
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
