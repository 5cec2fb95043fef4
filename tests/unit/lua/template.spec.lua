local CTX = {
  id = "42", req = {
    method = "GET", host = "h", path = "/p", client = { ip = "::1", port = 5 }, headers = { ["X-A"] = "a b/c" }, query = { q = "1&2" }, cookies = {},
    params = { id = "a/../b?x#y" },
  },
  route = { name = "r" }, vars = { n = 1.5, big = 123456789012345, t = { 1, { x = "y" } }, f = false, null = tg.null },
  consumer = { id = "acme", groups = { "a", "b" }, meta = { plan = "gold", off = false } },
  credential = { id = 7 },
}
local GIVEN = {
  item = "i/1", answers = {
    user = { name = "Ada \"L\"", id = 1234567890123456, active = false, none = tg.null, ["a-b"] = "c", ["@type"] = "T", ["0"] = "zero" },
    list = { "first", { id = 7 }, {} }, deep = { { { "x" } } },
  },
}
local ROOTS = { "answers", "item" }

local function fill(text, escape)
  return tg.template(text, { roots = ROOTS, escape = escape })(CTX, GIVEN)
end

describe("tg.template", function()
  it("puts the values of the exchange and of its roots into text", function()
    for text, result in pairs {
      ["plain $ } {"] = "plain $ } {", [""] = "", ["${method} ${client.ip}:${client.port}"] = "GET ::1:5", ["${header.X-A}"] = "a b/c",
      ["${consumer.groups} ${consumer.meta.plan} ${consumer.meta.off}"] = "a,b gold false",
      ["${credential.id}"] = "7", ["${vars.n} ${vars.big} ${vars.f}"] = "1.5 123456789012345 false",
      ["${item}"] = "i/1", ["<${answers.user.name}>"] = '<Ada "L">', ["${answers.user.id}"] = "1234567890123456",
      ["${answers.user.active}"] = "false",
      ["${answers.user.a-b} ${answers.user.@type}"] = "c T", ["${answers.list.0}${answers.list.1.id}"] = "first7", ["${answers.deep.0.0.0}"] = "x",
      ["${answers.user.0}"] = "zero",
    } do
      expect(text .. "  " .. tostring(fill(text))):equals(text .. "  " .. result)
    end
    expect(tg.template "${method}"(CTX)):equals "GET"
    expect(tg.template("${item}", { roots = ROOTS })(nil, GIVEN)):equals "i/1"
  end)

  it("gives nil when a value is missing", function()
    for _, text in ipairs {
      "${header.None}", "${vars.none}", "${vars.t}", "${vars.null}", "${answers}", "${answers.none}", "${answers.none.x.y}", "${answers.user}",
      "${answers.user.none}", "${answers.list.3}", "${answers.list.-1}", "${answers.list.1}", "${answers.list.00}",
      "${answers.list.99999999999999999999}",
      "${answers.list.first}", "${answers.user.name.len}", "${item.x}", "${answers.user.name} ${answers.x}", "${cookie.x}",
    } do
      expect(text .. tostring(fill(text))):equals(text .. "nil")
    end
    expect(tg.template("${item}", { roots = ROOTS })(CTX)):is_nil()
    expect(tg.template("${item}", { roots = ROOTS })(CTX, {})):is_nil()
    for _, bad in ipairs { 0 / 0, 1 / 0, print, {} } do
      expect(tg.template("${item}", { roots = ROOTS })(CTX, { item = bad })):is_nil()
    end
    expect(tg.template "${consumer.meta.plan}" {}):is_nil()
    expect(tg.template "${credential.id}" {}):is_nil()
  end)

  it("refuses what it does not know, at the line that asks", function()
    for text, problem in pairs {
      ["${answer.x}"] = 'unknown variable "answer.x"', ["${itme}"] = 'did you mean "item"?', ["${client.pi}"] = 'did you mean "client.ip"?',
      ["${}"] = "unknown variable", ["${ item}"] = 'unknown variable " item"', ["${item }"] = "malformed variable",
      ["${answers.}"] = "malformed variable",
      ["${answers..x}"] = "malformed variable", ["${answers.x.}"] = "malformed variable", ["${answers.a b}"] = "malformed variable",
      ["${answers.x|y}"] = "malformed variable", ["${answers[0]}"] = "malformed variable", ['${answers.x"] .. evil() .. ["}'] = "malformed variable",
      ["${item"] = 'a "${" without its "}"', ["${header.a b}"] = "unknown variable", ["${answersx}"] = 'unknown variable "answersx"',
    } do
      expect(function() fill(text) end):raises(problem)
      expect(function() tg.template(text, { roots = ROOTS }) end):raises "template.spec.lua"
    end
    expect(function() tg.template "${item}" end):raises 'unknown variable "item"'
    expect(function() tg.template(("${item}"):rep(65), { roots = ROOTS }) end):raises "more than 64 variables"
    for _, case in ipairs {
      { { roots = { "path" } }, 'cannot be called "path"' }, { { roots = { "vars" } }, 'cannot be called "vars"' },
      { { roots = { "a.b" } }, "not a name for a root" },
      { { roots = { 5 } }, "not a name" }, { { roots = { "x] = evil() --" } }, "not a name" }, { { roots = "item" }, "a list of names" },
      { { escape = "html" }, 'escape is "url" or "json"' }, { { escape = "none" }, 'escape is "url" or "json"' }, { { escape = 5 }, "escape is" },
      { { root = {} }, 'unknown option "root"' }, { "item", "options are a table" },
    } do
      expect(function() tg.template("x", case[1]) end):raises(case[2])
    end
    expect(function() tg.template(5) end):raises "needs a text, found a number"
  end)

  it("looks into documents that are not decoded, and keeps their integers", function()
    local text = '{"user":{"name":"L \\u00e9\\"","id":12345678901234567890,"x":[1.50,true,null,{}]}}'
    local given = { { item = tg.json.decode(text), answers = tg.json.lazy(text) },
    { item = tg.json.lazy(text), answers = { user = tg.json.lazy(text):part "user" } } }
    for _, values in ipairs(given) do
      for _, case in ipairs {
        { "name", "L é\"", '"L é\\""' }, { "id", "12345678901234567890", "12345678901234567890" }, { "x.1", "true", "true" },
        { "x.2", "nil", "null" },
        { "x.3", "nil", "{}" }, { "x", "nil" }, { "x.4", "nil", "nil" }, { "none.x", "nil", "nil" }, { "name.x", "nil", "nil" },
      } do
        for _, root in ipairs(ROOTS) do
          local name = "${" .. root .. ".user." .. case[1] .. "}"
          expect(name .. tostring(tg.template(name, { roots = ROOTS })(nil, values))):equals(name .. case[2])
          local json = tg.template(name, { roots = ROOTS, escape = "json" })(nil, values)
          if case[3] then expect(json and tg.json.encode(tg.json.decode(json)) or "nil"):equals(case[3]) end
        end
      end
      expect(tg.template("${item.user.x.0}", { roots = ROOTS })(nil, values):match "^1%.50?$" ~= nil):is_true()
    end
    expect(tg.template("${item}", { roots = ROOTS, escape = "json" })(nil, { item = tg.json.lazy "[1.50, 2]" })):equals "[1.50, 2]"
    expect(tg.template("${item}", { roots = ROOTS, escape = "url" })(nil, { item = tg.json.lazy '"a\\/b"' })):equals "a%2Fb"
    expect(tg.template("${item}", { roots = ROOTS })(nil, { item = tg.json.lazy " 1.50 " })):equals "1.50"
  end)

  it("may have any name as a root, even a word of Lua", function()
    local f = tg.template("${end.x}${ctx}${given}", { roots = { "end", "ctx", "given" } })
    expect(f(CTX, { ["end"] = { x = 1 }, ctx = 2, given = 3 })):equals "123"
  end)
end)

