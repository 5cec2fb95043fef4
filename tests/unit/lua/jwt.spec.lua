local PAYLOAD = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

describe("tg.jwt", function()
  it("verifies the examples of RFC 7515", function()
    local hs = { kty = "oct", k = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" }
    local es = { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }
    local tokens = {
      HS256 = { hs, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." .. PAYLOAD .. ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" },
      ES256 = { es, "eyJhbGciOiJFUzI1NiJ9." .. PAYLOAD .. ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q" },
    }
    for alg, case in pairs(tokens) do
      local key = assert(tg.crypto.key(case[1]))
      local claims = assert(tg.jwt.verify(case[2], { keys = key, alg = { alg }, leeway = 1e9 }))
      expect(claims.iss):equals "joe"
      local _, err = tg.jwt.verify(case[2], { keys = key, alg = { "RS256" } })
      expect(err.code):equals "alg"
    end
  end)

  it("never takes a public key for a shared secret", function()
    local es = tg.crypto.key { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
      y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }
    local secret = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    local token = tg.jwt.sign({ sub = "x" }, { key = secret, alg = "HS256" })
    local _, err = tg.jwt.verify(token, { keys = es, alg = { "ES256", "HS256" } })
    expect(err.code):equals "key"
  end)

  it("chooses among keys by kid", function()
    local function key(letter, kid) return tg.crypto.key { kty = "oct", kid = kid, k = tg.crypto.base64url(letter:rep(32)) } end
    local a, b, c = key("a", "1"), key("b", "2"), key("c")
    local token = tg.jwt.sign({ sub = "x" }, { key = b, alg = "HS256" })
    expect(tg.jwt.verify(token, { keys = { a, b }, alg = { "HS256" } }).sub):equals "x"
    local _, err = tg.jwt.verify(token, { keys = { a }, alg = { "HS256" } })
    expect(err.code):equals "key"
    _, err = tg.jwt.verify(token, { keys = { a, c }, alg = { "HS256" } })
    expect(err.code):equals "signature"
  end)

  it("tells the claims of a token, whatever the core has looked at since", function()
    local abi = require "abi"
    local key = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    local options = { keys = key, alg = { "HS256" } }
    local function token_of(payload)
      local signed = tg.crypto.base64url '{"alg":"HS256"}' .. "." .. tg.crypto.base64url(payload)
      return signed .. "." .. tg.crypto.base64url(tg.crypto.hmac("sha256", ("s"):rep(32), signed))
    end
    local claims = tg.jwt.verify(token_of '{"sub":"first","exp":9999999999}', options)
    -- Another generation in this worker has its own Lua, and the same core.
    local other = token_of '{"sub":"second"}'
    expect(abi.C.tg_abi_jws_open(other, #other, 1000, abi.jws)):equals(0)
    expect(abi.C.tg_abi_jws_read(abi.jws)):equals(0)
    expect(tg.jwt.claim(claims, "sub")):equals "first"
    claims = tg.jwt.verify(token_of '{"sub":"first"}', options)
    local _, err = tg.jwt.verify(token_of "no JSON", options)
    expect(err.code):equals "malformed"
    expect(tg.jwt.claim(claims, "sub")):equals "first"
  end)

  it("raises when it is used wrongly", function()
    expect(function() tg.jwt.verify("x", {}) end):raises "keys"
    local key = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    expect(function() tg.jwt.verify("a.b.c", { keys = key }) end):raises "alg"
    local _, err = tg.jwt.verify(("a"):rep(20000), { keys = key, alg = { "HS256" } })
    expect(err.code):equals "malformed"
  end)

  it("gives claims that are a table like any other", function()
    local key = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    local given = { iss = "me", sub = "x", exp = 4e9, big = 12345, null = tg.null, no = false, deep = { list = { "a", "b" } }, ["a.b"] = 1 }
    local text = tg.jwt.sign(given, { key = key, alg = "HS256" })
    local function claims() return assert(tg.jwt.verify(text, { keys = key, alg = { "HS256" }, iss = "me" })) end
    expect(claims()):equals(given)
    local names = 0
    for name in pairs(claims()) do names = names + (given[name] ~= nil and 1 or 0) end
    expect(names):equals(8)
    expect(tg.json.decode(tg.json.encode(claims()))):equals(given)
    local one, other = claims(), claims() -- that of `one` is no longer what the core has read last
    for _, known in ipairs { one, other } do
      expect(tg.jwt.claim(known, "deep.list")):equals { "a", "b" }
      expect(tg.jwt.claim(known, "a.b")):equals(1)
      expect(tg.jwt.claim(known, "null") == tg.null):is_true()
      expect(tg.jwt.claim(known, "no")):equals(false)
      expect(tg.jwt.claim(known, "none")):is_nil()
      known.sub, known.none = nil, 1
      expect(tg.jwt.claim(known, "sub")):is_nil()
      expect(tg.jwt.claim(known, "none")):equals(1)
    end
    local changed = claims()
    changed.sub = "y"
    expect(tg.jwt.claim(changed, "sub")):equals "y"
    expect(tg.jwt.claim(changed, "iss")):equals "me"
  end)

  it("reads many claims, and those whose names are spelled with escapes", function()
    local key = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    local function verify(payload, options)
      local text = tg.crypto.base64url '{"alg":"HS256"}' .. "." .. tg.crypto.base64url(payload)
      options.keys, options.alg = key, { "HS256" }
      return tg.jwt.verify(text .. "." .. tg.crypto.base64url(key:sign("HS256", text)), options)
    end
    local many = {}
    for i = 1, 40 do many[i] = ('"c%d":%d'):format(i, i) end
    local text = table.concat(many, ",")
    expect(verify("{" .. text .. ',"iss":"me"}', { iss = "me", require = { "c40", "iss" } }).c7):equals(7)
    local _, err = verify("{" .. text .. ',"iss":"me"}', { iss = "you" })
    expect(err.code):equals "claim"
    _, err = verify('{"\\u0065xp":-1}', {})
    expect(err.code):equals "expired"
    _, err = verify("{" .. text .. ',"exp":-1}', {})
    expect(err.code):equals "expired"
    for _, exp in ipairs { '"never"', "null", "{}", "[1]", "true", "123456789012345678901234567890" } do
      _, err = verify(('{"exp":%s}'):format(exp), {})
      expect(exp .. " " .. err.code):equals(exp .. " claim")
    end
    expect(verify('{"iss":"caf\\u00e9"}', { iss = "caf\195\169" }).iss):equals "caf\195\169"
  end)

  it("remembers no more tokens than it may", function()
    local memory = tg.jwt.verified(10)
    for i = 1, 100 do memory:put("t" .. i, i, tg.now() + 60) end
    expect(memory:get "t100"):equals(100)
    expect(memory:get "t1"):is_nil()
    memory:put("old", 1, tg.now() - 1)
    expect(memory:get "old"):is_nil()
  end)
end)
