--- route_summary: what a route is, in a few words of JSON: for the admin interface, and in the manifest for `tidegate routes`.
local json = require "tidegate.json"

-- What the configuration froze cannot be marked as an array.
local function copy(list)
  return list and json.array { unpack(list) } or nil
end

--- of(conf) -> table
local function of(conf)
  local uses = {}
  for i, use in ipairs(conf.use) do uses[i] = use.label end
  return {
    name = conf.name, path = copy(conf.path), host = copy(conf.host), methods = copy(conf.methods),
    to = conf.to, handler = conf.handler and conf.handler.label or nil, use = json.array(uses), at = conf.at,
  }
end

return { of = of }
