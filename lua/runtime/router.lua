--- router: from method, host and path to a route. Built once a generation; patterns are found by the core (http/route_table.h), and what else a
-- route asks of a request is looked at here.
-- Order: host exact, then wildcard, then none; in a host: priority, then exact path, {param}, prefix; longer before shorter;
-- more matchers before fewer; then the order of the configuration.
local abi = require "abi"
local pace = require "runtime.pace"

local C, vm, to_string = abi.C, abi.vm, abi.string
local found = C.tg_abi_routes_found()

local router = {}
local Router = {}
Router.__index = Router

-- ---------------------------------------------------------------- once a generation

local function methods_of(conf)
  if not conf.methods then return false end
  local set = {}
  for _, value in ipairs(conf.methods) do set[value] = true end
  if set.GET then set.HEAD = true end
  local list = {}
  for method in pairs(set) do list[#list + 1] = method end
  table.sort(list)
  return list
end

local function has(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local function matchers_of(conf)
  local list = {}
  for name, value in pairs(conf.headers or {}) do list[#list + 1] = { kind = "header", name = name, value = value } end
  for name, value in pairs(conf.query or {}) do list[#list + 1] = { kind = "query", name = name, value = value } end
  for _, name in ipairs { "scheme", "protocol", "alpn", "sni" } do
    if conf[name] then list[#list + 1] = { kind = "connection", name = name, value = conf[name] } end
  end
  table.sort(list, function(a, b) return a.kind .. a.name < b.kind .. b.name end)
  return #list > 0 and list or false
end

-- A key that two routes share when no request to the same path could tell them apart. Lengths, since values may hold any byte.
local function signature(entry)
  local parts = { entry.conf.priority, table.concat(entry.methods or {}, ",") }
  for _, m in ipairs(entry.matchers or {}) do
    local name = m.kind == "header" and m.name:lower() or m.name
    parts[#parts + 1] = ("%s %d:%s %d:%s"):format(m.kind, #name, name, #m.value, m.value)
  end
  return table.concat(parts, " ")
end

-- What browsers ask before they send a request with a method of the route: of the route, where one of its uses answers that.
local function preflights_of(conf, methods)
  local list = {}
  for _, use in ipairs(methods and not has(methods, "OPTIONS") and conf.use or {}) do
    if use.plugin.preflight and not use.when and not use.shadow then
      for _, method in ipairs(methods) do
        local headers = { ["Access-Control-Request-Method"] = method }
        for name, value in pairs(conf.headers or {}) do headers[name] = value end
        list[#list + 1] = setmetatable({ methods = { "OPTIONS" }, headers = headers }, { __index = conf })
      end
      break
    end
  end
  return list
end

local function entry_of(conf, methods)
  local entry = { conf = conf, methods = methods, matchers = matchers_of(conf) }
  entry.signature = signature(entry)
  return entry
end

-- The names of a pattern's parameters with the numbers of their segments: one list for all patterns that are alike in them.
local function names_of(path, known)
  local list, texts, number = {}, {}, 0
  for segment in path:gmatch "[^/]+" do
    local name = segment:match "^{([%w_]+)%??}$"
    if name then
      list[#list + 1] = { name, number }
      texts[#texts + 1] = name .. " " .. number
    end
    number = number + 1
  end
  if #list == 0 then return false end
  local key = table.concat(texts, " ")
  known[key] = known[key] or list
  return known[key]
end

local function put(self, build, host, path, entry)
  local conf = entry.conf
  -- Of two routes without parameters that differ the paths do; so the names of parameters are left out.
  local key = host .. " " .. path:gsub("{[^/]*}", "{}") .. " " .. entry.signature
  local other = build.seen[key]
  if other == conf then return end
  if other then
    return build.report:problem(conf.at, { ('route "%s"'):format(conf.name) },
      ('matches the same requests as route "%s" at %s: %s'):format(other.name, other.at, path))
  end
  build.seen[key] = conf
  local number = C.tg_abi_routes_add(self.table, host, #host, path, #path, conf.index, conf.priority, entry.matchers and #entry.matchers or 0)
  local rc = number < 0 and number or 0
  for _, method in ipairs(entry.methods or {}) do
    if rc == 0 then rc = C.tg_abi_routes_allow(self.table, method, #method) end
  end
  if rc ~= 0 then error(("%s: route %q: %s: %s"):format(conf.at, conf.name, path, abi.code(rc)), 0) end
  self.names[number] = names_of(path, build.names)
  self.matchers[number] = entry.matchers or nil
  self.methods[number] = entry.methods or nil
end

-- Where the last segment may be left out, the path ends in two ways.
local function paths_of(path)
  local shorter = path:match "^(.*)/{[%w_]+%?}$"
  if not shorter then return { path } end
  return { shorter == "" and "/" or shorter, path }
end

local function put_all(self, build, entry)
  for _, host in ipairs(entry.conf.host or { "" }) do
    for _, pattern in ipairs(entry.conf.path) do
      for _, path in ipairs(paths_of(pattern)) do put(self, build, host:lower(), path, entry) end
    end
  end
end

-- The route of a table that has one that takes everything: nothing needs to be looked at.
local function find_only(routes)
  local conf = routes[1]
  if #routes ~= 1 or conf.host or conf.methods or matchers_of(conf) then return false end
  return #conf.path == 1 and conf.path[1] == "/*" and conf.index
end

--- build(routes, report) -> router of these routes; a match gives the index of one. `only` is the route when there is but one possibility
function router.build(routes, report)
  local self = setmetatable({ table = abi.routes(), names = {}, matchers = {}, methods = {}, only = find_only(routes) }, Router)
  local build = { report = report, seen = {}, names = {} }
  for _, conf in ipairs(routes) do
    pace.breathe()
    local methods = methods_of(conf)
    put_all(self, build, entry_of(conf, methods))
    for _, preflight in ipairs(preflights_of(conf, methods)) do put_all(self, build, entry_of(preflight, methods_of(preflight))) end
  end
  local rc = C.tg_abi_routes_settle(self.table)
  if rc ~= 0 then error("routes: " .. abi.code(rc), 0) end
  return self
end

-- ---------------------------------------------------------------- once a request

local function value_of(m, request)
  if m.kind == "header" then return request:header(m.name) end
  if m.kind == "query" then return request:query(m.name) end
  return request:connection(m.name, m.value)
end

local function fits(matchers, request)
  for i = 1, #matchers do
    local m = matchers[i]
    if value_of(m, request) ~= m.value then return false end
  end
  return true
end

-- The first of `count` that were found, and of all that come behind them, whose route has all that it asks for.
local function choose(self, count, request)
  while count > 0 do
    for i = 0, count - 1 do
      local route, pattern, asks = found[i].route, found[i].pattern, found[i].asks ~= 0
      if not asks or fits(self.matchers[pattern], request) then return route, pattern end
    end
    count = C.tg_abi_routes_more(self.table)
  end
  return nil
end

-- The methods of all routes that would match but for theirs, as the Allow field; nil when there are none.
local function allowed(self, count, request)
  local set, list = {}, {}
  while count > 0 do
    for i = 0, count - 1 do
      local pattern = found[i].pattern
      if found[i].asks == 0 or fits(self.matchers[pattern], request) then
        for _, method in ipairs(self.methods[pattern] or {}) do set[method] = true end
      end
    end
    count = C.tg_abi_routes_more(self.table)
  end
  for method in pairs(set) do list[#list + 1] = method end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or nil
end

local function params_of(names, path, n)
  local params = {}
  for i = 1, #names do
    C.tg_abi_path_segment(path, n, names[i][2])
    params[names[i][1]] = to_string(vm.out.p, vm.out.n)
  end
  return params
end

--- find(x, request) -> index of the route of an exchange, number of its pattern | nil, 404; or nil, 405, allowed methods. `request` is
-- pointed at the exchange when more of it is asked for: x in a field is an object for each request.
function Router:find(x, request)
  local count = C.tg_abi_routes_find(self.table, x, 0)
  if count > 0 then
    if found[0].asks == 0 then return found[0].route, found[0].pattern end
    request.x = x
    local route, pattern = choose(self, count, request)
    if route then return route, pattern end
  end
  if C.tg_abi_routes_blocked() == 0 then return nil, 404 end
  request.x = x
  local allow = allowed(self, C.tg_abi_routes_find(self.table, x, 1), request)
  if allow then return nil, 405, allow end
  return nil, 404
end

--- params(pattern, x) -> what the path of an exchange has for the parameters of its route's pattern | nil
function Router:params(pattern, x)
  local names = self.names[pattern]
  return names and params_of(names, x.path.p, x.path.n) or nil
end

--- match(method, host, path, request) -> index of a route, params | nil; or as find: of a request that is no exchange
function Router:match(method, host, path, request)
  local function search(every) return C.tg_abi_routes_find_text(self.table, method, #method, host, #host, path, #path, every) end
  local route, pattern = choose(self, search(0), request)
  if route then return route, self.names[pattern] and params_of(self.names[pattern], path, #path) or nil end
  local allow = C.tg_abi_routes_blocked() ~= 0 and allowed(self, search(1), request)
  if allow then return nil, 405, allow end
  return nil, 404
end

--- fits(method, host, path, request) -> whether some route is for this request
function Router:fits(method, host, path, request)
  return choose(self, C.tg_abi_routes_find_text(self.table, method, #method, host, #host, path, #path, 0), request) ~= nil
end

-- For who explains a match.
router.value_of, router.matchers_of, router.methods_of, router.paths_of = value_of, matchers_of, methods_of, paths_of

return router
