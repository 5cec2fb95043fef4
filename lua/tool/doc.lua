--- doc: tidegate doc. What a plugin does and takes, from the plugin itself.
local abi = require "abi"
local manual = require "tool.manual"
local plugin = require "runtime.plugin"
local report_of = require "runtime.report"
local sandbox = require "runtime.sandbox"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"

local doc = {}

-- Plugins may ask for secrets when they are loaded, which for their documentation need not be there.
secret.source = { secret = function() return "***" end }

local function load_all(core)
  local list, seen = {}, {}
  for _, dir in ipairs(core.plugin_dirs) do
    for _, path in ipairs(core.glob(dir .. "/*.lua")) do
      local name = path:match "([^/]+)%.lua$"
      if not name:find(".spec", 1, true) and not seen[name] then
        seen[name] = true
        local f = assert(io.open(path, "rb"))
        local report = report_of.new()
        local loaded = plugin.load(name, f:read "*a", "@" .. path, sandbox.environment(), report)
        f:close()
        if loaded then list[#list + 1] = loaded else io.stderr:write(report:text(), "\n") end
      end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function summary(loaded)
  return (loaded.doc or ""):match "^%s*([^\n]*)"
end

local function phases(loaded)
  local list = {}
  for _, phase in ipairs(plugin.phases) do
    if loaded[phase] then list[#list + 1] = phase end
  end
  return table.concat(list, ", ")
end

local function print_plugin(loaded)
  print(loaded.name .. ": " .. (loaded.doc or "") .. "\n\nphases: " .. phases(loaded) .. "\n\nfields:")
  for _, field in ipairs(schema.describe(loaded.schema)) do
    print(("  %-16s %s%s"):format(field.name, field.expected,
      field.required and ", required" or field.default and ", default " .. field.default or ""))
    if field.doc ~= "" then print("  " .. (" "):rep(17) .. field.doc) end
  end
  if loaded.example then print("\nexample:\n" .. loaded.example) end
end

--- One line of Markdown a plugin: the table of plugins/README.md.
local function print_table(list)
  print "| plugin | what it does | phases |\n| --- | --- | --- |"
  for _, loaded in ipairs(list) do
    print(("| `%s` | %s | %s |"):format(loaded.name, summary(loaded), phases(loaded)))
  end
end

--- main(core, name | "--table" | "--man" | nothing) -> exit status
function doc.main(core, name)
  if name == "--man" then
    io.write(manual.page(core))
    return 0
  end
  abi.validating = true
  local list = load_all(core)
  if name == "--table" then
    print_table(list)
    return 0
  end
  for _, loaded in ipairs(list) do
    if not name then
      print(("%-16s %s"):format(loaded.name, summary(loaded)))
    elseif loaded.name == name then
      print_plugin(loaded)
      return 0
    end
  end
  if not name then return 0 end
  io.stderr:write(("tidegate doc: there is no plugin %q\n"):format(name))
  return 1
end

return doc
