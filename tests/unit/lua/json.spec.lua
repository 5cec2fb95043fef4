local json = require "tidegate.json"

local function round(text) return json.encode(assert(json.decode(text)), { sorted = true }) end

describe("json.decode", function()
  it("says where a text is wrong", function()
    local table_ = {
      ['{"a":1,"b":{"\\u0061":2,"a":3}}'] = 'line 1, column 24: the member "a" stands twice in its object',
      ['{\n  "a": 01\n}'] = 'line 2, column 8: "01" is no number',
      ['[1,]'] = 'line 1, column 4: "]" is no value',
      ['[1'] = "line 1, column 3: the text ends too early",
      [""] = "line 1, column 1: the text ends too early",
      ['["\255"]'] = "is no UTF-8",
      ['[1]\n\n x'] = 'line 3, column 2: "x" stands behind the end',
      ['{"a":NaN}'] = "no value", ["[Infinity]"] = "no value", ["[1e400]"] = "too large",
      [("["):rep(33) .. ("]"):rep(33)] = "column 33: \"[\" is too deep: more than 32 levels",
    }
    for text, message in pairs(table_) do
      local value, err = json.decode(text)
      expect(value):is_nil()
      expect(err.code):equals "decode"
      expect(err.status):equals(400)
      expect(err.message:find(message, 1, true) ~= nil or err.message .. " lacks " .. message):is_true()
    end
    local _, err = json.decode '[1,\n2,\n  x]'
    expect({ err.line, err.column }):equals { 3, 3 }
  end)

  it("has measure", function()
    expect((json.decode('"' .. ("x"):rep(1024 * 1024) .. '"'))):is_nil()
    local many = {}
    for i = 1, 10001 do many[i] = ('"%d":0'):format(i) end
    expect(select(2, json.decode("{" .. table.concat(many, ",") .. "}")).message):matches "one of more than 10000"
    expect(json.decode "{\"a\":1,\"b\":{\"a\":2}}"):equals { a = 1, b = { a = 2 } }
  end)

  it("loses nothing on the way out again", function()
    for _, text in ipairs {
      '{"a":[],"b":{},"c":[[],{},null],"d":null}', "[1,2,3]", '"x"', "1.5", "true", "null",
      '{"id":1234567890123456789,"list":[-9007199254740993,9007199254740992],"pi":3.141592653589793}', '["\\n\\"\\\\","ä🌙"]',
    } do expect(round(text)):equals(text) end
    local order = json.decode '{"id":1234567890123456789,"other":1234567890123456789}'
    expect("/orders/" .. order.id):equals "/orders/1234567890123456789"
    expect(tostring(order.id)):equals "1234567890123456789"
    expect(order.id == order.other):is_true()
    expect(json.decode "[1]"[1] == 1):is_true()
  end)

  it("takes a string only", function()
    expect(select(2, pcall(function() json.decode {} end))):matches "json.spec.lua:50: json.decode needs a string, found a table"
  end)
end)

describe("json.encode", function()
  it("tells arrays from objects", function()
    expect(json.encode {}):equals "{}"
    expect(json.encode(json.array {})):equals "[]"
    expect(json.encode { 1, nil, 3 }):equals "[1,null,3]"
    expect(json.encode({ [1] = "a", [500] = "b" }, { sorted = true })):equals '{"1":"a","500":"b"}'
    local list = json.decode "[]"
    list[1] = "new"
    expect(json.encode(list)):equals '["new"]'
    expect(json.encode({ 1, x = 2 }, { sorted = true })):equals '{"1":1,"x":2}'
  end)

  it("is pretty and sorted when asked", function()
    expect(json.encode({ b = { 1, {} }, a = json.array {} }, { pretty = true, sorted = true })):equals [[
{
  "a": [],
  "b": [
    1,
    {}
  ]
}]]
  end)

  it("raises for what has no form", function()
    local loop = {}
    loop.loop = loop
    for message, value in pairs {
      ["a function"] = { print }, ["inf, which JSON has no number for"] = { 1 / 0 }, ["more than 32 levels"] = loop,
      ["a table as the name of a member"] = { [{}] = 1 },
    } do
      local ok, err = pcall(function() return (json.encode(value)) end)
      expect(ok):equals(false)
      expect(err):matches("json.spec.lua:84: cannot be encoded as JSON: " .. message)
    end
    expect(json.encode { a = 1 }):equals '{"a":1}'
  end)
end)

