-- What protoc has made of these two files, with --include_imports --descriptor_set_out:
--   syntax = "proto3";
--   package wire;
--   enum Color { COLOR_UNSPECIFIED = 0; RED = 1; BLUE = -2; }
--   message All {
--     int32 i32 = 1; int64 i64 = 2; uint32 u32 = 3; uint64 u64 = 4; sint32 s32 = 5; sint64 s64 = 6;
--     fixed32 f32 = 7; fixed64 f64 = 8; sfixed32 sf32 = 9; sfixed64 sf64 = 10; float fl = 11; double dbl = 12;
--     bool flag = 13; string text = 14; bytes raw = 15; Color color = 16; All child = 17;
--     repeated int32 packed = 18; repeated string words = 19; repeated All children = 20;
--     map<string, int64> counts = 21; map<int32, All> by_number = 22; map<bool, Color> by_flag = 23;
--     oneof choice { string name = 24; int32 id = 25; All other = 26; }
--     optional int32 maybe = 27;
--     repeated sint64 zigzags = 28 [packed = false];
--     repeated double reals = 29;
--   }
--   syntax = "proto2";
--   package old;
--   message Old {
--     required int32 id = 1;
--     repeated int32 list = 2;
--     optional group Part = 3 { optional string name = 1; optional Old deep = 2; }
--     optional int64 big = 4 [default = 7];
--   }
local SET = table.concat {
  "CpkICgp3aXJlLnByb3RvEgR3aXJlIsAHCgNBbGwSEAoDaTMyGAEgASgFUgNpMzISEAoDaTY0GAIgASgDUgNpNjQSEAoDdTMyGAMgASgNUgN1MzISEAoDdTY0GAQgASgEUgN1NjQSEAoD",
  "czMyGAUgASgRUgNzMzISEAoDczY0GAYgASgSUgNzNjQSEAoDZjMyGAcgASgHUgNmMzISEAoDZjY0GAggASgGUgNmNjQSEgoEc2YzMhgJIAEoD1IEc2YzMhISCgRzZjY0GAogASgQUgRz",
  "ZjY0Eg4KAmZsGAsgASgCUgJmbBIQCgNkYmwYDCABKAFSA2RibBISCgRmbGFnGA0gASgIUgRmbGFnEhIKBHRleHQYDiABKAlSBHRleHQSEAoDcmF3GA8gASgMUgNyYXcSIQoFY29sb3IY",
  "ECABKA4yCy53aXJlLkNvbG9yUgVjb2xvchIfCgVjaGlsZBgRIAEoCzIJLndpcmUuQWxsUgVjaGlsZBIWCgZwYWNrZWQYEiADKAVSBnBhY2tlZBIUCgV3b3JkcxgTIAMoCVIFd29yZHMS",
  "JQoIY2hpbGRyZW4YFCADKAsyCS53aXJlLkFsbFIIY2hpbGRyZW4SLQoGY291bnRzGBUgAygLMhUud2lyZS5BbGwuQ291bnRzRW50cnlSBmNvdW50cxI0CglieV9udW1iZXIYFiADKAsy",
  "Fy53aXJlLkFsbC5CeU51bWJlckVudHJ5UghieU51bWJlchIuCgdieV9mbGFnGBcgAygLMhUud2lyZS5BbGwuQnlGbGFnRW50cnlSBmJ5RmxhZxIUCgRuYW1lGBggASgJSABSBG5hbWUS",
  "EAoCaWQYGSABKAVIAFICaWQSIQoFb3RoZXIYGiABKAsyCS53aXJlLkFsbEgAUgVvdGhlchIZCgVtYXliZRgbIAEoBUgBUgVtYXliZYgBARIcCgd6aWd6YWdzGBwgAygSQgIQAFIHemln",
  "emFncxIUCgVyZWFscxgdIAMoAVIFcmVhbHMaOQoLQ291bnRzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSFAoFdmFsdWUYAiABKANSBXZhbHVlOgI4ARpGCg1CeU51bWJlckVudHJ5EhAK",
  "A2tleRgBIAEoBVIDa2V5Eh8KBXZhbHVlGAIgASgLMgkud2lyZS5BbGxSBXZhbHVlOgI4ARpGCgtCeUZsYWdFbnRyeRIQCgNrZXkYASABKAhSA2tleRIhCgV2YWx1ZRgCIAEoDjILLndp",
  "cmUuQ29sb3JSBXZhbHVlOgI4AUIICgZjaG9pY2VCCAoGX21heWJlKjoKBUNvbG9yEhUKEUNPTE9SX1VOU1BFQ0lGSUVEEAASBwoDUkVEEAESEQoEQkxVRRD+//////////8BYgZwcm90",
  "bzMKrgEKCW9sZC5wcm90bxIDb2xkIpsBCgNPbGQSDgoCaWQYASACKAVSAmlkEhIKBGxpc3QYAiADKAVSBGxpc3QSIQoEcGFydBgDIAEoCjINLm9sZC5PbGQuUGFydFIEcGFydBITCgNi",
  "aWcYBCABKAM6ATdSA2JpZxo4CgRQYXJ0EhIKBG5hbWUYASABKAlSBG5hbWUSHAoEZGVlcBgCIAEoCzIILm9sZC5PbGRSBGRlZXA=",
}

