--- failures: tidegate failures. The last exchanges that failed or were slow, of all workers.
local client = require "tool.client"
local json = require "tidegate.json"
local trails = require "tool.trails"

local failures = {}
local LIMIT = 50

--- main(core, options ...) -> exit status
function failures.main(core, ...)
  local options, status = client.options("failures", { json = "flag", route = "text", limit = "number" }, ...)
  if not options then return status end
  local answer, failure = client.ask(core, options, "failures")
  if not answer then return failure end
  local list, most = {}, options.limit or LIMIT
  trails.sort(answer.trails, true)
  for _, trail in ipairs(answer.trails) do
    if #list < most and trails.fits(trail, options) then list[#list + 1] = trail end
  end
  if options.json then
    print(json.encode { failures = json.array(list) })
    return 0
  end
  local rows = { { "TIME", "STATUS", "WHY", "ROUTE", "METHOD", "TARGET", "TOOK", "UPSTREAM", "PEER", "CLIENT" } }
  for _, trail in ipairs(list) do
    rows[#rows + 1] = { os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(trail.at)), trail.status, trails.what(trail), trail.route, trail.method,
      trails.target(trail), client.seconds(trail.duration), client.seconds(trail.upstream_time), trails.peer(trail), trail.client }
  end
  client.print_columns(rows)
  return 0
end

return failures
