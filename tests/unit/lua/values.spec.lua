local address = require "runtime.address"
local report = require "runtime.report"
local schema = require "runtime.schema"
local template = require "runtime.template"
local t = schema.t

local function apply(kind, value)
  local found = report.new()
  local conf = schema.apply({ a = kind }, { a = value }, { report = found, at = "gateway.lua:1", path = {} })
  return conf and conf.a, found:text()
end

describe("address", function()
  it("knows IPv4 without octal tricks", function()
    for _, good in ipairs { "0.0.0.0", "127.0.0.1", "255.255.255.255" } do expect(address.is_ipv4(good)):is_true() end
    for _, bad in ipairs { "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1.2.3.x", "1..2.3" } do
      expect(address.is_ipv4(bad)):equals(false)
    end
  end)

  it("knows IPv6", function()
    for _, good in ipairs { "::", "::1", "1::", "1:2:3:4:5:6:7:8", "fe80::1", "::ffff:1.2.3.4", "64:ff9b::1.2.3.4",
      "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7::" } do
      expect(good .. tostring(address.is_ipv6(good))):equals(good .. "true")
    end
    for _, bad in ipairs { "", ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "::1.2.3", "1.2.3.4", "1.2.3.4::",
      "1:2:3:4:5:6:7:1.2.3.4", ":1", "1:", "::1:", "1:2:3:4:5:6:7:8::", "%eth0" } do
      expect(bad .. tostring(address.is_ipv6(bad))):equals(bad .. "false")
    end
  end)

  it("knows names, and what only looks like an address", function()
    for _, good in ipairs { "a", "a.b", "my_service", "xn--bcher-kva.example", "1password.com" } do expect(address.is_name(good)):is_true() end
    for _, bad in ipairs { "", ".", "a.", ".a", "a..b", "-a", "a-", "a b", "1.2.3", "999.1.1.1", ("a"):rep(64), ("a."):rep(127) .. "a" } do
      expect(bad .. tostring(address.is_name(bad))):equals(bad .. "false")
    end
  end)

  it("takes host and port apart", function()
    expect({ address.parse_authority "a:80" }):equals { "a", 80 }
    expect({ address.parse_authority "[::1]:80" }):equals { "::1", 80 }
    expect({ address.parse_authority "[::1]" }):equals { "::1" }
    for _, bad in ipairs { "", ":80", "a:", "a:0", "a:65536", "a:99999999999999999999", "::1", "::1:80", "[a]", "[::1]80", "a@b", "a:80:80" } do
      expect((address.parse_authority(bad))):is_nil()
    end
  end)
end)

