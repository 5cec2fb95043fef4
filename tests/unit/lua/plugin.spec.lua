local plugin = require "runtime.plugin"
local report = require "runtime.report"
local schema = require "runtime.schema"

local function load(text)
  local found = report.new()
  local env = { t = schema.t, error = error, setmetatable = setmetatable }
  return plugin.load("p", text, "@plugins/p.lua", env, found), found:text()
end

local function refuses(text, part)
  local loaded, found = load(text)
  expect(loaded):is_nil()
  expect(found):matches(part)
end

local function use_of(conf) return { at = "gateway.lua:7", path = { 'route "r"', "use[1] p" }, conf = conf or {}, on_error = "deny" } end

local function configure(text, conf, use)
  local found = report.new()
  use = use or use_of(conf)
  return plugin.configure(load(text), use, found), found:text()
end

describe("a plugin file", function()
  it("returns a table of known fields", function()
    refuses("return 5", "found     5\n    expected  a table")
    refuses("return { acces = function() end }", 'acces\n    unknown field; did you mean "access"?')
    refuses("return { access = 5 }", "expected  a function")
    refuses("return { api = 2 }", "p › api\n    found     2\n    expected  1")
    refuses("return { certificate = function() end }", "not available in this version")
  end)

  it("is named with its line when it cannot be read or raises", function()
    refuses("return {\n  x = = 1 }", "plugins/p.lua:2")
    refuses('\nerror "no"', "plugins/p.lua:2  plugin p\n    no")
    refuses('error(setmetatable({}, { __tostring = function() error "boo" end }))', "a table")
  end)

  it("is text, not bytecode", function()
    refuses("\27LJ\2", "plugins/p.lua  plugin p\n    found     bytecode")
  end)

  it("has no field that every use has, since it would never see it", function()
    for _, name in ipairs { "name", "when", "on_error", "plugin" } do
      refuses("return { schema = { " .. name .. " = t.string '' } }", "is a field of every use")
    end
  end)

  it("has defaults that are what they say", function()
    refuses('return { schema = { a = t.duration "soon" } }', "plugin p › schema › a\n    found     \"soon\"")
    refuses("return { schema = { r = t.record { n = t.integer { default = 0, min = 1 } } } }", "schema › r › n")
    expect((load 'return { schema = { a = t.duration "1m", u = t.upstream "x", l = t.list(t.string(), {}) } }') ~= nil):is_true()
  end)

  it("has options that exist, on types that exist", function()
    refuses("\nreturn { schema = { a = t.integer { defualt = 3 } } }",
      'plugins/p.lua:2  plugin p\n    t.integer has no option defualt; did you mean "default"?')
    refuses("return { schema = { a = t.string { match = '[' } } }", "malformed pattern")
    refuses("return { schema = { a = t.list() } }", "t.list needs a type")
    refuses("return { schema = { a = t.optional() } }", "t.optional needs a type")
    refuses("return { schema = { a = t.enum {} } }", "t.enum needs a list")
    refuses("return { schema = { a = t.record { b = 1 } } }", "t.record needs a type")
    refuses("return { schema = { a = 5 } }", "expected  a type")
    refuses("return { schema = { t.string() } }", "expected  a name")
    refuses("t.string = nil return {}", "t.string cannot be assigned")
  end)
end)

describe("one use of a plugin", function()
  it("gets what its check says, with the path", function()
    local conf, found = configure 'return { schema = {}, check = function() return "too many", "a" end }'
    expect(conf):is_nil()
    expect(found):equals 'gateway.lua:7  route "r" › use[1] p › a\n    too many'
  end)

  it("is refused, not crashed, by a check that gives or raises anything", function()
    local _, found = configure 'return { check = function() return "bad", { "a" } end }'
    expect(found):matches "bad"
    _, found = configure 'return { check = function() error({}) end }'
    expect(found):matches "table"
    _, found = configure 'return { check = function() return setmetatable({}, { __tostring = function() error "boo" end }) end }'
    expect(found):matches "a table"
  end)

  it("may not skip errors where it authenticates", function()
    local use = use_of()
    use.on_error = "skip"
    local conf, found = configure("return { authenticate = function() end }", nil, use)
    expect(conf):is_nil()
    expect(found):matches "is refused for a plugin that authenticates"
  end)

  it("reports an error of setup at its place", function()
    local found = report.new()
    local ok = plugin.setup(load 'return { setup = function() error "no" end }', use_of(), {}, found)
    expect(ok):equals(false)
    expect(found:text()):matches 'gateway.lua:7  route "r" › use[1] p\n    setup: '
  end)
end)

describe("a plugin that is not there", function()
  it("is said, with the nearest or all that are", function()
    expect(plugin.not_found("key-aut", { "rate-limit", "key-auth" })):matches 'plugins/key-aut.lua; did you mean "key-auth"?'
    expect(plugin.not_found("zzz", { "b", "a" })):matches "there are a, b"
    expect(plugin.not_found("zzz", {})):equals "there is no plugin file plugins/zzz.lua"
  end)
end)

describe("idle", function()
  local text = [[return { access = function() end, log = function() end, schema = { quiet = t.boolean { default = false } },
    idle = function(conf) return conf.quiet and { "log" } or conf.quiet == nil and 5 or {} end }]]

  local function phases(conf, source)
    local found, use = report.new(), use_of(conf)
    local loaded = load(source or text)
    use.conf = conf
    local result = plugin.without_idle(loaded, use, found)
    return (result.access and "access " or "") .. (result.log and "log" or ""), found:text(), result, loaded
  end

  it("leaves out phases that have nothing to do", function()
    expect((phases { quiet = true })):equals "access "
    local said, found, result, loaded = phases { quiet = false }
    expect(said):equals "access log"
    expect(found):equals ""
    expect(result == loaded):is_true()
    expect((phases({}, "return { log = function() end }"))):equals "log"
  end)

  it("is refused when it names no phase of the plugin, or raises", function()
    for source, message in pairs {
      ['return { log = function() end, idle = function() return { "acess" } end }'] = 'idle: idle names "acess", which is none of its phases',
      ['return { log = function() end, idle = function() return { "access" } end }'] = 'idle names "access", which is none of its phases',
      ['return { log = function() end, idle = function() return { "idle" } end }'] = 'idle names "idle", which is none of its phases',
      ["return { log = function() end, idle = function() error 'boo' end }"] = "boo",
      ["return { log = function() end, idle = function() return 5 end }"] = "idle must return a list of phases, returned a number",
    } do
      local _, found = phases({}, source)
      expect(found):matches(message)
      expect(found):matches 'gateway.lua:7  route "r" › use[1] p'
    end
    expect(select(2, phases {})):matches "returned a number"
  end)
end)
