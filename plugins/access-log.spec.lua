describe("access-log", function()
  local function lines(gw)
    local found = {}
    for _ = 1, 50 do
      found = {}
      for line in gw:logs():gmatch "[^\n]+" do
        if line:sub(1, 1) == "{" then found[#found + 1] = tg.json.decode(line) end
      end
      if #found > 0 then break end
      test.sleep(0.05)
    end
    return found
  end

  it("writes a line of JSON for an exchange", function()
    local gw = test.gateway { consumer = { acme = { credentials = { key = "k" } } }, use = { "key-auth", "access-log" } }
    gw:post("/a%22b", { headers = { ["X-Api-Key"] = "k" }, body = "12345" })
    local line = lines(gw)[1]
    expect(line.method):equals "POST"
    expect(line.path):equals '/a"b'
    expect(line.status):equals(200)
    expect(line.source):equals "upstream"
    expect(line.route):equals "all"
    expect(line.consumer):equals "acme"
    expect(line.bytes_in):equals(5)
    expect(line.bytes_out):equals(3)
    expect(line.client):equals "127.0.0.1"
    expect(#line.generation):equals(12)
    expect(line.duration >= line.upstream_time and line.upstream_time >= 0):is_true()
  end)

  it("writes one for requests that have no route, when it is the gateway's", function()
    local gw = test.gateway { global = { "access-log" }, route = { one = { path = "/one", to = test.upstream(200) } } }
    expect(gw:get("/other").status):equals(404)
    local line = lines(gw)[1]
    expect(line.status):equals(404)
    expect(line.route):equals(tg.null)
  end)

  it("adds the members that were asked for", function()
    local gw = test.gateway { use = { { "access-log", extra = { agent = "${header.User-Agent}", none = "${header.None}" } } } }
    gw:get("/", { headers = { ["User-Agent"] = 'a"\\\255' } })
    local line = lines(gw)[1]
    expect(line.agent):equals 'a"\\\239\191\189'
    expect(line.none):equals(tg.null)
  end)
end)
