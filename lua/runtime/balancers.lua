--- balancers: whose turn it is. Each is a function of the upstream, of who gets requests now (peers.view) and of ctx.
local abi = require "abi"
local hash_table = require "runtime.hash_table"

local C, vm = abi.C, abi.vm
local random, huge = math.random, math.huge

local balancers = {}
local FALL = 10 -- seconds after which half of an old latency is left: as in zone/cell.c

function balancers.round_robin(_, view)
  local i = view.cursor + 1
  if i > view.length then i = 1 end
  view.cursor = i
  return view.sequence[i]
end

-- Fewest requests in flight for its weight; those that are equal take turns.
function balancers.least_conn(_, view)
  local list, weights, n = view.list, view.weights, view.n
  local best, least = nil, huge
  local start = view.cursor
  for i = 1, n do
    local place = (start + i) % n + 1
    local load = (list[place].cell.in_flight + 1) / weights[place]
    if load < least then best, least = place, load end
  end
  view.cursor = best - 1
  return list[best]
end

-- Two places of the sequence, in which each peer stands as often as its weight says.
local function two(view)
  local length = view.length
  local a = view.sequence[random(length)]
  if length == 1 then return a, a end
  local b = view.sequence[random(length)]
  if a == b and view.n > 1 then b = view.list[a == view.list[1] and 2 or 1] end
  return a, b
end

-- The power of two choices (Mitzenmacher 2001).
function balancers.random(_, view)
  local a, b = two(view)
  return b.cell.in_flight < a.cell.in_flight and b or a
end

-- What it would cost to wait there. An old latency says less and less, so that a peer that was slow is tried again.
local function cost(peer, now)
  local cell = peer.cell
  local age = now - cell.latency_at / 1000
  if age < 0 then age = 0 end -- 32 bits of milliseconds have begun anew
  return cell.latency * FALL / (FALL + age) * (cell.in_flight + 1)
end

-- Peak EWMA, with two choices.
function balancers.ewma(_, view)
  local a, b = two(view)
  local now = vm.monotonic % (2 ^ 32 / 1000)
  return cost(b, now) < cost(a, now) and b or a
end

local function key_hash(up, ctx)
  local key = up.conf.hash(ctx) or ctx.req.client.ip
  key = tostring(key)
  return C.tg_abi_hash32(key, #key)
end

-- Who stands behind the key, or the next one that is up: keys of others stay where they are.
local function by_hash(up, view, ctx)
  local up_now = view.set
  if not up_now then
    up_now = {}
    for _, peer in ipairs(view.list) do up_now[peer] = true end
    view.set = up_now
  end
  return hash_table.find(up.table, key_hash(up, ctx), up_now)
end
balancers.hash, balancers.maglev = by_hash, by_hash

local function by_function(up, view, ctx)
  return up.choice(ctx, view.list) or balancers.round_robin(up, view)
end

--- prepare(up): sets up.pick, and what it needs. True when it needs a ctx.
function balancers.prepare(up)
  local kind = up.conf.balance
  if type(kind) == "function" then
    up.choice, up.pick = kind, by_function
    return true
  end
  up.pick = balancers[kind]
  if kind == "hash" then up.table = hash_table.ring(up.list) end
  if kind == "maglev" then up.table = hash_table.maglev(up.list) end
  return up.table ~= nil
end

return balancers
