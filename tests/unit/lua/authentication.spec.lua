local consumers = {
  ann = { credentials = { key = { { key = "k1", id = "first" }, { key = "old", expires = "2020-01-01T00:00:00Z" }, { key = "off", disabled = true } },
    basic = { username = "ann", password = "p" } } },
  bob = { username = "Bob", custom_id = "42", groups = { "a", "b" }, credentials = { key = { { sha256 = tg.crypto.hex(tg.crypto.sha256 "k2") } } } },
  gone = { disabled = true, credentials = { key = "k3" } },
}

local function echo()
  return test.upstream(function(req)
    local found = {}
    for name, value in pairs(req.headers) do
      if name:find "^x%-con" or name:find "^x%-cred" or name:find "^x_con" then found[name] = value end
    end
    return 200, found
  end)
end

local function basic(text) return "Basic " .. tg.crypto.base64(text) end

describe("authentication", function()
  it("knows credentials that are hashed, and not those that are expired, disabled, or their own hash", function()
    local gw = test.gateway { consumer = consumers, to = echo(), use = { "key-auth" } }
    local function ask(key, more)
      local headers = { ["X-Api-Key"] = key }
      for name, value in pairs(more or {}) do headers[name] = value end
      return gw:get("/", { headers = headers })
    end
    expect(ask("k1"):json()):equals { ["x-consumer-id"] = "ann", ["x-credential-identifier"] = "first" }
    expect(ask("k2", { ["X-Consumer-Username"] = "root", ["X-Credential-Identifier"] = "x", ["X_Consumer_ID"] = "root" }):json()):equals {
      ["x-consumer-id"] = "bob", ["x-consumer-username"] = "Bob", ["x-consumer-custom-id"] = "42", ["x-consumer-groups"] = "a, b" }
    for _, key in ipairs { "old", "off", "k3", "sha256:" .. tg.crypto.hex(tg.crypto.sha256 "k2"), tg.crypto.hex(tg.crypto.sha256 "k2") } do
      expect(ask(key).status):equals(401)
    end
  end)

  it("takes the first method that knows the client, and says once what all of them want", function()
    local gw = test.gateway { consumer = consumers, to = echo(), use = { "key-auth", "basic-auth" } }
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "k1" } }).status):equals(200)
    expect(gw:get("/", { headers = { Authorization = basic "ann:p" } }).status):equals(200)
    expect(gw:get("/", { headers = { ["X-Api-Key"] = "wrong", Authorization = basic "ann:p" } }).status):equals(200)
    local none, wrong = gw:get "/", gw:get("/", { headers = { ["X-Api-Key"] = "wrong" } })
    expect(none.headers["www-authenticate"]):equals 'Key realm="tidegate", Basic realm="tidegate", charset="UTF-8"'
    expect(wrong.status):equals(401)
    expect(wrong.headers["www-authenticate"]):equals 'Key realm="tidegate", error="invalid_key", Basic realm="tidegate", charset="UTF-8"'
  end)

  it("may ask for all methods, or for some of them", function()
    local use = { "key-auth", "basic-auth" }
    local gw = test.gateway { consumer = consumers, route = {
      both = { path = "/both", to = echo(), use = use, auth = { all = { "key-auth", "basic-auth" } } },
      key = { path = "/key", to = echo(), use = use, auth = { any = { "key-auth" } } },
    } }
    local key, password = { ["X-Api-Key"] = "k1" }, { Authorization = basic "ann:p" }
    local two = { ["X-Api-Key"] = "k1", Authorization = basic "ann:p" }
    expect(gw:get("/both", { headers = two }).status):equals(200)
    expect(gw:get("/both", { headers = key }).status):equals(401)
    expect(gw:get("/both", { headers = password }).status):equals(401)
    expect(gw:get("/key", { headers = key }).status):equals(200)
    expect(gw:get("/key", { headers = password }).status):equals(401)
    expect(function()
      test.gateway { consumer = consumers, route = { r = { path = "/", to = echo(), use = use, auth = { all = { "jwt" } } } } }
    end):raises 'auth names "jwt"'
  end)
end)
