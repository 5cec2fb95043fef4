local json = require "tidegate.json"
local report = require "runtime.report"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"

local KNOWN = {
  ["env:KEY"] = "s3cr3t", ["env:EMPTY"] = "", ["env:SPACED"] = " a\n", ["file:k"] = "from\nfile\r\n\n", ["file:empty"] = "\n\r\n",
  ["file:/a b/c:d"] = "x",
  ["file:large"] = ("x"):rep(65537), ["file:full"] = ("x"):rep(65536), ["file:bytes"] = "\0\255 ",
}

local function with_source(f)
  secret.source = {
    secret = function(_, kind, name)
      local value = KNOWN[kind .. ":" .. name]
      return value, not value and (kind == "env" and "is not there" or "cannot be read: No such file or directory") or nil
    end,
  }
  local ok, err = pcall(f)
  secret.source = nil
  if not ok then error(err, 0) end
end

local function apply(kind, value)
  local found = report.new()
  local conf = schema.apply({ a = kind }, { a = value }, { report = found, at = "gateway.lua:7", path = {} })
  return conf and conf.a, found:text()
end

describe("tg.secret", function()
  it("reads the environment, and files without the newlines at their end", function()
    with_source(function()
      for spec, value in pairs {
        ["env:KEY"] = "s3cr3t", ["env:SPACED"] = " a\n", ["file:k"] = "from\nfile", ["file:/a b/c:d"] = "x", ["file:full"] = ("x"):rep(65536),
        ["file:bytes"] = "\0\255 ",
      } do
        expect(tg.secret(spec):reveal()):equals(value)
      end
    end)
  end)

  it("is never empty or absent", function()
    with_source(function()
      for spec, problem in pairs {
        ["env:NONE"] = 'the secret "env:NONE" is not there', ["env:EMPTY"] = 'the secret "env:EMPTY" is empty',
        ["file:empty"] = '"file:empty" is empty',
        ["file:none"] = '"file:none" cannot be read: No such file', ["file:large"] = "has more than 65536 bytes",
        ["env:"] = 'needs "env:NAME"', [""] = 'needs "env:NAME"', ["env"] = "needs",
        ["ENV:KEY"] = "needs", ["env:KEY\0x"] = "needs", ["env:A\nB"] = "needs", ["password"] = "needs", ["https://x"] = "needs",
      } do
        expect(function() tg.secret(spec) end):raises(problem)
        expect(function() tg.secret(spec) end):raises "secret.spec.lua"
      end
      expect(function() tg.secret {} end):raises "found a table"
      expect(function() tg.secret() end):raises "found a nil"
    end)
    expect(function() tg.secret "env:KEY" end):raises "while a generation is made"
  end)

  it("does not say what somebody has written in place of a name", function()
    with_source(function()
      local _, err = pcall(tg.secret, "hunter2")
      expect(tostring(err):find "hunter2"):is_nil()
    end)
  end)

  it("shows its value to nobody", function()
    with_source(function()
      local s = tg.secret "env:KEY"
      expect(tostring(s)):equals "***"
      expect(("%s"):format(s)):equals "***"
      expect(json.encode { s, { k = s } }):equals '["***",{"k":"***"}]'
      expect(json.encode(s, { pretty = true })):equals '"***"'
      expect(next(s)):is_nil()
      expect(rawget(s, 1)):is_nil()
      expect(getmetatable(s)):equals(false)
      expect(function() return s .. "x" end):raises "a secret becomes text by its reveal()"
      expect(function() return "x" .. s end):raises "a secret becomes text by its reveal()"
      expect(function() s.reveal = function() return "x" end end):raises "cannot be changed"
      expect(function() s.reveal {} end):raises "reveal is a method of a secret"
      expect(function() s.reveal() end):raises "reveal is a method of a secret"
      expect(function() tg.url.encode(s) end):raises "found a table"
      expect(s.value):is_nil()
      expect(secret.is(s)):is_true()
      for _, other in ipairs { "***", {}, 5, print, setmetatable({}, { __tostring = function() return "***" end }) } do
        expect(secret.is(other)):equals(false)
      end
      expect(secret.is(nil)):equals(false)
      local found = report.new()
      found:found("x", {}, s, "a string")
      expect(found:text()):equals "x\n    found     a secret\n    expected  a string"
    end)
  end)
end)

