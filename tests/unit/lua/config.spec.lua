local config = require "runtime.config"
local report = require "runtime.report"
local secret = require "tidegate.secret"

local decoded -- what the source's json gives, for files that end in .json

local function load(files, entry)
  if type(files) == "string" then files = { ["gateway.lua"] = files } end
  local found = report.new()
  local source = { reads = 0 }
  function source.read(self, path)
    self.reads = self.reads + 1
    return files[path], "no such file"
  end
  function source.glob(_, pattern)
    local list = {}
    for path in pairs(files) do
      if path:find((pattern:gsub("%.", "%%."):gsub("%*", ".*"))) then list[#list + 1] = path end
    end
    table.sort(list)
    return list
  end
  function source.secret(_, kind, name)
    local value = kind == "env" and name == "KEY" and "from-env" or kind == "file" and files[name]
    return value or nil, not value and "is not there" or nil
  end
  secret.source = source
  function source.json() return decoded end
  local cfg = config.load(entry or "gateway.lua", source, found)
  return cfg, found:text(), source
end

local HEAD = 'listen { name = "public", port = 8080 }\nupstream "u" { targets = { "http://127.0.0.1:9000" } }\n'

local function route(fields) return load(HEAD .. 'route "r" { path = "/*", to = "u", ' .. fields .. " }") end

local function refuses(text, part)
  local cfg, found = load(text)
  expect(cfg):is_nil()
  expect(found):matches(part)
end

describe("config", function()
  it("gives words their defaults and remembers where they stand", function()
    local cfg = load(HEAD .. 'route "r" { path = "/a", to = "u", timeout = "250ms" }')
    expect(cfg.listen[1].header_timeout):equals(10)
    expect(cfg.listen[1].head):equals(32768)
    expect(cfg.upstream.u.targets[1].port):equals(9000)
    expect(cfg.upstream.u.connect_timeout):equals(2)
    expect(cfg.route[1].timeout):equals(0.25)
    expect(cfg.route[1].body_limit):equals(10485760)
    expect(cfg.route[1].at):equals "gateway.lua:3"
  end)

  it("reads uses as names, tables and functions", function()
    local cfg = load('use { "a", { "b", x = 1, on_error = "skip", name = "second" } }\n' .. HEAD
      .. 'route "r" { path = "/*", to = "u", use = { function() end } }')
    expect(cfg.use[1].plugin):equals "a"
    expect(cfg.use[2].conf):equals { x = 1 }
    expect(cfg.use[2].on_error):equals "skip"
    expect(cfg.use[2].name):equals "second"
    expect(type(cfg.route[1].use[1].fn)):equals "function"
  end)

  it("reports all errors at once", function()
    local _, found = load('listen { port = 0 }\nupstream "u" { targets = {} }\nroute "r" { path = "x", to = "v" }')
    expect(found):matches "gateway.lua:1  listen › port"
    expect(found):matches 'gateway.lua:2  upstream "u" › targets'
    expect(found):matches 'gateway.lua:3  route "r" › path'
  end)

  it("is text, not bytecode", function() refuses("\27LJ\2", "gateway.lua\n    found     bytecode") end)

  it("names the line of a syntax error and of an error raised", function()
    refuses("listen { port = 1 }\nroute {", "gateway.lua:2")
    refuses('\n\nerror "no"', "gateway.lua:3\n    no")
    refuses("error({})", "gateway.lua:1\n    table")
  end)

  it("names both places of a name that stands twice", function()
    refuses(HEAD .. 'upstream "u" { targets = "http://a" }', 'gateway.lua:3  upstream "u"\n    there is one of this name already at gateway.lua:2')
    refuses('listen { port = 1, name = "a" }\nlisten { port = 2, name = "a" }', "already at gateway.lua:1")
    refuses(HEAD .. 'defaults { timeout = "1s" }\ndefaults { timeout = "2s" }', "there is one already at gateway.lua:3")
  end)
end)

describe("a policy that is written down is there, or the configuration is refused:", function()
  it("a plugin's name without quotes", function()
    refuses(HEAD .. 'route "r" { path = "/*", to = "u", use = { key_auth } }', 'gateway.lua:3\n    "key_auth" is not defined here')
  end)

  it("a hole in the list", function()
    refuses(HEAD .. 'route "r" { path = "/*", to = "u", use = { "a", nil, "key-auth" } }', "found     nothing as use[2]")
    refuses(HEAD .. 'route "r" { path = "/*", to = "u", use = { nil, "key-auth" } }', "found     nothing as use[1]")
  end)

  it("fields that belong one brace deeper", function()
    refuses(HEAD .. 'route "r" { path = "/*", to = "u", use = { "rate-limit", limit = 5 } }', "found     limit = ...")
  end)

  it("an assignment to a word", function()
    refuses('use = { "key-auth" }\n' .. HEAD, "gateway.lua:1\n    use is a word of the configuration and takes no `=`: use { ... }")
    refuses('log = { level = "debug" }\n' .. HEAD, "log { ... }")
    refuses('route = {}\n' .. HEAD, 'route "name" { ... }')
  end)

  it("a name without a body", function()
    refuses(HEAD .. 'route "r"', 'gateway.lua:3  route "r"\n    found     no body')
    refuses(HEAD .. 'route("r", { path = "/*", to = "u" })', "takes its body after its name")
  end)

  it("lists with nothing in them", function()
    for _, field in ipairs { "path = {}", "methods = {}", "host = {}", "listen = {}" } do
      local cfg = load(HEAD .. 'route "r" { path = "/*", to = "u", ' .. field .. " }")
      expect(cfg):is_nil()
    end
  end)

  it("a misspelt word", function()
    refuses(HEAD .. 'roote "r" {}', 'unknown word "roote"; did you mean "route"?')
  end)

  it("a word used while requests are served", function()
    local cfg = load(HEAD .. 'route "r" { path = "/*", to = "u", use = { function() use { "a" } end } }')
    expect(cfg.route[1].use[1].fn):raises "does nothing while requests are served"
  end)
end)

describe("config checks what could never match:", function()
  it("paths", function()
    for _, bad in ipairs { "/{a}{b}", "/x{id}", "/{a}/{a}", "/a/../b", "/./a", "/a%20b", "/a*", "/*/a", "/a//b", "/{a?}/b", "/{a?}/*",
      "/{}", "/{1a}", "/a?b", "/a#b", "/a b", "/{a?}/", ("/a"):rep(65) } do
      local cfg, found = load(HEAD .. ('route "r" { path = %q, to = "u" }'):format(bad))
      expect(cfg and "accepted " .. bad):is_nil()
      expect(found):matches 'route "r" › path'
    end
    for _, good in ipairs { "/", "/*", "/a", "/a/", "/a/*", "/{a}", "/{a?}", "/a/{b}/c", "/a/{b}/*", "/a/{b}/", "/.well-known/x", "/a:b" } do
      local _, found = load(HEAD .. ('route "r" { path = %q, to = "u" }'):format(good))
      expect(found):equals ""
    end
  end)

  it("hosts", function()
    for _, bad in ipairs { "*a.com", "a.com.", "*", "a*b", "a.com:80", "a..b", "*.", "-a.com", "1.2.3", "[::g]", "a b" } do
      local cfg = route(("host = %q"):format(bad))
      expect(cfg and "accepted " .. bad):is_nil()
    end
    for _, good in ipairs { "a.com", "*.a.com", "A.com", "my_service", "1.2.3.4", "[::1]" } do
      local _, found = route(("host = %q"):format(good))
      expect(found):equals ""
    end
  end)

  it("upstreams and listeners that are not declared", function()
    local _, found = load('listen { port = 1 }\nupstream "orders" { targets = "http://a" }\nroute "r" { path = "/*", to = "ordres" }')
    expect(found):matches 'did you mean "orders"?'
    _, found = route 'listen = "privat"'
    expect(found):matches 'route "r" › listen'
  end)

  it("strip_path where there is no one prefix to strip", function()
    for _, path in ipairs { '"/a"', '{ "/a/*", "/b/*" }', '"/{x}/*"' } do
      local _, found = load(HEAD .. 'route "r" { path = ' .. path .. ', to = "u", strip_path = true }')
      expect(found):matches 'route "r" › strip_path'
    end
    expect((route "strip_path = true").route[1].strip_path):is_true()
  end)
end)

describe("config bounds what the core counts with:", function()
  it("durations, sizes and numbers", function()
    for _, bad in ipairs { "timeout = 1e300", "timeout = -1", "timeout = 0", "timeout = 0/0", 'timeout = "8d"', "body_limit = -1",
      "body_limit = 1e300", "priority = 1e300", "priority = 0.5", 'body_limit = "1 MiB"' } do
      local cfg = route(bad)
      expect(cfg and "accepted " .. bad):is_nil()
    end
    expect((route "body_limit = 0").route[1].body_limit):equals(2 ^ 53)
  end)

  it("pairs, in an order that is the same in each process", function()
    local cfg = load [[
      for name, port in pairs { d = 4, b = 2, a = 1, c = 3, [1] = 10, [2] = 11 } do listen { name = "l" .. name, port = port } end
      upstream "u" { targets = "http://a" }
      route "r" { path = "/", to = "u" }]]
    local names = {}
    for i, listen in ipairs(cfg.listen) do names[i] = listen.name end
    expect(names):equals { "l1", "l2", "la", "lb", "lc", "ld" }
  end)

  it("targets", function()
    for _, bad in ipairs { "a:80", "http://", "http://a:0", "http://a:65536", "http://a/b", "http://a b", "ftp://a", "http://u@a",
      "http://[::1", "http://1.2.3", "http://a\\r\\nX: y" } do
      local cfg = load('listen { port = 1 } upstream "u" { targets = "' .. bad .. '" }')
      expect(cfg and "accepted " .. bad):is_nil()
    end
    local cfg = load 'listen { port = 1 } upstream "u" { targets = { "http://my_service", "http://[::1]:81", { url = "http://a", weight = 3 } } }'
    expect(cfg.upstream.u.targets):equals {
      { scheme = "http", host = "my_service", port = 80, weight = 1, priority = 0 },
      { scheme = "http", host = "::1", port = 81, weight = 1, priority = 0 },
      { scheme = "http", host = "a", port = 80, weight = 3, priority = 0 },
    }
  end)

  it("the Host that an upstream gets", function()
    refuses('listen { port = 1 } upstream "u" { targets = "http://a", host = "a\\r\\nX: y" }', 'upstream "u" › host')
    expect((load 'listen { port = 1 } upstream "u" { targets = "http://a", host = "b.example:81" }').upstream.u.host):equals "b.example:81"
  end)
end)

describe("config survives hostile values:", function()
  it("names and fields whose text raises", function()
    local bomb = 'setmetatable({}, { __tostring = function() error "boo" end })'
    refuses(HEAD .. 'route "r" { path = "/*", to = "u", [' .. bomb .. "] = 1 }", "unknown field")
    refuses("route(" .. bomb .. ")", "route needs a name")
    refuses("error(" .. bomb .. ")", "a table")
  end)

  it("tables that hold themselves", function()
    refuses('local x = {} x.x = x consumer "c" { meta = x }\n' .. HEAD, 'consumer "c" › meta › x')
    local cfg = load('local x = {} x.x = x use { { "p", a = x } }\n' .. HEAD)
    expect(cfg.use[1].conf.a.x.x ~= nil):is_true()
  end)

  it("a configuration that spoils the standard library", function()
    local cfg = load("string.format, table.concat, math.max = nil\n" .. HEAD)
    expect(cfg ~= nil):is_true()
    expect(("%d"):format(1)):equals "1"
    refuses('getmetatable("").__index.format = nil', "gateway.lua:1")
  end)

  it("files that include themselves or each other", function()
    local _, found, source = load('include "gateway.lua" include "gateway.lua" include "gateway.lua"')
    expect(found):matches "gateway.lua:1\n    gateway.lua includes itself"
    expect(source.reads):equals(1)
    _, found = load { ["gateway.lua"] = '\ninclude "a.lua"', ["a.lua"] = 'include "gateway.lua"' }
    expect(found):matches "a.lua:1\n    gateway.lua includes itself"
    _, found = load '\ninclude "none.lua"'
    expect(found):matches "gateway.lua:2\n    \"none.lua\" cannot be read: no such file"
  end)

  it("files that fan out without end", function()
    local files = { ["gateway.lua"] = 'include "0.lua"' }
    for i = 0, 29 do files[i .. ".lua"] = ('include "%d.lua" include "%d.lua"'):format(i + 1, i + 1) end
    files["30.lua"] = ""
    local cfg, found = load(files)
    expect(cfg):is_nil()
    expect(found):matches "more than 10000 files"
  end)
end)

describe("config in JSON", function()
  local function json(value)
    decoded = value
    return load({ ["g.json"] = "" }, "g.json")
  end
  local function whole(changes)
    local value = { listen = { port = 1 }, upstream = { u = { targets = "http://a" } } }
    for key, item in pairs(changes or {}) do value[key] = item end
    return value
  end

  it("has the same words", function()
    local cfg = json(whole { api = 1, use = { { plugin = "p", x = 1 } }, route = { b = { path = "/b", to = "u" }, a = { path = "/a", to = "u" } } })
    expect(cfg.use[1].plugin):equals "p"
    expect(cfg.use[1].conf):equals { x = 1 }
    expect(cfg.route[1].name):equals "a"
    expect(cfg.route[2].name):equals "b"
  end)

  it("refuses names that could end a line, and what is no object of names", function()
    local _, found = json(whole { route = { ["x\nfile /etc/passwd"] = { path = "/*", to = "u" } } })
    expect(found):matches 'found     "x\\nfile /etc/passwd"'
    for _, word in ipairs { "dict", "redis", "upstream", "consumer", "route" } do
      local cfg
      cfg, found = json(whole { [word] = 5 })
      expect(cfg):is_nil()
      expect(found):matches "an object of names"
      expect((json(whole { [word] = { { path = "/*" } } }))):is_nil()
    end
  end)

  it("refuses another api, unknown words and words of later versions", function()
    expect(select(2, json(whole { api = 2 }))):matches "api"
    expect(select(2, json(whole { rout = {} }))):matches 'did you mean "route"?'
    expect(select(2, json(whole { tracing = {} }))):matches "not available in this version"
  end)

  it("reads the servers of a redis, and says what is missing or does not fit its mode", function()
    local cfg = load(HEAD .. [[redis "a" { address = "Cache.internal" } redis "b" { address = "unix:/run/r.sock", db = 3 }
      redis "c" { mode = "sentinel", sentinels = { "10.0.0.5", "[::1]:26380" }, master = "main" }
      redis "d" { mode = "cluster", nodes = { "h:7000" } }]])
    expect(cfg.redis.a.servers):equals { { host = "cache.internal", port = 6379 } }
    expect(cfg.redis.a.timeout):equals(0.05)
    expect(cfg.redis.b.servers):equals { { host = "/run/r.sock", port = 0 } }
    expect(cfg.redis.c.servers):equals { { host = "10.0.0.5", port = 26379 }, { host = "::1", port = 26380 } }
    expect(cfg.redis.d.servers):equals { { host = "h", port = 7000 } }
    local function wrong(fields, part) refuses(HEAD .. 'redis "r" { ' .. fields .. " }", part) end
    wrong("", 'expected  redis "r" { address = "127.0.0.1:6379" }')
    wrong('mode = "sentinel", sentinels = { "a" }', 'redis "r" › master')
    wrong('mode = "cluster", address = "a:1"', 'is for mode = "single"; the mode is "cluster"')
    wrong('address = "a:99999"', "the address of a server")
    wrong('address = "a", pasword = "x"', 'did you mean "password"?')
    wrong('address = "a", username = "u"', "needs a password")
    wrong('mode = "cluster", nodes = { "a" }, db = 1', "a cluster has no databases but 0")
    wrong('address = "a", tls = { verfy = false }', 'did you mean "verify"?')
    wrong('address = "a", timeout = "0s"', 'redis "r" › timeout')
  end)

  it("takes what it includes first, so that the order of policies is always the same", function()
    decoded = whole { include = { "first.lua" }, use = { { plugin = "second" } } }
    local cfg = load({ ["g.json"] = "", ["first.lua"] = 'use { "first" }' }, "g.json")
    expect(cfg.use[1].plugin):equals "first"
    expect(cfg.use[2].plugin):equals "second"
  end)
end)

describe("secret", function()
  it("reads the environment and files, and is never empty", function()
    local cfg = load { ["gateway.lua"] = HEAD .. 'consumer "c" { credentials = { a = secret "env:KEY", b = secret "file:k" } }', k = "text\n" }
    expect(cfg.credentials.a.values[1]:reveal()):equals "from-env"
    expect(cfg.credentials.b.values[1]:reveal()):equals "text"
    refuses('secret "env:NONE"', 'gateway.lua:1\n    the secret "env:NONE" is not there')
    refuses('\nlocal x = {\n  secret "NONE" }', 'gateway.lua:3\n    secret needs "env:NAME", "file:PATH" or "vault:MOUNT/PATH#KEY"')
    refuses("secret(5)", "found a number")
  end)

  it("has a form in JSON, too, also among free values", function()
    local function whole(consumer)
      return { listen = { port = 1 }, consumer = consumer }
    end
    decoded = whole { c = { credentials = { key = { secret = "env:KEY" }, more = { { x = { secret = "file:k" } }, "plain" } } } }
    local cfg = load({ ["g.json"] = "", k = "text\n" }, "g.json")
    expect(cfg.credentials.key.values[1]:reveal()):equals "from-env"
    expect(cfg.credentials.more.values[1].fields.x:reveal()):equals "text"
    expect(cfg.credentials.more.values[2]):equals "plain"
    decoded = whole { c = { credentials = { key = { secret = "env:NONE" } } } }
    local none, found = load({ ["g.json"] = "" }, "g.json")
    expect(none):is_nil()
    expect(found):matches 'g.json  consumer "c" › credentials › key\n    the secret "env:NONE" is not there'
  end)
end)
