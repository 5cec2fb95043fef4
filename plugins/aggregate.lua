--- aggregate: one answer out of the answers of many services. Calls run in parallel; one that uses another's answer waits for it.
-- What no rule looks into is checked, and passed on as it came: it is never decoded.
local ROOTS = { "answers", "item" }
local ITEMS_MAX = 1000

local function names_of(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- ---------------------------------------------------------------- shape: target, allow, deny, rename, flatten, move, append

local function split(path)
  local keys = {}
  for key in path:gmatch "[^.]+" do keys[#keys + 1] = key end
  return keys
end

local function is_list(value) return value[1] ~= nil or next(value) == nil end

-- Calls f(object, name) for each object that the path leads to; lists on the way are gone through item by item.
local function visit(value, keys, i, f)
  if type(value) ~= "table" then return end
  if value[1] ~= nil then
    for _, item in ipairs(value) do visit(item, keys, i, f) end
  elseif i == #keys then
    f(value, keys[i])
  else
    visit(value[keys[i]], keys, i + 1, f)
  end
end

local function keep(from, keys, i, to)
  local value = from[keys[i]]
  if value == nil then return end
  if i == #keys or type(value) ~= "table" then
    if i == #keys then to[keys[i]] = value end
  elseif is_list(value) then
    local list = to[keys[i]] or tg.json.array {}
    to[keys[i]] = list
    for n, item in ipairs(value) do
      list[n] = list[n] or {}
      if type(item) == "table" then keep(item, keys, i + 1, list[n]) end
    end
  else
    to[keys[i]] = to[keys[i]] or {}
    keep(value, keys, i + 1, to[keys[i]])
  end
end

-- Only what is allowed, of an object or of each object in a list.
local function only(value, paths)
  if type(value) ~= "table" or next(value) == nil then return value end
  if value[1] ~= nil then
    local list = {}
    for i, item in ipairs(value) do list[i] = only(item, paths) end
    return list
  end
  local result = {}
  for _, keys in ipairs(paths) do keep(value, keys, 1, result) end
  return result
end

local function drop(object, name) object[name] = nil end

local function lift(object, name)
  local inner = object[name]
  if type(inner) ~= "table" or is_list(inner) then return end
  object[name] = nil
  for key, value in pairs(inner) do object[key] = value end
end

local function rename(value, rule)
  visit(value, rule.keys, 1, function(object, name) object[rule.to], object[name] = object[name], nil end)
end

local function append(list, value)
  if tg.json.is_lazy(value) then
    if value:kind() ~= "array" then
      list[#list + 1] = value
      return
    end
    for _, part in value:each() do list[#list + 1] = part end
  elseif type(value) == "table" and is_list(value) then
    for _, item in ipairs(value) do list[#list + 1] = item end
  elseif value ~= tg.null then
    list[#list + 1] = value
  end
end

-- The object that has the last of the keys | nil: there is none. `make`: it is made where nothing is in the way.
local function holder(object, keys, first, make)
  for i = first, #keys - 1 do
    local inner = object[keys[i]]
    if inner == nil and make then
      inner = {}
      object[keys[i]] = inner
    end
    if type(inner) ~= "table" or inner[1] ~= nil then return nil end
    object = inner
  end
  return object
end

-- Lists are gone through as far as both paths have the same keys.
local function carry(value, rule)
  local from, to, first = rule.from, rule.to, rule.common + 1
  visit(value, rule.shared, 1, function(object)
    local source = holder(object, from, first)
    local found = source and source[from[#from]]
    local target = found ~= nil and holder(object, to, first, true)
    if not target then return end
    source[from[#from]] = nil
    if not rule.append then
      target[to[#to]] = found
      return
    end
    local list = tg.json.array {}
    append(list, target[to[#to]])
    append(list, found)
    target[to[#to]] = list
  end)
end

local function reshape(shape, value)
  if #shape.allow > 0 then value = only(value, shape.allow) end
  for _, keys in ipairs(shape.deny) do visit(value, keys, 1, drop) end
  for _, rule in ipairs(shape.rename) do rename(value, rule) end
  for _, keys in ipairs(shape.flatten) do visit(value, keys, 1, lift) end
  for _, rule in ipairs(shape.carry) do carry(value, rule) end
  return value
end

local function apply(shape, document)
  if shape.target then
    document = document:part(shape.target)
    if not document then return tg.null end
  end
  if not shape.rules then return document end
  return reshape(shape, document:get())
end

-- The rules of `move`, then those of `append`, in their order.
local function carries_of(conf)
  local rules = {}
  for _, name in ipairs { "move", "append" } do
    for _, entry in ipairs(conf[name]) do
      local rule = { from = split(entry.from), to = split(entry.to), common = 0, shared = {}, append = name == "append" }
      local most = math.min(#rule.from, #rule.to) - 1
      while rule.common < most and rule.from[rule.common + 1] == rule.to[rule.common + 1] do rule.common = rule.common + 1 end
      for i = 1, rule.common + 1 do rule.shared[i] = rule.from[i] end
      rules[#rules + 1] = rule
    end
  end
  return rules
end

local function shape_of(conf)
  local shape = { target = conf.target and split(conf.target), allow = {}, deny = {}, rename = {}, flatten = {}, carry = carries_of(conf) }
  for _, rule in ipairs { "allow", "deny", "flatten" } do
    for i, path in ipairs(conf[rule]) do shape[rule][i] = split(path) end
  end
  for i, path in ipairs(names_of(conf.rename)) do shape.rename[i] = { keys = split(path), to = conf.rename[path] } end
  shape.rules = #shape.allow + #shape.deny + #shape.rename + #shape.flatten + #shape.carry > 0
  return shape
end

-- ---------------------------------------------------------------- requests

local function evaluate(map, ctx, given)
  if next(map) == nil then return nil end
  local result
  for name, template in pairs(map) do
    result = result or {}
    result[name] = template(ctx, given)
  end
  return result
end

local function missing(call, what)
  return { code = "missing", message = ("calls.%s: %s"):format(call.name, what), status = call.waits and 502 or 400 }
end

-- XML and text are JSON from here on.
local function document_of(result, format)
  if format == "json" then return result:lazy() end
  local value, err = result:text()
  if value and format == "text" then return tg.json.lazy(tg.json.quote(value)) end
  if value then value, err = tg.xml.decode(value) end
  if value then return tg.json.lazy(tg.json.encode(value)) end
  err.status = 502
  return nil, err
end

-- The shaped answer of a result; what it says of caching is kept. A function for all: one made for each call is not compiled.
local function read_answer(result, request)
  local document, err = document_of(result, request.format)
  if not document then return nil, err end
  local fields = request.fields
  fields[#fields + 1] = result.headers["cache-control"] or ""
  if fields[#fields] ~= "" then fields.ages[#fields] = result.headers["age"] end
  return apply(request.shape, document)
end

-- The request of a call; nil, err when a variable of its path or body has no value.
local function request_of(call, ctx, state, given)
  local conf = call.conf
  local path = conf.path(ctx, given)
  local body = conf.body and conf.body(ctx, given)
  if not path then return nil, missing(call, "a variable of its path has no value") end
  if conf.body and not body then return nil, missing(call, "a variable of its body has no value") end
  local headers = evaluate(conf.headers, ctx, given)
  if conf.pass_body then body = state.body end
  if body then
    headers = headers or {}
    headers["Content-Type"] = headers["Content-Type"] or conf.pass_body and ctx.req.headers["Content-Type"] or "application/json"
  end
  return {
    upstream = conf.upstream, path = path, method = conf.method, query = evaluate(conf.query, ctx, given), headers = headers,
    forward = conf.forward[1] and conf.forward or nil, body = body, timeout = conf.timeout, retries = conf.retries > 0 and conf.retries or nil,
    cache = conf.cache, stale = conf.stale, expect = "2xx", max_body = conf.max_body,
    read = read_answer, format = conf.format, shape = call.shape, fields = state.fields,
  }
end

-- What two calls have in common that may be one.
local function key_of(request)
  local parts = { request.upstream, request.method, request.path, request.body or "" }
  for _, field in ipairs { "query", "headers" } do
    for _, name in ipairs(names_of(request[field] or {})) do parts[#parts + 1] = name .. "=" .. request[field][name] end
  end
  return table.concat(parts, "\n")
end

-- ---------------------------------------------------------------- calls

-- Sends the request, and to another upstream when the first one fails.
local function send(call, request)
  local found, err = tg.fetch_all { request }
  local other = call.conf.fallback_upstream
  if not found and other then
    request.upstream = other
    found, err = tg.fetch_all { request }
  end
  if not found then return nil, err end
  return found[1]
end

-- The requests of a loop, each once, and which item wants which.
local function requests_for(call, ctx, state, answers, items)
  local requests, wanted, seen = {}, {}, {}
  for i = 1, #items do
    local request, err = request_of(call, ctx, state, { answers = answers, item = items[i] })
    if not request then return nil, err end
    local key = key_of(request)
    if not seen[key] then
      requests[#requests + 1] = request
      seen[key] = #requests
    end
    wanted[i] = seen[key]
  end
  return requests, wanted
end

local function loop(call, ctx, state, answers)
  local conf, items = call.conf, call.items(answers)
  if type(items) ~= "table" then return nil, missing(call, conf.each .. " is no list") end
  if #items > conf.max_items then return nil, missing(call, ("%s has more than %d items"):format(conf.each, conf.max_items)) end
  local requests, wanted = requests_for(call, ctx, state, answers, items)
  if not requests then return nil, wanted end
  local branches, best_effort = {}, conf.optional or conf.fallback ~= nil
  for i, request in ipairs(requests) do
    branches[i] = { function() return send(call, request) end, optional = best_effort, fallback = conf.fallback }
  end
  local values, errors = tg.fetch_all(branches, { limit = conf.limit })
  if not values then return nil, errors end
  local _, first = next(errors)
  if first then state.missing[call.name] = first end
  local list = tg.json.array {}
  for i = 1, #items do
    local value = values[wanted[i]]
    list[i] = value == nil and tg.null or value
  end
  return list
end

-- "answers.orders.items" -> a function that gives what is there, decoded.
local function items_of(path)
  local keys = split(path)
  table.remove(keys, 1)
  local name = table.remove(keys, 1)
  return function(answers)
    local value = answers[name]
    if tg.json.is_lazy(value) then return value:get(keys) end
    for _, key in ipairs(keys) do value = type(value) == "table" and value[key] or nil end
    return value
  end
end

-- What `when` says of the call, with a function that gives the value at a path of the answers.
local function is_wanted(call, ctx, answers)
  local when = call.conf.when
  return when == nil or when(ctx, function(path) return items_of("answers." .. path)(answers) end)
end

local SKIPPED = {} -- in place of an answer: `when` did not want it

local function branch_of(call, ctx, state)
  return {
    function(answers)
      if not is_wanted(call, ctx, answers) then return SKIPPED end
      if call.items then return loop(call, ctx, state, answers) end
      local request, err = request_of(call, ctx, state, { answers = answers })
      if not request then return nil, err end
      return send(call, request)
    end,
    optional = call.conf.optional, fallback = call.conf.fallback,
  }
end

-- Sends a request that nobody waits for. When too many are under way already, it is left out.
local function mirror(call, ctx, state, data)
  if not is_wanted(call, ctx, data) then return end
  local request = request_of(call, ctx, state, { answers = data })
  if not request then return end
  for _, name in ipairs(request.forward or {}) do
    request.headers = request.headers or {}
    request.headers[name] = request.headers[name] or ctx.req.headers[name]
  end
  request.forward, request.read = nil, nil
  pcall(tg.background, "aggregate: " .. call.name, send, call, request)
end

-- ---------------------------------------------------------------- the merged answer

local function merge_into(out, value)
  if tg.json.is_lazy(value) then
    for name, part in value:each() do out[name] = part end
  elseif type(value) == "table" then
    for name, item in pairs(value) do out[name] = item end
  end
end

-- A value that may be changed: a fallback is the configuration's, and in lists there are answers that are not decoded yet.
local function own_of(value)
  if tg.json.is_lazy(value) then return value:get() end
  return type(value) == "table" and tg.json.decode(tg.json.encode(value)) or value
end

local function finish(calls, out, static, partial)
  for _, name in ipairs(calls.carried) do out[name] = own_of(out[name]) end
  for _, rule in ipairs(calls.carry) do carry(out, rule) end
  if static and (static.when == "always" or (static.when == "incomplete") == partial) then
    for name, value in pairs(static.data) do out[name] = value end
  end
  return out
end

local function merge(calls, data)
  local out = {}
  for _, call in ipairs(calls) do
    local value, conf = data[call.name], call.conf
    if value ~= nil and value ~= SKIPPED and not conf.hidden then
      if conf.concat then
        out[conf.concat] = out[conf.concat] or tg.json.array {}
        append(out[conf.concat], value)
      elseif conf.group == "" then
        merge_into(out, value)
      else
        out[conf.group or call.name] = value
      end
    end
  end
  return out
end

-- The least that all of them allow (RFC 9111, section 5.2.2). `fields`: the Cache-Control of each answer, "" for none.
local function merged_cache_control(fields, partial)
  if partial then return "no-store" end
  local flags, least = {}, nil
  for i, value in ipairs(fields) do
    local own
    for name, argument in (value == "" and "no-cache" or value):lower():gmatch "([%w%-]+)%s*=?%s*\"?(%d*)" do
      if name == "max-age" then own = tonumber(argument) end
      flags[name] = (flags[name] or 0) + 1
    end
    own = own and math.max(0, own - (tonumber(fields.ages[i]) or 0))
    if own and (not least or own < least) then least = own end
  end
  if flags["no-store"] then return "no-store" end
  local parts = {}
  for _, name in ipairs { "private", "no-cache", "must-revalidate" } do
    if flags[name] then parts[#parts + 1] = name end
  end
  if flags["public"] == #fields then table.insert(parts, 1, "public") end
  if least and flags["max-age"] == #fields then parts[#parts + 1] = "max-age=" .. least end
  return #parts > 0 and table.concat(parts, ", ") or "no-cache"
end

-- Most answers say nothing of it.
local function cache_control(fields, partial)
  for i = 1, #fields do
    if fields[i] ~= "" then return merged_cache_control(fields, partial) end
  end
  return partial and "no-store" or nil
end

local function refusal(conf, err)
  local status = conf.pass_status and err.answer and err.answer >= 400 and err.answer or err.status or 502
  local detail = err.code == "missing" and err.message or "a service that is needed did not answer as it should"
  return tg.problem(status, detail, { cause = err.code }, { ["Cache-Control"] = "no-store" })
end

-- ---------------------------------------------------------------- plugin

local carry_schema = t.record { from = t.string { match = "[^.]" }, to = t.string { match = "[^.]" } }
local call_schema = t.record {
  upstream = t.upstream(),
  path = t.template { default = "/", roots = ROOTS, escape = "url" },
  method = t.enum { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", default = "GET" },
  query = t.map(t.template { roots = ROOTS }, {}),
  headers = t.map(t.template { roots = ROOTS }, {}),
  forward = t.list(t.header(), {}),
  body = t.optional(t.template { roots = ROOTS, escape = "json" }),
  pass_body = t.boolean(false),
  timeout = t.optional(t.duration { min = 0.001 }),
  retries = t.integer { default = 0, min = 0, max = 5 },
  max_body = t.optional(t.size { min = 1 }),
  format = t.enum { "json", "xml", "text", default = "json" },
  cache = t.optional(t.duration { min = 0.001 }),
  stale = t.optional(t.duration { min = 0 }),
  optional = t.boolean(false),
  fallback = t.optional(t.any()),
  fallback_upstream = t.optional(t.upstream()),
  each = t.optional(t.string { match = "^answers%.[%w_%-]" }),
  limit = t.integer { default = 8, min = 1, max = 32 },
  max_items = t.integer { default = 100, min = 1, max = ITEMS_MAX },
  target = t.optional(t.string()),
  allow = t.list(t.string(), {}),
  deny = t.list(t.string(), {}),
  rename = t.map(t.string(), {}),
  flatten = t.list(t.string(), {}),
  move = t.list(carry_schema, {}),
  append = t.list(carry_schema, {}),
  group = t.optional(t.string()),
  concat = t.optional(t.string()),
  hidden = t.boolean(false),
  when = t.optional(t.func()),
  mirror = t.boolean(false),
}

-- Where a rule would move something into itself | nil
local function misplaced(conf, at)
  for _, name in ipairs { "move", "append" } do
    for i, rule in ipairs(conf[name]) do
      local from, to = table.concat(split(rule.from), ".") .. ".", table.concat(split(rule.to), ".") .. "."
      if to:sub(1, #from) == from then return ("%s%s[%d].to"):format(at, name, i) end
    end
  end
end

local OUTSIDE = {} -- raised by what a template asks of an answer that is not there yet
local probe = { answers = setmetatable({}, { __index = function() error(OUTSIDE, 0) end }) }

local function failing(err)
  return { function() return nil, err end }
end

-- A call whose request needs no answer begins at once, without a coroutine of its own. Which those are shows with use.
local function begin(call, ctx, state)
  if call.waits or call.conf.fallback_upstream or call.conf.when then return branch_of(call, ctx, state) end
  local ok, request, err = pcall(request_of, call, ctx, state, probe)
  if not ok then
    if request ~= OUTSIDE then error(request, 0) end
    call.waits = true
    return branch_of(call, ctx, state)
  end
  request = request or failing(err)
  request.fallback, request.optional = call.conf.fallback, call.conf.optional
  return request
end

return {
  api = 1,
  doc = [[
Answer with one JSON object made of the answers of many services.
Each entry of `calls` is a request to an upstream, whose `path`, `query`, `headers` and `body` are templates: `${params.id}`, `${header.X}`,
`${consumer.id}` and so on, and `${answers.user.id}` of another call, which is then waited for; all others run at once. `each` names a list
in an answer, and makes a call for each `${item}` of it, `limit` at once, equal ones once. `format` says that an answer is XML or text.
An answer is cut to `target`, then to the fields that `allow` names or without those of `deny`, `rename` gives fields other names, `flatten` lifts
the members of an object; `move` takes what is at the path `from` to the path `to`, `append` its items to the end of the list there, in each item
of lists that are on both paths. It stands under its name, or under `group`, or with `group = ""` among the members of the whole; `concat` appends
lists to one. `optional` calls may fail, a call with `fallback` never does; `fallback_upstream` is asked when the first one fails, `cache` and
`stale` keep answers for all. Where `when`, a function of ctx and `answer`, is false, a call is not made; `answer "user.id"` waits for that value
of another call. A `mirror` is sent when all others are over, and nobody waits for it. The whole may have `move` and `append`, too, and at last
gets the members of `static.data`: always, or when it is `complete` or `incomplete`.
The header X-Completed says whether nothing is missing, X-Missing what is; Cache-Control is the least that all answers allow.]],

  schema = {
    calls = t.map(call_schema),
    move = t.list(carry_schema, {}),
    append = t.list(carry_schema, {}),
    static = t.optional(t.record { data = t.map(t.any()), when = t.enum { "always", "complete", "incomplete", default = "always" } }),
    timeout = t.optional(t.duration { min = 0.001 }),
    partial_status = t.status(200),
    pass_status = t.boolean(false),
  },

  example = [[
route "home" { path = "/home/{id}", handler = { "aggregate", timeout = "800ms", calls = {
  user = { upstream = "users", path = "/users/${params.id}", deny = { "password" } },
  orders = { upstream = "orders", path = "/orders", query = { user = "${answers.user.id}" }, target = "items", optional = true },
} } }]],

  check = function(conf)
    local count = 0
    for name, call in pairs(conf.calls) do
      count = count + 1
      if call.stale and not call.cache then return "needs `cache`", "calls." .. name .. ".stale" end
      if call.body and call.pass_body then return "is there, too: one body is enough", "calls." .. name .. ".pass_body" end
      local other = call.each and call.each:match "^answers%.([%w_%-]+)"
      for _, field in ipairs(call.mirror and { "each", "fallback", "group", "concat", "target" } or {}) do
        if call[field] ~= nil then return "has no meaning for a mirror, whose answer nobody reads", ("calls.%s.%s"):format(name, field) end
      end
      local at = misplaced(call, "calls." .. name .. ".")
      if at then return "is `from`, or within it: nothing can be moved into itself", at end
      if other and conf.calls[other] and conf.calls[other].mirror then
        return "is of a mirror, whose answer nobody reads", "calls." .. name .. ".each"
      end
      if other and not conf.calls[other] then return ("is of no call: there is no %q"):format(other), "calls." .. name .. ".each" end
    end
    local at = misplaced(conf, "")
    if at then return "is `from`, or within it: nothing can be moved into itself", at end
    if count == 0 then return "needs at least one call", "calls" end
    if count > 100 then return "has more than 100 calls", "calls" end
  end,

  setup = function(conf)
    local calls, carried = { mirrors = {}, carry = carries_of(conf) }, {}
    for _, rule in ipairs(calls.carry) do carried[rule.from[1]], carried[rule.to[1]] = true, true end
    calls.carried = names_of(carried)
    for _, name in ipairs(names_of(conf.calls)) do
      local call = conf.calls[name]
      local list = call.mirror and calls.mirrors or calls
      local items = call.each and items_of(call.each)
      list[#list + 1] = { name = name, conf = call, shape = shape_of(call), items = items, waits = items ~= nil }
      calls.pass_body = calls.pass_body or call.pass_body
    end
    return calls
  end,

  handler = function(ctx, conf, calls)
    local state, branches = { fields = { ages = {} }, missing = {}, body = nil }, {}
    if calls.pass_body then state.body = assert(ctx.req:text()) end
    for _, call in ipairs(calls) do branches[call.name] = begin(call, ctx, state) end
    local data, errors = tg.fetch_all(branches, { timeout = conf.timeout })
    for _, call in ipairs(calls.mirrors) do mirror(call, ctx, state, data or {}) end
    if not data then return refusal(conf, errors) end
    for name, err in pairs(state.missing) do errors[name] = errors[name] or err end
    local partial = next(errors) ~= nil
    local out = finish(calls, merge(calls, data), conf.static, partial)
    return tg.respond(partial and conf.partial_status or 200, out, {
      ["X-Completed"] = partial and "false" or "true", ["X-Missing"] = partial and table.concat(names_of(errors), ", ") or nil,
      ["Cache-Control"] = cache_control(state.fields, partial),
    })
  end,
}
