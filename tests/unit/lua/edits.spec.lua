local edits = require "tidegate.edits"
local template = require "runtime.template"

-- A message that takes changes as those of an exchange that is only looked at do.
local function message(fields)
  local m = { headers = fields }
  function m:edit(group) group.apply(self) end
  function m:add_header(name, value) self.headers[name] = (self.headers[name] and self.headers[name] .. ", " or "") .. value end
  return m
end

describe("tg.edits", function()
  it("does all changes in their order, and the names of one kind in theirs", function()
    local made = edits.new { set = { ["X-Set"] = "new", ["X-Who"] = template.new "${vars.who}" }, add = { ["X-Set"] = "more" },
      remove = { "X-Gone" }, rename = { ["X-Old"] = "X-New", ["X-Absent"] = "X-Set" } }
    local m = message { ["X-Gone"] = "1", ["X-Old"] = "2", ["X-Set"] = "3" }
    made:apply({ vars = { who = "me" } }, m)
    expect(m.headers):equals { ["X-New"] = "2", ["X-Set"] = "new, more", ["X-Who"] = "me" }
    made:apply({ vars = {} }, m)
    expect(m.headers["X-Who"]):equals "me"
    expect(made.idle):equals(false)
    expect(made.constant):is_nil()
  end)

  it("knows what is always the same, and what is nothing", function()
    expect(edits.new({ set = { ["X-A"] = template.new "text" } }).constant ~= nil):is_true()
    expect(edits.new({}).idle):is_true()
    expect(edits.is(edits.new {})):is_true()
    expect(edits.is({})):equals(false)
  end)

  it("takes as many changes as there are", function()
    local set, m = {}, message {}
    for i = 1, 200 do set[("X-%03d"):format(i)] = i % 2 == 0 and tostring(i) or template.new("${vars.who}" .. i) end
    edits.new({ set = set }):apply({ vars = { who = "n" } }, m)
    for i = 1, 200 do expect(m.headers[("X-%03d"):format(i)]):equals(i % 2 == 0 and tostring(i) or "n" .. i) end
  end)

  it("refuses what cannot be when it is made", function()
    expect(function() edits.new "set" end):raises "needs a table"
    expect(function() edits.new { put = {} } end):raises "unknown"
    expect(function() edits.new { set = "x" } end):raises "is a table"
    expect(function() edits.new { set = { ["X-A"] = 1 } } end):raises "needs a text"
    expect(function() edits.new { remove = { 1 } } end):raises "is a text"
    expect(function() edits.new { set = { ["a b"] = "x" } } end):raises "cannot be set"
    expect(function() edits.new { add = { ["X-A"] = "x\r\ny" } } end):raises "cannot be added"
    expect(function() edits.new { remove = { "Content-Length" } } end):raises "cannot be removed"
    expect(function() edits.new { set = { Connection = template.new "${vars.who}" } } end):raises "cannot be set"
  end)
end)
