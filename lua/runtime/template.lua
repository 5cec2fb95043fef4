--- template: "${client.ip}" and the like, compiled once into a function of ctx.
local abi = require "abi"
local exchange = require "runtime.exchange"
local json = require "tidegate.json"
local number = require "tidegate.number"
local report = require "runtime.report"
local url = require "tidegate.url"

local C, vm, to_string = abi.C, abi.vm, abi.string
local template = {}

local MAX_VARIABLES = 64 -- a Lua function has 200 locals, and an expression 200 levels

local plain = {
  ["client.ip"] = "client_ip(ctx)", ["client.network"] = "client_network(ctx)",
  ["client.port"] = "scalar(ctx.req.client.port)", method = "ctx.req.method",
  host = "ctx.req.host", path = "path(ctx)", id = "ctx.id", ["route.name"] = "(ctx.route and ctx.route.name)",
  ["consumer.id"] = "(ctx.consumer and scalar(ctx.consumer.id))", ["consumer.groups"] = "groups(ctx.consumer)",
  ["consumer.username"] = "(ctx.consumer and scalar(ctx.consumer.username))", ["consumer.plan"] = "(ctx.consumer and scalar(ctx.consumer.plan))",
  ["credential.id"] = "(ctx.credential and scalar(ctx.credential.id))",
}
local keyed = {
  header = "header(ctx, %q)", query = "ctx.req.query[%q]", cookie = "ctx.req.cookies[%q]",
  params = "ctx.req.params[%q]", vars = "scalar(ctx.vars[%q])",
  ["consumer.meta"] = "scalar(meta(ctx.consumer)[%q])",
}

-- ---------------------------------------------------------------- values

