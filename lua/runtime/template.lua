--- template: "${client.ip}" and the like, compiled once into a function of ctx.
local report = require "runtime.report"

local template = {}

local plain = {
  ["client.ip"] = "ctx.req.client.ip", ["client.port"] = "ctx.req.client.port", method = "ctx.req.method",
  host = "ctx.req.host", path = "ctx.req.path", id = "ctx.id", ["route.name"] = "(ctx.route and ctx.route.name)",
  ["consumer.id"] = "(ctx.consumer and ctx.consumer.id)",
}
local keyed = {
  header = "ctx.req.headers[%q]", query = "ctx.req.query[%q]", cookie = "ctx.req.cookies[%q]",
  params = "ctx.req.params[%q]", vars = "ctx.vars[%q]",
  ["consumer.meta"] = "(ctx.consumer and ctx.consumer.meta and ctx.consumer.meta[%q])",
}

local function expression(name)
  if plain[name] then return plain[name] end
  local root, key = name:match "^([%w]+)%.(.+)$"
  if name:match "^consumer%.meta%." then root, key = "consumer.meta", name:match "^consumer%.meta%.(.+)$" end
  if root and keyed[root] and key:match "^[%w_%-]+$" then return keyed[root]:format(key) end
  local candidates = {}
  for known in pairs(plain) do candidates[#candidates + 1] = known end
  for known in pairs(keyed) do candidates[#candidates + 1] = known .. ".X" end
  table.sort(candidates)
  local nearest = report.nearest(name, candidates)
  return nil, nearest and ('unknown variable "%s"; did you mean "%s"?'):format(name, nearest)
    or ('unknown variable "%s"; known are %s'):format(name, table.concat(candidates, ", "))
end

--- compile(text) -> function(ctx) -> string | nil when a value is missing; or nil, message
function template.compile(text)
  local names, parts, position = {}, {}, 1
  while true do
    local first, last, name = text:find("%${([^}]*)}", position)
    local literal = text:sub(position, (first or #text + 1) - 1)
    if literal:find("${", 1, true) then return nil, 'a "${" without its "}"' end
    if literal ~= "" then parts[#parts + 1] = ("%q"):format(literal) end
    if not first then break end
    local value, err = expression(name)
    if not value then return nil, err end
    names[#names + 1] = ("  local v%d = %s\n  if v%d == nil then return nil end\n"):format(#names + 1, value, #names + 1)
    parts[#parts + 1] = #text == last - first + 1 and "tostring(v1)" or "v" .. #names
    position = last + 1
  end
  if #names == 0 then return function() return text end end
  local source = "local tostring = tostring\nreturn function(ctx)\n" .. table.concat(names) .. "  return "
    .. table.concat(parts, " .. ") .. "\nend\n"
  return assert(loadstring(source, "=template " .. text))()
end

return template
