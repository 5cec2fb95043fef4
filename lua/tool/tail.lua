--- tail: tidegate tail. Exchanges as they end. Workers remember all of them only while somebody asks.
local client = require "tool.client"
local json = require "tidegate.json"
local trails = require "tool.trails"

local tail = {}
local EVERY = 0.2 -- seconds between two looks

local function line_of(trail)
  local at = trail.at + trail.duration
  return ("%s.%03d  %3d  %-7s %s  %s  %s  upstream %s  %s  %s"):format(os.date("!%H:%M:%S", math.floor(at)), math.floor(at % 1 * 1000),
    trail.status, client.clean(trail.method), trails.target(trail), client.clean(trail.route), client.seconds(trail.duration),
    client.seconds(trail.upstream_time), client.clean(trails.peer(trail)), trails.what(trail))
end

--- main(core, options ...) -> exit status
function tail.main(core, ...)
  local kinds = { json = "flag", route = "text", status = "text", path = "text", count = "number" }
  local options, status = client.options("tail", kinds, ...)
  if not options then return status end
  local answer, failure = client.ask(core, options, "tail")
  local left = options.count or math.huge
  while answer and left > 0 do
    core.sleep(EVERY)
    answer, failure = client.go_on(core, options, "tail", answer.cursor)
    if answer and answer.missed > 0 then io.stderr:write(("(%d more have ended than are remembered)\n"):format(answer.missed)) end
    trails.sort(answer and answer.trails or {})
    for _, trail in ipairs(answer and answer.trails or {}) do
      if left > 0 and trails.fits(trail, options) then
        io.write(options.json and json.encode(trail) or line_of(trail), "\n")
        left = left - 1
      end
    end
    io.flush()
  end
  return answer and 0 or failure
end

return tail