-- Plugins put what they like into vars. What has no text of its own counts as missing: the address of a table as the key
-- of a limit would be a new key each time.
local function scalar(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return value - value == 0 and number.text(value) or nil end
  if kind == "boolean" or json.is_integer(value) then return tostring(value) end
  if not json.is_lazy(value) then return nil end
  kind = value:kind()
  if kind == "object" or kind == "array" or kind == "null" then return nil end
  local text = value:get()
  return type(text) == "string" and text or tostring(value):match "%S+"
end

local function groups(consumer)
  local list = consumer and consumer.groups
  return type(list) == "table" and table.concat(list, ",") or nil
end

-- Of an exchange without the views of it that ctx.req.client would make; not every ctx is of one.
local function client_ip(ctx)
  if not ctx[1] then return ctx.req.client.ip end
  C.tg_abi_client_ip(exchange.live(ctx))
  return to_string(vm.out.p, vm.out.n)
end

local function client_network(ctx)
  if not ctx[1] then return ctx.req.client.network end
  C.tg_abi_client_network(exchange.live(ctx))
  return to_string(vm.out.p, vm.out.n)
end

local function header(ctx, name)
  local x = exchange.direct(ctx)
  if x then return exchange.header(x, name) end
  return ctx.req.headers[name]
end

local function path(ctx)
  local x = exchange.direct(ctx)
  if x then return to_string(x.path.p, x.path.n) end
  return ctx.req.path
end

local nothing = {}
local function meta(consumer) return consumer and consumer.meta or nothing end

-- One step of a path. Lists are counted from 0, as in JSON Pointer; in an object the same digits are a name.
local function member(value, key)
  if type(value) ~= "table" then return nil end
  local found = value[key]
  if found == nil and (key == "0" or key:find "^[1-9]%d*$") then found = value[tonumber(key) + 1] end
  return found
end

local function walk(value, keys)
  for i = 1, #keys do
    if json.is_lazy(value) then return value:part { unpack(keys, i) } end
    value = member(value, keys[i])
    if value == nil then return nil end
  end
  return value
end

local function as_it_is(value) return value end

local function json_text(value)
  if value == nil then return nil end
  local ok, text = pcall(json.encode, value)
  return ok and text or nil
end

-- How a value is put in. `scalar`: makes text of what may be anything; `put`: what is done to each value; `groups`: those of a consumer.
local ways = {
  none = { scalar = scalar, put = as_it_is, groups = groups },
  url = { scalar = scalar, put = function(value) return value and url.encode(value) end, groups = groups },
  json = {
    scalar = as_it_is, put = json_text,
    groups = function(consumer) return consumer and type(consumer.groups) == "table" and json.array { unpack(consumer.groups) } or nil end,
  },
}

-- "." and ".." stand there encoded or not: who normalises the path would climb out of what the template says.
local function climbs(text)
  return ("/" .. text:match "^[^?#]*" .. "/"):find "/%.%.?/" ~= nil
end

local function checked(result) return not climbs(result) and result or nil end

-- Templates without a variable -> their text.
local texts = setmetatable({}, { __mode = "k" })

local function constant(text)
  local function f() return text end
  texts[f] = text
  return f
end

--- text_of(template) -> what it gives whatever the exchange | nil: it has variables, or is none
function template.text_of(f) return texts[f] end

-- ---------------------------------------------------------------- compilation

local function unknown(name, roots)
  local candidates = {}
  for known in pairs(plain) do candidates[#candidates + 1] = known end
  for known in pairs(keyed) do candidates[#candidates + 1] = known .. ".X" end
  for root in pairs(roots) do candidates[#candidates + 1] = root end
  table.sort(candidates)
  local nearest = report.nearest(name, candidates)
  return nearest and ('unknown variable "%s"; did you mean "%s"?'):format(name, nearest)
    or ('unknown variable "%s"; known are %s'):format(name, table.concat(candidates, ", "))
end

-- The source of a variable's value; paths below roots are put into `paths`. Or nil, what is wrong.
local function expression(name, roots, paths)
  if plain[name] then return plain[name] end
  local first, rest = name:match "^([%a_][%w_]*)(.*)$"
  if first and roots[first] then
    local keys, understood = {}, ""
    for key in rest:gmatch "%.([%w_@$%-]+)" do
      keys[#keys + 1], understood = key, understood .. "." .. key
    end
    if understood ~= rest then return nil, ('malformed variable "%s"; write "%s.list.0.name"'):format(name, first) end
    paths[#paths + 1] = keys
    return ("scalar(walk(given[%q], paths[%d]))"):format(first, #paths)
  end
  local root, key = name:match "^([%w]+)%.(.+)$"
  if name:match "^consumer%.meta%." then root, key = "consumer.meta", name:match "^consumer%.meta%.(.+)$" end
  if root and keyed[root] and key:match "^[%w_%-]+$" then return keyed[root]:format(key) end
  return nil, unknown(name, roots)
end

-- The statements that fetch the variables, and the parts of the result; or nil, what is wrong.
local function translate(text, roots, paths, put)
  local names, parts, position = {}, {}, 1
  while true do
    local first, last, name = text:find("%${([^}]*)}", position)
    local literal = text:sub(position, (first or #text + 1) - 1)
    if literal:find("${", 1, true) then return nil, 'a "${" without its "}"' end
    if literal ~= "" then parts[#parts + 1] = ("%q"):format(literal) end
    if not first then return names, parts end
    local value, err = expression(name, roots, paths)
    if not value then return nil, err end
    if #names == MAX_VARIABLES then return nil, ("more than %d variables"):format(MAX_VARIABLES) end
    names[#names + 1] = ("  local v%d = %s(%s)\n  if v%d == nil then return nil end\n"):format(#names + 1, put, value, #names + 1)
    parts[#parts + 1] = "v" .. #names
    position = last + 1
  end
end

local reserved = {}
for name in pairs(plain) do reserved[name:match "^%w+"] = true end
for name in pairs(keyed) do reserved[name:match "^%w+"] = true end

local function set_of(roots)
  local set = {}
  if type(roots) ~= "table" then return nil, "roots are a list of names" end
  for _, root in ipairs(roots) do
    if type(root) ~= "string" or not root:find "^[%a_][%w_]*$" then
      return nil, ("not a name for a root: %s"):format(report.text_of(root))
    end
    if reserved[root] then return nil, ('a root cannot be called "%s"'):format(root) end
    set[root] = true
  end
  return set
end

--- problem_of(options) -> what is wrong with the options of a template, or nil
function template.problem_of(options)
  for key in pairs(options) do
    if key ~= "roots" and key ~= "escape" then return ('unknown option "%s"; known are roots and escape'):format(report.text_of(key)) end
  end
  if options.escape ~= nil and (type(options.escape) ~= "string" or options.escape == "none" or not ways[options.escape]) then
    return ('escape is "url" or "json", found %s'):format(report.text_of(options.escape))
  end
  if options.roots == nil then return nil end
  local set, problem = set_of(options.roots)
  return not set and problem or nil
end

--- compile(text, { roots?, escape? }?) -> function(ctx, given?) -> string | nil when a value is missing; or nil, message
-- `roots`: names beside those of ctx, whose values are in `given`: "${answers.user.orders.0.id}". `escape`: "url" percent-encodes each
-- value, "json" puts in its JSON text. With "url" there is no result, either, whose path would have a segment "." or "..".
function template.compile(text, options)
  options = options or {}
  local escape, roots, paths = options.escape, options.roots and set_of(options.roots) or {}, {}
  local names, parts = translate(text, roots, paths, escape and "put" or "")
  if not names then return nil, parts end
  if escape == "url" and climbs((text:gsub("%${[^}]*}", "x"))) then return nil, 'a path with a segment "." or ".."' end
  if #names == 0 then return constant(text) end
  local source = "local scalar, put, groups, meta, walk, paths, nothing, checked, client_ip, client_network, header, path = ...\n"
    .. "return function(ctx, given)\n  given = given or nothing\n"
    .. table.concat(names) .. "  return " .. (escape == "url" and "checked" or "") .. "(" .. table.concat(parts, " .. ") .. ")\nend\n"
  local way = ways[escape or "none"]
  return assert(loadstring(source, "=template"))(way.scalar, way.put, way.groups, meta, walk, paths, nothing, checked,
    client_ip, client_network, header, path)
end

--- constant(value, options?) -> a template that always gives this text, whatever is in it
function template.constant(value, options)
  return constant(ways[options and options.escape or "none"].put(value))
end

--- new(text, options?) -> function, for plugins: what is wrong raises.
function template.new(text, options)
  if type(text) ~= "string" then error("tg.template needs a text, found a " .. type(text), 2) end
  if options ~= nil and type(options) ~= "table" then error("tg.template: options are a table, found a " .. type(options), 2) end
  local problem = template.problem_of(options or {})
  if problem then error("tg.template: " .. problem, 2) end
  local f, err = template.compile(text, options)
  if not f then error("tg.template: " .. err, 2) end
  return f
end

return template