describe('tg.template with escape = "url"', function()
  it("encodes each value, and only them", function()
    for text, result in pairs {
      ["/u/${item}?q=${query.q}#${header.X-A}"] = "/u/i%2F1?q=1%262#a%20b%2Fc", ["/a/${params.id}/"] = "/a/a%2F..%2Fb%3Fx%23y/",
      ["${consumer.groups}"] = "a%2Cb", ["/${answers.user.id}/${vars.n}/${answers.user.active}"] = "/1234567890123456/1.5/false",
      ["/a%20b/x"] = "/a%20b/x",
    } do
      expect(text .. "  " .. tostring(fill(text, "url"))):equals(text .. "  " .. result)
    end
    expect(fill("/${answers.none}", "url")):is_nil()
  end)

  it("does not climb", function()
    local function path(text, ...)
      local given = {}
      for i, value in ipairs { ... } do given[i] = value end
      return tg.template(text, { roots = { "v" }, escape = "url" })(CTX, { v = given })
    end
    expect(path("/users/${v.0}/x", "..")):is_nil()
    expect(path("/users/${v.0}", ".")):is_nil()
    expect(path("/users/${v.0}${v.1}?x", ".", ".")):is_nil()
    expect(path("${v.0}/x", "..")):is_nil()
    expect(path("http://h/${v.0}", "..")):is_nil()
    expect(path("/users/${v.0}", "...")):equals "/users/..."
    expect(path("/users/a${v.0}", "..")):equals "/users/a.."
    expect(path("/x?q=${v.0}", "..")):equals "/x?q=.."
    expect(path("/x?q=/${v.0}/", "..")):equals "/x?q=/../"
    expect(path("/users/${v.0}", "../x")):equals "/users/..%2Fx"
    expect(function() path "/a/../b" end):raises 'a path with a segment "." or ".."'
    expect(function() path "/${v.0}/.." end):raises 'a path with a segment "." or ".."'
  end)
end)

