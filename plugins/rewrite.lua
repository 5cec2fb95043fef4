--- rewrite: path, query, host and method of the request, before it goes upstream.
-- Paths are matched as they go upstream, in their normal form (RFC 3986, section 6): what is encoded is encoded in captures, too, so
-- that nothing is decoded twice.
local PLAIN = "^[%w%-%._~!$&'()*+,;=:@/%%]*$" -- what may stand in a path

local function strip(path, prefixes)
  for _, prefix in ipairs(prefixes) do
    if path:sub(1, #prefix) == prefix then
      local rest = path:sub(#prefix + 1)
      -- "/api" is a prefix of "/api/x", not of "/apix".
      if rest == "" or rest:sub(1, 1) == "/" or prefix:sub(-1) == "/" then return rest:sub(1, 1) == "/" and rest or "/" .. rest end
    end
  end
  return path
end

-- The first rule that matches; its result may have a query, which comes before the one that is there.
local function apply_rules(path, rules)
  for _, rule in ipairs(rules) do
    local result, count = rule.match:gsub(path, rule.replace, 1)
    if count > 0 then
      local new, query = result:match "^([^?]*)%??(.*)$"
      return new, query ~= "" and query or nil
    end
  end
  return path
end

local function is_safe(path)
  return path:sub(1, 1) == "/" and path:find(PLAIN) and not (path .. "/"):lower():gsub("%%2e", "."):find "/%.%.?/"
end

local function new_path(ctx, conf, state)
  if conf.path then return conf.path(ctx) end
  local path, query = apply_rules(strip(ctx.req.raw_path, conf.strip_prefix), state.rules)
  if conf.add_prefix ~= "" then path = conf.add_prefix .. path end
  return path, query
end

local function change_query(ctx, query)
  local map = ctx.req.query
  for _, name in ipairs(query.remove) do map[name] = nil end
  for from, to in pairs(query.rename) do
    local value = map[from]
    if value then map[from], map[to] = nil, value end
  end
  for name, template in pairs(query.set) do
    local value = template(ctx)
    if value then map[name] = value end
  end
  for name, template in pairs(query.add) do
    if not map[name] then map[name] = template(ctx) end
  end
end

local function check_prefix(prefix, where)
  if prefix ~= "" and (prefix:sub(1, 1) ~= "/" or not prefix:find(PLAIN)) then return ("%q is no beginning of a path"):format(prefix), where end
end

return {
  api = 1,
  doc = [[
Change path, query, host and method of a request before it goes upstream.
`path` is a template for the whole path. Without it `strip_prefix` takes the first of these prefixes away, whole segments only, then the
first rule of `regex` that matches replaces what it matches (`to` has `$1` and `${name}`; behind a `?` it adds a query), then `add_prefix`
is put in front. `query` removes, renames, sets and adds parameters. A request whose new path would not be one, or would climb by `..`, gets 400;
a pattern that takes too long gives 500.]],

  schema = {
    path = t.optional(t.template { escape = "url" }),
    strip_prefix = t.list(t.string(), {}),
    regex = t.list(t.record { match = t.regex(), to = t.string() }, {}),
    add_prefix = t.string "",
    query = t.record({
      remove = t.list(t.string(), {}), rename = t.map(t.string(), {}), set = t.map(t.template(), {}), add = t.map(t.template(), {}),
    }, { default = {} }),
    host = t.optional(t.template()),
    method = t.optional(t.enum { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" }),
  },

  example = [[
route "orders" { path = "/v1/*", to = "orders", use = { { "rewrite", strip_prefix = "/v1",
  regex = { { match = "^/users/(\\d+)/orders$", to = "/orders?user=$1" } }, query = { remove = { "debug" } } } } }]],

  check = function(conf)
    if conf.path and (#conf.strip_prefix > 0 or #conf.regex > 0 or conf.add_prefix ~= "") then
      return "is there, too: one way to the new path is enough", "path"
    end
    for _, prefix in ipairs(conf.strip_prefix) do
      local message, path = check_prefix(prefix, "strip_prefix")
      if message then return message, path end
    end
    return check_prefix(conf.add_prefix, "add_prefix")
  end,

  setup = function(conf)
    local rules = {}
    for i, rule in ipairs(conf.regex) do rules[i] = { match = rule.match, replace = rule.match:replacer(rule.to) } end
    local query = conf.query
    return {
      rules = rules, paths = conf.path ~= nil or #rules > 0 or #conf.strip_prefix > 0 or conf.add_prefix ~= "",
      queries = #query.remove > 0 or next(query.rename) ~= nil or next(query.set) ~= nil or next(query.add) ~= nil,
    }
  end,

  access = function(ctx, conf, state)
    local req = ctx.req
    if state.paths then
      local path, query = new_path(ctx, conf, state)
      if not path or not is_safe(path) then return tg.problem(400, "this request has no path upstream") end
      req.path = path
      if query then
        local old = req.raw_query
        req.raw_query = (old and old ~= "") and query .. "&" .. old or query
      end
    end
    if state.queries then change_query(ctx, conf.query) end
    if conf.host then
      local host = conf.host(ctx)
      if not host or not host:find "^[%w%.%-:%[%]]+$" then return tg.problem(400, "this request has no host upstream") end
      req.host = host
    end
    if conf.method then req.method = conf.method end
  end,
}
