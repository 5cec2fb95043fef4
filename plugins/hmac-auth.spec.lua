local SECRET = ("s"):rep(32)
local consumers = { acme = { credentials = { hmac = { { id = "acme-1", secret = SECRET }, { id = "off", secret = SECRET, disabled = true } } } } }
local ALL = '("@method" "@authority" "@path" "@query")'

local function gateway(conf)
  local use = { "hmac-auth", replay = "seen" }
  for name, value in pairs(conf or {}) do use[name] = value end
  return test.gateway { consumer = consumers, dict = { seen = { size = "64KiB" } }, use = { use }, to = test.upstream(function(req)
    return 200, { id = req.headers["x-consumer-id"], signature = req.headers.signature, body = req.body }
  end) }
end

local function sign(text) return tg.crypto.base64(tg.crypto.hmac("sha256", SECRET, text)) end

local nonce = 0

-- Headers of a signed request.
local function signed(method, target, o)
  o = o or {}
  nonce = nonce + 1
  local path, query = target:match "^([^?]*)%??(.*)$"
  local list = (o.list or ALL) .. (';created=%d;keyid="%s";nonce="%d"%s'):format(o.created or os.time(), o.keyid or "acme-1", o.nonce or nonce,
    o.more or "")
  local lines = {}
  local values = { ["@method"] = method, ["@authority"] = "gateway.test", ["@path"] = path, ["@query"] = "?" .. query,
    ["@target-uri"] = "http://gateway.test" .. target }
  for name, value in pairs(o.headers or {}) do values[name:lower()] = value end
  for name in (o.list or ALL):gmatch '"([^"]+)"' do lines[#lines + 1] = ('"%s": %s'):format(name, values[name]) end
  lines[#lines + 1] = '"@signature-params": ' .. list
  local headers = { ["Signature-Input"] = "sig=" .. list, Signature = "sig=:" .. sign(table.concat(lines, "\n")) .. ":" }
  for name, value in pairs(o.headers or {}) do headers[name] = value end
  return headers
end

describe("hmac-auth", function()
  it("knows who has signed, and hides the signature", function()
    local gw = gateway()
    expect(gw:get("/a?b=c", { headers = signed("GET", "/a?b=c") }):json()):equals { id = "acme", body = "" }
    expect(gw:get("/", { headers = signed("GET", "/", { list = '("@method" "@target-uri")' }) }).status):equals(200)
    local body = '{"a":1}'
    local digest = "sha-256=:" .. tg.crypto.base64(tg.crypto.sha256(body)) .. ":"
    local headers = signed("POST", "/", { list = '("@method" "@authority" "@path" "@query" "content-digest")',
      headers = { ["Content-Digest"] = digest } })
    expect(gw:post("/", { headers = headers, body = body }):json().body):equals(body)
  end)

  it("denies all else", function()
    local gw = gateway()
    local now = os.time()
    local bad = {
      path = { "GET", "/other", signed("GET", "/a") }, query = { "GET", "/a?x=2", signed("GET", "/a?x=1") }, method = { "DELETE", "/a",
        signed("GET", "/a") },
      old = { "GET", "/a", signed("GET", "/a", { created = now - 400 }) }, early = { "GET", "/a", signed("GET", "/a", { created = now + 400 }) },
      expired = { "GET", "/a", signed("GET", "/a", { more = (";expires=%d"):format(now - 1) }) },
      nobody = { "GET", "/a", signed("GET", "/a", { keyid = "nobody" }) }, off = { "GET", "/a", signed("GET", "/a", { keyid = "off" }) },
      few = { "GET", "/a", signed("GET", "/a", { list = '("@method")' }) }, alg = { "GET", "/a", signed("GET", "/a", { more = ';alg="ed25519"' }) },
      ["no digest"] = { "POST", "/a", signed("POST", "/a"), "x" }, none = { "GET", "/a", {} }, junk = { "GET", "/a", { ["Signature-Input"] = "x",
        Signature = "y" } },
      ["other body"] = { "POST", "/a", signed("POST", "/a", { list = '("@method" "@authority" "@path" "@query" "content-digest")',
        headers = { ["Content-Digest"] = "sha-256=:" .. tg.crypto.base64(tg.crypto.sha256 "y") .. ":" } }), "x" },
    }
    for name, case in pairs(bad) do
      expect(name .. gw:request(case[1], case[2], { headers = case[3], body = case[4] }).status):equals(name .. 401)
    end
  end)

  it("takes a signature once", function()
    local gw = gateway()
    local headers = signed("GET", "/a")
    expect(gw:get("/a", { headers = headers }).status):equals(200)
    expect(gw:get("/a", { headers = headers }).status):equals(401)
  end)

  it("denies a signature of which any byte is another", function()
    local gw = gateway()
    local headers = signed("GET", "/a")
    for _, name in ipairs { "Signature-Input", "Signature" } do
      local text = headers[name]
      for i = 1, #text, 5 do
        local c = text:sub(i, i) == "x" and "y" or "x"
        local changed = { ["Signature-Input"] = headers["Signature-Input"], Signature = headers.Signature }
        changed[name] = text:sub(1, i - 1) .. c .. text:sub(i + 1)
        expect(name .. i .. gw:get("/a", { headers = changed }).status):equals(name .. i .. 401)
      end
    end
  end)

  it("speaks the draft of Kong and APISIX", function()
    local gw = gateway()
    local date = tg.time.http_date(os.time())
    local function ask(scheme, user, names, lines, o)
      o = o or {}
      local headers = { Authorization = ('%s %s="acme-1", algorithm="hmac-sha256", headers="%s", signature="%s"'):format(scheme, user, names,
        sign(lines)) }
      headers.Date, headers["X-Date"], headers.Digest = o.date or date, o.xdate, o.digest
      return gw:request(o.method or "GET", "/a?b=c", { headers = headers, body = o.body }).status
    end
    expect(ask("hmac", "username", "date request-line", "date: " .. date .. "\nGET /a?b=c HTTP/1.1")):equals(200)
    expect(ask("Signature", "keyId", "(request-target) date", "(request-target): get /a?b=c\ndate: " .. date)):equals(200)
    expect(ask("hmac", "username", "date request-line", "date: " .. date .. "\nGET /a?b=d HTTP/1.1")):equals(401)
    expect(ask("hmac", "username", "date", "date: " .. date)):equals(401)
    expect(ask("hmac", "username", "request-line", "GET /a?b=c HTTP/1.1")):equals(401)
    local old = tg.time.http_date(os.time() - 600)
    expect(ask("hmac", "username", "date request-line", "date: " .. old .. "\nGET /a?b=c HTTP/1.1", { date = old })):equals(401)
    local digest = "SHA-256=" .. tg.crypto.base64(tg.crypto.sha256 "body")
    local lines = "date: " .. date .. "\nPOST /a?b=c HTTP/1.1\ndigest: " .. digest
    expect(ask("hmac", "username", "date request-line digest", lines, { method = "POST", digest = digest, body = "evil" })):equals(401)
  end)

  it("takes the draft's digest of a body", function()
    local gw, date = gateway(), tg.time.http_date(os.time())
    local digest = "SHA-256=" .. tg.crypto.base64(tg.crypto.sha256 "body")
    local text = sign("date: " .. date .. "\nPOST / HTTP/1.1\ndigest: " .. digest)
    local headers = { Date = date, Digest = digest,
      Authorization = 'hmac username="acme-1", algorithm="hmac-sha256", headers="date request-line digest", '
      .. 'signature="' .. text .. '"' }
    expect(gw:post("/", { headers = headers, body = "body" }):json().body):equals "body"
  end)
end)