describe("json.lazy", function()
  local text = '{"a":{"b":[10,{"c":"x\\u0041"}],"d.e":true},"l":[1,[],{}],"n":null,"s":"t"}'
  local doc = json.lazy(text)

  it("finds and decodes what is asked for", function()
    expect(doc:get "a.b.1.c"):equals "xA"
    expect(doc:get "a.b"):equals { 10, { c = "xA" } }
    expect(doc:get { "a", "d.e" }):equals(true)
    expect(doc:get { "l", 0 }):equals(1)
    expect(doc:get "n" == tg.null):is_true()
    for _, path in ipairs { "x", "a.x", "a.b.2", "s.0", "n.a", "a.b.c" } do expect(doc:get(path)):is_nil() end
    expect(doc:get()):equals(json.decode(text))
    expect({ doc:kind(), doc:kind "l", doc:kind "s", doc:kind "n", doc:kind "a.d", doc:kind "l.0" }):equals {
      "object", "array", "string", "null", nil, "number",
    }
  end)

  it("passes parts on as they are", function()
    expect(json.encode({ x = doc:part "a.b", y = doc:part "s" }, { sorted = true })):equals '{"x":[10,{"c":"x\\u0041"}],"y":"t"}'
    expect(tostring(doc:part "l")):equals "[1,[],{}]"
    expect(json.encode(doc)):equals(text)
    expect(json.encode(json.raw "[ 1 ]")):equals "[ 1 ]"
    expect(select(2, pcall(function() return (json.raw "[1") end))):matches "json.spec.lua:114: json.raw: malformed JSON: line 1, column 3"
    expect(json.is_lazy(doc)):is_true()
    expect(json.is_lazy {}):equals(false)
  end)

  it("goes through members and items", function()
    local found = {}
    for name, part in doc:each() do found[#found + 1] = name .. "=" .. tostring(part) end
    expect(#found):equals(4)
    expect(found[4]):equals 's="t"'
    found = {}
    for index, part in doc:each "l" do found[#found + 1] = { index, part:get() } end
    expect(found):equals { { 0, 1 }, { 1, {} }, { 2, {} } }
    for _ in doc:each "s" do error "a string has no items" end
    for _ in doc:each "nothing" do error "nothing has no items" end
    local escaped = json.lazy '{"\\u0061\\n":1}'
    for name in escaped:each() do expect(name):equals "a\n" end
  end)

  it("refuses what decode refuses", function()
    expect(json.lazy '{"a":1,"a":2}'):is_nil()
    expect(select(2, json.lazy('"' .. ("x"):rep(100) .. '"', 50)).code):equals "too_large"
  end)
end)

describe("json.encode of objects", function()
  it("takes any number of members, whatever these are", function()
    local parts = { 1.5, true, 't"', { 1, { a = {} } }, json.null, json.array {}, json.lazy '{"q": 1}', json.read '{"r":[2]}' }
    for n = 0, 20 do
      local object, expected, count = {}, {}, 0
      for i = 1, n do
        object["m" .. i] = parts[i % #parts + 1]
        expected["m" .. i] = json.encode(parts[i % #parts + 1])
      end
      for name, part in assert(json.lazy(json.encode(object))):each() do
        count = count + 1
        expect(tostring(part)):equals(expected[name])
      end
      expect(count):equals(n)
    end
  end)
end)
