--- hash_table: consistent hashing: which peer a key belongs to. All peers stand in it, also those that are out, so that one that comes or
-- goes moves its own keys alone.
local abi = require "abi"

local C = abi.C
local floor, max, min = math.floor, math.max, math.min
local hash_table = {}

local POINTS, POINTS_ALL = 160, 32768 -- of a peer of weight 1, and of all together
local MAGLEV_SMALL, MAGLEV_LARGE = 5003, 65537 -- primes

local function hash(text)
  return tonumber(C.tg_abi_hash32(text, #text))
end

local function total_weight(peers)
  local total = 0
  for _, peer in ipairs(peers) do total = total + peer.weight end
  return total
end

--- ring(peers) -> table: each peer at many points of a circle (Karger et al. 1997); a key belongs to the next one.
function hash_table.ring(peers)
  local each = min(POINTS, POINTS_ALL / max(1, total_weight(peers)))
  local points = {}
  for _, peer in ipairs(peers) do
    for i = 1, max(1, floor(each * peer.weight + 0.5)) do
      points[#points + 1] = { hash(peer.name .. "#" .. i), peer }
    end
  end
  table.sort(points, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2].name < b[2].name -- the same in each worker
  end)
  local self = { hashes = {}, peers = {}, n = #points, ring = true }
  for i, point in ipairs(points) do self.hashes[i], self.peers[i] = point[1], point[2] end
  return self
end

-- The order in which a peer asks for the places of the table.
local function order_of(peer, size)
  return { peer = peer, offset = hash(peer.name .. "/offset") % size, skip = hash(peer.name .. "/skip") % (size - 1) + 1, next = 0 }
end

-- The next free place in its order.
local function take_place(order, places, size)
  while true do
    local place = (order.offset + order.next * order.skip) % size + 1
    order.next = order.next + 1
    if not places[place] then return place end
  end
end

--- maglev(peers) -> table: places that the peers take in turns (Eisenbud et al. 2016); almost even, and found at once.
function hash_table.maglev(peers)
  local size = #peers > 50 and MAGLEV_LARGE or MAGLEV_SMALL
  local orders, places, taken = {}, {}, 0
  for i, peer in ipairs(peers) do orders[i] = order_of(peer, size) end
  while taken < size and #orders > 0 do
    for _, order in ipairs(orders) do
      for _ = 1, order.peer.weight do
        if taken == size then break end
        places[take_place(order, places, size)], taken = order.peer, taken + 1
      end
    end
  end
  return { peers = places, n = size }
end

local function first_at(self, key)
  if not self.ring then return key % self.n + 1 end
  local low, high = 1, self.n + 1
  while low < high do
    local middle = floor((low + high) / 2)
    if self.hashes[middle] < key then low = middle + 1 else high = middle end
  end
  return low > self.n and 1 or low
end

--- find(table, key, is_up) -> the peer of this hash among those in the set `is_up` | nil when that is empty.
function hash_table.find(self, key, is_up)
  local place = first_at(self, tonumber(key))
  for i = 0, self.n - 1 do
    local peer = self.peers[(place - 1 + i) % self.n + 1]
    if is_up[peer] then return peer end
  end
  return nil
end

return hash_table
