--- profile: tidegate profile. Where the processor time of a worker goes, as folded stacks of Lua and C.
local client = require "tool.client"

local profile = {}
local SECONDS = 10

-- The most samples first. Stacks that differ, but not by the names of their functions, are one.
local function sorted(text)
  local lines, by_stack = {}, {}
  for stack, samples in text:gmatch "([^\n]-) (%d+)\n" do
    local line = by_stack[stack] or { stack, 0 }
    if not by_stack[stack] then by_stack[stack], lines[#lines + 1] = line, line end
    line[2] = line[2] + tonumber(samples)
  end
  table.sort(lines, function(a, b)
    if a[2] ~= b[2] then return a[2] > b[2] end
    return a[1] < b[1]
  end)
  return lines
end

--- main(core, options ...) -> exit status
function profile.main(core, ...)
  local options, status = client.options("profile", { seconds = "number", worker = "text" }, ...)
  if not options then return status end
  local line = ("profile %s %s"):format(options.seconds or SECONDS, options.worker or "0")
  local text, failure = client.text(core, options, line)
  if not text then return failure end
  local lines = sorted(text)
  if #lines == 0 then io.stderr:write "(nothing was sampled: the worker did nothing)\n" end
  for _, entry in ipairs(lines) do io.write(client.clean(entry[1]), " ", entry[2], "\n") end
  return 0
end

return profile
