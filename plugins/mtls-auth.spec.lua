describe("mtls-auth", function()
  local function gateway(mtls)
    return test.gateway { consumer = { a = { credentials = { mtls = mtls } } }, use = { "mtls-auth" }, to = test.upstream(200) }
  end

  it("knows nobody without a certificate", function()
    local r = gateway { name = "dns:client.test" }:get("/")
    expect(r.status):equals(401)
    expect(r.headers["www-authenticate"]):equals "Mutual"
  end)

  it("wants one way to know a certificate by", function()
    expect(function() gateway { id = "x" } end):raises "one of fingerprint, subject and name"
    expect(function() gateway { name = "dns:a", subject = "CN=a" } end):raises "one of fingerprint, subject and name"
    for mtls, problem in pairs {
      [{ fingerprint = "abc" }] = "64 hexadecimal digits", [{ fingerprint = ("x"):rep(64) }] = "64 hexadecimal digits",
      [{ name = "client.test" }] = "begins with its kind", [{ name = "dns:" }] = "begins with its kind", [{ subject = "client" }] = "RFC 2253",
    } do
      expect(function() gateway(mtls) end):raises(problem)
    end
    expect(gateway { fingerprint = ("AB:"):rep(31) .. "AB" }:get("/").status):equals(401)
    expect(function()
      local same = { credentials = { mtls = { name = "dns:a" } } }
      test.gateway { consumer = { a = same, b = same }, use = { "mtls-auth" }, to = test.upstream(200) }
    end):raises "have the same certificate"
  end)
end)
