describe("hsts", function()
  it("says nothing in plain text", function()
    local gw = test.gateway { use = { "hsts" }, to = test.upstream(200) }
    expect(gw:get("/").headers["strict-transport-security"]):is_nil()
  end)

  it("is careful with the lists of browsers", function()
    expect(function() test.gateway { use = { { "hsts", preload = true } }, to = test.upstream(200) } end):raises "include_subdomains"
    expect(function()
      test.gateway { use = { { "hsts", preload = true, include_subdomains = true, max_age = "30d" } }, to = test.upstream(200) }
    end):raises "a year"
    local long = { "hsts", preload = true, include_subdomains = true, max_age = "730d" }
    expect(test.gateway { use = { long }, to = test.upstream(200) }:get("/").status):equals(200)
  end)
end)
