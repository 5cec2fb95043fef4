--- plugin: loads a plugin file, checks its shape, and configures one use of it.
local budget = require "runtime.budget"
local report_of = require "runtime.report"
local schema = require "runtime.schema"
local shadow = require "runtime.shadow"
local use_config = require "runtime.use_config"

local plugin = {}

plugin.phases = { "rewrite", "authenticate", "access", "handler", "balance", "response", "websocket", "log" }

local fields = {
  api = "number", doc = "string", schema = "table", check = "function", setup = "function", start = "function", stop = "function",
  around = "function", admin = "function",
  idle = "function", -- (conf, state) -> names of the phases in which a use that is configured so has nothing to do
  request_edits = "function", -- (conf, state) -> edits that are all that `access` does, to each request alike | nil
  response_edits = "function", -- (conf, state) -> edits that are all that `response` does, with each response alike | nil
  core = "function", -- (conf, state) -> steps by phase that are all that `rewrite` and `log` do, with each exchange alike
  challenge = "any", anonymous = "boolean", identity_headers = "any", example = "string",
  of_consumer = "function", -- what a use of a consumer does at `access`, of a plugin whose `rewrite` comes before anybody is known
  preflight = "boolean", -- true: its `rewrite` answers what browsers ask before they send a request with a method of the route
  shadow = "boolean", -- false: it changes the exchange by other ways than ctx, so that it cannot be held back
}
for _, phase in ipairs(plugin.phases) do fields[phase] = "function" end

local function check_schema(spec, at, path, report)
  local before = report:count()
  for key, kind in pairs(spec) do
    local field = { path, "schema", report_of.text_of(key) }
    if type(key) ~= "string" then
      report:found(at, field, key, "a name")
    elseif use_config.fields[key] then
      report:problem(at, field, "is a field of every use, so the plugin would never see it; choose another name")
    elseif not schema.is_type(kind) then
      report:found(at, field, kind, "a type: t.string() ...")
    end
  end
  if report:count() == before then schema.check_defaults(spec, { report = report, at = at, path = { path, "schema" } }) end
end

local function check_shape(value, at, name, report)
  local path = { "plugin " .. name }
  if type(value) ~= "table" then
    report:found(at, path, value, "a table: a plugin file returns it")
    return false
  end
  local before = report:count()
  for key, found in pairs(value) do
    local kind = fields[key]
    if key == "certificate" then
      report:problem(at, path, ("%q is not available in this version"):format(key))
    elseif key == "guard" then
      report:problem(at, path, 'the file must say it before it runs, in a comment at its beginning: -- guard = false')
    elseif not kind then
      local known = {}
      for field in pairs(fields) do known[#known + 1] = field end
      report:unknown(at, path, key, known)
    elseif kind ~= "any" and type(found) ~= kind then
      report:found(at, { path[1], key }, found, "a " .. kind)
    end
  end
  if value.api ~= nil and value.api ~= 1 then report:found(at, { path[1], "api" }, value.api, "1") end
  if type(value.schema) == "table" then check_schema(value.schema, at, path[1], report) end
  return report:count() == before
end

--- load(name, text, chunk name, environment, report, bundled) -> plugin | nil. Only the text of a bundle of our own may be
-- bytecode: what the interpreter does with bytecode that a compiler did not make is undefined.
function plugin.load(name, text, chunk_name, env, report, bundled)
  local at = chunk_name:gsub("^@", "")
  if text:byte(1) == 27 and not bundled then
    report:problem(at, { "plugin " .. name }, "found     bytecode\nexpected  Lua as text")
    return nil
  end
  local f, err = budget.load(text, chunk_name)
  if not f then
    local line, message = err:match ":(%d+): (.*)$"
    report:problem(at .. ":" .. (line or "?"), { "plugin " .. name }, "found     " .. (message or err) .. "\nexpected  valid Lua")
    return nil
  end
  setfenv(f, env)
  local ok, value = pcall(f)
  if not ok then
    local raised = report_of.text_of(value)
    local line, message = raised:match ":(%d+): (.*)$"
    report:problem(line and at .. ":" .. line or at, { "plugin " .. name }, message or raised)
    return nil
  end
  if not check_shape(value, at, name, report) then return nil end
  local loaded = { name = name, schema = {} }
  for key, field in pairs(value) do loaded[key] = field end
  return loaded
end

function plugin.not_found(name, known)
  table.sort(known)
  if #known == 0 then return ("there is no plugin file plugins/%s.lua"):format(name) end
  local nearest = report_of.nearest(name, known)
  return ('there is no plugin file plugins/%s.lua; %s'):format(name,
    nearest and 'did you mean "' .. nearest .. '"?' or "there are " .. table.concat(known, ", "))
end

--- configure(plugin, use, report, names) -> frozen conf | nil when something was reported
function plugin.configure(loaded, use, report, names)
  local where = { report = report, at = use.at, path = use.path, names = names }
  if use.on_error == "skip" and loaded.authenticate then
    report:problem(use.at, use.path, 'on_error = "skip" is refused for a plugin that authenticates')
    return nil
  end
  local open = use.shadow and shadow.refusal(loaded, use)
  if open then
    report:problem(use.at, use.path, open)
    return nil
  end
  local conf = schema.apply(loaded.schema, use.conf, where)
  if conf and loaded.check then
    local ok, message, path = pcall(loaded.check, conf)
    if not ok or message then
      local full = { unpack(use.path) }
      if path then full[#full + 1] = path end
      report:problem(use.at, full, message)
      return nil
    end
  end
  return conf
end

--- setup(plugin, use, conf, report) -> ok, state
function plugin.setup(loaded, use, conf, report)
  if not loaded.setup then return true, nil end
  local ok, state = pcall(loaded.setup, conf)
  if not ok then
    report:problem(use.at, use.path, "setup: " .. report_of.text_of(state))
    return false
  end
  return true, state
end

local lesser = setmetatable({}, { __mode = "k" }) -- plugin -> names of phases -> the plugin without them

local function is_phase(name)
  for _, phase in ipairs(plugin.phases) do
    if phase == name then return true end
  end
end

local function without(loaded, names)
  if type(names) ~= "table" then error("idle must return a list of phases, returned a " .. type(names), 0) end
  if #names == 0 then return loaded end
  local id = table.concat(names, " ")
  lesser[loaded] = lesser[loaded] or {}
  local copy = lesser[loaded][id]
  if copy then return copy end
  copy = {}
  for key, value in pairs(loaded) do copy[key] = value end
  for _, name in ipairs(names) do
    if not is_phase(name) or not loaded[name] then error(("idle names %q, which is none of its phases"):format(tostring(name)), 0) end
    copy[name] = nil
  end
  lesser[loaded][id] = copy
  return copy
end

--- without_idle(plugin, use, report) -> the plugin for a use with this conf: a phase in which it has nothing to do costs nothing.
function plugin.without_idle(loaded, use, report)
  if not loaded.idle then return loaded end
  local ok, result = pcall(function() return without(loaded, loaded.idle(use.conf, use.state)) end)
  if ok then return result end
  report:problem(use.at, use.path, "idle: " .. report_of.text_of(result))
  return loaded
end

return plugin
