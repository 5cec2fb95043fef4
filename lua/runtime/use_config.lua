--- use_config: the lists of `use` in a configuration: names of plugins, tables that begin with one, functions.
local report_of = require "runtime.report"
local schema = require "runtime.schema"
local use_matcher = require "runtime.use_matcher"

local use_config = {}

--- is_name(value) -> whether it may be the name of a word or of a use
function use_config.is_name(name)
  return type(name) == "string" and #name <= 63 and name:find "^[%w_.%-]+$" ~= nil
end

--- What a use has beside the fields of its plugin, which would never see one of its own that is called so.
use_config.fields = { plugin = true, name = true, when = true, on_error = true, shadow = true, fail = true, quarantine = true, call_time = true }

--- read(item, at, path, report) -> one element of `use`, a name, a table that begins with it, or a function, as it is judged | nil, when it is none
function use_config.read(item, at, path, report)
  local use = { at = at, path = path, conf = {}, on_error = "deny" }
  if type(item) == "string" then
    use.plugin = item
  elseif type(item) == "function" then
    use.fn = item
  elseif type(item) == "table" and type(item[1] or item.plugin) == "string" then
    use.plugin = item[1] or item.plugin
    use.name, use.when = item.name, item.when
    if item.on_error ~= nil then use.on_error = item.on_error end
    use.fail, use.quarantine_words, use.call_time = item.fail, item.quarantine, item.call_time
    use.shadow = item.shadow or false
    if type(use.shadow) ~= "boolean" then report:found(at, path, use.shadow, "true or false as `shadow`") end
    if use.name ~= nil and not use_config.is_name(use.name) then report:found(at, path, use.name, "a name as `name`") end
    for key, value in pairs(item) do
      if key ~= 1 and not use_config.fields[key] then use.conf[key] = value end
    end
    if use.when ~= nil and type(use.when) ~= "function" then use.when = use_matcher.read(use.when, at, path, report) end
    if use.on_error ~= "deny" and use.on_error ~= "skip" then report:found(at, path, use.on_error, '"deny" or "skip" as `on_error`') end
  else
    report:found(at, path, item, 'a plugin: "name", { "name", field = ... } or a function')
    return nil
  end
  if use.plugin then
    path[#path] = path[#path] .. " " .. use.plugin
    if not use.plugin:match "^[%w_%-]+$" then report:found(at, path, use.plugin, "the name of a plugin") end
  end
  return use
end

--- read_list(list, at, prefix, report) -> list of them; what is wrong is reported. `prefix`: the path of what has the list
function use_config.read_list(list, at, prefix, report)
  local uses = {}
  local expected = 'a list of plugins: { "name", { "name", field = ... } }'
  if type(list) ~= "table" then
    report:found(at, prefix, list, expected)
    return uses
  end
  -- A policy that is written down and not there is an open door, so nothing of the list may be passed over.
  local length, wrong = schema.sequence(list)
  if not length then
    report:problem(at, prefix, type(wrong) == "number" and ("found     nothing as use[%s]\nexpected  %s"):format(wrong, expected)
      or ("found     %s = ... in the list itself\nexpected  %s"):format(report_of.text_of(wrong), expected))
    return uses
  end
  for i, item in ipairs(list) do
    local path = { unpack(prefix) }
    path[#path + 1] = "use[" .. i .. "]"
    uses[#uses + 1] = use_config.read(item, at, path, report)
  end
  return uses
end

return use_config
