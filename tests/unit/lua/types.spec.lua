local report = require "runtime.report"
local schema = require "runtime.schema"

local function apply(kind, value)
  local found = report.new()
  local conf = schema.apply({ a = kind }, { a = value },
  { report = found, at = "x", path = {}, names = { upstream = { orders = true }, dict = {} } })
  return conf and conf.a, found:text(), found:count()
end

local function f() end
local NAN, INFINITE, OBJECT = 0 / 0, 1 / 0, setmetatable({}, { __tostring = function() error "no text" end })
local OTHERS = { 5, 0.5, -1, NAN, INFINITE, "text", "", true, false, { "x" }, { x = 1 }, {}, f, coroutine.create(f), tg.null, OBJECT }

-- Of each type: what it takes and what that becomes, and what it refuses beside all of OTHERS that are not named in `takes`.
local types = {
  { "string", t.string(), { { "a\0b" }, { "" }, { "text" } }, {} },
  { "string of four", t.string { len = 4 }, { { "1234" }, { "" }, { "text" } }, { "12345" } },
  { "string with a pattern", t.string { match = "^%l+$" }, { { "abc" }, { "text" } }, { "", "A", "a b" } },
  { "string of a few", t.string { one_of = { "x", "y" } }, { { "x" } }, { "z", "X", "" } },
  { "integer", t.integer(), { { 2 ^ 53 }, { -5 }, { 5 }, { -1 } }, { 2 ^ 53 + 2, "5" } },
  { "integer in a range", t.integer { min = 1, max = 5 }, { { 1 }, { 5 } }, { 0, 6 } },
  { "number", t.number(), { { 1e300 }, { 5 }, { 0.5 }, { -1 } }, { "1" } },
  { "number in a range", t.number { min = 0 }, { { 0 }, { 5 }, { 0.5 } }, { -1e-9 } },
  { "boolean", t.boolean(), { { true }, { false } }, { "true", "yes", 1 } },
  { "date", t.date(), { { "1970-01-01", 0 }, { "2024-02-29", 1709164800 }, { "1969-12-31", -86400 } },
    { "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "2024-1-1", "2024-01-01T00:00:00Z", " 2024-01-01", "01.01.2024" } },
  { "duration", t.duration(), { { "250ms", 0.25 }, { "1.5s", 1.5 }, { "2h", 7200 }, { "1d", 86400 }, { 5 }, { 0.5 } },
    { "1 s", "s", "-1s", "1w", "1", "1S", "0x1s" } },
  { "duration in a range", t.duration { min = 1, max = 60 }, { { "1m", 60 }, { 5 } }, { "61s", "500ms" } },
  { "size", t.size(), { { "1KiB", 1024 }, { "1.5KB", 1500 }, { "10MiB", 10485760 }, { 5 }, { 0.5, 0 } }, { "1kib", "1K", "1", "-1B", "1 KiB" } },
  { "status", t.status(), { { 200 }, { 599 } }, { 199, 600, "200", 200.5 } },
  { "header", t.header(), { { "X-Api-Key" }, { "a" }, { "text" } }, { "a b", "a:", "a\r\n", "ä", "a(b)" } },
  { "url", t.url(), { { "http://a" }, { "HTTPS://A.B:8443/x?y=%20#z", "https://a.b:8443/x?y=%20#z" }, { "http://[::1]:80/" }, { "http://1.2.3.4" } },
    { "http://", "/x", "//a/x", "ftp://a", "http://a b",
      "http://a/%", "http://a:0", "http://u@a", "http://u:hunter2@a", "http://1.2.3", "http://a..b",
      "http://-a", "http://[::g]", "http://a\n", "mailto:a@b", "http://a,b" } },
  { "cidr", t.cidr(), { { "10.0.0.0/8" }, { "::1" }, { "::/0" } }, { "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "localhost", "::/129", "1.2.3.4\0" } },
  { "ip", t.ip(), { { "10.0.0.1" }, { "::1" } }, { "10.0.0.0/8", "256.1.1.1", "a", "[::1]" } },
  { "upstream", t.upstream(), { { "orders" } }, { "ordres" } },
  { "dict", t.dict(), {}, { "rates" } },
  { "enum", t.enum { "a", "b" }, { { "a" }, { "b" } }, { "c", "A" } },
  { "func", t.func(), { { f } }, {} },
  { "list", t.list(t.integer()), { { { 1, 2 } }, { {} }, { 5, { 5 } }, { -1, { -1 } } }, { { "x" }, { 1, nil, 3 }, { 1, x = 2 }, "x" } },
  { "list in a range", t.list(t.integer(), { min = 1, max = 2 }), { { { 1 } }, { { 1, 2 } }, { 5, { 5 } }, { -1, { -1 } } }, { {}, { 1, 2, 3 } } },
  { "map", t.map(t.integer()), { { { a = 1 } }, { {} }, { { x = 1 } } }, { { "x" }, { a = "x" }, { 1 } } },
  { "record", t.record { x = t.integer(), y = t.string "z" }, { { { x = 1 }, { x = 1, y = "z" } } }, { {}, { x = "1" }, { x = 1, z = 1 }, { 1 } } },
  { "any_of", t.any_of { t.integer(), t.duration() }, { { 5 }, { "1m", 60 }, { 0.5 }, { -1 } }, { "x" } },
}

local function show(value)
  return value == OBJECT and "an object" or type(value) == "table" and tg.json.encode(value, { sorted = true }) or tostring(value)
end

describe("t", function()
  it("takes what is meant", function()
    for _, case in ipairs(types) do
      for _, pair in ipairs(case[3]) do
        local wanted = pair[2]
        if wanted == nil then wanted = pair[1] end
        local value, text = apply(case[2], pair[1])
        expect(case[1] .. ": " .. show(pair[1]) .. text):equals(case[1] .. ": " .. show(pair[1]))
        expect(value):equals(wanted)
      end
    end
  end)

  it("refuses everything else, with one message each", function()
    for _, case in ipairs(types) do
      local refused, taken = { unpack(case[4]) }, { ["an object"] = case[1] == "map" or case[1]:find "^list" }
      for _, pair in ipairs(case[3]) do taken[show(pair[1])] = true end
      for _, other in ipairs(OTHERS) do
        if not taken[show(other)] then refused[#refused + 1] = other end
      end
      for _, bad in ipairs(refused) do
        local value, text, count = apply(case[2], bad)
        expect(case[1] .. ": " .. show(bad) .. " " .. type(value)):equals(case[1] .. ": " .. show(bad) .. " nil")
        expect(count >= 1):is_true()
        expect(text):matches "x  a"
        expect(text:find "hunter2"):is_nil()
      end
    end
  end)

  it("takes a value of each kind as any, and what fits as a template", function()
    for _, value in ipairs { 5, "x", true, false, f } do expect(apply(t.any(), value)):equals(value) end
    expect(apply(t.template(), "a") {}):equals "a"
    for _, bad in ipairs { "${x", "${nobody}", 5, {}, true } do expect((apply(t.template(), bad))):is_nil() end
  end)

  it("takes the bytes of a file that can be read", function()
    local secret = require "tidegate.secret"
    secret.source = { read = function(_, path)
      if path == "large.pb" then return ("x"):rep(16 * 1024 * 1024) .. "x" end
      if path ~= "api.pb" then return nil, path .. ": No such file or directory" end
      return "a\0b"
    end }
    expect(apply(t.file(), "api.pb")):equals "a\0b"
    local wrong = { ["other.pb"] = "No such file", ["large.pb"] = "at most 16 MiB", [""] = "the path of a file", [5] = "the path of a file" }
    for path, what in pairs(wrong) do
      local value, text = apply(t.file(), path)
      expect(value):equals(nil)
      expect(text:find(what, 1, true) ~= nil):equals(true)
    end
    secret.source = nil
  end)

  it("refuses types that are written wrongly, at the line of the plugin", function()
    for _, case in ipairs {
      { function() t.list() end, "t.list needs a type" }, { function() t.list "x" end, "t.list needs a type" },
      { function() t.map {} end, "t.map needs a type" },
      { function() t.optional(5) end, "t.optional needs a type" }, { function() t.enum() end, "t.enum needs a list" },
      { function() t.enum { 1, 2 } end, "a list of strings" }, { function() t.any_of { t.string(), "x" } end, "t.any_of needs a type" },
      { function() t.any_of() end, "t.any_of needs a list" }, { function() t.record() end, "t.record needs a table" },
      { function() t.record { x = 5 } end, "t.record needs a type" }, { function() t.integer { minimum = 1 } end, "no option minimum" },
      { function() t.string { mach = "x" } end, 'no option mach; did you mean "match"?' },
      { function() t.string { match = "[" } end, "malformed pattern" },
    } do
      expect(case[1]):raises(case[2])
      expect(case[1]):raises "types.spec.lua"
    end
  end)
end)
