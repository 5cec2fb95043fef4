--- diff: tidegate diff. What one generation changes of the texts of another, or of what becomes of recorded requests.
local diff = require "admin.diff"
local json = require "tidegate.json"
local options = require "tool.options"
local traffic = require "tool.traffic"

local tool = {}
local OPTIONS = { traffic = "value", listen = "value", plugins = "value", control = "value", json = "flag" }
local WRONG_USAGE = 2

local function wrong(text)
  io.stderr:write("tidegate diff: ", text, "\ntry: tidegate diff --help\n")
  return WRONG_USAGE
end

local function diff_texts(core, control, before, after)
  local sets = {}
  for i, id in ipairs { before, after } do
    local status, text = core.ask(control, "sources " .. id)
    if status ~= 0 then
      io.stderr:write(text)
      return status
    end
    sets[i] = assert(json.decode(text))
  end
  io.write(diff.files(sets[1], sets[2]))
  return 0
end

--- main(core, arguments ...) -> exit status
function tool.main(core, ...)
  local given, words = options.parse("diff", OPTIONS, { ... })
  if not given then return WRONG_USAGE end
  if given.traffic then
    if #words ~= 2 then return wrong "--traffic needs two configurations" end
    return traffic.diff(core, given, words)
  end
  if #words < 1 or #words > 2 then return wrong "the ids of two generations are needed" end
  for _, name in ipairs { "listen", "plugins", "json" } do
    if given[name] then return wrong(("--%s belongs to --traffic"):format(name)) end
  end
  return diff_texts(core, given.control or core.control, words[1], words[2] or "")
end

return tool
