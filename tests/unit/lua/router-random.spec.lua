local router = require "runtime.router"
local report = require "runtime.report"

-- The slow matcher: looks at every path of every route, ranks those that match, and takes the best. A path's rank is a digit
-- for each segment, literal 3 and parameter 2, and one for its end: 2 when it ends there, 1 when it goes on.

local function split(path)
  local list = {}
  if path == "/" or path == "" then return list end
  for segment in (path .. "/"):sub(2):gmatch "([^/]*)/" do list[#list + 1] = segment end
  return list
end

local function rank_segments(wanted, count, segments)
  local rank, params = "", {}
  for i = 1, count do
    local name = wanted[i]:match "^{(.-)%??}$"
    if name and segments[i] ~= "" then
      params[name] = segments[i]
      rank = rank .. "2"
    elseif wanted[i] == segments[i] then
      rank = rank .. "3"
    else
      return nil
    end
  end
  return rank, params
end

local function rank_path(pattern, path)
  local prefix = pattern:match "^(.*)/%*$"
  local wanted, segments = split(prefix or pattern), split(path)
  local optional = #wanted > 0 and wanted[#wanted]:find("?", 1, true)
  for count = #wanted, optional and #wanted - 1 or #wanted, -1 do
    if #segments == count or prefix and #segments > count then
      local rank, params = rank_segments(wanted, count, segments)
      if rank then return rank .. (prefix and "1" or "2"), params end
    end
  end
end

local function rank_host(pattern, host)
  if not pattern then return 0 end
  local suffix = pattern:match "^%*(.+)$"
  if suffix then return #host > #suffix and host:sub(-#suffix) == suffix and #suffix or nil end
  return pattern == host and 1000 or nil
end

local function has_method(conf, method)
  for _, name in ipairs(conf.methods or { method }) do
    if name == method or name == "GET" and method == "HEAD" then return true end
  end
  return false
end

local function is_better(key, than)
  for i = 1, #key do
    if key[i] ~= than[i] then return key[i] > than[i] end
  end
  return false
end

local function show(conf, params)
  local parts = {}
  for name, value in pairs(params) do parts[#parts + 1] = name .. "=" .. value end
  table.sort(parts)
  return conf.name .. " " .. table.concat(parts, " ")
end

local function slow_match(routes, method, host, path, value)
  local best, allowed = nil, {}
  local function consider(conf, pattern_host, pattern)
    local host_rank, rank, params = rank_host(pattern_host, host), rank_path(pattern, path)
    if not host_rank or not rank or conf.headers and conf.headers["X-A"] ~= value then return end
    if has_method(conf, method) then
      local key = { host_rank, conf.priority, rank, conf.headers and 1 or 0, conf.methods and 1 or 0, -conf.index }
      if not best or is_better(key, best.key) then best = { key = key, text = show(conf, params) } end
      return
    end
    for _, name in ipairs(conf.methods) do
      allowed[name] = true
      if name == "GET" then allowed.HEAD = true end
    end
  end
  for _, conf in ipairs(routes) do
    for _, pattern_host in ipairs(conf.host or { false }) do
      for _, pattern in ipairs(conf.path) do consider(conf, pattern_host, pattern) end
    end
  end
  if best then return best.text end
  local list = {}
  for name in pairs(allowed) do list[#list + 1] = name end
  table.sort(list)
  return #list > 0 and "405 " .. table.concat(list, ", ") or "404"
end

-- ---------------------------------------------------------------- random routes and requests

local seed = 11
local function random(n)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return math.floor(seed / 65536) % n + 1
end
local function one_of(list) return list[random(#list)] end
local function chance(percent) return random(100) <= percent end

local function random_path()
  local parts, n = {}, random(5) - 1
  for i = 1, n do parts[i] = chance(35) and "{p" .. i .. "}" or one_of { "a", "b", "c", "aa" } end
  local path = "/" .. table.concat(parts, "/")
  if path:sub(-1) == "}" and chance(20) then return (path:gsub("}$", "?}")) end
  if chance(35) then return n == 0 and "/*" or path .. "/*" end
  return n > 0 and chance(10) and path .. "/" or path
end

local function random_route(i, with_priority)
  local conf = { name = "r" .. i, index = i, at = "test", path = { random_path() }, priority = 0 }
  if chance(40) then conf.path[2] = random_path() end
  if with_priority and chance(40) then conf.priority = random(5) - 3 end
  if chance(40) then conf.methods = { one_of { "GET", "POST" }, one_of { "PUT", "DELETE" } } end
  if chance(40) then conf.host = { one_of { "x.io", "a.x.io", "*.x.io", "*.a.x.io", "*.io" } } end
  if chance(25) then conf.headers = { ["X-A"] = one_of { "1", "2" } } end
  return conf
end

describe("router", function()
  it("agrees with a slow matcher on hosts, methods, headers, priorities and parameters", function()
    for round = 1, 150 do
      local routes = {}
      for i = 1, random(25) do routes[i] = random_route(i, round % 2 == 0) end
      local r = router.build(routes, report.new())
      for _ = 1, 40 do
        local parts = {}
        for i = 1, random(6) - 1 do parts[i] = one_of { "a", "b", "c", "aa", "zz" } end
        local path = "/" .. table.concat(parts, "/") .. (#parts > 0 and chance(20) and "/" or "")
        local method, host = one_of { "GET", "HEAD", "POST", "PUT" }, one_of { "x.io", "a.x.io", "b.a.x.io", "io", ".x.io", "" }
        local value = one_of { "1", "2", "3" }
        local request = { header = function() return value end }
        local index, params, allow = r:match(method, host, path, request)
        local found = index and show(routes[index], params or {}) or params == 405 and "405 " .. allow or "404"
        expect(method .. " " .. host .. path .. " " .. found):equals(
          method .. " " .. host .. path .. " " .. slow_match(routes, method, host, path, value))
      end
    end
  end)

  it("builds thousands of routes on one path in a moment", function()
    local routes = {}
    for i = 1, 3000 do
      routes[i] = { name = "r" .. i, index = i, at = "test", priority = 0, path = { "/a" }, headers = { ["X-T"] = "v" .. i } }
    end
    local before = os.clock()
    local r = router.build(routes, report.new())
    expect(os.clock() - before < 2):is_true()
    expect((r:match("GET", "", "/a", { header = function() return "v2999" end }))):equals(2999)
  end)
end)
