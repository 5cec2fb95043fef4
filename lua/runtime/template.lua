--- template: "${client.ip}" and the like, compiled once into a function of ctx.
local report = require "runtime.report"

local template = {}

local MAX_VARIABLES = 64 -- a Lua function has 200 locals, and an expression 200 levels

local plain = {
  ["client.ip"] = "ctx.req.client.ip", ["client.port"] = "scalar(ctx.req.client.port)", method = "ctx.req.method",
  host = "ctx.req.host", path = "ctx.req.path", id = "ctx.id", ["route.name"] = "(ctx.route and ctx.route.name)",
  ["consumer.id"] = "(ctx.consumer and scalar(ctx.consumer.id))", ["consumer.groups"] = "groups(ctx.consumer)",
}
local keyed = {
  header = "ctx.req.headers[%q]", query = "ctx.req.query[%q]", cookie = "ctx.req.cookies[%q]",
  params = "ctx.req.params[%q]", vars = "scalar(ctx.vars[%q])",
  ["consumer.meta"] = "(ctx.consumer and ctx.consumer.meta and scalar(ctx.consumer.meta[%q]) or nil)",
}

-- Plugins put what they like into vars. What has no text of its own counts as missing: the address of a table as the key
-- of a limit would be a new key each time.
local function scalar(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  return nil
end

local function groups(consumer)
  local list = consumer and consumer.groups
  return type(list) == "table" and table.concat(list, ",") or nil
end

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
    if #names == MAX_VARIABLES then return nil, ("more than %d variables"):format(MAX_VARIABLES) end
    names[#names + 1] = ("  local v%d = %s\n  if v%d == nil then return nil end\n"):format(#names + 1, value, #names + 1)
    parts[#parts + 1] = "v" .. #names
    position = last + 1
  end
  if #names == 0 then return function() return text end end
  local source = "local scalar, groups = ...\nreturn function(ctx)\n" .. table.concat(names) .. "  return "
    .. table.concat(parts, " .. ") .. "\nend\n"
  return assert(loadstring(source, "=template"))(scalar, groups)
end

return template
