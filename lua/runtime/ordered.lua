--- ordered: tables in an order that is the same in each process. LuaJIT's own order of string keys differs from one VM to the next, and a
-- configuration that is evaluated in all workers has to come out the same.
local ordered = {}

local rank = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local ra, rb = rank[type(a)] or 4, rank[type(b)] or 4
  if ra ~= rb then return ra < rb end
  if ra == 4 then return false end
  if ra == 3 then return tostring(a) < tostring(b) end
  return a < b
end

--- keys(map) -> list: numbers, then strings, then the rest
function ordered.keys(map)
  local keys = {}
  for key in next, map do keys[#keys + 1] = key end
  table.sort(keys, before)
  return keys
end

local function step(state)
  while true do
    state.i = state.i + 1
    local key = state.keys[state.i]
    if key == nil then return nil end
    local value = state.map[key]
    if value ~= nil then return key, value end -- nil: it was taken out meanwhile
  end
end

--- pairs(map): as pairs, in that order
function ordered.pairs(map)
  return step, { map = map, keys = ordered.keys(map), i = 0 }
end

return ordered
