describe("csrf", function()
  local function gateway(conf)
    conf[1] = "csrf"
    return test.gateway { use = { conf }, to = test.upstream(200) }
  end

  local function status(gw, headers, method)
    headers.Host = "app.test"
    return gw:request(method or "POST", "/", { headers = headers }).status
  end

  it("lets pass what comes from here, or from who is trusted", function()
    local gw = gateway { trusted = { "https://admin.test" } }
    local cookie = "session=1"
    local good = {
      { Origin = "http://app.test", Cookie = cookie }, { Origin = "HTTP://APP.TEST", Cookie = cookie },
      { Origin = "https://admin.test", Cookie = cookie },
      { ["Sec-Fetch-Site"] = "same-origin", Cookie = cookie }, { ["Sec-Fetch-Site"] = "none", Cookie = cookie },
      { Referer = "http://app.test/form?x", Cookie = cookie }, {},
    }
    local bad = {
      { Origin = "http://evil.test", Cookie = cookie }, { Origin = "http://app.test.evil.test", Cookie = cookie },
      { Origin = "null", Cookie = cookie },
      { ["Sec-Fetch-Site"] = "cross-site", Cookie = cookie }, { ["Sec-Fetch-Site"] = "same-site", Cookie = cookie },
      { Referer = "http://evil.test/http://app.test/", Cookie = cookie }, { Cookie = cookie }, { Origin = "http://evil.test" },
      { Origin = "https://app.test", Cookie = cookie }, { Origin = "http://app.test:81", Cookie = cookie },
    }
    for i, headers in ipairs(good) do expect(i .. " " .. status(gw, headers)):equals(i .. " 200") end
    for i, headers in ipairs(bad) do expect(i .. " " .. status(gw, headers)):equals(i .. " 403") end
    expect(status(gw, { Origin = "http://evil.test", Cookie = cookie }, "GET")):equals(200)
  end)

  it("asks for its token twice", function()
    local gw = gateway { secret = ("s"):rep(32) }
    local r = gw:get("/")
    local token = r.headers["set-cookie"]:match "^csrf_token=([^;]+); Path=/; SameSite=Lax$"
    local cookie = "session=1; csrf_token=" .. token
    local from = "http://app.test"
    expect(status(gw, { Origin = from, Cookie = cookie, ["X-CSRF-Token"] = token })):equals(200)
    expect(status(gw, { Origin = from, Cookie = cookie })):equals(403)
    expect(status(gw, { Origin = from, Cookie = cookie, ["X-CSRF-Token"] = token .. "x" })):equals(403)
    expect(status(gw, { Origin = from, Cookie = "session=1; csrf_token=a.b", ["X-CSRF-Token"] = "a.b" })):equals(403)
    expect(gw:get("/", { headers = { Cookie = cookie } }).headers["set-cookie"]):is_nil()
  end)
end)
