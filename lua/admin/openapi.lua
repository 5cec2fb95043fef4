--- openapi: the document of the admin interface, made of the list of its operations; and whether a request keeps to what it says.
local json = require "tidegate.json"
local number = require "tidegate.number"
local response = require "tidegate.response"

local openapi = {}
local PROBLEM = { ["application/problem+json"] = { schema = { ["$ref"] = "#/components/schemas/problem" } } }
local KEY = "Idempotency-Key"

-- ---------------------------------------------------------------- the document

local function problem(description, headers)
  return { description = description, headers = headers, content = PROBLEM }
end

local function schema_of(kind)
  if type(kind) == "table" then return { type = "string", enum = json.array { unpack(kind) } } end
  return { type = kind }
end

local function sorted(map)
  local names = {}
  for name in pairs(map or {}) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function parameters_of(op)
  local list = {}
  for name in op.path:gmatch "{([%w_]+)%*?}" do
    list[#list + 1] = { name = name, ["in"] = "path", required = true, schema = { type = "string" } }
  end
  for _, name in ipairs(sorted(op.query)) do
    list[#list + 1] = { name = name, ["in"] = "query", description = op.query[name], schema = { type = "string" } }
  end
  if op.change then list[#list + 1] = { ["$ref"] = "#/components/parameters/key" } end
  return #list > 0 and json.array(list) or nil
end

local function success_of(op)
  if op.empty then return "204", { description = "done" } end
  local kind = op.kind or "application/json"
  return "200", { description = "done", content = { [kind] = { schema = { type = op.kind and "string" or "object" } } } }
end

local function responses_of(op)
  local status, success = success_of(op)
  local list = { [status] = success, default = problem "any other problem" }
  if not op.open then list["401"] = problem "the token is missing, or not the one" end
  if op.body or op.query then list["400"] = problem "a field or a parameter is missing, unknown or wrong" end
  if op.path:find("{", 1, true) then list["404"] = problem "there is nothing of this name" end
  if op.change then
    list["403"] = problem "a page of somebody else has sent it"
    list["409"] = problem "refused as things stand: the detail says why, and nothing has changed"
    list["413"] = problem "the body is larger than 4 MiB"
    list["422"] = problem "the key was used for another change"
  end
  list["429"] = problem("too many wrong tokens from this address", { ["Retry-After"] = { schema = { type = "integer" } } })
  return list
end

local function describe(op)
  local described = {
    summary = op.summary, operationId = op.method:lower() .. op.path:gsub("[^%w]+", "_"):gsub("_$", ""), parameters = parameters_of(op),
    responses = responses_of(op), security = op.open and json.array {} or nil,
  }
  if op.body then
    local properties = {}
    for name, kind in pairs(op.body) do properties[name] = schema_of(kind) end
    local schema = { type = "object", properties = properties, required = op.needs and json.array { unpack(op.needs) } or nil,
      additionalProperties = false }
    described.requestBody = { required = op.needs ~= nil, content = { ["application/json"] = { schema = schema } } }
  end
  return described
end

--- document(operations) -> table
function openapi.document(operations)
  local paths = {}
  for _, op in ipairs(operations) do
    local path = op.path:gsub("%*}", "}")
    paths[path] = paths[path] or {}
    paths[path][op.method:lower()] = describe(op)
  end
  return {
    openapi = "3.0.3", info = { title = "Tidegate admin interface", version = number.text(1) }, paths = paths,
    components = {
      securitySchemes = { token = { type = "http", scheme = "bearer" } },
      parameters = { key = { name = KEY, ["in"] = "header", schema = { type = "string", maxLength = 255 },
        description = "A change with a key that was sent within a day is not carried out again: its answer comes anew." } },
      schemas = { problem = { type = "object", properties = {
        title = { type = "string" }, status = { type = "integer" }, detail = { type = "string" } } } },
    },
    security = json.array { { token = json.array {} } },
  }
end

-- ---------------------------------------------------------------- requests

local function unknown(what, name, map)
  local names = sorted(map)
  local known = #names > 0 and ": there " .. (#names == 1 and "is " or "are ") .. table.concat(names, ", ") or ""
  return response.problem(400, ("there is no %s %q%s"):format(what, tostring(name), known))
end

local function fits(kind, value)
  if type(kind) == "table" then
    for _, one in ipairs(kind) do
      if value == one then return true end
    end
    return false
  end
  if kind == "object" then return type(value) == "table" end
  if kind == "string" then return type(value) == "string" or type(value) == "number" end
  return type(value) == "number" and (kind ~= "integer" or value % 1 == 0)
end

local function expected(kind)
  return type(kind) == "table" and "one of " .. table.concat(kind, ", ") or (kind:find "^[aeiou]" and "an " or "a ") .. kind
end

--- judge(op, query, body) -> response | nil: it may be carried out
function openapi.judge(op, query, body)
  if op.query then
    for name in query() do
      if not op.query[name] then return unknown("parameter", name, op.query) end
    end
  end
  for name, value in pairs(op.body and body or {}) do
    local kind = op.body[name]
    if not kind then return unknown("field", name, op.body) end
    if value ~= json.null and not fits(kind, value) then return response.problem(400, ("%s is %s"):format(name, expected(kind))) end
  end
  for _, name in ipairs(op.needs or {}) do
    if body[name] == nil or body[name] == json.null then
      return response.problem(400, ("%s is missing: %s"):format(name, expected(op.body[name])))
    end
  end
  return nil
end

return openapi
