--- constant_edits: what uses do to every request or response alike, taken out of their phases: the core does it, and Lua is not entered for it.
local abi = require "abi"
local edits = require "tidegate.edits"

local constant_edits = { whole = false } -- whole: somebody looks at each phase, so all of it stays in them

-- The edits that are all that a use does in its phase | nil: it must be asked each time.
local function constant(use, field)
  local of = use.plugin[field]
  if not of or use.when or use.shadow or use.quarantine then return nil end
  local made = of(use.conf, use.state)
  if made == nil then return nil end
  if not edits.is(made) then error(("%s: %s must return edits or nothing, returned a %s"):format(use.label, field, type(made)), 0) end
  return made.constant and made
end

-- The edits of those that come first in their phase, from `first` on, and the uses without them. A generation that changes nothing has all of it
-- in its phases.
local function split(uses, phase, field, first, last, step)
  if constant_edits.whole or abi.in_shadow or abi.offline then return nil, uses end
  local taken, found, rest = {}, {}, {}
  for i = first, last, step do
    if uses[i].plugin[phase] then
      local made = constant(uses[i], field)
      if not made then break end
      taken[i] = true
      if not made.idle then found[#found + 1] = made end
    end
  end
  for i, use in ipairs(uses) do
    if not taken[i] then rest[#rest + 1] = use end
  end
  return #found > 0 and edits.join(found) or nil, rest
end

--- of_responses(uses) -> what the core does to a response | nil, the uses whose `response` does the rest. Responses meet the last use first: only
-- what comes before all phases can be taken out of them.
function constant_edits.of_responses(uses)
  return split(uses, "response", "response_edits", #uses, 1, -1)
end

--- of_requests(uses, own) -> what the core does to a request once its route is known | nil, the uses whose `access` does the rest. `own`: those
-- that are the route's, whose `rewrite` comes after that moment; that of the others is over by then.
function constant_edits.of_requests(uses, own)
  for _, use in ipairs(own) do
    if use.plugin.rewrite then return nil, uses end
  end
  for _, use in ipairs(uses) do
    if use.plugin.authenticate or use.shadow then return nil, uses end
  end
  return split(uses, "access", "request_edits", 1, #uses, 1)
end

return constant_edits