describe("schema", function()
  it("has no list that would lose its tail", function()
    for _, bad in ipairs { { "x", nil, "y" }, { nil, "x" }, { "x", [1.5] = "y" }, { "x", [0] = "y" }, { [2 ^ 40] = "x" }, { "x", y = "z" } } do
      local value, found = apply(t.list(t.string()), bad)
      expect(value):is_nil()
      expect(found):matches "a list"
    end
    expect((apply(t.list(t.string()), "x"))):equals { "x" }
    expect((apply(t.list(t.string(), { max = 1 }), { "x", "y" }))):is_nil()
  end)

  it("gives copies of free values, down to a depth", function()
    local given = { list = { 1, 2 }, flag = false }
    local value = apply(t.any(), given)
    expect(value):equals(given)
    expect(value.list ~= given.list):is_true()
    expect(function() value.list[3] = 1 end):raises "read-only"
    local loop = {}
    loop.loop = loop
    expect((apply(t.any(), loop))):is_nil()
    local object = setmetatable({}, {})
    expect(apply(t.any(), { object })[1] == object):is_true()
  end)

  it("keeps numbers within what is exact", function()
    for _, bad in ipairs { 2 ^ 53 + 2, -2 ^ 60, 1e300, 0 / 0, 1 / 0, 0.5 } do expect((apply(t.integer(), bad))):is_nil() end
    for _, bad in ipairs { 1e300, -1, 0 / 0, "1", "1 s", "-1s", "1e3s", "ms", "" } do expect((apply(t.duration(), bad))):is_nil() end
    for _, bad in ipairs { 2 ^ 54, -1, "1", "1kib", "-1KiB", "99999999999GiB" } do expect((apply(t.size(), bad))):is_nil() end
  end)

  it("judges ranges of addresses and URLs", function()
    for _, good in ipairs { "10.0.0.0/8", "10.0.0.1", "::/0", "fe80::/10", "::1" } do expect((apply(t.cidr(), good))):equals(good) end
    for _, bad in ipairs { "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", ":::::", "::/129", "::/", "010.0.0.1", "10.0.0.0/8/8" } do
      expect((apply(t.cidr(), bad))):is_nil()
    end
    for _, good in ipairs { "http://a", "https://a.b:8080/x?y#z", "http://[::1]:80/" } do expect((apply(t.url(), good))):equals(good) end
    for _, bad in ipairs { "http://", "http://[[[", "http://u@evil", "http://a b", "ftp://a", "http:///x", "http://a:0" } do
      expect((apply(t.url(), bad))):is_nil()
    end
  end)

  it("says the same in the same order every time", function()
    local spec, value = {}, {}
    for i = 1, 30 do
      spec["f" .. i], value["g" .. i], value["f" .. i] = t.integer(), 1, "x"
    end
    local texts = {}
    for i = 1, 2 do
      local found = report.new()
      schema.apply(spec, value, { report = found, at = "x", path = {} })
      texts[i] = found:text()
    end
    expect(texts[1]):equals(texts[2])
    expect(texts[1]:find("g1\n", 1, true) < texts[1]:find("g9\n", 1, true)):is_true()
  end)
end)

describe("template", function()
  local function text(source, ctx) return template.compile(source)(ctx) end

  it("writes numbers and truth values, and takes the rest for missing", function()
    expect(text("a${vars.x}b", { vars = { x = 1.5 } })):equals "a1.5b"
    expect(text("a${vars.x}b", { vars = { x = true } })):equals "atrueb"
    expect(text("${vars.x}", { vars = { x = false } })):equals "false"
    for _, none in ipairs { {}, print, setmetatable({}, { __tostring = function() return "x" end }) } do
      expect(text("${vars.x}", { vars = { x = none } })):is_nil()
      expect(text("a${vars.x}", { vars = { x = none } })):is_nil()
    end
  end)

  it("knows the consumer", function()
    local ctx = { consumer = { id = "acme", groups = { "a", "b" }, meta = { plan = "gold" } } }
    expect(text("${consumer.id} ${consumer.groups} ${consumer.meta.plan}", ctx)):equals "acme a,b gold"
    expect(text("${consumer.meta.none}", ctx)):is_nil()
    expect(text("${consumer.groups}", {})):is_nil()
  end)

  it("refuses more variables than a function can hold", function()
    expect(text(("${id}"):rep(64), { id = "x" })):equals(("x"):rep(64))
    expect(select(2, template.compile(("${id}"):rep(65)))):equals "more than 64 variables"
  end)

  it("keeps every byte of the text", function()
    local bytes = {}
    for i = 0, 255 do bytes[i + 1] = string.char(i) end
    local all = table.concat(bytes)
    expect(text(all .. "${id}" .. all, { id = "x" })):equals(all .. "x" .. all)
  end)
end)

describe("report", function()
  it("keeps what it shows on its own line", function()
    local found = report.new()
    found:found("x:1", { "a\nb" }, "c\nd\27[31m", "e")
    expect(found:text()):equals 'x:1  a\\nb\n    found     "c\\nd\\x1B[31m"\n    expected  e'
  end)

  it("is not slowed by words that nobody misspells", function()
    expect(report.nearest(("x"):rep(1e6), { ("x"):rep(1e6) })):is_nil()
  end)
end)