-- What `protoc --encode=wire.All` has made of this text:
--   i32: -5 i64: -9223372036854775808 u32: 4294967295 u64: 18446744073709551615 s32: -2147483648 s64: -9007199254740993
--   f32: 4294967295 f64: 9007199254740993 sf32: -7 sf64: -9223372036854775808 fl: 0.1 dbl: 1e300
--   flag: true text: "h\303\244" raw: "\000\377" color: BLUE child { i32: 1 child { text: "deep" } }
--   packed: [1, -1, 300, 2147483647] words: ["a", ""] children { } children { i32: 3 }
--   counts { key: "a" value: 1 } counts { key: "b" value: -2 } by_number { key: -1 value { i32: 9 } } by_flag { key: false value: RED }
--   other { text: "x" } maybe: 0 zigzags: [-1, 1, -9223372036854775808] reals: [0.5, -inf]
local ALL = table.concat {
  "CPv//////////wEQgICAgICAgICAARj/////DyD///////////8BKP////8PMIGAgICAgIAgPf////9BAQAAAAAAIABN+f///1EAAAAAAAAAgF3NzMw9YZx1AIg85Dd+aAFyA2jDpHoC",
  "AP+AAf7//////////wGKAQsIAYoBBnIEZGVlcJIBEgH///////////8BrAL/////B5oBAWGaAQCiAQCiAQIIA6oBBQoBYRABqgEOCgFiEP7//////////wGyAQ8I////////////ARIC",
  "CAm6AQQIABAB0gEDcgF42AEA4AEB4AEC4AH///////////8B6gEQAAAAAAAA4D8AAAAAAADw/w==",
}
local OLD = "CAQQARACGwoBbhICCAUcIAA=" -- id: 4 list: [1, 2] Part { name: "n" deep { id: 5 } } big: 0

local message = {
  i32 = -5, i64 = "-9223372036854775808", u32 = 4294967295, u64 = "18446744073709551615", s32 = -2147483648, s64 = "-9007199254740993",
  f32 = 4294967295, f64 = "9007199254740993", sf32 = -7, sf64 = "-9223372036854775808", dbl = 1e300, flag = true, text = "h\195\164",
  raw = "\0\255", color = "BLUE", child = { i32 = 1, child = { text = "deep" } }, packed = { 1, -1, 300, 2147483647 }, words = { "a", "" },
  children = { {}, { i32 = 3 } }, counts = { a = "1", b = "-2" }, by_number = { ["-1"] = { i32 = 9 } }, by_flag = { ["false"] = "RED" },
  other = { text = "x" }, maybe = 0, zigzags = { "-1", "1", "-9223372036854775808" }, reals = { 0.5, -math.huge },
}

