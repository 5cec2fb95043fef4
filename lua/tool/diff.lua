--- diff: tidegate diff. What one generation changes of another, of the texts that they were made of.
local diff = require "admin.diff"
local json = require "tidegate.json"

local command = {}

--- main(core, path of the control socket, id, id of the other or "" for the live one) -> exit status
function command.main(core, control, before, after)
  local sets = {}
  for i, id in ipairs { before, after } do
    local text, problem, status = core.ask(control, "sources " .. id)
    if not text then
      io.stderr:write(problem)
      return status
    end
    sets[i] = assert(json.decode(text))
  end
  io.write(diff.files(sets[1], sets[2]))
  return 0
end

return command
