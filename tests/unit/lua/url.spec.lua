local failure = require "tidegate.failure"

local function text_of(parts)
  if not parts then return nil end
  local out = {}
  for _, name in ipairs { "scheme", "userinfo", "host", "port", "path", "query", "fragment" } do
    if parts[name] ~= nil then out[#out + 1] = name .. "=" .. parts[name] end
  end
  return table.concat(out, " ")
end

describe("url.parse", function()
  it("takes URIs and references apart", function()
    for text, parts in pairs {
      ["http://a"] = "scheme=http host=a path=",
      ["HTTPS://User:pa%3Ass@Ex-ample.COM:08443/A/b;c=1?x=/?&y#f/?g"] =
        "scheme=https userinfo=User:pa%3Ass host=ex-ample.com port=8443 path=/A/b;c=1 query=x=/?&y fragment=f/?g",
      ["http://[2001:DB8::1]:80/"] = "scheme=http host=2001:db8::1 port=80 path=/",
      ["http://[::ffff:1.2.3.4]"] = "scheme=http host=::ffff:1.2.3.4 path=",
      ["http://1.2.3.4:65535?"] = "scheme=http host=1.2.3.4 port=65535 path= query=",
      ["http://a:/#"] = "scheme=http host=a path=/ fragment=",
      ["http://@a"] = "scheme=http userinfo= host=a path=",
      ["http://a//b/../%2e%2E"] = "scheme=http host=a path=//b/../%2e%2E",
      ["http://a?b@c/d:e"] = "scheme=http host=a path= query=b@c/d:e",
      ["http://a#b@c"] = "scheme=http host=a path= fragment=b@c",
      ["file:///etc/x"] = "scheme=file host= path=/etc/x",
      ["mailto:John.Doe@example.com"] = "scheme=mailto path=John.Doe@example.com",
      ["urn:oasis:names:x:1"] = "scheme=urn path=oasis:names:x:1",
      ["a+b.c-d:"] = "scheme=a+b.c-d path=",
      ["//a.b:1/c"] = "host=a.b port=1 path=/c",
      ["/a:b"] = "path=/a:b", ["./a:b"] = "path=./a:b", ["a/b:c"] = "path=a/b:c", ["?q"] = "path= query=q", ["#f"] = "path= fragment=f",
      [""] = "path=",
      ["http://a_b.!$&'()*+,;=~/!$&'()*+,;=:@~-._"] = "scheme=http host=a_b.!$&'()*+,;=~ path=/!$&'()*+,;=:@~-._",
    } do
      local found, err = tg.url.parse(text)
      expect(text .. "  " .. tostring(text_of(found) or err)):equals(text .. "  " .. parts)
    end
  end)

  it("refuses what is malformed, or what two readers could take differently", function()
    for text, problem in pairs {
      ["http://"] = "http:// needs a host", ["http:///x"] = "http:// needs a host", ["https:x"] = "https:// needs a host",
      ["http://user@/"] = "http:// needs a host", ["http://:80/"] = "http:// needs a host", ["ws:/x"] = "ws:// needs a host",
      ["http://a b/"] = 'a host with " "', ["http://a%2eb/"] = 'a host with "%"', ["http://a\\@b/"] = 'userinfo has "\\\\"',
      ["http://a\\b"] = 'a host with "\\\\"', ["http://ä/"] = "a host with", ["http://a\0b/"] = "a host with",
      ["http://a\nb/"] = 'a host with "\\n"',
      ["http://a|b"] = 'a host with "|"', ["http://<a>"] = 'a host with "<"',
      ["http://a@b@c/"] = 'userinfo has "@"', ["http://a[@c/"] = 'userinfo has "["', ["http://%4@c/"] = "userinfo has the malformed percent encoding",
      ["http://a:0/"] = "not a port", ["http://a:65536"] = "not a port", ["http://a:123456"] = "not a port",
      ["http://a:99999999999999999999"] = "not a port",
      ["http://a:8x/"] = "not a host and port", ["http://a:-1/"] = "not a host and port", ["http://a:80:80/"] = "not a host and port",
      ["http://::1/"] = "not a host and port", ["http://a: 80/"] = "not a host and port",
      ["http://[::1/"] = "not a host and port", ["http://[::1]80/"] = "not an IPv6 address", ["http://[a]/"] = "not an IPv6 address",
      ["http://[]/"] = "not an IPv6 address", ["http://[1.2.3.4]/"] = "not an IPv6 address", ["http://[::g]/"] = "not an IPv6 address",
      ["http://[::1%25eth0]/"] = "not an IPv6 address", ["http://[::1/64]/"] = "not a host and port", ["http://[v1.a:b]/"] = "not an IPv6 address",
      ["http://[1:2:3:4:5:6:7:8:9]/"] = "not an IPv6 address", ["http://[::1]x"] = "not a host and port", ["http://x[::1]"] = "not a host and port",
      ["http://a/ b"] = 'path has " "', ["http://a/\t"] = "path has", ["http://a/\127"] = "path has", ["http://a/ä"] = "path has",
      ["http://a/[b]"] = 'path has "["', ["http://a/{b}"] = 'path has "{"', ["http://a/\\b"] = "path has", ["http://a/\"b"] = "path has",
      ["http://a/%"] = 'path has the malformed percent encoding "%"', ["http://a/%4"] = 'encoding "%4"', ["http://a/%41%zz%41"] = 'encoding "%zz"',
      ["http://a/?%"] = "query has the malformed", ["http://a/? "] = 'query has " "', ["http://a/#%g0"] = "fragment has the malformed",
      ["http://a/#b#c"] = 'fragment has "#"', ["http://a/\r\nHost: b"] = "path has",
      [":a"] = "a scheme that is none", ["1http://a"] = "a scheme that is none", ["ht_tp://a"] = "a scheme that is none",
      ["a b:c"] = "a scheme that is none",
    } do
      local found, err = tg.url.parse(text)
      expect(text .. "  " .. tostring(text_of(found))):equals(text .. "  nil")
      expect(tostring(err)):matches(problem)
      expect(failure.is(err) and { err.code, err.status }):equals { "decode", 400 }
    end
  end)

  it("puts no password into its messages", function()
    local _, err = tg.url.parse "http://me:swordfish@host:0/"
    expect(tostring(err):find "swordfish"):is_nil()
  end)
end)

describe("url.build", function()
  it("is the inverse of parse", function()
    for _, text in ipairs {
      "http://a", "https://u:p@ex.com:8443/a;b/c?x=1&y=%20#z", "http://[::1]:8080/", "file:///x",
      "mailto:a@b", "//a/b", "/a:b", "?", "#", "", "a/b", "?a#",
    } do
      expect(tg.url.build(assert(tg.url.parse(text)))):equals(text)
    end
  end)

  it("encodes what may not stand there, once", function()
    for _, case in ipairs {
      { { scheme = "HTTP", host = "EX.com", path = "/a b/%2F?#[ä]/%zz/100%" }, "http://ex.com/a%20b/%2F%3F%23%5B%C3%A4%5D/%25zz/100%25" },
      { { scheme = "http", host = "a", query = "x=1 2&y=#%41%4", fragment = "a#b" }, "http://a?x=1%202&y=%23%41%254#a%23b" },
      { { scheme = "http", host = "a", path = "/x", query = { b = { 1, 2 }, a = "&=" } }, "http://a/x?a=%26%3D&b=1&b=2" },
      { { scheme = "http", userinfo = "a@b/c:d", host = "::1", port = 8080 }, "http://a%40b%2Fc:d@[::1]:8080" },
      { { path = "/a\r\nb" }, "/a%0D%0Ab" },
      { {}, "" },
    } do
      expect(tg.url.build(case[1])):equals(case[2])
    end
  end)

  it("refuses what would be read as something else", function()
    for _, case in ipairs {
      { { scheme = "http", host = "a/b" }, 'a host with "/"' }, { { scheme = "http", host = "a@b" }, 'a host with "@"' },
      { { scheme = "http", host = "[::1]" }, "not an IPv6 address" }, { { scheme = "http", host = "a:80" }, "not an IPv6 address" },
      { { scheme = "http" }, "needs a host" }, { { scheme = "http", host = "" }, "needs a host" }, { { scheme = "1x", host = "a" }, "not a scheme" },
      { { scheme = "a:", host = "a" }, "not a scheme" }, { { host = "a", path = "b" }, "begins with a slash" },
      { { path = "//evil/x" }, "read as a host" }, { { scheme = "x", path = "//evil" }, "read as a host" }, { { path = "a:b" }, "read as a scheme" },
      { { host = "a", port = 0 }, "not a port" }, { { host = "a", port = 1.5 }, "not a port" }, { { host = "a", port = 0 / 0 }, "not a port" },
      { { port = 80, path = "/" }, "need a host" }, { { userinfo = "a", path = "/" }, "need a host" },
    } do
      local text, err = tg.url.build(case[1])
      expect(text):is_nil()
      expect(err):matches(case[2])
    end
    expect(function() tg.url.build "http://a" end):raises "needs a table, found a string"
    expect(function() tg.url.build { path = 1 } end):raises "path is a string, found a number"
    expect(function() tg.url.build { port = "80" } end):raises "port is a number, found a string"
    expect(function() tg.url.build { hots = "a" } end):raises 'unknown part "hots"'
    expect(function() tg.url.build { query = { a = {} , b = print } } end):raises 'the value of "b"'
  end)

  it("gives back what it takes, whatever the bytes", function()
    local seed = 7
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n
    end
    for _ = 1, 2000 do
      local bytes = {}
      for i = 1, random(12) do bytes[i] = string.char(random(256)) end
      local raw = table.concat(bytes)
      local text = assert(tg.url.build { scheme = "http", host = "h", path = "/" .. tg.url.encode(raw), query = { [raw] = raw }, fragment = raw })
      local parts = assert(tg.url.parse(text))
      expect(tg.url.decode(parts.path)):equals("/" .. raw)
      if raw ~= "" then expect(tg.url.query(parts.query)[raw]):equals(raw) end
      local any, err = tg.url.parse(raw)
      expect(any and tg.url.build(any) ~= nil or failure.is(err)):is_true()
    end
  end)
end)

describe("url.join", function()
  it("resolves the references of RFC 3986, section 5.4", function()
    for reference, target in pairs {
      ["g:h"] = "g:h", ["g"] = "http://a/b/c/g", ["./g"] = "http://a/b/c/g", ["g/"] = "http://a/b/c/g/", ["/g"] = "http://a/g", ["//g"] = "http://g",
      ["?y"] = "http://a/b/c/d;p?y", ["g?y"] = "http://a/b/c/g?y", ["#s"] = "http://a/b/c/d;p?q#s", ["g#s"] = "http://a/b/c/g#s",
      ["g?y#s"] = "http://a/b/c/g?y#s", [";x"] = "http://a/b/c/;x", ["g;x"] = "http://a/b/c/g;x", ["g;x?y#s"] = "http://a/b/c/g;x?y#s",
      [""] = "http://a/b/c/d;p?q", ["."] = "http://a/b/c/", ["./"] = "http://a/b/c/", [".."] = "http://a/b/", ["../"] = "http://a/b/",
      ["../g"] = "http://a/b/g", ["../.."] = "http://a/", ["../../"] = "http://a/", ["../../g"] = "http://a/g",
      ["../../../g"] = "http://a/g", ["../../../../g"] = "http://a/g", ["/./g"] = "http://a/g", ["/../g"] = "http://a/g", ["g."] = "http://a/b/c/g.",
      [".g"] = "http://a/b/c/.g", ["g.."] = "http://a/b/c/g..", ["..g"] = "http://a/b/c/..g", ["./../g"] = "http://a/b/g",
      ["./g/."] = "http://a/b/c/g/",
      ["g/./h"] = "http://a/b/c/g/h", ["g/../h"] = "http://a/b/c/h", ["g;x=1/./y"] = "http://a/b/c/g;x=1/y", ["g;x=1/../y"] = "http://a/b/c/y",
      ["g?y/./x"] = "http://a/b/c/g?y/./x", ["g?y/../x"] = "http://a/b/c/g?y/../x", ["g#s/./x"] = "http://a/b/c/g#s/./x",
      ["g#s/../x"] = "http://a/b/c/g#s/../x", ["http:g"] = "http:g",
    } do
      expect(reference .. "  " .. tostring(tg.url.join("http://a/b/c/d;p?q", reference))):equals(reference .. "  " .. target)
    end
  end)

  it("resolves against other bases", function()
    for _, case in ipairs {
      { "http://a", "g", "http://a/g" }, { "http://a?x", "g", "http://a/g" }, { "http://u@a:1/x", "/y", "http://u@a:1/y" },
      { "http://u@a:1/x", "//b", "http://b" }, { "http://a/b/", "..", "http://a/" }, { "http://a/b/./c", "d", "http://a/b/d" },
      { "http://a/b//c", "../d", "http://a/b/d" }, { "http://a/x", "/..//b", "http://a//b" }, { "x:a/b", "../../c", "x:/c" },
      { "x:../a", "./b", "x:b" },
      { "mailto:a", "?s", "mailto:a?s" }, { "http://[::1]/", "b", "http://[::1]/b" }, { "HTTP://A/", "B", "http://a/B" },
      { "http://a/b?c#d", "", "http://a/b?c" },
    } do
      expect(tg.url.join(case[1], case[2])):equals(case[3])
    end
  end)

  it("refuses what it cannot resolve", function()
    for _, case in ipairs {
      { "/a", "b", "a base needs a scheme" }, { "", "", "a base needs a scheme" }, { "http://a b", "c", "a host with" },
      { "http://a", "b c", "path has" },
      { "http://a", "//b:x", "not a host and port" }, { "x:a", "/..//evil", "read as a host" },
    } do
      local text, err = tg.url.join(case[1], case[2])
      expect(text):is_nil()
      expect(err):matches(case[3])
    end
    expect(function() tg.url.join("http://a") end):raises "needs two strings"
  end)
end)

describe("url.query", function()
  it("writes names by the alphabet, and lists as repeated names", function()
    for _, case in ipairs {
      { {}, "" }, { { b = 2, a = 1 }, "a=1&b=2" }, { { a = { "x", "y", true } }, "a=x&a=y&a=true" }, { { a = {} }, "" },
      { { ["a&"] = "=ä +" }, "a%26=%3D%C3%A4%20%2B" },
      { { n = 2 ^ 53, m = -0.1 }, "m=-0.1&n=9007199254740992" }, { { f = false }, "f=false" },
    } do
      expect(tg.url.query(case[1])):equals(case[2])
    end
    local large = tg.json.decode '{"id":12345678901234567890}'
    expect(tg.url.query { id = large.id, ids = { large.id, 1 } }):equals "id=12345678901234567890&ids=12345678901234567890&ids=1"
    expect(tg.url.encode(large.id)):equals "12345678901234567890"
    for _, bad in ipairs { { "x" }, { a = print }, { a = { {} } }, { [true] = "x" } } do
      expect(function() tg.url.query(bad) end):raises "url.query: "
    end
    expect(function() tg.url.query(5) end):raises "a table or a string"
    expect(function() tg.url.query() end):raises "found a nil"
  end)

  it("reads the first value of each name", function()
    expect(tg.url.query "a=1&b=x+y%21&a=2&c&=d&&"):equals { a = "1", b = "x y!", c = "", [""] = "d" }
    expect(tg.url.query ""):equals {}
    local found, err = tg.url.query(("a=1&"):rep(1001))
    expect(found):is_nil()
    expect({ err.code, err.status }):equals { "too_large", 400 }
  end)
end)

describe("url.encode and url.decode", function()
  it("are for text, and keep each byte", function()
    local bytes = {}
    for i = 0, 255 do bytes[i + 1] = string.char(i) end
    local all = table.concat(bytes)
    expect(tg.url.decode(tg.url.encode(all))):equals(all)
    expect(tg.url.encode "a/b ~%-._"):equals "a%2Fb%20~%25-._"
    expect(tg.url.encode(12)):equals "12"
    expect(tg.url.encode(123456789012345)):equals "123456789012345"
    expect(tg.url.encode(-0)):equals "0"
    expect(tg.url.encode(0.1)):equals "0.1"
    expect(tonumber((tg.url.decode(tg.url.encode(0.1 + 0.2))))):equals(0.1 + 0.2)
    expect(tg.url.decode "%41%4%zz"):equals "A%4%zz"
    for _, bad in ipairs { {}, true, print } do
      expect(function() tg.url.encode(bad) end):raises "needs a string or a number, found a"
      expect(function() tg.url.decode(bad) end):raises "needs a string, found a"
    end
    expect(function() tg.url.encode(nil) end):raises "found a nil"
    expect(function() tg.url.decode(5) end):raises "found a number"
  end)
end)
