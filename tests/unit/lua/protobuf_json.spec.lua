-- What protoc has made of this file, with --include_imports --descriptor_set_out:
--   syntax = "proto3";
--   package known;
--   import "google/protobuf/any.proto";
--   import "google/protobuf/duration.proto";
--   import "google/protobuf/empty.proto";
--   import "google/protobuf/field_mask.proto";
--   import "google/protobuf/struct.proto";
--   import "google/protobuf/timestamp.proto";
--   import "google/protobuf/wrappers.proto";
--   enum Kind { KIND_UNSPECIFIED = 0; GOOD = 1; }
--   message All {
--     google.protobuf.Timestamp at = 1;
--     google.protobuf.Duration lasts = 2;
--     google.protobuf.Int64Value big = 3;
--     google.protobuf.BoolValue is_so = 4;
--     google.protobuf.StringValue text = 5;
--     google.protobuf.BytesValue raw = 6;
--     google.protobuf.Struct object = 7;
--     google.protobuf.Value anything = 8;
--     google.protobuf.ListValue list = 9;
--     google.protobuf.Any any = 10;
--     google.protobuf.FieldMask update_mask = 11;
--     google.protobuf.Empty nothing = 12;
--     google.protobuf.NullValue nil_value = 13;
--     int64 big_number = 14;
--     double real = 15;
--     float short_real = 16;
--     bytes data = 17;
--     Kind kind = 18;
--     repeated string words = 19;
--     map<string, Kind> kinds = 20;
--     oneof choice { string name = 21; int32 id = 22; }
--     optional bool maybe = 23;
--     string odd_name = 24 [json_name = "ODD"];
--     All child = 25;
--     repeated google.protobuf.Value values = 26;
--     map<int64, bool> flags = 27;
--     google.protobuf.FloatValue share = 28;
--   }
local SET = table.concat {
  "CuQBChlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvEg9nb29nbGUucHJvdG9idWYiNgoDQW55EhkKCHR5cGVfdXJsGAEgASgJUgd0eXBlVXJsEhQKBXZhbHVlGAIgASgMUgV2YWx1ZUJ2",
  "ChNjb20uZ29vZ2xlLnByb3RvYnVmQghBbnlQcm90b1ABWixnb29nbGUuZ29sYW5nLm9yZy9wcm90b2J1Zi90eXBlcy9rbm93bi9hbnlwYqICA0dQQqoCHkdvb2dsZS5Qcm90b2J1Zi5X",
  "ZWxsS25vd25UeXBlc2IGcHJvdG8zCvsBCh5nb29nbGUvcHJvdG9idWYvZHVyYXRpb24ucHJvdG8SD2dvb2dsZS5wcm90b2J1ZiI6CghEdXJhdGlvbhIYCgdzZWNvbmRzGAEgASgDUgdz",
  "ZWNvbmRzEhQKBW5hbm9zGAIgASgFUgVuYW5vc0KDAQoTY29tLmdvb2dsZS5wcm90b2J1ZkINRHVyYXRpb25Qcm90b1ABWjFnb29nbGUuZ29sYW5nLm9yZy9wcm90b2J1Zi90eXBlcy9r",
  "bm93bi9kdXJhdGlvbnBi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzMKvgEKG2dvb2dsZS9wcm90b2J1Zi9lbXB0eS5wcm90bxIPZ29vZ2xl",
  "LnByb3RvYnVmIgcKBUVtcHR5Qn0KE2NvbS5nb29nbGUucHJvdG9idWZCCkVtcHR5UHJvdG9QAVouZ29vZ2xlLmdvbGFuZy5vcmcvcHJvdG9idWYvdHlwZXMva25vd24vZW1wdHlwYvgB",
  "AaICA0dQQqoCHkdvb2dsZS5Qcm90b2J1Zi5XZWxsS25vd25UeXBlc2IGcHJvdG8zCuYBCiBnb29nbGUvcHJvdG9idWYvZmllbGRfbWFzay5wcm90bxIPZ29vZ2xlLnByb3RvYnVmIiEK",
  "CUZpZWxkTWFzaxIUCgVwYXRocxgBIAMoCVIFcGF0aHNChQEKE2NvbS5nb29nbGUucHJvdG9idWZCDkZpZWxkTWFza1Byb3RvUAFaMmdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5",
  "cGVzL2tub3duL2ZpZWxkbWFza3Bi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzMK4gUKHGdvb2dsZS9wcm90b2J1Zi9zdHJ1Y3QucHJvdG8S",
  "D2dvb2dsZS5wcm90b2J1ZiKYAQoGU3RydWN0EjsKBmZpZWxkcxgBIAMoCzIjLmdvb2dsZS5wcm90b2J1Zi5TdHJ1Y3QuRmllbGRzRW50cnlSBmZpZWxkcxpRCgtGaWVsZHNFbnRyeRIQ",
  "CgNrZXkYASABKAlSA2tleRIsCgV2YWx1ZRgCIAEoCzIWLmdvb2dsZS5wcm90b2J1Zi5WYWx1ZVIFdmFsdWU6AjgBIrICCgVWYWx1ZRI7CgpudWxsX3ZhbHVlGAEgASgOMhouZ29vZ2xl",
  "LnByb3RvYnVmLk51bGxWYWx1ZUgAUgludWxsVmFsdWUSIwoMbnVtYmVyX3ZhbHVlGAIgASgBSABSC251bWJlclZhbHVlEiMKDHN0cmluZ192YWx1ZRgDIAEoCUgAUgtzdHJpbmdWYWx1",
  "ZRIfCgpib29sX3ZhbHVlGAQgASgISABSCWJvb2xWYWx1ZRI8CgxzdHJ1Y3RfdmFsdWUYBSABKAsyFy5nb29nbGUucHJvdG9idWYuU3RydWN0SABSC3N0cnVjdFZhbHVlEjsKCmxpc3Rf",
  "dmFsdWUYBiABKAsyGi5nb29nbGUucHJvdG9idWYuTGlzdFZhbHVlSABSCWxpc3RWYWx1ZUIGCgRraW5kIjsKCUxpc3RWYWx1ZRIuCgZ2YWx1ZXMYASADKAsyFi5nb29nbGUucHJvdG9i",
  "dWYuVmFsdWVSBnZhbHVlcyobCglOdWxsVmFsdWUSDgoKTlVMTF9WQUxVRRAAQn8KE2NvbS5nb29nbGUucHJvdG9idWZCC1N0cnVjdFByb3RvUAFaL2dvb2dsZS5nb2xhbmcub3JnL3By",
  "b3RvYnVmL3R5cGVzL2tub3duL3N0cnVjdHBi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzMK/wEKH2dvb2dsZS9wcm90b2J1Zi90aW1lc3Rh",
  "bXAucHJvdG8SD2dvb2dsZS5wcm90b2J1ZiI7CglUaW1lc3RhbXASGAoHc2Vjb25kcxgBIAEoA1IHc2Vjb25kcxIUCgVuYW5vcxgCIAEoBVIFbmFub3NChQEKE2NvbS5nb29nbGUucHJv",
  "dG9idWZCDlRpbWVzdGFtcFByb3RvUAFaMmdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL3RpbWVzdGFtcHBi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldl",
  "bGxLbm93blR5cGVzYgZwcm90bzMKhgQKHmdvb2dsZS9wcm90b2J1Zi93cmFwcGVycy5wcm90bxIPZ29vZ2xlLnByb3RvYnVmIiMKC0RvdWJsZVZhbHVlEhQKBXZhbHVlGAEgASgBUgV2",
  "YWx1ZSIiCgpGbG9hdFZhbHVlEhQKBXZhbHVlGAEgASgCUgV2YWx1ZSIiCgpJbnQ2NFZhbHVlEhQKBXZhbHVlGAEgASgDUgV2YWx1ZSIjCgtVSW50NjRWYWx1ZRIUCgV2YWx1ZRgBIAEo",
  "BFIFdmFsdWUiIgoKSW50MzJWYWx1ZRIUCgV2YWx1ZRgBIAEoBVIFdmFsdWUiIwoLVUludDMyVmFsdWUSFAoFdmFsdWUYASABKA1SBXZhbHVlIiEKCUJvb2xWYWx1ZRIUCgV2YWx1ZRgB",
  "IAEoCFIFdmFsdWUiIwoLU3RyaW5nVmFsdWUSFAoFdmFsdWUYASABKAlSBXZhbHVlIiIKCkJ5dGVzVmFsdWUSFAoFdmFsdWUYASABKAxSBXZhbHVlQoMBChNjb20uZ29vZ2xlLnByb3Rv",
  "YnVmQg1XcmFwcGVyc1Byb3RvUAFaMWdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL3dyYXBwZXJzcGL4AQGiAgNHUEKqAh5Hb29nbGUuUHJvdG9idWYuV2VsbEtu",
  "b3duVHlwZXNiBnByb3RvMwqTDAoLa25vd24ucHJvdG8SBWtub3duGhlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvGh5nb29nbGUvcHJvdG9idWYvZHVyYXRpb24ucHJvdG8aG2dvb2ds",
  "ZS9wcm90b2J1Zi9lbXB0eS5wcm90bxogZ29vZ2xlL3Byb3RvYnVmL2ZpZWxkX21hc2sucHJvdG8aHGdvb2dsZS9wcm90b2J1Zi9zdHJ1Y3QucHJvdG8aH2dvb2dsZS9wcm90b2J1Zi90",
  "aW1lc3RhbXAucHJvdG8aHmdvb2dsZS9wcm90b2J1Zi93cmFwcGVycy5wcm90byLzCQoDQWxsEioKAmF0GAEgASgLMhouZ29vZ2xlLnByb3RvYnVmLlRpbWVzdGFtcFICYXQSLwoFbGFz",
  "dHMYAiABKAsyGS5nb29nbGUucHJvdG9idWYuRHVyYXRpb25SBWxhc3RzEi0KA2JpZxgDIAEoCzIbLmdvb2dsZS5wcm90b2J1Zi5JbnQ2NFZhbHVlUgNiaWcSLwoFaXNfc28YBCABKAsy",
  "Gi5nb29nbGUucHJvdG9idWYuQm9vbFZhbHVlUgRpc1NvEjAKBHRleHQYBSABKAsyHC5nb29nbGUucHJvdG9idWYuU3RyaW5nVmFsdWVSBHRleHQSLQoDcmF3GAYgASgLMhsuZ29vZ2xl",
  "LnByb3RvYnVmLkJ5dGVzVmFsdWVSA3JhdxIvCgZvYmplY3QYByABKAsyFy5nb29nbGUucHJvdG9idWYuU3RydWN0UgZvYmplY3QSMgoIYW55dGhpbmcYCCABKAsyFi5nb29nbGUucHJv",
  "dG9idWYuVmFsdWVSCGFueXRoaW5nEi4KBGxpc3QYCSABKAsyGi5nb29nbGUucHJvdG9idWYuTGlzdFZhbHVlUgRsaXN0EiYKA2FueRgKIAEoCzIULmdvb2dsZS5wcm90b2J1Zi5BbnlS",
  "A2FueRI7Cgt1cGRhdGVfbWFzaxgLIAEoCzIaLmdvb2dsZS5wcm90b2J1Zi5GaWVsZE1hc2tSCnVwZGF0ZU1hc2sSMAoHbm90aGluZxgMIAEoCzIWLmdvb2dsZS5wcm90b2J1Zi5FbXB0",
  "eVIHbm90aGluZxI3CgluaWxfdmFsdWUYDSABKA4yGi5nb29nbGUucHJvdG9idWYuTnVsbFZhbHVlUghuaWxWYWx1ZRIdCgpiaWdfbnVtYmVyGA4gASgDUgliaWdOdW1iZXISEgoEcmVh",
  "bBgPIAEoAVIEcmVhbBIdCgpzaG9ydF9yZWFsGBAgASgCUglzaG9ydFJlYWwSEgoEZGF0YRgRIAEoDFIEZGF0YRIfCgRraW5kGBIgASgOMgsua25vd24uS2luZFIEa2luZBIUCgV3b3Jk",
  "cxgTIAMoCVIFd29yZHMSKwoFa2luZHMYFCADKAsyFS5rbm93bi5BbGwuS2luZHNFbnRyeVIFa2luZHMSFAoEbmFtZRgVIAEoCUgAUgRuYW1lEhAKAmlkGBYgASgFSABSAmlkEhkKBW1h",
  "eWJlGBcgASgISAFSBW1heWJliAEBEhUKCG9kZF9uYW1lGBggASgJUgNPREQSIAoFY2hpbGQYGSABKAsyCi5rbm93bi5BbGxSBWNoaWxkEi4KBnZhbHVlcxgaIAMoCzIWLmdvb2dsZS5w",
  "cm90b2J1Zi5WYWx1ZVIGdmFsdWVzEisKBWZsYWdzGBsgAygLMhUua25vd24uQWxsLkZsYWdzRW50cnlSBWZsYWdzEjEKBXNoYXJlGBwgASgLMhsuZ29vZ2xlLnByb3RvYnVmLkZsb2F0",
  "VmFsdWVSBXNoYXJlGkUKCktpbmRzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSIQoFdmFsdWUYAiABKA4yCy5rbm93bi5LaW5kUgV2YWx1ZToCOAEaOAoKRmxhZ3NFbnRyeRIQCgNrZXkY",
  "ASABKANSA2tleRIUCgV2YWx1ZRgCIAEoCFIFdmFsdWU6AjgBQggKBmNob2ljZUIICgZfbWF5YmUqJgoES2luZBIUChBLSU5EX1VOU1BFQ0lGSUVEEAASCAoER09PRBABYgZwcm90bzM=",
}

