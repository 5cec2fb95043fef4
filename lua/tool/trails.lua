--- trails: exchanges that were remembered, chosen and as lines.
local client = require "tool.client"

local trails = {}

--- fits(trail, options) -> whether it is of this route, status and path
function trails.fits(trail, options)
  if options.route and trail.route ~= options.route then return false end
  if options.path and not trail.path:find(options.path, 1, true) then return false end
  return not options.status or tostring(trail.status):sub(1, #options.status) == options.status
end

--- sort(list, newest): by when they ended
function trails.sort(list, newest)
  table.sort(list, function(a, b)
    if newest then a, b = b, a end
    local x, y = a.at + a.duration, b.at + b.duration
    return x < y or x == y and a.id < b.id
  end)
end

--- what(trail) -> what became of it, in a word or two
function trails.what(trail)
  if type(trail.error) == "string" then return trail.error end
  return trail.aborted and "cut" or trail.reason == "slow" and "slow" or trail.source
end

--- peer(trail) -> the last peer, and how many attempts there were when there was more than one
function trails.peer(trail)
  if trail.peer == "" then return "-" end
  return trail.attempts > 1 and ("%s (%d attempts)"):format(trail.peer, trail.attempts) or trail.peer
end

--- target(trail)
function trails.target(trail)
  return client.clean(trail.host .. trail.path)
end

return trails
