local json = require "tidegate.json"
local sandbox = require "runtime.sandbox"
local unread = require "tidegate.unread"

local TEXT = '{"b":1.0,"a":{"x":[1,2]},"n":null,"big":1234567890123456789}'

local function fresh() return assert(json.read(TEXT)) end

-- What a plugin has done with it, in a plugin's own environment.
local function run(source, value)
  local env = sandbox.environment()
  env.value = value
  return assert(env.load(source, "=source", nil, env))()
end

describe("an object that nobody has looked into", function()
  it("is passed on as it came", function()
    expect(unread.is(fresh())):is_true()
    expect(json.encode(fresh())):equals(TEXT)
    expect(json.encode { first = fresh() }):equals('{"first":' .. TEXT .. "}")
    local value = fresh()
    json.encode(value)
    expect(unread.is(value)):is_true()
    expect(json.encode(fresh(), { sorted = true })):equals '{"a":{"x":[1,2]},"b":1,"big":1234567890123456789,"n":null}'
  end)

  it("is a table to whoever looks", function()
    local looks = {
      ["return value.b"] = 1, ["return value.a.x[2]"] = 2, ["return value.missing"] = false, ["return #value"] = 0,
      ["local n = 0 for _ in pairs(value) do n = n + 1 end return n"] = 4,
      ["local n = 0 for _ in next, value do n = n + 1 end return n"] = 4,
      ["local n = 0 for _ in ipairs(value) do n = n + 1 end return n"] = 0,
      ["return type(next(value))"] = "string", ["return next(value, 'b') ~= 'b'"] = true,
      ["return rawget(value, 'b')"] = 1, ["return rawset(value, 'c', 3).b"] = 1, ["return getmetatable(value) == nil"] = true,
      ["return setmetatable(value, { __index = { d = 4 } }).d + value.b"] = 5,
      ["value.b = nil return value.a.x[1]"] = 1, ["return value.n == tg.null"] = true, ["return type(value)"] = "table",
      ["return tg.json.encode(tg.json.array(value))"] = "raises", ["return value == value"] = true,
    }
    for source, result in pairs(looks) do
      local ok, found = pcall(run, source, fresh())
      expect(source .. " gives " .. tostring(not ok and "raises" or found or false)):equals(source .. " gives " .. tostring(result))
    end
  end)

  it("keeps what was put into it in whatever way", function()
    for _, source in ipairs {
      "value.b = 2 return value", "rawset(value, 'b', 2) return value", "value['b'] = 2 return tg.json.decode(tg.json.encode(value))",
    } do
      local value = run(source, fresh())
      expect(json.encode(value, { sorted = true })):equals '{"a":{"x":[1,2]},"b":2,"big":1234567890123456789,"n":null}'
    end
    expect(json.encode(run("table.insert(value, 'x') return value", fresh()), { sorted = true })):matches '{"1":"x","a":'
    expect(json.encode(run("value.b, value.a, value.n, value.big = nil return value", fresh()))):equals "{}"
  end)

  it("is one line to encode", function()
    local value = assert(json.read '{"a":\n{"b":\r\n1}}')
    expect(unread.is(value)):is_true()
    expect(json.encode(value)):equals '{"a":{"b":1}}'
  end)

  it("is nothing else than an object, and well-formed", function()
    expect(json.read "[1,2]"):equals { 1, 2 }
    expect(json.read '"x"'):equals "x"
    expect(json.read "null" == json.null):is_true()
    expect(json.read ' {"a":1}'):equals { a = 1 }
    for _, text in ipairs { "{", '{"a":1,"a":2}', '{"a":01}', '{"a":"\255"}', "", '{"a":1} x' } do
      local value, err = json.read(text)
      expect(value):is_nil()
      expect(err.code):equals "decode"
    end
    expect(select(2, json.read('{"a":"' .. ("x"):rep(1024 * 1024) .. '"}')).code):equals "too_large"
  end)

  it("leaves the errors of pairs and next where they are made", function()
    local _, of_pairs = pcall(function() return pairs(nil), 1 end)
    local _, of_next = pcall(function() return next "x", 1 end)
    expect(of_pairs):matches "unread.spec.lua:76: bad argument #1 to 'pairs' (table expected, got nil)"
    expect(of_next):matches "unread.spec.lua:77: bad argument #1 to 'next' (table expected, got string)"
  end)
end)
