local router = require "runtime.router"
local report = require "runtime.report"

local function route(index, fields)
  fields.index, fields.name, fields.priority, fields.at = index, "r" .. index, fields.priority or 0, "test"
  return fields
end

local function build(list)
  local found = report.new()
  for i, fields in ipairs(list) do route(i, fields) end
  return router.build(list, found), found
end

local none = { header = function() end, query = function() end }

local function match(r, path, method, host, request)
  return r:match(method or "GET", host or "", path, request or none)
end

describe("router", function()
  it("prefers exact, then parameters, then prefixes, longer before shorter", function()
    local r = build {
      { path = { "/*" } }, { path = { "/a/*" } }, { path = { "/a/b" } }, { path = { "/a/{x}" } }, { path = { "/a/b/*" } },
    }
    expect((match(r, "/"))):equals(1)
    expect((match(r, "/z/z"))):equals(1)
    expect((match(r, "/a"))):equals(2)
    expect((match(r, "/a/"))):equals(2)
    expect((match(r, "/a/b"))):equals(3)
    expect((match(r, "/a/c"))):equals(4)
    expect((match(r, "/a/b/c"))):equals(5)
    expect((match(r, "/a/c/d"))):equals(2)
    expect((match(r, "/ab"))):equals(1)
  end)

  it("goes back when a more special branch leads nowhere", function()
    local r = build { { path = { "/a/{x}/c" } }, { path = { "/a/b/d" } } }
    expect((match(r, "/a/b/c"))):equals(1)
    expect((match(r, "/a/b/d"))):equals(2)
    expect((match(r, "/a/b/e"))):is_nil()
  end)

  it("gives parameters, and leaves out the optional one", function()
    local r = build { { path = { "/o/{org}/p/{id?}" } } }
    local _, params = match(r, "/o/acme/p/7")
    expect(params):equals { org = "acme", id = "7" }
    _, params = match(r, "/o/acme/p")
    expect(params):equals { org = "acme" }
    expect((match(r, "/o//p/7"))):is_nil()
  end)

  it("answers 405 with the methods that the path has", function()
    local r = build { { path = { "/a" }, methods = { "GET" } }, { path = { "/a" }, methods = { "POST" } } }
    local found, status, allow = match(r, "/a", "PUT")
    expect(found):is_nil()
    expect(status):equals(405)
    expect(allow):equals "GET, HEAD, POST"
    expect((match(r, "/a", "HEAD"))):equals(1)
    local _, missing = match(r, "/b", "PUT")
    expect(missing):equals(404)
  end)

  it("prefers exact hosts, then the longest wildcard, then none", function()
    local r = build {
      { path = { "/*" } }, { path = { "/*" }, host = { "*.example.com" } }, { path = { "/*" }, host = { "*.b.example.com" } },
      { path = { "/*" }, host = { "a.example.com" } },
    }
    expect((match(r, "/", nil, "other.org"))):equals(1)
    expect((match(r, "/", nil, "x.example.com"))):equals(2)
    expect((match(r, "/", nil, "x.b.example.com"))):equals(3)
    expect((match(r, "/", nil, "a.example.com"))):equals(4)
    expect((match(r, "/", nil, "example.com"))):equals(1)
  end)

  it("lets priority win over what is more special", function()
    local r = build { { path = { "/a/b" } }, { path = { "/a/*" }, priority = 5 } }
    expect((match(r, "/a/b"))):equals(2)
  end)

  it("asks for headers and query where a route does", function()
    local r = build { { path = { "/a" } }, { path = { "/a" }, headers = { ["X-Beta"] = "1" } }, { path = { "/a" }, query = { v = "2" } } }
    local beta = { header = function(_, name) return name == "X-Beta" and "1" or nil end, query = function() end }
    local v2 = { header = function() end, query = function(_, name) return name == "v" and "2" or nil end }
    expect((match(r, "/a"))):equals(1)
    expect((match(r, "/a", nil, nil, beta))):equals(2)
    expect((match(r, "/a", nil, nil, v2))):equals(3)
  end)

  it("refuses two routes that no request could tell apart", function()
    local _, found = build { { path = { "/a" } }, { path = { "/a" } } }
    expect(found:count()):equals(1)
    expect(found:text()):matches "matches the same requests as route"
  end)

  it("agrees with a slow matcher on random routes and paths", function()
    local seed = 7
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return math.floor(seed / 65536) % n + 1
    end
    local words = { "a", "b", "c", "{p}" }
    local list, known = {}, {}
    while #list < 60 do
      local parts = {}
      for i = 1, random(4) do parts[i] = words[random(4)] end
      local path = "/" .. table.concat(parts, "/") .. (random(3) == 1 and "/*" or "")
      if not known[path] then
        known[path] = true
        list[#list + 1] = { path = { path } }
      end
    end
    local r = build(list)
    -- Rank a segment at a time: literal 3, parameter 2, prefix 1; the greatest sequence wins.
    local function rank(pattern, path)
      local score, rest = "", path
      local prefix = pattern:match "^(.*)/%*$"
      for segment in (prefix or pattern):gmatch "[^/]+" do
        local head, tail = rest:match "^/([^/]+)(.*)$"
        if not head then return nil end
        if segment == head then score = score .. "3" elseif segment == "{p}" then score = score .. "2" else return nil end
        rest = tail
      end
      if prefix then return score .. "1" end
      return rest == "" and score .. "2" or nil
    end
    for _ = 1, 3000 do
      local parts = {}
      for i = 1, random(5) do parts[i] = words[random(3)] end
      local path = "/" .. table.concat(parts, "/")
      local best, best_rank
      for i, candidate in ipairs(list) do
        local score = rank(candidate.path[1], path)
        if score and (not best or score > best_rank) then best, best_rank = i, score end
      end
      expect((match(r, path))):equals(best)
    end
  end)
end)
