--- router: from method, host and path to a route. Built once a generation; a match makes no garbage but the path's segments.
-- Order: host exact, then wildcard, then none; in a host: priority, then exact path, {param}, prefix; longer before shorter;
-- more matchers before fewer; then the order of the configuration.
local find, sub = string.find, string.sub

local router = {}
local Router = {}
Router.__index = Router

-- A node of the tree of segments: children by text, one child for a parameter, lists of routes that end here.
local function new_node()
  return { children = false, param = false, exact = false, prefix = false }
end

local function child_of(node, segment)
  if segment:match "^{.*}$" then
    node.param = node.param or new_node()
    return node.param
  end
  node.children = node.children or {}
  local child = node.children[segment]
  if not child then
    child = new_node()
    node.children[segment] = child
  end
  return child
end

local function segments_of(path)
  local list = {}
  for segment in path:gmatch "[^/]+" do list[#list + 1] = segment end
  if path:sub(-1) == "/" and path ~= "/" then list[#list + 1] = "" end
  return list
end

local function set_of(list)
  if not list then return nil end
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  if set.GET then set.HEAD = true end
  return set
end

local function matchers_of(conf)
  local list = {}
  for name, value in pairs(conf.headers or {}) do list[#list + 1] = { kind = "header", name = name, value = value } end
  for name, value in pairs(conf.query or {}) do list[#list + 1] = { kind = "query", name = name, value = value } end
  table.sort(list, function(a, b) return a.kind .. a.name < b.kind .. b.name end)
  return #list > 0 and list or false
end

-- A key that two entries share when no request could tell them apart.
local function signature(entry)
  local parts = {}
  for method in pairs(entry.methods or {}) do parts[#parts + 1] = method end
  table.sort(parts)
  for _, m in ipairs(entry.matchers or {}) do parts[#parts + 1] = m.kind .. ":" .. m.name .. "=" .. m.value end
  return table.concat(parts, " ")
end

local function precedes(a, b)
  if a.route.priority ~= b.route.priority then return a.route.priority > b.route.priority end
  local na, nb = a.matchers and #a.matchers or 0, b.matchers and #b.matchers or 0
  if na ~= nb then return na > nb end
  if (a.methods ~= nil) ~= (b.methods ~= nil) then return a.methods ~= nil end
  return a.route.index < b.route.index
end

local function insert(node, kind, entry, report, path)
  node[kind] = node[kind] or {}
  for _, other in ipairs(node[kind]) do
    if other.route ~= entry.route and other.route.priority == entry.route.priority and signature(other) == signature(entry) then
      report:problem(entry.route.at, { ('route "%s"'):format(entry.route.name) },
        ('matches the same requests as route "%s" at %s: %s'):format(other.route.name, other.route.at, path))
    end
  end
  table.insert(node[kind], entry)
  table.sort(node[kind], precedes)
end

local function add_path(root, conf, path, report)
  local entry = { route = conf, methods = set_of(conf.methods), matchers = matchers_of(conf), names = false }
  local prefix = path:match "^(.*)/%*$"
  local names, node = {}, root
  local list = segments_of(prefix or path)
  local function finish(at, kind)
    local copy = {}
    for key, value in pairs(entry) do copy[key] = value end
    copy.names = #names > 0 and { unpack(names) } or false
    insert(at, kind, copy, report, path)
  end
  for i, segment in ipairs(list) do
    local name, optional = segment:match "^{([%w_]+)(%??)}$"
    if optional == "?" and i == #list then finish(node, "exact") end
    if name then names[#names + 1] = name end
    node = child_of(node, segment)
  end
  finish(node, prefix and "prefix" or "exact")
end

local function new_table()
  return { root = new_node(), has_priority = false }
end

local function table_for(self, host)
  if not host then
    self.any = self.any or new_table()
    return self.any
  end
  self.uses_host = true
  host = host:lower()
  local suffix = host:match "^%*(%..+)$"
  local map = suffix and self.wildcards or self.hosts
  local key = suffix or host
  map[key] = map[key] or new_table()
  return map[key]
end

-- The route of a table that has one that takes everything: nothing needs to be looked at.
local function find_only(self)
  local root = self.any and self.any.root
  if self.uses_host or not root or root.children or root.param or root.exact or not root.prefix then return false end
  local entry = root.prefix[1]
  return not entry.methods and not entry.matchers and entry.route
end

--- build(routes, report) -> router of these routes; `only` is the route when there is but one possibility
function router.build(routes, report)
  local self = setmetatable({ hosts = {}, wildcards = {}, any = false, uses_host = false }, Router)
  for _, conf in ipairs(routes) do
    for _, host in ipairs(conf.host or { false }) do
      local tree = table_for(self, host)
      if conf.priority ~= 0 then tree.has_priority = true end
      for _, path in ipairs(conf.path) do add_path(tree.root, conf, path, report) end
    end
  end
  self.only = find_only(self)
  return self
end

-- ---------------------------------------------------------------- match

-- What a walk finds out beside the route: whether the path alone would have matched, and with which methods.
local state = { allow = false, best = false, first = "", second = "", third = "", values = {}, depth = 0 }

local function matches(entry, request)
  local matchers = entry.matchers
  for i = 1, #matchers do
    local m = matchers[i]
    local value
    if m.kind == "header" then value = request:header(m.name) else value = request:query(m.name) end
    if value ~= m.value then return false end
  end
  return true
end

local function note_allowed(entry)
  local allow = state.allow or {}
  state.allow = allow
  for method in pairs(entry.methods) do allow[method] = true end
end

local function pick(list, method, request)
  for i = 1, #list do
    local entry = list[i]
    local methods = entry.methods
    if not methods or methods[method] then
      if not entry.matchers or matches(entry, request) then return entry end
    else
      note_allowed(entry)
    end
  end
  return false
end

local walk

-- Parameters are kept as a stack of values while the walk goes down and back.
local function walk_param(node, path, segment, after, method, request, depth)
  if segment == "" then return false end
  state.values[depth] = segment
  return walk(node, path, after, method, request, depth + 1)
end

-- `at` is where the next segment begins, or past the end.
function walk(node, path, at, method, request, depth)
  local entry
  if at > #path + 1 then
    if node.exact then
      entry = pick(node.exact, method, request)
      if entry then return entry end
    end
  else
    local slash = find(path, "/", at, true)
    local segment, after
    if slash then
      segment, after = sub(path, at, slash - 1), slash + 1
    else
      segment, after = sub(path, at), #path + 2
    end
    local children = node.children
    local child = children and children[segment]
    if child then
      entry = walk(child, path, after, method, request, depth)
      if entry then return entry end
    end
    if node.param then
      entry = walk_param(node.param, path, segment, after, method, request, depth)
      if entry then return entry end
    end
  end
  if node.prefix then return pick(node.prefix, method, request) end
  return false
end

-- The way down without going back, which is all that most paths need: a loop compiles well, a recursion does not. Where a
-- parameter was passed by, or the deepest prefix refuses the request, the walk above decides.
local function descend(root, path, at, method, request)
  local node, depth, last = root, 1, #path + 1
  local prefix, prefixes, passed_by = root.prefix, root.prefix and 1 or 0, false
  while at <= last do
    local slash = find(path, "/", at, true)
    local segment
    if slash then
      segment, at = sub(path, at, slash - 1), slash + 1
    else
      segment, at = sub(path, at), last + 1
    end
    local child = node.children and node.children[segment]
    if child then
      passed_by = passed_by or node.param
    else
      child = segment ~= "" and node.param
      state.values[depth] = segment
      depth = depth + 1
    end
    node = child
    if not node then break end
    if node.prefix then prefix, prefixes = node.prefix, prefixes + 1 end
  end
  if node and node.exact then
    local entry = pick(node.exact, method, request)
    if entry then return entry, true end
  end
  if passed_by or prefixes > 1 and not pick(prefix, method, request) then return false, false end
  return prefix and pick(prefix, method, request), true
end

-- With priorities the best of all that match wins, so all must be looked at.
local function collect(node, path, at, method, request, depth, rank)
  local function offer(list, kind)
    local entry = list and pick(list, method, request)
    local best = state.best
    if entry and (not best or entry.route.priority > best.route.priority
      or entry.route.priority == best.route.priority and rank + kind > state.rank) then
      state.best, state.rank = entry, rank + kind
      state.found = {}
      for i = 1, depth - 1 do state.found[i] = state.values[i] end
    end
  end
  if at > #path + 1 then
    offer(node.exact, 0.5)
  else
    local slash = find(path, "/", at, true)
    local segment = slash and sub(path, at, slash - 1) or sub(path, at)
    local after = slash and slash + 1 or #path + 2
    local child = node.children and node.children[segment]
    if child then collect(child, path, after, method, request, depth, rank + 2) end
    if node.param and segment ~= "" then
      state.values[depth] = segment
      collect(node.param, path, after, method, request, depth + 1, rank + 1)
    end
  end
  offer(node.prefix, 0)
end

local function match_in(tree, path, method, request)
  -- The root has no segment: "/" ends at it.
  local start = #path == 1 and 3 or 2
  if tree.has_priority then
    state.best, state.rank, state.found = false, -1, false
    collect(tree.root, path, start, method, request, 1, 0)
    if state.best then
      for i, value in ipairs(state.found) do state.values[i] = value end
    end
    return state.best
  end
  local entry, certain = descend(tree.root, path, start, method, request)
  if certain then return entry end
  return walk(tree.root, path, start, method, request, 1)
end

local function allow_text(allow)
  local list = {}
  for method in pairs(allow) do list[#list + 1] = method end
  table.sort(list)
  return table.concat(list, ", ")
end

local function by_wildcard(self, host, path, method, request)
  local dot = find(host, ".", 1, true)
  while dot do
    local tree = self.wildcards[sub(host, dot)]
    local entry = tree and match_in(tree, path, method, request)
    if entry then return entry end
    dot = find(host, ".", dot + 1, true)
  end
  return false
end

local function params_of(entry)
  local params, names = {}, entry.names
  for i = 1, #names do params[names[i]] = state.values[i] end
  return params
end

--- match(method, host, path, request) -> route, params | nil; or nil, 404; or nil, 405, allowed methods
function Router:match(method, host, path, request)
  local entry = false
  state.allow = false
  if self.uses_host then
    local tree = self.hosts[host]
    entry = tree and match_in(tree, path, method, request) or by_wildcard(self, host, path, method, request)
  end
  if not entry and self.any then entry = match_in(self.any, path, method, request) end
  if entry then
    if entry.names then return entry.route, params_of(entry) end
    return entry.route, nil
  end
  if state.allow then return nil, 405, allow_text(state.allow) end
  return nil, 404
end

return router
