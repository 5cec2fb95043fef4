--- steps: what a plugin's phase does with each exchange alike, as something that the core can do in its place. Made once a generation; a plugin
-- gives them as `core`, and runtime/core_steps hands them over.
local Step = {}
Step.__index = Step

local steps = {}

--- new(kind, fields) -> step. kind: "correlate", "trace", "line", "failures"
function steps.new(kind, fields)
  fields.kind = kind
  return setmetatable(fields, Step)
end

--- is(value) -> whether it was made by new
function steps.is(value) return getmetatable(value) == Step end

return steps