-- What json_format of Python's protobuf makes of one another.
local JSON = table.concat {
  '{"at":"2031-01-31T12:30:00.120Z","lasts":"-1.500s","big":"9007199254740993","isSo":false,"text":"","raw":"AP8=",',
  '"object":{"a":[1,null,{"b":true}],"c":"d"},"anything":null,"list":[1.5,"x",[]],"any":{"@type":"type.googleapis.com/known.All",',
  '"name":"inner"},"updateMask":"name,bigNumber.oddOne","nothing":{},"bigNumber":"-9223372036854775808","real":"NaN","shortReal":0.1,',
  '"data":"+/8=","kind":"GOOD","words":["a","b"],"kinds":{"x":"GOOD","y":"KIND_UNSPECIFIED"},"id":0,"maybe":false,"ODD":"odd",',
  '"child":{"at":"0001-01-01T00:00:00Z","any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"3s"}},"values":[null,1],',
  '"flags":{"-1":true,"7":false},"share":2.5}',
}
local BYTES = table.concat {
  "CgsIyJGVlwcQgJycORIWCP///////////wEQgLbKkf7/////ARoJCIGAgICAgIAQIgAqADIECgIA/zovCiMKAWESHjIcCgkRAAAAAAAA8D8KAggACgsqCQoHCgFiEgIgAQoICgFjEgMa",
  "AWRCAggAShQKCREAAAAAAAD4PwoDGgF4CgIyAFIpCh10eXBlLmdvb2dsZWFwaXMuY29tL2tub3duLkFsbBIIqgEFaW5uZXJaGgoEbmFtZQoSYmlnX251bWJlci5vZGRfb25lYgBwgICA",
  "gICAgICAAXkAAAAAAAD4f4UBzczMPYoBAvv/kAEBmgEBYZoBAWKiAQUKAXgQAaIBBQoBeRAAsAEAuAEAwgEDb2RkygFBCgsIgJK4w5j+////AVIyCix0eXBlLmdvb2dsZWFwaXMuY29t",
  "L2dvb2dsZS5wcm90b2J1Zi5EdXJhdGlvbhICCAPSAQIIANIBCREAAAAAAADwP9oBDQj///////////8BEAHaAQQIBxAA4gEFDQAAIEA=",
}

