--- route_config: what a route matches and where it leads, judged: everything of the word that no type can say.
local address = require "runtime.address"
local report_of = require "runtime.report"
local schema = require "runtime.schema"

local t = schema.t
local route_config = {}

--- What a route, or a use, may ask of a request beside its path.
route_config.asks = {
  host = t.optional(t.list(t.string(), { min = 1 })), methods = t.optional(t.list(t.string { match = "^%u[%u%-]*$", len = 32 }, { min = 1 })),
  headers = t.optional(t.map(t.string())), query = t.optional(t.map(t.string())), scheme = t.optional(t.enum { "http", "https" }),
}
route_config.path_type = t.string { match = "^/", len = 4096 }

local function check_target(cfg, route, item, path, report)
  if (route.to ~= nil) == (route.handler ~= nil) then
    report:problem(item.at, path, "exactly one of `to` and `handler` is needed")
  elseif route.to and not cfg.upstream[route.to] then
    local known = {}
    for name in pairs(cfg.upstream) do known[#known + 1] = name end
    table.sort(known)
    local nearest = report_of.nearest(route.to, known)
    path[#path + 1] = "to"
    report:found(item.at, path, route.to, "the name of an upstream" .. (nearest and ('; did you mean "%s"?'):format(nearest) or ""))
  end
end

-- What is wrong with a path pattern, or nil. Requests are matched decoded and normalised, so some could never match.
local function path_problem(pattern)
  local rest = pattern:gsub("/%*$", "", 1)
  if rest == "" or pattern == "/" then return nil end
  local names, count, optional = {}, 0, false
  for segment in rest:sub(2):gsub("/$", ""):gmatch "[^/]*" do
    -- gmatch of Lua 5.1 gives an empty match after each segment; what else is empty is found below.
    if segment ~= "" then
      count = count + 1
      if optional then return "only the last segment may be optional" end
      local name, mark = segment:match "^{([%a_][%w_]*)(%??)}$"
      optional = mark == "?"
      if name and names[name] then return ("{%s} stands there twice"):format(name) end
      if name then names[name] = true end
      if not name and segment:find "[{}]" then return "a parameter is a whole segment: {name}, or {name?} as the last" end
      if not name and segment:find "[*?#%s%c\\]" then return "'*' is only for the end, as /*" end
      if segment == "." or segment == ".." then return "requests are matched without . and .. segments" end
      if segment:find(";", 1, true) then return "requests are matched without ;parameters" end
      if segment:find "%%%x%x" then return "requests are matched decoded: write the character itself" end
    end
  end
  if pattern:find("//", 1, true) then return "requests are matched without empty segments" end
  if optional and (rest ~= pattern or pattern:sub(-1) == "/") then return "only the last segment may be optional" end
  if count > 64 then return "at most 64 segments" end
  return nil
end

local function check_paths(route, at, path, report)
  for _, pattern in ipairs(route.path) do
    local problem = path_problem(pattern)
    if problem then
      report:found(at, path, pattern, 'a path: "/exact", "/prefix/*", "/with/{name}", "/with/{optional?}" (' .. problem .. ")")
    end
  end
end

local function check_strip_path(route, item, path, report)
  if not route.strip_path then return end
  local prefix = route.path[1]:match "^([%w%-._~/]*)/%*$"
  if #route.path ~= 1 or not prefix then
    report:problem(item.at, path, 'needs a route with one path of the form "/prefix/*"')
  end
end

local function check_hosts(route, at, path, report)
  for _, host in ipairs(route.host or {}) do
    local inner = host:match "^%[(.*)%]$"
    local name = host:match "^%*%.(.+)$" or host
    if not (inner and address.is_ipv6(inner) or address.is_ipv4(host) or address.is_name(name)) then
      report:found(at, path, host, 'a host without port: "api.example.com", "*.example.com"')
    end
  end
end

local function check_headers(route, at, path, report)
  for name in pairs(route.headers or {}) do
    if not name:find "^[%w!#$%%&'*+.^_`|~-]+$" then report:found(at, path, name, "a header name") end
  end
end

-- HTTP itself is negotiated, not upgraded to: a tunnel of HTTP/2 would pass by every policy (SECURITY 1.1).
local function check_upgrade(route, item, path, report)
  for _, name in ipairs(route.upgrade) do
    if name:lower():find "^h2c?$" or name:lower():find "^http" or name:lower():find "^tls" then
      report:found(item.at, path, name, 'a protocol that a connection may become: "websocket"')
    end
  end
  if #route.upgrade > 0 and not route.to then
    report:problem(item.at, path, "only an upstream can agree to it: the route needs `to`")
  end
end

local function inside(prefix, name)
  local path = { unpack(prefix) }
  path[#path + 1] = name
  return path
end

--- check_asks(asks, at, prefix, report) -> whether all is well: what it asks of a request. `prefix`: the path of what asks
function route_config.check_asks(asks, at, prefix, report)
  local before = report:count()
  check_paths(asks, at, inside(prefix, "path"), report)
  check_hosts(asks, at, inside(prefix, "host"), report)
  check_headers(asks, at, inside(prefix, "headers"), report)
  return report:count() == before
end

--- check(cfg, route, item, path, report): `path` is what leads to the route in messages.
function route_config.check(cfg, route, item, path, report)
  check_target(cfg, route, item, { path[1] }, report)
  route_config.check_asks(route, item.at, { path[1] }, report)
  check_strip_path(route, item, { path[1], "strip_path" }, report)
  check_upgrade(route, item, { path[1], "upgrade" }, report)
end

return route_config