describe("t.secret", function()
  it("gives a secret, whatever form it was written in", function()
    with_source(function()
      for _, case in ipairs {
        { tg.secret "env:KEY", "s3cr3t" }, { { secret = "env:KEY" }, "s3cr3t" }, { { secret = "file:k" }, "from\nfile" }, { "plain", "plain" },
        { " ", " " },
      } do
        local s = apply(t.secret(), case[1])
        expect(s:reveal()):equals(case[2])
        expect(tostring(s)):equals "***"
        expect(apply(t.optional(t.secret()), case[1]):reveal()):equals(case[2])
        expect(apply(t.list(t.secret()), { case[1] })[1]:reveal()):equals(case[2])
        expect(apply(t.any_of { t.integer(), t.secret() }, case[1]):reveal()):equals(case[2])
        expect(apply(t.record { x = t.secret() }, { x = case[1] }).x:reveal()):equals(case[2])
      end
    end)
  end)

  it("says where it is wrong, and never what stands there", function()
    with_source(function()
      for _, case in ipairs {
        { 4711, "found     a number" }, { true, "found     a boolean" }, { "", "found     an empty text" }, { { "hunter2" }, "found     a table" },
        { { secret = "env:NONE" }, 'the secret "env:NONE" is not there' }, { { secret = "hunter2" }, 'secret needs "env:NAME"' },
        { { secret = "vault:" }, "secret needs" }, { { secret = 4711 }, "found     a table" },
        { { secret = "env:KEY", x = "hunter2" }, "found     a table" },
        { { secret = "env:EMPTY" }, "is empty" }, { {}, "found     a table" },
        { "env:hunter2", "found     the name of a secret as a text" }, { "file:hunter2", "found     the name" },
        { "vault:hunter2", "found     the name" },
      } do
        for _, kind in ipairs { t.secret(), t.list(t.secret()), t.any_of { t.integer { max = 5 }, t.secret() }, t.map(t.secret()) } do
          local value = kind.name == "map" and { k = case[1] } or kind.name == "list" and { case[1] } or case[1]
          local found, text = apply(kind, value)
          expect(found):is_nil()
          expect(text):matches "gateway.lua:7  a"
          expect(text:find "hunter2" or text:find "4711"):is_nil()
          if kind.name ~= "any_of" then expect(text):matches(case[2]) end
        end
      end
      expect(select(2, apply(t.secret(), nil))):matches "found     nothing"
    end)
  end)

  it("is refused where text is wanted, and puts no default into the documentation", function()
    with_source(function()
      local found, text = apply(t.string(), tg.secret "env:KEY")
      expect(found):is_nil()
      expect(text):matches "found     a secret\n    expected  a string"
      expect((apply(t.string(), { secret = "env:KEY" }))):is_nil()
      -- It has no fields, but it is no empty table.
      for _, kind in ipairs { t.map(t.any()), t.record {}, t.list(t.string()), t.integer(), t.func() } do
        expect((apply(kind, tg.secret "env:KEY"))):is_nil()
      end
      expect(apply(t.list(t.secret()), tg.secret "env:KEY")[1]:reveal()):equals "s3cr3t"
      expect(apply(t.list(t.secret()), { secret = "env:KEY" })[1]:reveal()):equals "s3cr3t"
    end)
    expect(schema.describe({ a = t.secret "hunter2" })[1].default):equals "***"
  end)
end)

describe("a secret in a template", function()
  it("is put in as it is, not read as a template", function()
    KNOWN["env:DOLLAR"] = "a${client.ip}/b"
    with_source(function()
      for _, value in ipairs { tg.secret "env:DOLLAR", { secret = "env:DOLLAR" } } do
        expect(apply(t.template(), value) {}):equals "a${client.ip}/b"
        expect(apply(t.template { escape = "url" }, value) {}):equals "a%24%7Bclient.ip%7D%2Fb"
      end
      expect(select(2, apply(t.template(), { secret = "env:NONE" }))):matches "is not there"
    end)
  end)
end)

describe("t.any", function()
  it("takes secrets in their written form, and leaves alone what only looks a little like one", function()
    with_source(function()
      local value = apply(t.any(), { a = { secret = "env:KEY" }, b = { { secret = "file:k" } }, c = { secret = "text" },
        d = { secret = "env:KEY", e = 1 } })
      expect(value.a:reveal()):equals "s3cr3t"
      expect(value.b[1]:reveal()):equals "from\nfile"
      expect(value.c):equals { secret = "text" }
      expect(value.d):equals { secret = "env:KEY", e = 1 }
      local found, text = apply(t.any(), { a = { b = { secret = "env:NONE" } } })
      expect(found):is_nil()
      expect(text):equals 'gateway.lua:7  a\n    the secret "env:NONE" is not there'
    end)
  end)
end)
