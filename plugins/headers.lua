--- headers: adds, sets, removes and renames header fields, of the request and of the response.
-- The configuration becomes plain lists of operations when the generation is made.
local function change()
  return t.record({
    remove = t.list(t.header(), {}),
    rename = t.map(t.header(), {}),
    set = t.map(t.template(), {}),
    add = t.map(t.template(), {}),
  }, { default = {}, doc = "`remove` (names), then `rename` (from = to), `set` (name = value), `add` (name = value)." })
end

local function sorted(map)
  local names, values = {}, {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do values[i] = map[name] end
  return names, values
end

local function prepare(part)
  local p = { remove = part.remove }
  p.rename_from, p.rename_to = sorted(part.rename)
  p.set_names, p.set_values = sorted(part.set)
  p.add_names, p.add_values = sorted(part.add)
  p.idle = #p.remove + #p.rename_from + #p.set_names + #p.add_names == 0
  return p
end

-- A value whose variables are missing leaves its field as it is.
local function apply(ctx, message, p)
  local headers = message.headers
  for i = 1, #p.remove do headers[p.remove[i]] = nil end
  for i = 1, #p.rename_from do
    local value = headers[p.rename_from[i]]
    if value then
      headers[p.rename_from[i]] = nil
      headers[p.rename_to[i]] = value
    end
  end
  for i = 1, #p.set_names do
    local value = p.set_values[i](ctx)
    if value then headers[p.set_names[i]] = value end
  end
  for i = 1, #p.add_names do
    local value = p.add_values[i](ctx)
    if value then message:add_header(p.add_names[i], value) end
  end
end

local function check_names(part, where)
  for _, list in ipairs { "set", "add", "rename" } do
    for name in pairs(part[list]) do
      if not name:find "^[%w!#$%%&'*+.^_`|~-]+$" then
        return ("%q is no header name"):format(name), where .. "." .. list
      end
    end
  end
end

return {
  api = 1,
  doc = [[
Add, set, remove and rename header fields.
`request` is applied before the request goes upstream, `response` before the response goes to the client. In each, fields are
removed first, then renamed, set and added. Values are templates: `${consumer.id}`, `${header.X}` and so on. Framing and
hop-by-hop fields (Connection, Content-Length ...) cannot be changed.]],

  schema = { request = change(), response = change() },

  example = [[
route "orders" { path = "/orders/*", to = "orders",
  use = { { "headers", request = { set = { ["X-Gateway"] = "tidegate" } }, response = { remove = { "Server" } } } } }]],

  check = function(conf)
    local message, path = check_names(conf.request, "request")
    if message then return message, path end
    return check_names(conf.response, "response")
  end,

  setup = function(conf)
    return { request = prepare(conf.request), response = prepare(conf.response) }
  end,

  idle = function(_, state)
    local names = {}
    if state.request.idle then names[1] = "access" end
    if state.response.idle then names[#names + 1] = "response" end
    return names
  end,

  access = function(ctx, _, state)
    apply(ctx, ctx.req, state.request)
  end,

  response = function(ctx, _, state)
    apply(ctx, ctx.res, state.response)
  end,
}
