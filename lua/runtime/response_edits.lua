--- response_edits: what uses do to every response alike, taken out of their `response` phases: the core does it, and Lua is not entered for it.
local abi = require "abi"
local edits = require "tidegate.edits"

local response_edits = { whole = false } -- whole: somebody looks at each phase, so all of it stays in them

-- The edits that are all that a use does in its phase | nil: it must be asked each time.
local function constant(use)
  local of = use.plugin.response_edits
  if not of or use.when or use.shadow or use.quarantine then return nil end
  local made = of(use.conf, use.state)
  if made == nil then return nil end
  if not edits.is(made) then error(("%s: response_edits must return edits or nothing, returned a %s"):format(use.label, type(made)), 0) end
  return made.constant and made
end

--- split(uses) -> what the core does to a response | nil, the uses whose phases do the rest. Responses meet the last use first: only what comes
-- before all phases can be taken out of them. A generation that changes nothing has all of it in its phases.
function response_edits.split(uses)
  if response_edits.whole or abi.in_shadow or abi.offline then return nil, uses end
  local taken, found, rest = {}, {}, {}
  for i = #uses, 1, -1 do
    if uses[i].plugin.response then
      local made = constant(uses[i])
      if not made then break end
      found[#found + 1], taken[i] = made, true
    end
  end
  if #found == 0 then return nil, uses end
  for i, use in ipairs(uses) do
    if not taken[i] then rest[#rest + 1] = use end
  end
  return edits.join(found), rest
end

return response_edits
