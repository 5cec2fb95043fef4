local re = tg.re

local function pieces_of(text, sizes)
  local at, i = 1, 0
  return function()
    if at > #text then return nil end
    i = i % #sizes + 1
    local piece = text:sub(at, at + sizes[i] - 1)
    at = at + #piece
    return piece
  end
end

-- What matches gives, with the matches in brackets; and how often text came.
local function streamed(text, sizes, pattern, flags)
  local out, count = {}, 0
  for before, m in tg.re.matches(pieces_of(text, sizes), pattern, flags) do
    out[#out + 1] = before
    if m then out[#out + 1] = "[" .. m[0] .. "]" end
    count = count + 1
  end
  return table.concat(out), count
end

describe("re", function()
  it("matches, with captures by number and name", function()
    local m = re.match("user: ann@example.org", [[(?<name>\w+)@(\w+)\.(org|com)(x)?]])
    expect({ m[0], m[1], m[2], m[3], m[4], m.name }):equals { "ann@example.org", "ann", "example", "org", false, "ann" }
    expect(re.match("x", "y")):is_nil()
    expect(re.test("ABC", "b", "i")):is_true()
    expect(re.test("ABC", "b")):equals(false)
    expect({ re.find("a1b22", [[\d+]], 3) }):equals { 4, 5, { [0] = "22" } }
    expect(re.test("a\nb", "^b$", "m")):is_true()
    expect(re.test("a\nb", "a.b", "s")):is_true()
    expect(re.test("ba", "a", "a")):equals(false)
    expect(re.match("näh", "n(.)h", "u")[1]):equals "ä"
    expect(re.match("n\255h", "n(.)h", "u")):is_nil()
    expect(re.test("", "^$")):is_true()
    expect(re.match("a\0b", [[a\x00b]])[0]):equals "a\0b"
  end)

  it("goes through all matches, also of nothing", function()
    local function all(text, pattern, flags)
      local out = {}
      for m in re.gmatch(text, pattern, flags) do out[#out + 1] = m[0] end
      return out
    end
    expect(all("a1b22", [[\d+]])):equals { "1", "22" }
    expect(all("abc", "x*")):equals { "", "", "", "" }
    expect(all("aäb", "x*", "u")):equals { "", "", "", "" }
    expect(all("baac", "a*")):equals { "", "aa", "", "" }
    expect(all("", "x")):equals {}
  end)

  it("replaces", function()
    expect({ re.gsub("a1b22", [[(\d)(\d)?]], "<$1$2$$>") }):equals { "a<1$>b<22$>", 2 }
    expect({ re.gsub("x-y", [[(?<l>\w)-(?<r>\w)]], "${r}-${l}") }):equals { "y-x", 1 }
    expect({ re.gsub("aaa", "a", "b", nil, 2) }):equals { "bba", 2 }
    expect({ re.gsub("a b", [[\w]], { a = "1" }) }):equals { "1 b", 2 }
    expect({ re.gsub("abc", "[ac]", function(m) return m[0] == "a" and m[0]:upper() or nil end) }):equals { "Abc", 2 }
    expect({ re.gsub("abc", "", "-") }):equals { "-a-b-c-", 4 }
    expect({ re.gsub("abc", "x", "-") }):equals { "abc", 0 }
    expect(function() re.gsub("a", "a", "$1") end):raises "re.spec.lua"
    expect(function() re.gsub("a", "a", "${x}") end):raises "a $ without a group"
    expect(function() re.gsub("a", "a", 5) end):raises "a replacement is"
  end)

  it("splits", function()
    expect(re.split("a, b,c", [[,\s*]])):equals { "a", "b", "c" }
    expect(re.split("a,b,c", ",", nil, 2)):equals { "a", "b,c" }
    expect(re.split("abc", "")):equals { "a", "b", "c" }
    expect(re.split("", ",")):equals { "" }
    expect(re.split(",a,", ",")):equals { "", "a", "" }
  end)

  it("raises at the line of a wrong pattern", function()
    local malformed = { ["a("] = "at byte 3: missing closing parenthesis", ["[z-a]"] = "range out of order", ["\\"] = "\\ at end of pattern" }
    for pattern, part in pairs(malformed) do
      expect(function() re.test("a", pattern) end):raises(part)
      expect(function() re.test("a", pattern) end):raises "re.spec.lua"
    end
    expect(function() re.test("a", "a", "z") end):raises "unknown flag"
    expect(function() re.test({}, "a") end):raises "needs a string"
    expect(function() re.test("a", {}) end):raises "a pattern is a string"
    expect(function() re.test("a", ("a"):rep(20000)) end):raises "longer than 16384 bytes"
    expect(function() re.test("a", ("(a)"):rep(100)) end):raises "more than 99 groups"
  end)

  it("never runs away, and never says no when it does not know", function()
    expect(function() re.test(("a"):rep(30000) .. "!", [[^(a+)+$]]) end):raises "takes too long"
    expect(function() re.test(("a"):rep(70000), "b") end):raises "more than 64 KiB"
    expect(re.test(("a"):rep(65536), "a$")):is_true()
  end)

  it("keeps patterns, and not all that were ever made", function()
    expect(re.compile "kept" == re.compile "kept"):is_true()
    for i = 1, 2100 do re.test("x", "made-" .. i) end
    expect(re.test("made-5", "^made-5$")):is_true()
    local regex = re.compile([[(\d+)]])
    expect({ regex:gsub("a1", "<$1>") }):equals { "a<1>", 1 }
  end)
end)

describe("re.matches", function()
  it("finds what is cut by the borders of pieces, and gives all bytes in order", function()
    local text = "Hello {{user:42}}, {{user:7}} and {{user:x}} {{us"
    local expected = "Hello [{{user:42}}], [{{user:7}}] and {{user:x}} {{us"
    for size = 1, #text do expect((streamed(text, { size }, [[\{\{user:(\d+)\}\}]]))):equals(expected) end
  end)

  it("gives what it finds in the whole text, however that is cut", function()
    local alphabet = { "a", "b", "ab", "\n", " ", "ä", "1" }
    local patterns = {
      { "ab+" }, { [[\bab\b]] }, { "(?<=a)b" }, { "^a", "m" }, { "[a-c]+1" }, { "ä.", "u" },
      { "(?<=ä)b", "u" }, { [[\Aa]] }, { "b$", "m" }, { "a(?=b)" }, { "a|ab|abb" },
    }
    for round = 1, 300 do
      local parts, sizes = {}, {}
      for i = 1, round % 40 + 1 do parts[i] = alphabet[math.random(#alphabet)] end
      for i = 1, 5 do sizes[i] = math.random(7) end
      local text = table.concat(parts)
      for _, case in ipairs(patterns) do
        local whole = re.gsub(text, case[1], "[$0]", case[2])
        local found = streamed(text, sizes, case[1], case[2])
        if found ~= whole then expect(("%s in %q by %s"):format(found, text, case[1])):equals(whole) end
      end
    end
  end)

  it("holds nothing back that cannot match any more", function()
    local read, given = pieces_of("no match here {", { 15 }), 0
    local following = tg.re.matches(function() given = given + 1 return read() end, "{{x")
    expect((following())):equals "no match here "
    expect(given):equals(1)
  end)

  it("looks no further than its window", function()
    local text = "<" .. ("x"):rep(200000) .. ">y<z>"
    expect((streamed(text, { 5000 }, "<[^>]*>"))):equals(text:sub(1, -4) .. "[<z>]")
  end)

  it("refuses a pattern that is everywhere", function()
    expect(function() tg.re.matches(function() end, "x*") end):raises "matches nothing at all"
  end)
end)
