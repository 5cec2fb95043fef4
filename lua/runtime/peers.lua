--- peers: those of one upstream: which of them get requests now. The answer is a view, which holds until something changes.
local abi = require "abi"
local cells = require "runtime.cells"

local C, vm = abi.C, abi.vm
local band, floor, max, min, huge, random = bit.band, math.floor, math.max, math.min, math.huge, math.random

local peers = {}

local DOWN, DRAIN = 1, 2 -- enum tg_abi_cell_flag
local CLOSED, OPEN, FAILED = 0, 1, 3 -- enum tg_abi_breaker
local UNIT = 0.032 -- seconds of breaker_until
local STEPS = 10 -- weights while a peer starts slowly are tenths
local SEQUENCE_MAX = 1000

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

-- Weights become a sequence that is walked round and round: smooth weighted round robin.
local function build_sequence(list, weights)
  local sequence, current, total, divisor = {}, {}, 0, 0
  for i, weight in ipairs(weights) do
    current[i], total, divisor = 0, total + weight, gcd(divisor, weight)
  end
  for _ = 1, min(divisor > 0 and total / divisor or 0, SEQUENCE_MAX) do
    local best
    for i, weight in ipairs(weights) do
      current[i] = current[i] + weight
      if not best or current[i] > current[best] then best = i end
    end
    current[best] = current[best] - total
    sequence[#sequence + 1] = list[best]
  end
  return sequence
end

-- Until when the peer's own breaker keeps requests away; 0: it does not.
local function broken_until(cell, now)
  local state = band(cell.breaker, 3)
  if state == CLOSED then return 0 end
  if state == FAILED then return now + UNIT end -- somebody judges that in a moment
  return state == OPEN and cell.breaker_until * UNIT or 0
end

--- out_until(peer, now, bound?) -> until when it gets no requests, huge when nobody knows; 0: it gets some. `bound`: by a cookie.
function peers.out_until(peer, now, bound)
  local cell = peer.cell
  local flags = cell.flags
  if flags ~= 0 and not (bound and flags == DRAIN) then return huge end
  local till = cell.ejected_until
  if till > now then return till end
  till = broken_until(cell, now)
  return till > now and till or 0
end

-- A peer that has just come up gets its share little by little.
local function weight_of(peer, slow_start, now)
  local age = slow_start and peer.cell.up_since > 0 and now - peer.cell.up_since or huge
  if age >= (slow_start or 0) then return peer.weight * STEPS, huge end
  return peer.weight * max(1, floor(STEPS * age / slow_start)), now + slow_start / STEPS
end

-- Those of the first priority that has any, and in it those of our own zone while most of these are up.
local function select(up, now)
  local usable, due, all_up = nil, huge, 0
  for _, tier in ipairs(up.tiers) do
    local list, near, near_all = {}, {}, 0
    for _, peer in ipairs(tier) do
      local till = peers.out_until(peer, now)
      local is_near = up.conf.zone and peer.zone == up.conf.zone
      near_all = near_all + (is_near and 1 or 0)
      if till == 0 then
        list[#list + 1], all_up = peer, all_up + 1
        if is_near then near[#near + 1] = peer end
      else
        due = min(due, till)
      end
    end
    if not usable and #list > 0 then usable = #near * 2 >= near_all and #near > 0 and near or list end
  end
  return usable or {}, due, all_up
end

-- When so few are left that these would fall, too, all are asked but those that somebody has taken out.
local function panic(up)
  local list = {}
  for _, peer in ipairs(up.list) do
    if band(peer.cell.flags, DOWN + DRAIN) == 0 then list[#list + 1] = peer end
  end
  return list
end

local function build(up, version, now)
  local list, due, all_up = select(up, now)
  local panics = all_up < up.conf.panic * #up.list
  if panics then list = panic(up) end
  local weights = {}
  for i, peer in ipairs(list) do
    local changes
    weights[i], changes = weight_of(peer, up.conf.slow_start, now)
    due = min(due, changes)
  end
  local view = { list = list, weights = weights, version = version, due = due, sequence = build_sequence(list, weights), panics = panics }
  view.length, view.n = #view.sequence, #list
  view.cursor = view.length > 0 and random(view.length) or 0 -- else all workers would begin with the same one
  return view
end

--- view(up) -> { list, weights, n, sequence, length, cursor }: who gets requests now.
function peers.view(up)
  local view, version = up.view, up.cell.version
  local now = vm.monotonic
  if view and view.version == version and now < view.due then return view end
  view = build(up, version, now)
  up.view = view
  return view
end

--- changed(up): a peer has come or gone; all workers look again.
function peers.changed(up)
  C.tg_abi_cell_changed(up.cell)
end

--- add(up, list): makes the cells of its peers, and sorts these by priority.
function peers.add(up, list)
  local by_priority, order = {}, {}
  up.cell, up.list = up.cell or cells.want("u:" .. up.name), list
  for place, peer in ipairs(list) do
    peer.up, peer.place = up, place
    peer.cell = peer.cell or cells.want(("p:%s:%s"):format(up.name, peer.name))
    local tier = by_priority[peer.priority]
    if not tier then
      tier = {}
      by_priority[peer.priority], order[#order + 1] = tier, peer.priority
    end
    tier[#tier + 1] = peer
  end
  table.sort(order)
  up.tiers = {}
  for i, priority in ipairs(order) do up.tiers[i] = by_priority[priority] end
end

return peers
