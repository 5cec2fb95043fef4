--- router: from method, host and path to a route. Built once a generation; a match makes no garbage but the path's segments.
-- Order: host exact, then wildcard, then none; in a host: priority, then exact path, {param}, prefix; longer before shorter;
-- more matchers before fewer; then the order of the configuration.
local find, sub = string.find, string.sub

local router = {}
local Router = {}
Router.__index = Router

-- A node of the tree of segments: children by text, and in slots the child for a parameter and the lists of entries that
-- end here. Slots, and no table between: with thousands of routes each table on the way is a cache miss.
local PARAM, EXACT, PREFIX = 1, 2, 3
local function new_node()
  return { false, false, false }
end

-- An entry, for the same reason: what is returned, then false or the set of methods, the matchers, the parameters' names.
local ROUTE, METHODS, MATCHERS, NAMES, CONF = 1, 2, 3, 4, 5

local function child_of(node, segment)
  if segment:match "^{.*}$" then
    node[PARAM] = node[PARAM] or new_node()
    return node[PARAM]
  end
  local child = node[segment]
  if not child then
    child = new_node()
    node[segment] = child
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
  if not list then return false end
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
  for method in pairs(entry[METHODS] or {}) do parts[#parts + 1] = method end
  table.sort(parts)
  for _, m in ipairs(entry[MATCHERS] or {}) do parts[#parts + 1] = m.kind .. ":" .. m.name .. "=" .. m.value end
  return table.concat(parts, " ")
end

local function precedes(a, b)
  local ca, cb = a[CONF], b[CONF]
  if ca.priority ~= cb.priority then return ca.priority > cb.priority end
  local na, nb = a[MATCHERS] and #a[MATCHERS] or 0, b[MATCHERS] and #b[MATCHERS] or 0
  if na ~= nb then return na > nb end
  if (a[METHODS] ~= false) ~= (b[METHODS] ~= false) then return a[METHODS] ~= false end
  return ca.index < cb.index
end

local function insert(node, kind, entry, report, path)
  node[kind] = node[kind] or {}
  for _, other in ipairs(node[kind]) do
    local mine, its = entry[CONF], other[CONF]
    if its ~= mine and its.priority == mine.priority and signature(other) == signature(entry) then
      report:problem(mine.at, { ('route "%s"'):format(mine.name) },
        ('matches the same requests as route "%s" at %s: %s'):format(its.name, its.at, path))
    end
  end
  table.insert(node[kind], entry)
  table.sort(node[kind], precedes)
end

local function add_path(root, conf, path, report, result)
  local methods, matchers = set_of(conf.methods), matchers_of(conf)
  local prefix = path:match "^(.*)/%*$"
  local names, node = {}, root
  local list = segments_of(prefix or path)
  local function finish(at, kind)
    local own = #names > 0 and { unpack(names) } or false
    insert(at, kind, { result, methods, matchers, own, conf }, report, path)
  end
  for i, segment in ipairs(list) do
    local name, optional = segment:match "^{([%w_]+)(%??)}$"
    if optional == "?" and i == #list then finish(node, EXACT) end
    if name then names[#names + 1] = name end
    node = child_of(node, segment)
  end
  finish(node, prefix and PREFIX or EXACT)
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
  if self.uses_host or not root or root[PARAM] or root[EXACT] or not root[PREFIX] then return false end
  for segment in pairs(root) do
    if type(segment) == "string" then return false end
  end
  local entry = root[PREFIX][1]
  return not entry[METHODS] and not entry[MATCHERS] and entry[ROUTE]
end

--- build(routes, report, result?) -> router of these routes; a match gives result(route). `only` is the route when there is but one possibility
function router.build(routes, report, result)
  local self = setmetatable({ hosts = {}, wildcards = {}, any = false, uses_host = false }, Router)
  for _, conf in ipairs(routes) do
    for _, host in ipairs(conf.host or { false }) do
      local tree = table_for(self, host)
      if conf.priority ~= 0 then tree.has_priority = true end
      for _, path in ipairs(conf.path) do add_path(tree.root, conf, path, report, result and result(conf) or conf) end
    end
  end
  self.only = find_only(self)
  return self
end

-- ---------------------------------------------------------------- match

-- What a walk finds out beside the route: whether the path alone would have matched, and with which methods.
local state = { allow = false, best = false, first = "", second = "", third = "", values = {}, depth = 0 }

local function matches(entry, request)
  local matchers = entry[MATCHERS]
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
  for method in pairs(entry[METHODS]) do allow[method] = true end
end

local function pick(list, method, request)
  for i = 1, #list do
    local entry = list[i]
    local methods = entry[METHODS]
    if not methods or methods[method] then
      if not entry[MATCHERS] or matches(entry, request) then return entry end
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
    if node[EXACT] then
      entry = pick(node[EXACT], method, request)
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
    local child = node[segment]
    if child then
      entry = walk(child, path, after, method, request, depth)
      if entry then return entry end
    end
    if node[PARAM] then
      entry = walk_param(node[PARAM], path, segment, after, method, request, depth)
      if entry then return entry end
    end
  end
  if node[PREFIX] then return pick(node[PREFIX], method, request) end
  return false
end

-- The way down without going back, which is all that most paths need: a loop compiles well, a recursion does not. Where a
-- parameter was passed by, or the deepest prefix refuses the request, the walk above decides.
local function descend(root, path, at, method, request)
  local node, depth, last = root, 1, #path + 1
  local prefix, prefixes, passed_by = root[PREFIX], root[PREFIX] and 1 or 0, false
  while at <= last do
    local slash = find(path, "/", at, true)
    local segment
    if slash then
      segment, at = sub(path, at, slash - 1), slash + 1
    else
      segment, at = sub(path, at), last + 1
    end
    local child = node[segment]
    if child then
      passed_by = passed_by or node[PARAM]
    else
      child = segment ~= "" and node[PARAM]
      state.values[depth] = segment
      depth = depth + 1
    end
    node = child
    if not node then break end
    if node[PREFIX] then prefix, prefixes = node[PREFIX], prefixes + 1 end
  end
  if node and node[EXACT] then
    local entry = pick(node[EXACT], method, request)
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
    if entry and (not best or entry[CONF].priority > best[CONF].priority
      or entry[CONF].priority == best[CONF].priority and rank + kind > state.rank) then
      state.best, state.rank = entry, rank + kind
      state.found = {}
      for i = 1, depth - 1 do state.found[i] = state.values[i] end
    end
  end
  if at > #path + 1 then
    offer(node[EXACT], 0.5)
  else
    local slash = find(path, "/", at, true)
    local segment = slash and sub(path, at, slash - 1) or sub(path, at)
    local after = slash and slash + 1 or #path + 2
    local child = node[segment]
    if child then collect(child, path, after, method, request, depth, rank + 2) end
    if node[PARAM] and segment ~= "" then
      state.values[depth] = segment
      collect(node[PARAM], path, after, method, request, depth + 1, rank + 1)
    end
  end
  offer(node[PREFIX], 0)
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
  local params, names = {}, entry[NAMES]
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
    if entry[NAMES] then return entry[ROUTE], params_of(entry) end
    return entry[ROUTE], nil
  end
  if state.allow then return nil, 405, allow_text(state.allow) end
  return nil, 404
end

return router
