local E = tg.json.array {}

local function collect()
  local pieces = {}
  return function(piece) pieces[#pieces + 1] = piece end, pieces
end

describe("json.writer", function()
  it("streams arrays and objects", function()
    local write, pieces = collect()
    tg.json.writer(write):object():key("a"):array():value(1):value({ x = 1 }):object():close():array():close():close():key("b"):value(nil)
      :key("ä\""):value("y"):close()
    expect(table.concat(pieces)):equals '{"a":[1,{"x":1},{},[]],"b":null,"ä\\"":"y"}'
    for value, text in pairs { [5] = "5", x = '"x"', [false] = "false", [tg.null] = "null", [E] = "[]", [tg.json.raw "[ 1 ]"] = "[ 1 ]" } do
      write, pieces = collect()
      tg.json.writer(write):value(value)
      expect(table.concat(pieces)):equals(text)
    end
  end)

  it("gathers small pieces, and keeps little of a long text", function()
    local write, pieces = collect()
    local writer = tg.json.writer(write):array()
    for i = 1, 20000 do writer:value(i) end
    expect(#pieces > 5):is_true()
    writer:close()
    for _, piece in ipairs(pieces) do expect(#piece < 9000):is_true() end
    expect(#tg.json.decode(table.concat(pieces))):equals(20000)
    write, pieces = collect()
    tg.json.writer(write):array():value(1):flush():value(2)
    expect(pieces):equals { "[1" }
  end)

  it("may wait while it writes", function()
    local got = {}
    local co = coroutine.wrap(function()
      tg.json.writer(coroutine.yield):array():value(("x"):rep(9000)):value(2):close()
      return false
    end)
    for piece in co do
      if not piece then break end
      got[#got + 1] = piece
    end
    expect(#got):equals(2)
    expect(tg.json.decode(table.concat(got))):equals { ("x"):rep(9000), 2 }
  end)

  it("writes no text that is not JSON", function()
    local function fails(part, f)
      local write, pieces = collect()
      expect(function() f(tg.json.writer(write)) end):raises(part)
      expect(function() f(tg.json.writer(write)) end):raises "json_writer.spec.lua"
      return pieces
    end
    fails("needs its key first", function(w) w:object():value(1) end)
    fails("needs its key first", function(w) w:object():object() end)
    fails("needs its key first", function(w) w:object():array() end)
    fails("needs its key first", function(w) w:object():key("a"):value(1):value(2) end)
    fails("before the next key", function(w) w:object():key("a"):key("b") end)
    fails("a key needs its value", function(w) w:object():key("a"):close() end)
    fails("in an object only", function(w) w:key("a") end)
    fails("in an object only", function(w) w:array():key("a") end)
    fails("a key is a string", function(w) w:object():key(1) end)
    fails("nothing is open", function(w) w:close() end)
    fails("nothing is open", function(w) w:array():close():close() end)
    fails("is complete", function(w) w:value(1):value(2) end)
    fails("is complete", function(w) w:array():close():array() end)
    fails("is complete", function(w) w:array():close():object() end)
    fails("cannot be encoded", function(w) w:array():value(print) end)
    fails("too deep", function(w) for _ = 1, 33 do w:array() end end)
    for _, bad in ipairs { 5, "x", {}, true } do
      expect(function() tg.json.writer(bad) end):raises "needs a function that takes text"
    end
    local write, pieces = collect()
    local writer = tg.json.writer(write):array():value(1)
    pcall(writer.value, writer, print)
    writer:value(2):close()
    expect(table.concat(pieces)):equals "[1,2]"
  end)
end)
