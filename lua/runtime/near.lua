--- near: why routes match a request, or nearly do: a look at all entries of a router. Which of them answers, Router:match says alone.
local report_of = require "runtime.report"
local router = require "runtime.router"

local slots = router.slots
local METHODS, MATCHERS, CONF, PARAM, EXACT, PREFIX = slots.METHODS, slots.MATCHERS, slots.CONF, slots.PARAM, slots.EXACT, slots.PREFIX
local find, sub = string.find, string.sub

local near = {}

-- The lists of entries whose path is that of the request, as the router's own walk comes by them.
local function reach(node, path, at, reached)
  if at > #path + 1 then
    if node[EXACT] then reached[node[EXACT]] = true end
  else
    local slash = find(path, "/", at, true) or #path + 1
    local segment = sub(path, at, slash - 1)
    if node[segment] then reach(node[segment], path, slash + 1, reached) end
    if node[PARAM] and segment ~= "" then reach(node[PARAM], path, slash + 1, reached) end
  end
  if node[PREFIX] then reached[node[PREFIX]] = true end
end

-- each(list of entries, segments on the way, whether it is a prefix) for all lists below a node
local function walk(node, way, each)
  if node[EXACT] then each(node[EXACT], way, false) end
  if node[PREFIX] then each(node[PREFIX], way, true) end
  for key, child in pairs(node) do
    local name = type(key) == "string" and key or key == PARAM and child and "{}"
    if name then
      way[#way + 1] = name
      walk(child, way, each)
      way[#way] = nil
    end
  end
end

local function segments_of(path)
  local list = {}
  for segment in path:gmatch "[^/]+" do list[#list + 1] = segment end
  return list
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

-- The pattern of a route that leads this way.
local function pattern_of(conf, way, is_prefix)
  for _, pattern in ipairs(conf.path) do
    local list = segments_of((pattern:gsub("/%*$", "")))
    local fits = (pattern:match "/%*$" ~= nil) == is_prefix and #list - #way <= 1
    for i, name in ipairs(way) do
      local wanted = list[i] or ""
      fits = fits and (name == wanted or name == "{}" and wanted:sub(1, 1) == "{")
    end
    if fits then return pattern end
  end
  return conf.path[1]
end

local function show(value) return value == nil and "nothing" or ("%q"):format(value) end

-- All that keeps an entry from being the answer, path and host aside.
local function misses_of(entry, method, request, misses)
  local methods, conf = entry[METHODS], entry[CONF]
  if methods and not methods[method] then
    misses[#misses + 1] = { what = "method", found = method, wanted = table.concat(conf.methods, ", ") }
  end
  for _, m in ipairs(entry[MATCHERS] or {}) do
    local value = router.value_of(m, request)
    if value ~= m.value then
      misses[#misses + 1] = { what = m.kind == "connection" and m.name or m.kind .. " " .. m.name, found = show(value), wanted = show(m.value) }
    end
  end
end

local function is_below(host, suffix)
  return #host > #suffix and host:sub(-#suffix) == suffix
end

local function trees_of(self, host)
  local trees = {}
  for name, tree in pairs(self.hosts) do trees[#trees + 1] = { tree = tree, host = name, fits = name == host } end
  for suffix, tree in pairs(self.wildcards) do trees[#trees + 1] = { tree = tree, host = "*" .. suffix, fits = is_below(host, suffix) } end
  if self.any then trees[#trees + 1] = { tree = self.any, fits = true } end
  return trees
end

local function keep(found, conf, pattern, misses)
  local known = found[conf]
  if known and #known.misses <= #misses then return end
  found[conf] = { conf = conf, pattern = pattern, misses = misses }
end

--- routes(router, method, host, path, request) -> list of { conf, pattern, misses = { what, found, wanted } }: those that match or lack one thing,
-- the fewest misses first, in the order of the configuration. Looks at every route: not for the way of a request.
function near.routes(self, method, host, path, request)
  local found, segments = {}, segments_of(path)
  for _, each in ipairs(trees_of(self, host)) do
    local reached = {}
    reach(each.tree.root, path, router.start_of(path), reached)
    walk(each.tree.root, {}, function(list, way, is_prefix)
      local far = not reached[list]
      for _, entry in ipairs((not far or is_close(way, is_prefix, segments)) and list or {}) do
        local misses, pattern = {}, pattern_of(entry[CONF], way, is_prefix)
        if not each.fits then misses[1] = { what = "host", found = show(host), wanted = show(each.host) } end
        if far then misses[#misses + 1] = { what = "path", found = path, wanted = pattern } end
        misses_of(entry, method, request, misses)
        if #misses <= 1 then keep(found, entry[CONF], pattern, misses) end
      end
    end)
  end
  local list = {}
  for _, entry in pairs(found) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if #a.misses ~= #b.misses then return #a.misses < #b.misses end
    return a.conf.index < b.conf.index
  end)
  return list
end

return near
