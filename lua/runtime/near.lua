--- near: why routes match a request, or nearly do: a look at all of them. Which of them answers, the router says alone.
local report_of = require "runtime.report"
local router = require "runtime.router"

local find, sub = string.find, string.sub

local near = {}

-- The segments of a pattern without its end, parameters as "{}", and whether that end stands for more of them.
local function way_of(pattern)
  local rest = pattern:match "^(.*)/%*$"
  local list = {}
  for segment in (rest or pattern):gmatch "[^/]+" do list[#list + 1] = segment:match "^{.*}$" and "{}" or segment end
  if pattern:sub(-1) == "/" and pattern ~= "/" then list[#list + 1] = "" end
  return list, rest ~= nil
end

-- As the router sees the path of a request: behind its first slash, empty ones too.
local function segments_of(path)
  local list, at = {}, #path <= 1 and #path + 2 or 2
  while at <= #path + 1 do
    local slash = find(path, "/", at, true) or #path + 1
    list[#list + 1] = sub(path, at, slash - 1)
    at = slash + 1
  end
  return list
end

local function is_reached(way, is_prefix, segments)
  if #segments < #way or #segments > #way and not is_prefix then return false end
  for i, name in ipairs(way) do
    if name ~= segments[i] and (name ~= "{}" or segments[i] == "") then return false end
  end
  return true
end

-- Whether a path that does not match is one segment away: another one where others are the same or it is spelled alike, too many, or missing.
local function is_close(way, is_prefix, segments)
  local same, alike, last = 0, false, is_prefix and #way or math.max(#way, #segments)
  for i, name in ipairs(way) do
    local segment = segments[i]
    if name == segment then
      same, alike = same + 1, true
    elseif segment and name == "{}" then
      same = same + 1
    elseif segment then
      alike = alike or report_of.nearest(segment, { name }) ~= nil
    end
  end
  return last - same == 1 and alike
end

local function show(value) return value == nil and "nothing" or ("%q"):format(value) end

local function has(list, value)
  for _, item in ipairs(list or { value }) do
    if item == value then return true end
  end
  return false
end

-- All that keeps a route from being the answer, path and host aside.
local function misses_of(conf, method, request, misses)
  if not has(router.methods_of(conf) or nil, method) then
    misses[#misses + 1] = { what = "method", found = method, wanted = table.concat(conf.methods, ", ") }
  end
  for _, m in ipairs(router.matchers_of(conf) or {}) do
    local value = router.value_of(m, request)
    if value ~= m.value then
      misses[#misses + 1] = { what = m.kind == "connection" and m.name or m.kind .. " " .. m.name, found = show(value), wanted = show(m.value) }
    end
  end
end

local function fits_host(pattern, host)
  local suffix = pattern:match "^%*(%..+)$"
  if not suffix then return pattern == "" or pattern == host end
  return #host > #suffix and host:sub(-#suffix) == suffix
end

local function keep(found, conf, pattern, misses)
  local known = found[conf]
  if known and #known.misses <= #misses then return end
  found[conf] = { conf = conf, pattern = pattern, misses = misses }
end

-- Looks at one way that a route is reached by, if any request like this one could be.
local function look(conf, host_pattern, pattern, path, request, found)
  local way, is_prefix = way_of(path)
  local far = not is_reached(way, is_prefix, request.segments)
  if far and not is_close(way, is_prefix, request.segments) then return end
  local misses = {}
  if not fits_host(host_pattern, request.host) then misses[1] = { what = "host", found = show(request.host), wanted = show(host_pattern) } end
  if far then misses[#misses + 1] = { what = "path", found = request.path, wanted = pattern } end
  misses_of(conf, request.method, request.probe, misses)
  if #misses <= 1 then keep(found, conf, pattern, misses) end
end

--- routes(confs, method, host, path, request) -> list of { conf, pattern, misses = { what, found, wanted } }: those that match or lack one thing,
-- the fewest misses first, in the order of the configuration. Looks at every route: not for the way of a request.
function near.routes(confs, method, host, path, request)
  local found, list, of = {}, {}, { method = method, host = host, path = path, segments = segments_of(path), probe = request }
  for _, conf in ipairs(confs) do
    for _, host_pattern in ipairs(conf.host or { "" }) do
      for _, pattern in ipairs(conf.path) do
        for _, way in ipairs(router.paths_of(pattern)) do look(conf, host_pattern:lower(), pattern, way, of, found) end
      end
    end
  end
  for _, entry in pairs(found) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if #a.misses ~= #b.misses then return #a.misses < #b.misses end
    return a.conf.index < b.conf.index
  end)
  return list
end

return near