local set = assert(tg.protobuf.load(tg.crypto.unbase64(SET)))
local all, old = set:message "wire.All", set:message "old.Old"

local function refused(kind, given, what)
  local bytes, err = kind:encode(given)
  expect(bytes):equals(nil)
  expect(err.code):equals "encode"
  expect(err.message:find(what, 1, true) ~= nil):equals(true)
end

local function malformed(bytes, what)
  local value, err = all:decode(bytes)
  expect(value):equals(nil)
  expect(err.code):equals "decode"
  if not err.message:find(what, 1, true) then expect(err.message):equals(what) end
end

describe("protobuf", function()
  it("reads what protoc has written", function()
    local found = assert(all:decode(tg.crypto.unbase64(ALL)))
    expect(math.abs(found.fl - 0.1) < 1e-8):equals(true)
    found.fl = nil
    expect(found):equals(message)
  end)

  it("writes what protoc writes, byte by byte", function()
    local given = {}
    for name, value in pairs(message) do given[name] = value end
    given.fl = 0.1
    expect(tg.crypto.base64(assert(all:encode(given)))):equals(ALL)
  end)

  it("knows proto2: groups, fields that are there although they are zero, lists that are not packed", function()
    local found = assert(old:decode(tg.crypto.unbase64(OLD)))
    expect(found):equals { id = 4, list = { 1, 2 }, part = { name = "n", deep = { id = 5 } }, big = "0" }
    expect(tg.crypto.base64(assert(old:encode(found)))):equals(OLD)
  end)

  it("takes numbers as numbers and as text", function()
    for _, value in ipairs { 3, "3", "3.0", "3e0" } do expect(all:encode { i32 = value }):equals "\8\3" end
    expect(all:encode { i64 = 2 ^ 53 }):equals(all:encode { i64 = "9007199254740992" })
    expect(all:decode(all:encode { u64 = 2 ^ 63 })):equals { u64 = "9223372036854775808" }
    expect(all:encode { dbl = "NaN" }):equals(all:encode { dbl = 0 / 0 })
    expect(all:encode { i32 = 0, text = "", flag = false, color = "COLOR_UNSPECIFIED", dbl = 0 }):equals ""
    expect(#all:encode { dbl = -0.0 }):equals(9)
    expect(all:encode { color = 77 }):equals "\128\1\77"
    expect(all:decode "\128\1\77"):equals { color = 77 }
  end)

  it("refuses what a field cannot be, and names it", function()
    refused(all, { i32 = 2 ^ 31 }, "i32: found 2147483648, expected a whole number of 32 bits")
    refused(all, { i32 = 1.5 }, "i32: found 1.5")
    refused(all, { u32 = -1 }, "not negative")
    refused(all, { u32 = "0x10" }, 'found "0x10"')
    refused(all, { i64 = "9223372036854775808" }, "64 bits")
    refused(all, { u64 = "18446744073709551616" }, "64 bits")
    refused(all, { u64 = ("9"):rep(30) }, "64 bits")
    refused(all, { s64 = "-9223372036854775809" }, "64 bits")
    refused(all, { fl = 1e39 }, "a float")
    refused(all, { flag = 1 }, "true or false")
    refused(all, { text = "\255" }, "no UTF-8")
    refused(all, { text = "\237\160\128" }, "no UTF-8")
    refused(all, { color = "GREEN" }, "a value of wire.Color")
    refused(all, { child = { child = { packed = { 1, "x" } } } }, 'child.child.packed: found "x"')
    refused(all, { children = { {}, { nothing = 1 } } }, "children.nothing: there is no such field in wire.All")
    refused(all, { children = "x" }, "a list")
    refused(all, { counts = 1 }, "a map")
    refused(all, { counts = { a = {} } }, "counts.value: found a table")
    refused(all, { by_flag = { maybe = "RED" } }, "key")
    refused(all, { name = "a", id = 1 }, "only one of them")
    local deep = {}
    for _ = 1, 120 do deep = { child = deep } end
    refused(all, deep, "more than 100 levels")
  end)

  it("keeps the last one of what can only be there once, and puts messages together", function()
    expect(all:decode(all:encode { name = "a" } .. all:encode { id = 3 })):equals { id = 3 }
    expect(all:decode(all:encode { child = { i32 = 1, packed = { 1 } } } .. all:encode { child = { text = "x", packed = { 2 } } })):equals {
      child = { i32 = 1, text = "x", packed = { 1, 2 } } }
    expect(all:decode "\144\1\5\146\1\2\6\7"):equals { packed = { 5, 6, 7 } } -- one by one, and packed
    expect(all:decode "\170\1\0"):equals { counts = { [""] = "0" } } -- an entry that says nothing
  end)

  it("leaves out what it does not know", function()
    local unknown = "\160\31\1" .. "\161\31" .. ("x"):rep(8) .. "\162\31\3abc" .. "\163\31\8\1\164\31" .. "\165\31xxxx"
    expect(all:decode(unknown .. "\8\3")):equals { i32 = 3 }
    expect(all:decode "\10\1x"):equals {} -- a known number in another form
  end)

  it("refuses malformed bytes, wherever they are cut", function()
    local whole, some = tg.crypto.unbase64(ALL), 0
    for n = 0, #whole do
      local _, err = all:decode(whole:sub(1, n))
      if err then
        expect(err.code):equals "decode"
        some = some + 1
      end
    end
    expect(some > 50):equals(true)
    malformed("\8", "is cut")
    malformed("\8" .. ("\255"):rep(10) .. "\1", "more than ten bytes")
    malformed("\0\1", "a number that there is not")
    malformed("\255\255\255\255\127\1", "a number that there is not")
    malformed("\12", "the end of a group")
    malformed("\14\1", "a form that there is not")
    malformed("\163\31\8\1", "is cut")
    malformed("\114\1\255", "text: the text is no UTF-8")
    malformed("\138\1\4\114\2\255\255", "child.text: the text is no UTF-8")
    malformed("\146\1\1\255", "is cut")
    malformed("\57\1\2\3", "is cut")
    malformed(("\163\31"):rep(200), "more than 100 levels")
    local deep = ""
    for _ = 1, 120 do deep = "\138\1" .. (#deep < 128 and string.char(#deep) or string.char(#deep % 128 + 128, math.floor(#deep / 128))) .. deep end
    malformed(deep, "more than 100 levels")
  end)

  it("survives bytes that mean nothing", function()
    local state = 1
    for _ = 1, 2000 do
      local bytes = {}
      for i = 1, 40 do
        state = state * 1103515245 % 2 ^ 31 + 12345
        bytes[i] = string.char(math.floor(state / 4096) % 256)
      end
      local value, err = all:decode(table.concat(bytes))
      expect(value ~= nil or err.code == "decode"):equals(true)
    end
  end)

  it("says what is wrong with a set of descriptors", function()
    local function wrong(bytes, what)
      local found, err = tg.protobuf.load(bytes)
      expect(found):equals(nil)
      if not err.message:find(what, 1, true) then expect(err.message):equals(what) end
    end
    local whole = tg.crypto.unbase64(SET)
    wrong("", "there is no file in it")
    wrong("syntax = \"proto3\";\n", "no set of descriptors")
    wrong(whole:sub(1, 500), "is cut")
    wrong(whole .. whole, "two of the name wire.All")
    wrong((whole:gsub("wire%.Color", "wire.Colon")), "the type .wire.Colon is not in the set: make it with --include_imports")
    wrong((whole:gsub("proto3", "protoX")), 'the syntax "protoX"')
    for n = 1, #whole, 7 do
      local found, err = tg.protobuf.load(whole:sub(1, n))
      expect(found ~= nil or err.code == "decode"):equals(true)
    end
    expect(set:message "wire.None"):equals(nil)
    expect(set:message "wire.Color"):equals(nil)
  end)
end)
