--- router: from method, host and path to a route. Built once a generation; a match makes no garbage but the path's segments.
-- Order: host exact, then wildcard, then none; in a host: priority, then exact path, {param}, prefix; longer before shorter;
-- more matchers before fewer; then the order of the configuration.
local pace = require "runtime.pace"

local find, sub = string.find, string.sub

local router = {}
local Router = {}
Router.__index = Router

-- A node of the tree of segments: children by text, and in slots the child for a parameter and the lists of entries that
-- end here. Slots, and no table between: with thousands of routes each table on the way is a cache miss.
-- TOP is the highest priority at or below the node.
local PARAM, EXACT, PREFIX, TOP = 1, 2, 3, 4
local function new_node()
  return { false, false, false, -math.huge }
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
  for _, name in ipairs { "scheme", "protocol", "alpn", "sni" } do
    if conf[name] then list[#list + 1] = { kind = "connection", name = name, value = conf[name] } end
  end
  table.sort(list, function(a, b) return a.kind .. a.name < b.kind .. b.name end)
  return #list > 0 and list or false
end

-- A key that two entries share when no request could tell them apart. Lengths, since values may hold any byte.
local function signature(entry)
  local methods, parts = {}, { entry[CONF].priority }
  for method in pairs(entry[METHODS] or {}) do methods[#methods + 1] = method end
  table.sort(methods)
  parts[2] = table.concat(methods, ",")
  for _, m in ipairs(entry[MATCHERS] or {}) do
    local name = m.kind == "header" and m.name:lower() or m.name
    parts[#parts + 1] = ("%s %d:%s %d:%s"):format(m.kind, #name, name, #m.value, m.value)
  end
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

-- `lists` remembers each list and whom it has seen, so that building stays linear where many routes share a path.
local function insert(node, kind, entry, build, path)
  local list = node[kind]
  if not list then
    list = {}
    node[kind], build.lists[list] = list, {}
  end
  local seen, key, mine = build.lists[list], signature(entry), entry[CONF]
  local other = seen[key]
  if other == mine then return end
  if other then
    build.report:problem(mine.at, { ('route "%s"'):format(mine.name) },
      ('matches the same requests as route "%s" at %s: %s'):format(other.name, other.at, path))
  end
  seen[key] = mine
  list[#list + 1] = entry
end

local function add_path(root, conf, path, build, result)
  local methods, matchers = set_of(conf.methods), matchers_of(conf)
  local prefix = path:match "^(.*)/%*$"
  local names, node, way = {}, root, { root }
  local list = segments_of(prefix or path)
  local function finish(at, kind)
    local own = #names > 0 and { unpack(names) } or false
    insert(at, kind, { result, methods, matchers, own, conf }, build, path)
    for i = 1, #way do way[i][TOP] = math.max(way[i][TOP], conf.priority) end
  end
  for i, segment in ipairs(list) do
    local name, optional = segment:match "^{([%w_]+)(%??)}$"
    if optional == "?" and i == #list then finish(node, EXACT) end
    if name then names[#names + 1] = name end
    node = child_of(node, segment)
    way[#way + 1] = node
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
  self.has_wildcards = self.has_wildcards or suffix ~= nil
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
  local self = setmetatable({ hosts = {}, wildcards = {}, any = false, uses_host = false, has_wildcards = false }, Router)
  local build = { report = report, lists = {} }
  for _, conf in ipairs(routes) do
    pace.breathe()
    for _, host in ipairs(conf.host or { false }) do
      local tree = table_for(self, host)
      if conf.priority ~= 0 then tree.has_priority = true end
      for _, path in ipairs(conf.path) do add_path(tree.root, conf, path, build, result and result(conf) or conf) end
    end
  end
  for list in pairs(build.lists) do
    pace.breathe()
    table.sort(list, precedes)
  end
  self.only = find_only(self)
  return self
end

-- ---------------------------------------------------------------- match

-- What a walk leaves beside the route. `blocked`: a route was passed over for its method alone.
local state = { blocked = false, values = {}, kept = {}, kept_count = 0 }

local function value_of(m, request)
  if m.kind == "header" then return request:header(m.name) end
  if m.kind == "query" then return request:query(m.name) end
  return request:connection(m.name, m.value)
end

local function matches(entry, request)
  local matchers = entry[MATCHERS]
  for i = 1, #matchers do
    local m = matchers[i]
    if value_of(m, request) ~= m.value then return false end
  end
  return true
end

-- Which methods would do is found out in a second walk, when nothing matched: most requests that pass a route over, as a GET
-- does the POST route of its path, find theirs next.
local function pick(list, method, request)
  for i = 1, #list do
    local entry = list[i]
    local methods = entry[METHODS]
    if methods and not methods[method] then
      state.blocked = true
    elseif not entry[MATCHERS] or matches(entry, request) then
      return entry
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

-- With priorities the best of all that match wins, so all must be looked at, in the order of `walk`: of equal priority the
-- first. Branches that cannot beat `best` are left out.
local function best_of(best, list, method, request, depth)
  local entry = list and pick(list, method, request)
  if not entry or best and entry[CONF].priority <= best[CONF].priority then return best end
  for i = 1, depth - 1 do state.kept[i] = state.values[i] end
  state.kept_count = depth - 1
  return entry
end

local function walk_all(node, path, at, method, request, depth, best)
  if best and node[TOP] <= best[CONF].priority then return best end
  if at > #path + 1 then
    best = best_of(best, node[EXACT], method, request, depth)
  else
    local slash = find(path, "/", at, true) or #path + 1
    local segment = sub(path, at, slash - 1)
    local child = node[segment]
    if child then best = walk_all(child, path, slash + 1, method, request, depth, best) end
    if node[PARAM] and segment ~= "" then
      state.values[depth] = segment
      best = walk_all(node[PARAM], path, slash + 1, method, request, depth + 1, best)
    end
  end
  return best_of(best, node[PREFIX], method, request, depth)
end

-- The root has no segment: "/" ends at it.
local function start_of(path)
  return #path == 1 and 3 or 2
end

local function match_in(tree, path, method, request)
  local start = start_of(path)
  if tree.has_priority then
    local best = walk_all(tree.root, path, start, method, request, 1, false)
    for i = 1, best and state.kept_count or 0 do state.values[i] = state.kept[i] end
    return best
  end
  local entry, certain = descend(tree.root, path, start, method, request)
  if certain then return entry end
  return walk(tree.root, path, start, method, request, 1)
end

-- ---------------------------------------------------------------- 405

local function note_allowed(list, request, allowed)
  for _, entry in ipairs(list or {}) do
    if not entry[MATCHERS] or matches(entry, request) then
      for method in pairs(entry[METHODS] or {}) do allowed[method] = true end
    end
  end
end

local function allowed_at(node, path, at, request, allowed)
  if at > #path + 1 then
    note_allowed(node[EXACT], request, allowed)
  else
    local slash = find(path, "/", at, true) or #path + 1
    local segment = sub(path, at, slash - 1)
    local child = node[segment]
    if child then allowed_at(child, path, slash + 1, request, allowed) end
    if node[PARAM] and segment ~= "" then allowed_at(node[PARAM], path, slash + 1, request, allowed) end
  end
  note_allowed(node[PREFIX], request, allowed)
end

local function each_wildcard(self, host, f, ...)
  local dot = find(host, ".", 2, true)
  while dot do
    local tree = self.wildcards[sub(host, dot)]
    if tree then f(tree.root, ...) end
    dot = find(host, ".", dot + 1, true)
  end
end

-- The methods of all routes that would match but for theirs, as the Allow field; nil when there are none.
local function allowed_methods(self, host, path, request)
  local allowed, at = {}, start_of(path)
  if self.hosts[host] then allowed_at(self.hosts[host].root, path, at, request, allowed) end
  each_wildcard(self, host, allowed_at, path, at, request, allowed)
  if self.any then allowed_at(self.any.root, path, at, request, allowed) end
  local list = {}
  for method in pairs(allowed) do list[#list + 1] = method end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or nil
end

-- ---------------------------------------------------------------- hosts

local function by_wildcard(self, host, path, method, request)
  local dot = find(host, ".", 2, true) -- "*" stands for something
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
  state.blocked = false
  if self.uses_host then
    local tree = self.hosts[host]
    entry = tree and match_in(tree, path, method, request)
    if not entry and self.has_wildcards then entry = by_wildcard(self, host, path, method, request) end
  end
  if not entry and self.any then entry = match_in(self.any, path, method, request) end
  if entry then
    if entry[NAMES] then return entry[ROUTE], params_of(entry) end
    return entry[ROUTE], nil
  end
  local allow = state.blocked and allowed_methods(self, host, path, request)
  if allow then return nil, 405, allow end
  return nil, 404
end

-- For who explains a match: what an entry and a node are made of, and what a matcher compares.
router.slots = { METHODS = METHODS, MATCHERS = MATCHERS, CONF = CONF, PARAM = PARAM, EXACT = EXACT, PREFIX = PREFIX }
router.value_of, router.start_of = value_of, start_of

return router