describe('tg.template with escape = "json"', function()
  it("puts in the JSON text of each value", function()
    local text = '{"u":${answers.user.name},"id":${answers.user.id},"off":${answers.user.active},"none":${answers.user.none},"l":${answers.list},'
      .. '"ip":${client.ip},"port":${client.port},"g":${consumer.groups},"m":${consumer.meta.off},"v":${vars.t},"n":${vars.null}}'
    expect(tg.json.decode(fill(text, "json"))):equals {
      u = 'Ada "L"', id = 1234567890123456, off = false, none = tg.null, l = { "first", { id = 7 },
      {} }, ip = "::1", port = 5, g = { "a", "b" }, m = false,
      v = { 1, { x = "y" } }, n = tg.null,
    }
    expect(tg.template("${consumer.groups}", { escape = "json" }) { consumer = { groups = {} } }):equals "[]"
    expect(fill("${answers.none}", "json")):is_nil()
    expect(tg.template("${vars.x}", { escape = "json" }) { vars = { x = print } }):is_nil()
  end)
end)

describe("t.template", function()
  it("has the same options", function()
    local schema, report = require "runtime.schema", require "runtime.report"
    local function apply(kind, value)
      local found = report.new()
      local conf = schema.apply({ a = kind }, { a = value }, { report = found, at = "x", path = {} })
      return conf and conf.a, found:text()
    end
    local f = apply(t.template { roots = { "item" }, escape = "url" }, "/${item}")
    expect(f(CTX, GIVEN)):equals "/i%2F1"
    expect(select(2, apply(t.template(), "/${item}"))):matches 'unknown variable "item"'
    expect(select(2, apply(t.template { escape = "url" }, "/../x"))):matches "a path with a segment"
    expect(function() t.template { escape = "xml" } end):raises 't.template: escape is "url" or "json"'
    expect(function() t.template { roots = { "vars" } } end):raises "cannot be called"
    expect(function() t.template { escapes = "url" } end):raises 'no option escapes; did you mean "escape"?'
  end)
end)
