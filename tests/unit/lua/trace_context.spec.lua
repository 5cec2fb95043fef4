local context = tg.trace.context
local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

-- The fields of a message: name -> value, or list of values.
local function message(fields)
  local function all(name)
    local value = fields[name]
    return type(value) == "table" and table.concat(value, ",") or value
  end
  return function(name) return type(fields[name]) ~= "table" and fields[name] or nil end, all
end

local function read(names, fields) return context.read(names, message(fields)) end

local function written(names, value)
  local fields = {}
  context.write(names, value, function(name, text) fields[name] = text end)
  return fields
end

describe("traceparent", function()
  local function w3c(text) return read({ "w3c" }, { traceparent = text }) end

  it("gives trace, span and whether it is sampled", function()
    expect(w3c("00-" .. TRACE .. "-" .. SPAN .. "-01")):equals { trace = TRACE, span = SPAN, sampled = true }
    expect(w3c("00-" .. TRACE .. "-" .. SPAN .. "-02").sampled):equals(false)
  end)

  it("is void when it is malformed, or stands there twice", function()
    for _, bad in ipairs { "", "00-" .. TRACE .. "-" .. SPAN .. "-0", "ff-" .. TRACE .. "-" .. SPAN .. "-01",
      "00-" .. ("0"):rep(32) .. "-" .. SPAN .. "-01", "00-" .. TRACE .. "-" .. ("0"):rep(16) .. "-01",
      ("00-" .. TRACE .. "-" .. SPAN .. "-01"):upper(), "00-" .. TRACE .. "-" .. SPAN .. "-01-x" } do
      expect(w3c(bad)):is_nil()
    end
    local good = "00-" .. TRACE .. "-" .. SPAN .. "-01"
    expect(w3c { good, good }):is_nil()
  end)

  it("of a later version is read as far as it is known", function()
    expect(w3c("cc-" .. TRACE .. "-" .. SPAN .. "-01-more").span):equals(SPAN)
    expect(w3c("cc-" .. TRACE .. "-" .. SPAN .. "-01.more")):is_nil()
  end)
end)

