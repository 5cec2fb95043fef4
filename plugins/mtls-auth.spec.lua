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
    expect(function()
      local same = { credentials = { mtls = { name = "dns:a" } } }
      test.gateway { consumer = { a = same, b = same }, use = { "mtls-auth" }, to = test.upstream(200) }
    end):raises "have the same certificate"
  end)
end)
