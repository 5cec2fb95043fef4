local FIELDS = {
  date = "Tue, 20 Apr 2021 02:07:55 GMT", ["content-type"] = "application/json", ["content-length"] = "18",
  ["content-digest"] = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
}
local REQUEST = {
  method = "POST", scheme = "https", authority = "example.com", target = "/foo?param=Value&Pet=dog", path = "/foo", query = "param=Value&Pet=dog",
  field = function(name) return { FIELDS[name] } end,
}
local SECRET = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ"
local ED25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n"

local function read(input, signature) return assert(tg.http_signature.read(input, signature))[1] end

describe("tg.http_signature", function()
  it("verifies the examples of RFC 9421, appendix B.2", function()
    local hmac = read('sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
      "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:")
    local text = assert(tg.http_signature.base(REQUEST, hmac.list))
    expect(text):equals('"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@authority": example.com\n"content-type": application/json\n"@signature-params": '
      .. '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"')
    local key = tg.crypto.key { kty = "oct", k = SECRET:gsub("+", "-"):gsub("/", "_") }
    expect(tg.http_signature.verify(key, nil, text, hmac.bytes)):is_true()
    expect(tg.http_signature.verify(key, "ed25519", text, hmac.bytes)):equals(false)
    local ed = read('sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
      "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:")
    text = assert(tg.http_signature.base(REQUEST, ed.list))
    expect(tg.http_signature.verify(tg.crypto.key(ED25519), "ed25519", text, ed.bytes)):is_true()
    expect(tg.http_signature.verify(tg.crypto.key(ED25519), "ed25519", text .. "x", ed.bytes)):equals(false)
  end)

  it("knows the parts of a request", function()
    local one = read('a=("@method" "@scheme" "@target-uri" "@request-target" "@query")', "a=:AA==:")
    expect((tg.http_signature.base(REQUEST, one.list):gsub("\n\"@signature.*", ""))):equals('"@method": POST\n"@scheme": https\n"@target-uri": '
      .. 'https://example.com/foo?param=Value&Pet=dog\n"@request-target": /foo?param=Value&Pet=dog\n"@query": ?param=Value&Pet=dog')
    for _, list in ipairs { '("@status")', '("x-none")', '("date" "date")', '("date";bs)', '("Date")', "(5)" } do
      expect((tg.http_signature.base(REQUEST, read("a=" .. list, "a=:AA==:").list))):is_nil()
    end
  end)

  it("compares digests of bodies", function()
    local body = '{"hello": "world"}'
    expect(tg.http_signature.digest_is_right(FIELDS["content-digest"], body)):is_true()
    expect(tg.http_signature.digest_is_right(FIELDS["content-digest"], body .. " ")):equals(false)
    expect(tg.http_signature.digest_is_right("md5=:AA==:", body)):equals(false)
    expect(tg.http_signature.digest_is_right("sha-256=:AA==:, " .. FIELDS["content-digest"], body)):equals(false)
  end)

  it("refuses what is no structured field", function()
    local bad = {
      'a=("date"', 'a=("date";)', 'a=("da\\te")', "a", "a=", 'a=("date"),', 'a=("date"), a=("x")', 'a=("date"))', 'a=("date"x)', "A=()", 'a=("\1")',
        "a=1.5",
      'a=();created="', "a=();x=1;x=2", "a=(" .. ('"x" '):rep(200) .. ")", "a=()" .. (";x"):rep(5000), "a=:A:",
    }
    for _, text in ipairs(bad) do
      local found = tg.http_signature.read(text, "a=:AA==:")
      expect(text:sub(1, 30) .. tostring(found)):equals(text:sub(1, 30) .. "nil")
    end
    expect((tg.http_signature.read("a=()", "b=:AA==:"))):is_nil()
    expect((tg.http_signature.read("a=()", "a=1"))):is_nil()
    expect((tg.http_signature.read("", ""))):is_nil()
  end)
end)
