describe("redirect-https", function()
  local function ask(conf, method, path, headers)
    conf[1] = "redirect-https"
    local gw = test.gateway { global = { conf }, use = {}, to = test.upstream(200) }
    return gw:request(method, path, { headers = headers })
  end

  it("keeps path, query and method", function()
    local r = ask({}, "GET", "/a%20b/c?x=1&y=%2F")
    expect(r.status):equals(301)
    expect(r.headers.location):equals "https://gateway.test/a%20b/c?x=1&y=%2F"
    expect(ask({}, "POST", "/").status):equals(308)
    expect(ask({ port = 8443, status = 307 }, "HEAD", "/").headers.location):equals "https://gateway.test:8443/"
    expect(ask({ host = "www.example.com" }, "GET", "/", { Host = "evil.test" }).headers.location):equals "https://www.example.com/"
  end)

  it("lets challenges of ACME through, and believes no client that says https", function()
    expect(ask({}, "GET", "/.well-known/acme-challenge/x").status):equals(200)
    expect(ask({}, "GET", "/.well-known/acme-challenge/../secret").status):equals(301)
    expect(ask({}, "GET", "/", { ["X-Forwarded-Proto"] = "https" }).status):equals(301)
  end)
end)
