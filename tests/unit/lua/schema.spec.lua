local schema = require "runtime.schema"
local report = require "runtime.report"
local template = require "runtime.template"
local t = schema.t

local function apply(spec, value, names)
  local found = report.new()
  local conf = schema.apply(spec, value, { report = found, at = "gateway.lua:41", path = { 'route "orders"', "use[2] rate-limit" }, names = names })
  return conf, found:text()
end

describe("schema", function()
  it("fills defaults and turns units into seconds and bytes", function()
    local conf = apply({ a = t.duration "1m", b = t.size "64KiB", c = t.integer(3), d = t.optional(t.string()) }, { a = "250ms" })
    expect(conf.a):equals(0.25)
    expect(conf.b):equals(65536)
    expect(conf.c):equals(3)
    expect(conf.d):is_nil()
  end)

  it("says where, what was found and what was expected", function()
    local conf, text = apply({ per = t.duration "1m" }, { per = "1 minute" })
    expect(conf):is_nil()
    expect(text):equals('gateway.lua:41  route "orders" › use[2] rate-limit › per\n    found     "1 minute"\n'
      .. '    expected  a duration: "250ms", "30s", "1m", "2h"')
  end)

  it("asks whether another field was meant", function()
    local _, text = apply({ burst = t.integer(1) }, { brust = 3 })
    expect(text):matches 'unknown field; did you mean "burst"?'
  end)

  it("reports all errors at once", function()
    local _, text = apply({ a = t.integer { min = 1 }, b = t.status(400), c = t.header "X" }, { a = 0, b = 99, c = "b d" })
    expect(text):matches "a whole number of at least 1"
    expect(text):matches "a status from 200 to 599"
    expect(text):matches "a header name"
  end)

  it("wants what has no default", function()
    local _, text = apply({ a = t.string() }, {})
    expect(text):matches "found     nothing"
  end)

  it("refuses numbers that are none, and depth without end", function()
    for _, bad in ipairs { 0 / 0, math.huge, -1, "5", {} } do
      expect((apply({ a = t.integer { min = 0 } }, { a = bad }))):is_nil()
    end
    local loop = {}
    loop.x = loop
    local kind = t.record { x = t.any() }
    kind.fields.x = kind
    expect((apply({ a = kind }, { a = loop }))):is_nil()
  end)

  it("freezes what it gives, at every depth", function()
    local conf = apply({ list = t.list(t.string()), record = t.record { a = t.integer(1) } }, { list = { "x" }, record = {} })
    expect(function() conf.list[2] = "y" end):raises "read-only"
    expect(function() conf.record.b = 1 end):raises "read-only"
    expect(function() conf.new = 1 end):raises "read-only"
  end)

  it("knows the names that a reference may have", function()
    local _, text = apply({ to = t.upstream() }, { to = "ordres" }, { upstream = { orders = true } })
    expect(text):matches 'did you mean "orders"?'
  end)

  it("reads dates", function()
    expect((apply({ d = t.date() }, { d = "1970-01-02" })).d):equals(86400)
    expect((apply({ d = t.date() }, { d = "2031-01-31" })).d):equals(1927584000)
    expect((apply({ d = t.date() }, { d = "2031-02-30" }))):is_nil()
  end)
end)

describe("schema.describe", function()
  it("tells required fields first, and those of records behind them", function()
    local inner = { key = t.string { doc = "A key." }, kind = t.enum { "a", "b", default = "b" } }
    local list = require("runtime.schema").describe { where = t.optional(t.record(inner)), name = t.string(), age = t.integer(3) }
    local names = {}
    for i, field in ipairs(list) do names[i] = field.name end
    expect(names):equals { "name", "age", "where", "where.key", "where.kind" }
    expect(list[4].required):is_true()
    expect(list[5].expected .. " " .. list[5].default):equals 'one of "a", "b" "b"'
  end)
end)

describe("template", function()
  local ctx = { req = { method = "GET", client = { ip = "1.2.3.4" }, headers = { ["X-A"] = "a" } }, vars = { n = 5 } }

  it("puts values into text", function()
    expect(template.compile "ip=${client.ip} ${header.X-A}!"(ctx)):equals "ip=1.2.3.4 a!"
    expect(template.compile "${vars.n}"(ctx)):equals "5"
    expect(template.compile "plain"(ctx)):equals "plain"
  end)

  it("is nil when a value is missing", function()
    expect(template.compile "x${header.None}"(ctx)):is_nil()
    expect(template.compile "${consumer.id}"(ctx)):is_nil()
  end)

  it("refuses variables that it does not know", function()
    local f, err = template.compile "${client.pi}"
    expect(f):is_nil()
    expect(err):matches 'did you mean "client.ip"?'
    expect(select(2, template.compile "${client.ip")):matches 'without its "}"'
    expect((template.compile '${header.x" .. evil() .. "}')):is_nil()
  end)
end)