local set = assert(tg.protobuf.load(tg.crypto.unbase64(SET)))
local all = set:message "known.All"

-- The JSON that a JSON text comes back as.
local function through(text, options)
  local message = assert(all:from_json(assert(tg.json.decode(text)), options))
  return assert(all:to_json(assert(all:decode(assert(all:encode(message)))), options))
end

local function refused(text, what, options)
  local message, err = all:from_json(assert(tg.json.decode(text)), options)
  local bytes
  if message then bytes, err = all:encode(message) end
  expect(bytes):equals(nil)
  if not err.message:find(what, 1, true) then expect(err.message):equals(what) end
end

local function fails(message, what)
  local text, err = all:to_json(message)
  expect(text):equals(nil)
  if not err.message:find(what, 1, true) then expect(err.message):equals(what) end
end

describe("messages as JSON", function()
  it("are printed as others print them, in the order of their fields' numbers", function()
    expect(all:to_json(assert(all:decode(tg.crypto.unbase64(BYTES))))):equals(JSON)
  end)

  it("are read as others read them, byte by byte", function()
    local bytes = assert(all:encode(assert(all:from_json(assert(tg.json.decode(JSON))))))
    expect(tg.crypto.base64(bytes)):equals(BYTES)
    expect(through(JSON)):equals(JSON)
  end)

  it("have times of all zones and fractions", function()
    for given, printed in pairs {
      ["2031-01-31T12:30:00Z"] = "2031-01-31T12:30:00Z", ["2031-01-31t12:30:00.000001z"] = "2031-01-31T12:30:00.000001Z",
      ["2031-01-31T01:30:00.5+02:00"] = "2031-01-30T23:30:00.500Z", ["1969-12-31T23:59:59.000000001-00:30"] = "1970-01-01T00:29:59.000000001Z",
      ["2024-02-29T00:00:00Z"] = "2024-02-29T00:00:00Z", ["9999-12-31T23:59:59Z"] = "9999-12-31T23:59:59Z",
      ["1900-02-28T23:59:60Z"] = false, ["1900-02-29T00:00:00Z"] = false, ["2031-13-01T00:00:00Z"] = false, ["2031-01-31T12:30:00"] = false,
      ["2031-01-31 12:30:00Z"] = false, ["2031-01-31T12:30:00.Z"] = false, ["0000-01-01T00:00:00Z"] = false, ["0001-01-01T00:00:00+01:00"] = false,
    } do
      local text = ('{"at":"%s"}'):format(given)
      if printed then expect(through(text)):equals(('{"at":"%s"}'):format(printed)) else refused(text, "at: ") end
    end
    fails({ at = { seconds = "253402300800" } }, "at: no time")
  end)

  it("have durations", function()
    for given, printed in pairs { ["3s"] = "3s", ["-0.5s"] = "-0.500s", ["0.000000001s"] = "0.000000001s", ["315576000000s"] = "315576000000s" } do
      expect(through(('{"lasts":"%s"}'):format(given))):equals(('{"lasts":"%s"}'):format(printed))
    end
    for _, given in ipairs { "3", "s", "1.s", "1e3s", "315576000001s", "--1s", "1.0000000001s" } do
      refused(('{"lasts":"%s"}'):format(given), "expected a duration")
    end
    fails({ lasts = { seconds = "1", nanos = -1 } }, "lasts: no duration")
  end)

  it("take either name of a field, null for nothing, and integers that JSON spells in several ways", function()
    expect(through '{"big_number":"5","update_mask":"a"}'):equals '{"updateMask":"a","bigNumber":"5"}'
    expect(through '{"bigNumber":9223372036854775807,"words":null,"at":null,"name":null}'):equals '{"bigNumber":"9223372036854775807"}'
    expect(through '{"bigNumber":1e3,"id":7.0,"data":"-_8"}'):equals '{"bigNumber":"1000","data":"+/8=","id":7}'
    expect(through '{"kind":1}'):equals '{"kind":"GOOD"}'
    expect(through '{"kind":5}'):equals '{"kind":5}'
    expect(through '{"real":"-Infinity","shortReal":1e20}'):equals '{"real":"-Infinity","shortReal":1e+20}'
    expect(through '{"values":[null,"\\u00e4\\ud83d\\ude00",[],{}]}'):equals '{"values":[null,"\195\164\240\159\152\128",[],{}]}'
  end)

  it("are printed as the options say", function()
    local message = { kind = "GOOD", odd_name = "x", big_number = "1" }
    expect(all:to_json(message, { preserve_names = true, enum_numbers = true })):equals '{"big_number":"1","kind":1,"odd_name":"x"}'
    local text = all:to_json({}, { print_defaults = true })
    expect(text):equals('{"nilValue":null,"bigNumber":"0","real":0,"shortReal":0,"data":"","kind":"KIND_UNSPECIFIED","words":[],"kinds":{},"ODD":"",'
      .. '"values":[],"flags":{}}')
    expect(all:to_json(message, { field = "kind" })):equals '"GOOD"'
    expect(all:to_json(message, { field = "words" })):equals "[]"
    expect(all:to_json(message, { field = "at" })):equals "null"
    expect(all:from_json({ "a" }, { field = "words" })):equals { words = { "a" } }
    expect(all:from_json(tg.null, { field = "words" })):equals {}
  end)

  it("refuse or ignore what they do not know", function()
    refused('{"nothing":{"x":1}}', 'nothing: there is no field "x" in google.protobuf.Empty')
    refused('{"child":{"unknown":1}}', 'child: there is no field "unknown" in known.All')
    refused('{"kind":"BAD"}', 'kind: "BAD" is no value of known.Kind')
    expect(through('{"child":{"unknown":{"x":[1]},"id":4},"kind":"BAD"}', { unknown = "ignore" })):equals '{"child":{"id":4}}'
  end)

  it("refuse what is no value of its field, and name the field", function()
    refused('{"big":{}}', "big.value: found an object, expected a number")
    refused('{"isSo":"true"}', "is_so.value: found a string, expected true or false")
    refused('{"words":"a"}', "words: found a string, expected a list")
    refused('{"words":["a",null]}', "words: a list has no null")
    refused('{"kinds":[]}', "kinds: found a list, expected an object")
    refused('{"kinds":{"a":null}}', "kinds: a map has no null")
    refused('{"flags":{"x":true}}', 'flags.key: found "x"')
    refused('{"child":[]}', "child: found a list, expected an object")
    refused('{"data":"!"}', "data: the text is no Base64")
    refused('{"name":"a","id":1}', "only one of them may be")
    refused('{"bigNumber":"9223372036854775808"}', "big_number: ")
    refused('{"bigNumber":1,"big_number":2}', "is given twice")
    refused('{"id":123456789012345678901}', "id: ")
    refused('{"updateMask":"a_b"}', "has an underscore")
    refused('{"object":[]}', "object: found a list, expected an object")
    refused('{"any":{"@type":"type.googleapis.com/known.Nothing"}}', "is not in the set")
    refused('{"any":{"name":"x"}}', "is not in the set")
    refused('{"any":{"@type":"type.googleapis.com/known.All","id":"x"}}', 'found "x"')
    fails({ anything = { number_value = math.huge } }, "a number that JSON does not have")
    fails({ any = { type_url = "x/known.Nothing", value = "" } }, "is not in the set")
    fails({ any = { type_url = "x/known.All", value = "\8" } }, "is cut")
    fails({ update_mask = { paths = { "aB" } } }, "has no form in JSON")
    expect(all:to_json({ any = { type_url = "x/known.Nothing", value = "a" } }, { any_bytes = true })):equals
      '{"any":{"@type":"x/known.Nothing","value":"YQ=="}}'
  end)

  it("end at a depth of a hundred", function()
    local text = ""
    for _ = 1, 110 do text = assert(all:encode { any = { type_url = "x/known.All", value = text } }) end
    fails(assert(all:decode(text)), "more than 100 levels")
    local value = {}
    for _ = 1, 110 do value = { child = value } end
    local _, err = all:from_json(value)
    expect(err.message:find("more than 100 levels", 1, true) ~= nil):equals(true)
    value = { 1 }
    for _ = 1, 110 do value = { value } end
    _, err = all:from_json { list = value }
    expect(err.message:find("more than 100 levels", 1, true) ~= nil):equals(true)
  end)

  it("are put together of texts at paths", function()
    local message = {}
    local function assign(path, ...)
      local _, err = all:assign(message, assert(all:path(path)), { ... })
      return err and err.message
    end
    expect(assign("child.name", "x")):equals(nil)
    expect(assign("child.bigNumber", "7")):equals(nil)
    expect(assign("maybe", "true")):equals(nil)
    expect(assign("words", "a", "b")):equals(nil)
    expect(assign("words", "c")):equals(nil)
    expect(assign("kind", "GOOD")):equals(nil)
    expect(assign("child.kind", "1")):equals(nil)
    expect(assign("at", "2031-01-31T00:00:00Z")):equals(nil)
    expect(assign("is_so", "false")):equals(nil)
    expect(assign("data", "AA==")):equals(nil)
    expect(all:to_json(message)):equals('{"at":"2031-01-31T00:00:00Z","isSo":false,"data":"AA==","kind":"GOOD","words":["a","b","c"],"maybe":true,'
      .. '"child":{"bigNumber":"7","kind":"GOOD","name":"x"}}')
    expect(assign("maybe", "yes")):equals 'maybe: found "yes", expected true or false'
    expect(assign("name", "a", "b")):equals "name: is given more than once"
    expect(assign("child", "x")):equals "child: is a message, which has no text"
    expect(assign("kinds", "x")):equals "kinds: is a map, which has no text"
    for _, path in ipairs { "none", "child.none", "words.x", "name.x", "", "child.", ".child" } do expect((all:path(path))):equals(nil) end
  end)
end)
