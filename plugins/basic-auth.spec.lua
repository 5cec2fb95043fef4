local function echo()
  return test.upstream(function(req)
    return 200, { id = req.headers["x-consumer-id"], credential = req.headers["x-credential-identifier"], auth = req.headers.authorization }
  end)
end

local function basic(text) return { headers = { Authorization = "Basic " .. tg.crypto.base64(text) } } end

describe("basic-auth", function()
  local users = {
    ann = { credentials = { basic = { username = "ann", password = assert(tg.crypto.password_hash("right", { cost = 5 })) } } },
    bob = { username = "Bob", credentials = { basic = { password = "plain" } } },
    old = { credentials = { basic = { password = "x", expires = "2020-01-01T00:00:00Z" } } },
  }

  it("knows users by hashed and by plain passwords, and hides them", function()
    local gw = test.gateway { consumer = users, to = echo(), use = { "basic-auth" } }
    for _ = 1, 2 do
      expect(gw:get("/", basic "ann:right"):json()):equals { id = "ann", credential = "ann" }
    end
    expect(gw:get("/", basic "Bob:plain"):json()):equals { id = "bob", credential = "Bob" }
    for _, text in ipairs { "ann:wrong", "ann:", ":", "nobody:right", "Bob:plain2", "old:x", "ann", "ann:right\1" } do
      local r = gw:get("/", basic(text))
      expect(r.status):equals(401)
      expect(r.headers["www-authenticate"]):equals 'Basic realm="tidegate", charset="UTF-8"'
    end
    expect(gw:get("/", { headers = { Authorization = "Basic !!!" } }).status):equals(401)
    expect(gw:get("/").status):equals(401)
  end)

  it("does not let passwords be tried for long", function()
    local gw = test.gateway { consumer = users, to = echo(), use = { { "basic-auth", attempts = 3 } } }
    for _ = 1, 3 do expect(gw:get("/", basic "ann:wrong").status):equals(401) end
    local r = gw:get("/", basic "ann:right")
    expect(r.status):equals(429)
    expect(tonumber(r.headers["retry-after"]) >= 1):is_true()
    expect(gw:get("/", basic "Bob:plain").status):equals(200)
  end)

  it("hashes for an unknown user, too", function()
    local gw = test.gateway { consumer = { bob = users.bob }, to = echo(), use = { "basic-auth" } }
    expect(gw:get("/", basic "nobody:x").status):equals(401)
  end)

  it("knows hashes of Argon2, and none that is broken or costs too much", function()
    local tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
    local function with(hash)
      return test.gateway { consumer = { ann = { credentials = { basic = { password = hash } } } }, to = echo(), use = { "basic-auth" } }
    end
    local gw = with("$argon2id$v=19$m=256,t=2,p=1" .. tail)
    for _ = 1, 2 do expect(gw:get("/", basic "ann:password").status):equals(200) end
    for _, text in ipairs { "ann:Password", "ann:password ", "ann:", "bob:password" } do expect(gw:get("/", basic(text)).status):equals(401) end
    for head, problem in pairs {
      ["$argon2id$v=19$m=1048576,t=2,p=1"] = "costs too much", ["$argon2id$v=19$m=65536,t=100,p=1"] = "costs too much",
      ["$argon2d$v=19$m=256,t=2,p=1"] = "unknown kind", ["$2b$12"] = "malformed",
    } do
      expect(function() with(head .. tail) end):raises(problem)
    end
  end)

  it("refuses two users of one name", function()
    local same = { credentials = { basic = { username = "x", password = "1" } } }
    local twins = { a = same, b = same }
    expect(function() test.gateway { consumer = twins, use = { "basic-auth" } } end):raises "have the same user name"
  end)
end)
