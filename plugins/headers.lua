--- headers: adds, sets, removes and renames header fields, of the request and of the response.
-- The configuration becomes prepared edits when the generation is made.
local function change()
  return t.record({
    remove = t.list(t.header(), {}),
    rename = t.map(t.header(), {}),
    set = t.map(t.template(), {}),
    add = t.map(t.template(), {}),
  }, { default = {}, doc = "`remove` (names), then `rename` (from = to), `set` (name = value), `add` (name = value)." })
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
    return { request = tg.edits(conf.request), response = tg.edits(conf.response) }
  end,

  idle = function(_, state)
    local names = {}
    if state.request.idle then names[1] = "access" end
    if state.response.idle then names[#names + 1] = "response" end
    return names
  end,

  request_edits = function(_, state) return state.request end,
  response_edits = function(_, state) return state.response end,

  access = function(ctx, _, state)
    state.request:apply(ctx, ctx.req)
  end,

  response = function(ctx, _, state)
    state.response:apply(ctx, ctx.res)
  end,
}
