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

  it("raises when it is used wrongly", function()
    expect(function() tg.jwt.verify("x", {}) end):raises "keys"
    local key = tg.crypto.key { kty = "oct", k = tg.crypto.base64url(("s"):rep(32)) }
    expect(function() tg.jwt.verify("a.b.c", { keys = key }) end):raises "alg"
    local _, err = tg.jwt.verify(("a"):rep(20000), { keys = key, alg = { "HS256" } })
    expect(err.code):equals "malformed"
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