describe("tracestate", function()
  local state = context.tracestate

  it("keeps its members in their order, of all its fields", function()
    expect(state "foo=1,bar=2"):equals "foo=1,bar=2"
    expect(state "foo=1 \t , \t bar=2, \t baz=3"):equals "foo=1,bar=2,baz=3"
    expect(state "foo=1,,,bar=2,"):equals "foo=1,bar=2"
    local many = { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-01", tracestate = { "foo=1", "", "bar=2" } }
    expect(read({ "w3c" }, many).state):equals "foo=1,bar=2"
    expect(state ""):is_nil()
  end)

  it("takes the keys of the recommendation, and no others", function()
    for _, key in ipairs { "foo", "a-_*/z9", "fw529a3039@dt", "0tenant@sys", ("z"):rep(256), ("t"):rep(241) .. "@" .. ("v"):rep(14) } do
      expect(state(key .. "=1")):equals(key .. "=1")
    end
    for _, key in ipairs { "", "Foo", "foo ", "foo@", "@foo", "foo@@bar", "foo@bar@baz", "0foo", "foo.bar", ("z"):rep(257), ("t"):rep(242) .. "@v",
      "t@" .. ("v"):rep(15), "t@0v" } do
      expect(state(key .. "=1")):is_nil()
    end
  end)

  it("takes the values of the recommendation, and no others", function()
    for _, value in ipairs { "1", "a b", "!\"#$%&'()*+-./0123456789:;<>?@ABC[\\]^_`abc{|}~", ("v"):rep(256) } do
      expect(state("foo=" .. value)):equals(#value <= 256 and "foo=" .. value)
    end
    for _, value in ipairs { "", "a=b", "a\tb", "a\1", "\195\164", ("v"):rep(257) } do expect(state("foo=" .. value)):is_nil() end
    expect(state "foo"):is_nil()
  end)

  it("with a key twice, or more than 32 members, is void", function()
    expect(state "foo=1,bar=2,foo=3"):is_nil()
    local members = {}
    for i = 1, 32 do members[i] = ("k%d=%d"):format(i, i) end
    expect(state(table.concat(members, ","))):equals(table.concat(members, ","))
    members[33] = "more=1"
    expect(state(table.concat(members, ","))):is_nil()
  end)

  it("of more than 512 bytes loses its long members first, then the last ones", function()
    local long, short = "long=" .. ("x"):rep(200), {}
    for i = 1, 20 do short[i] = ("k%02d=%s"):format(i, ("y"):rep(16)) end -- 20 bytes each, with commas 419
    expect(state("a=1," .. long .. "," .. table.concat(short, ","))):equals("a=1," .. table.concat(short, ","))
    for i = 1, 32 do short[i] = ("k%02d=%s"):format(i, ("y"):rep(16)) end
    local kept = state(table.concat(short, ","))
    expect(kept):equals(table.concat(short, ",", 1, 24))
    expect(#kept <= 512):is_true()
  end)
end)

describe("trace context", function()
  it("of B3 in one field", function()
    expect(read({ "b3" }, { b3 = TRACE .. "-" .. SPAN .. "-1" })):equals { trace = TRACE, span = SPAN, sampled = true }
    expect(read({ "b3" }, { b3 = TRACE .. "-" .. SPAN .. "-d-" .. SPAN })):equals { trace = TRACE, span = SPAN, sampled = true, debug = true }
    expect(read({ "b3" }, { b3 = TRACE:sub(1, 16) .. "-" .. SPAN })):equals { trace = ("0"):rep(16) .. TRACE:sub(1, 16), span = SPAN }
    for _, bad in ipairs { "0", "1", "d", TRACE, TRACE .. "-" .. SPAN .. "-x", TRACE .. "-" .. SPAN .. "-1-", TRACE .. "-1234",
      TRACE .. "-" .. SPAN .. "-1-" .. SPAN .. "-1", ("0"):rep(32) .. "-" .. SPAN .. "-1", TRACE:sub(2) .. "-" .. SPAN } do
      expect(read({ "b3" }, { b3 = bad })):is_nil()
    end
    expect(written({ "b3" }, { trace = TRACE, span = SPAN, sampled = false })):equals { b3 = TRACE .. "-" .. SPAN .. "-0" }
  end)

  it("of B3 in many fields", function()
    local fields = { ["X-B3-TraceId"] = TRACE, ["X-B3-SpanId"] = SPAN, ["X-B3-Sampled"] = "0" }
    expect(read({ "b3-multi" }, fields)):equals { trace = TRACE, span = SPAN, sampled = false }
    fields["X-B3-Sampled"] = nil
    expect(read({ "b3-multi" }, fields)):equals { trace = TRACE, span = SPAN }
    fields["X-B3-Flags"] = "1"
    expect(read({ "b3-multi" }, fields).debug):is_true()
    expect(written({ "b3-multi" }, { trace = TRACE, span = SPAN, sampled = true })):equals {
      ["X-B3-TraceId"] = TRACE, ["X-B3-SpanId"] = SPAN, ["X-B3-Sampled"] = "1" }
    expect(read({ "b3-multi" }, { ["X-B3-TraceId"] = TRACE })):is_nil()
  end)

  it("of Jaeger, whose ids may be short and whose colons may be encoded", function()
    expect(read({ "jaeger" }, { ["uber-trace-id"] = TRACE .. ":" .. SPAN .. ":0:1" })):equals { trace = TRACE, span = SPAN, sampled = true }
    expect(read({ "jaeger" }, { ["uber-trace-id"] = "ab%3A1%3a0%3A3" })):equals {
      trace = ("0"):rep(30) .. "ab", span = ("0"):rep(15) .. "1", sampled = true, debug = true }
    for _, bad in ipairs { "0:1:0:1", "ab:0:0:1", "ab:1:0", "ab:1:0:1:1", "xy:1:0:1", TRACE .. "0:1:0:1" } do
      expect(read({ "jaeger" }, { ["uber-trace-id"] = bad })):is_nil()
    end
    expect(written({ "jaeger" }, { trace = TRACE, span = SPAN, sampled = true })):equals { ["uber-trace-id"] = TRACE .. ":" .. SPAN .. ":0:1" }
  end)

  it("is that of the first format that fits", function()
    local fields = { traceparent = "nonsense", b3 = TRACE .. "-" .. SPAN .. "-1", ["uber-trace-id"] = "1:2:0:1" }
    expect(read({ "w3c", "b3", "jaeger" }, fields).trace):equals(TRACE)
    expect(read({ "jaeger", "b3" }, fields).span):equals "0000000000000002"
    expect(read({ "w3c" }, fields)):is_nil()
  end)

  it("is written in all formats that are asked for", function()
    local fields = written({ "w3c", "b3" }, { trace = TRACE, span = SPAN, sampled = true, state = "a=1" })
    expect(fields):equals { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-01", tracestate = "a=1", b3 = TRACE .. "-" .. SPAN .. "-1" }
  end)

  it("makes ids that are random", function()
    expect(context.new_id(32):find "^%x+$" ~= nil and #context.new_id(32)):equals(32)
    expect(#context.new_id(16)):equals(16)
    expect(context.new_id(16) == context.new_id(16)):equals(false)
  end)
end)
