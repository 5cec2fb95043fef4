--- body-transform: changes JSON bodies by rules, makes bodies of templates, and translates between JSON, XML and forms.
-- Paths and templates are compiled when the generation is made.
local ROOTS = { "body" }
local TYPES = {
  ["json-to-xml"] = { "application/json", "application/xml" }, ["xml-to-json"] = { "xml", "application/json" },
  ["form-to-json"] = { "application/x-www-form-urlencoded", "application/json" },
  ["json-to-form"] = { "application/json", "application/x-www-form-urlencoded" },
}

-- ---------------------------------------------------------------- paths

-- "items.*.price" -> { "items", "*", "price" }; numbers are places in a list from 0, "-" is behind its end.
local function split(path)
  local keys = {}
  for key in path:gmatch "[^.]+" do keys[#keys + 1] = key end
  return keys
end

local function is_list(value) return value[1] ~= nil end

local function place(list, key)
  if key == "-" then return #list + 1 end
  local index = key:find "^%d+$" and tonumber(key) + 1
  return index and index <= #list and index or nil
end

-- Calls f(container, key) for each place that the path means. Lists on the way are gone through, unless a number names one item. `make`:
-- objects that are not there are made.
local function visit(value, keys, i, make, f)
  if type(value) ~= "table" or value == tg.null then return end
  local key = keys[i]
  if is_list(value) or key == "-" then
    local index = place(value, key)
    if index then
      if i == #keys then return f(value, index) end
      return visit(value[index], keys, i + 1, make, f)
    end
    for n, item in ipairs(value) do
      if key ~= "*" then
        visit(item, keys, i, make, f)
      elseif i == #keys then
        f(value, n)
      else
        visit(item, keys, i + 1, make, f)
      end
    end
  elseif i == #keys then
    f(value, key)
  else
    if value[key] == nil and make then value[key] = {} end
    visit(value[key], keys, i + 1, make, f)
  end
end

local function first_at(value, keys)
  local found
  visit(value, keys, 1, false, function(container, key)
    if found == nil then found = container[key] end
  end)
  return found
end

local function take_away(container, key)
  if type(key) == "number" then table.remove(container, key) else container[key] = nil end
end

-- ---------------------------------------------------------------- values with variables

local function copy(value)
  if type(value) ~= "table" or getmetatable(value) == false then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return next(result) == nil and value or result
end

-- A value of the configuration as a function(ctx, body). A text that is one variable of the body keeps that value's type.
local function compile(value)
  if type(value) == "string" and value:find("${", 1, true) then
    local path = value:match "^%${body%.([%w_%.%-]+)}$"
    if path then
      local keys = split(path)
      return function(_, body) return first_at(body, keys) end
    end
    local template = tg.template(value, { roots = ROOTS })
    return function(ctx, body) return template(ctx, { body = body }) end
  end
  if type(value) ~= "table" or value == tg.null then return function() return value end end
  local parts, any = {}, false
  for key, item in pairs(value) do parts[key], any = compile(item), true end
  if not any then return function() return copy(value) end end
  return function(ctx, body)
    local result = {}
    for key, part in pairs(parts) do result[key] = part(ctx, body) end
    return result
  end
end

-- ---------------------------------------------------------------- operations

local make = {}

function make.add(rule)
  local value = compile(rule.value)
  return function(body, ctx)
    visit(body, rule.keys, 1, true, function(container, key)
      if container[key] == nil then container[key] = value(ctx, body) end
    end)
  end
end

function make.set(rule)
  local value = compile(rule.value)
  return function(body, ctx)
    visit(body, rule.keys, 1, true, function(container, key)
      local new = value(ctx, body)
      if new ~= nil then container[key] = new end
    end)
  end
end

function make.remove(rule)
  return function(body)
    -- From behind: what is taken out of a list moves what comes after it.
    local places = {}
    visit(body, rule.keys, 1, false, function(container, key) places[#places + 1] = { container, key } end)
    for i = #places, 1, -1 do take_away(places[i][1], places[i][2]) end
  end
end

function make.rename(rule)
  return function(body)
    visit(body, rule.keys, 1, false, function(container, key)
      if type(key) == "string" and container[key] ~= nil then container[key], container[rule.to] = nil, container[key] end
    end)
  end
end

local function put_at(body, keys, value)
  visit(body, keys, 1, true, function(container, key) container[key] = value end)
end

function make.move(rule)
  local to, remove = split(rule.to), make.remove(rule)
  return function(body, ctx)
    local value = first_at(body, rule.keys)
    if value == nil then return end
    remove(body, ctx)
    put_at(body, to, value)
  end
end

function make.copy(rule)
  local to = split(rule.to)
  return function(body)
    local value = first_at(body, rule.keys)
    if value ~= nil then put_at(body, to, copy(value)) end
  end
end

local function keep_one(from, keys, i, to)
  local value = from[keys[i]]
  if value == nil then return end
  if i == #keys then
    to[keys[i]] = value
  elseif type(value) == "table" and value ~= tg.null then
    if is_list(value) then
      to[keys[i]] = to[keys[i]] or {}
      for n, item in ipairs(value) do
        to[keys[i]][n] = to[keys[i]][n] or {}
        if type(item) == "table" then keep_one(item, keys, i + 1, to[keys[i]][n]) end
      end
    else
      to[keys[i]] = to[keys[i]] or {}
      keep_one(value, keys, i + 1, to[keys[i]])
    end
  end
end

function make.keep(rule)
  local paths = {}
  for i, path in ipairs(rule.paths) do paths[i] = split(path) end
  local function cut(value)
    if type(value) ~= "table" or value == tg.null or next(value) == nil then return value end
    local result = {}
    if is_list(value) then
      for i, item in ipairs(value) do result[i] = cut(item) end
    else
      for _, keys in ipairs(paths) do keep_one(value, keys, 1, result) end
    end
    return result
  end
  return function(body) return cut(body) end
end

-- ---------------------------------------------------------------- conversions

local function to_form(value)
  if type(value) ~= "table" or is_list(value) then return nil, "a form is made of an object" end
  for name, item in pairs(value) do
    if type(item) == "table" and not is_list(item) and not tg.json.is_integer(item) then
      return nil, ("the member %q has no form in a form"):format(name)
    end
    if item == tg.null then value[name] = "" end
  end
  return tg.url.query(value)
end

-- A name that is there several times has a list.
local function from_form(text)
  local result, lists = {}, {}
  for pair in text:gmatch "[^&]+" do
    local name, value = pair:gsub("+", " "):match "^([^=]*)=?(.*)$"
    name, value = tg.url.decode(name), tg.url.decode(value)
    if result[name] == nil then
      result[name] = value
    elseif lists[name] then
      table.insert(result[name], value)
    else
      result[name], lists[name] = { result[name], value }, true
    end
  end
  return result
end

local function read(message, conf)
  local text, err = message:text(conf.max_body)
  if not text then return nil, err end
  if conf.convert == "form-to-json" then return from_form(text) end
  if conf.convert == "xml-to-json" then return tg.xml.decode(text) end
  return tg.json.decode(text)
end

local function write(value, conf)
  if conf.convert == "json-to-xml" then return tg.xml.encode(value, conf.root) end
  if conf.convert == "json-to-form" then return to_form(value) end
  return tg.json.encode(value)
end

-- ---------------------------------------------------------------- plugin

local function side(more)
  local fields = {
    types = t.optional(t.list(t.string())),
    convert = t.optional(t.enum { "json-to-xml", "xml-to-json", "form-to-json", "json-to-form" }),
    root = t.string { default = "root", match = "^[%a_][%w_.%-]*$" },
    operations = t.list(t.record {
      op = t.enum { "add", "set", "remove", "rename", "move", "copy", "keep" },
      path = t.optional(t.string { match = "^[^.]" }), to = t.optional(t.string { match = "^[^.]" }),
      paths = t.optional(t.list(t.string())), value = t.optional(t.any()),
    }, {}),
    template = t.optional(t.template { roots = ROOTS, escape = "json" }),
    content_type = t.optional(t.string()),
    max_body = t.size { default = "1MiB", min = 1 },
    on_invalid = t.enum { "error", "pass", default = "error" },
  }
  for name, kind in pairs(more) do fields[name] = kind end
  return t.optional(t.record(fields))
end

local needs = {
  add = { "path", "value" }, set = { "path", "value" }, remove = { "path" }, rename = { "path", "to" }, move = { "path", "to" },
  copy = { "path", "to" }, keep = { "paths" },
}

local function check_side(conf, where)
  if not conf then return nil end
  if not conf.convert and not conf.template and #conf.operations == 0 then
    return "changes nothing: operations, template or convert are needed", where
  end
  if conf.template and conf.convert then return "is there, too: a template has its own form", where .. ".convert" end
  for i, rule in ipairs(conf.operations) do
    for _, field in ipairs(needs[rule.op]) do
      if rule[field] == nil then return ("%s needs `%s`"):format(rule.op, field), ("%s.operations[%d]"):format(where, i) end
    end
  end
end

local function prepare(conf)
  if not conf then return nil end
  local rules = {}
  for i, rule in ipairs(conf.operations) do
    rules[i] = make[rule.op] { keys = rule.path and split(rule.path), to = rule.to, paths = rule.paths, value = rule.value }
  end
  local known = conf.convert and TYPES[conf.convert]
  return {
    rules = rules, types = conf.types or { known and known[1] or "json" },
    content_type = conf.content_type or known and known[2] or "application/json",
  }
end

local function applies(message, state)
  local found = (message.headers["Content-Type"] or ""):lower()
  for _, kind in ipairs(state.types) do
    if kind == "*" or found:find(kind:lower(), 1, true) then return true end
  end
  return false
end

-- nil, or what is wrong with the body.
local function change(ctx, message, conf, state)
  local body, err = read(message, conf)
  if body == nil and err then return err end
  for _, rule in ipairs(state.rules) do
    local new = rule(body, ctx)
    if new ~= nil then body = new end
  end
  local text
  if conf.template then
    text, err = conf.template(ctx, { body = body }), { message = "a variable of the template has no value", code = "missing" }
  else
    text, err = write(body, conf)
  end
  if not text then return type(err) == "table" and err or { message = err, code = "encode" } end
  message:set_body(text)
  message.headers["Content-Type"] = state.content_type
  return nil
end

return {
  api = 1,
  doc = [[
Change bodies: JSON by rules, whole bodies by a template, and between JSON, XML and forms.
`request` and `response` each have `operations`, which are done in order on JSON of any kind: `add` (where nothing is), `set`, `remove`,
`rename`, `move`, `copy`, `keep` (these `paths`). A path is names with dots; lists are gone through, `items.0.price` names one item,
`items.-` is behind the last. Texts in `value` have variables, `${body.user.id}` of the body itself among them. `template` is the whole new
body, each variable as JSON. `convert` reads one form and writes another: attributes of XML are members `@name`, text beside elements is
`#text`. Bodies of other `types` pass as they are. A malformed body of a request gets 400 with its place, of a response 502, or passes with
`on_invalid = "pass"`.]],

  schema = { request = side {}, response = side { statuses = t.optional(t.list(t.status())) } },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "body-transform",
  request = { operations = { { op = "set", path = "source", value = "${consumer.id}" }, { op = "remove", path = "items.internal" } } },
  response = { convert = "xml-to-json" } } } }]],

  check = function(conf)
    local message, path = check_side(conf.request, "request")
    if message then return message, path end
    return check_side(conf.response, "response")
  end,

  setup = function(conf)
    return { request = prepare(conf.request), response = prepare(conf.response) }
  end,

  idle = function(conf)
    local names = {}
    if not conf.request then names[1] = "access" end
    if not conf.response then names[#names + 1] = "response" end
    return names
  end,

  access = function(ctx, conf, state)
    local part = conf.request
    if not applies(ctx.req, state.request) then return end
    local err = change(ctx, ctx.req, part, state.request)
    if not err or (part.on_invalid == "pass" and err.code == "decode") then return end
    return tg.problem(err.code == "too_large" and 413 or err.code == "encode" and 422 or err.status == 415 and 415 or 400, err.message)
  end,

  response = function(ctx, conf, state)
    local part, status = conf.response, ctx.res.status
    if status == 204 or status == 304 or ctx.req.method == "HEAD" or not applies(ctx.res, state.response) then return end
    if part.statuses then
      local wanted = false
      for _, one in ipairs(part.statuses) do wanted = wanted or one == status end
      if not wanted then return end
    end
    local err = change(ctx, ctx.res, part, state.response)
    if not err or (part.on_invalid == "pass" and err.code == "decode") then return end
    return tg.problem(502, "the upstream's body: " .. err.message)
  end,
}
