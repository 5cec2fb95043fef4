--- tail: exchanges as they end, of all workers, as server-sent events. Workers remember all of them only while somebody watches.
local abi = require "abi"
local json = require "tidegate.json"
local response = require "tidegate.response"
local statistics = require "admin.statistics"
local task = require "tidegate.task"

local C = abi.C
local tail = {
  filters = { route = "of this route", status = "whose status begins so: 5, or 404", path = "with this in it", method = "of this method",
    client = "of this address" },
}
local EVERY, WATCH, ALIVE, WATCHERS_MAX = 0.2, 5, 10, 16 -- seconds: between two looks, until workers forget, between two signs of life
local watchers = 0

local function fits(trail, query)
  if query.route and trail.route ~= query.route then return false end
  if query.method and trail.method ~= query.method:upper() or query.client and trail.client ~= query.client then return false end
  if query.path and not trail.path:find(query.path, 1, true) then return false end
  return not query.status or tostring(trail.status):sub(1, #query.status) == query.status
end

local function watch(query, write)
  local positions, silent = statistics.trails(false, nil, function() end), 0
  write ": the tail begins\n\n"
  while true do
    C.tg_abi_trail_watch(WATCH)
    task.sleep(EVERY)
    local parts = {}
    positions = statistics.trails(false, positions, function(trail)
      if fits(trail, query) then parts[#parts + 1] = "data: " .. json.encode(trail) .. "\n\n" end
    end)
    silent = #parts > 0 and 0 or silent + EVERY
    if silent >= ALIVE then
      parts[1], silent = ": nothing\n\n", 0
    end
    if #parts > 0 then write(table.concat(parts)) end
  end
end

--- respond(query) -> response
function tail.respond(query)
  if watchers >= WATCHERS_MAX then return response.problem(503, "too many watch") end
  return response.respond(200, function(write)
    watchers = watchers + 1
    task.defer(function() watchers = watchers - 1 end)
    watch(query, write)
  end, { ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-store" })
end

return tail
