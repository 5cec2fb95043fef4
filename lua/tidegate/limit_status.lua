--- limit_status: what limits have decided, for metrics and for people, and which keys are refused most.
local abi = require "abi"
local dict = require "tidegate.dict"
local metrics = require "tidegate.metrics"

local vm = abi.vm
local TOP, WORKERS, COUNTED = 32, 64, { "allowed", "denied", "fallen" } -- keys of a limit and worker; fields of a place

local status = {}
local counters, counts

--- note(place, key): it was refused. A sketch: of the keys that have no place, the new one takes that of the least, and its count; so a
-- key that is refused often is always there, and its count may be too high by what was least.
function status.note(place, key)
  local top = place.top
  local count = top[key]
  if not count and place.top_count < TOP then
    place.top_count, count = place.top_count + 1, 0
  elseif not count then
    local least
    for other, found in pairs(top) do
      if not least or found < count then least, count = other, found end
    end
    top[least] = nil
  end
  top[key], place.touched = count + 1, true
end

--- start(): called when the generation is current.
function status.start()
  counters = metrics.counter("tidegate_limit_decisions_total",
    { help = "what limits have decided; fallen: without the Redis that counts", labels = { "limit", "decision" } })
  counts = dict.open "rate-limit"
end

--- flush(limiters): what was decided since the last time
function status.flush(limiters)
  if not counters then return end
  for _, limiter in ipairs(limiters) do
    for name, place in pairs(limiter.places) do
      for _, what in ipairs(COUNTED) do
        if place[what] > 0 then
          counters:inc(place[what], { limit = name, decision = what })
          counts:incr(("count\1%s\1%s"):format(name, what), place[what])
          place[what] = 0
        end
      end
      if place.touched then counts:set(("top\1%s\1%d"):format(name, vm.worker), place.top) end
      place.touched = false
    end
  end
end

local function top_of(name)
  local sums, list = {}, {}
  for worker = 0, WORKERS - 1 do
    for key, count in pairs(counts:get(("top\1%s\1%d"):format(name, worker)) or {}) do sums[key] = (sums[key] or 0) + count end
  end
  for key, count in pairs(sums) do list[#list + 1] = { key = key, denied = count } end
  table.sort(list, function(a, b)
    if a.denied ~= b.denied then return a.denied > b.denied end
    return a.key < b.key
  end)
  return { unpack(list, 1, TOP) }
end

--- status(name) -> { allowed, denied, fallen, top = { { key, denied } ... } }: what all workers have decided by this name, and which keys were
-- refused most; a second old at most. It survives reloads.
function status.of(name)
  if type(name) ~= "string" then error("a limit has a name", 2) end
  local found = { top = top_of(name) }
  for _, what in ipairs(COUNTED) do found[what] = counts:get(("count\1%s\1%s"):format(name, what)) or 0 end
  return found
end

return status
