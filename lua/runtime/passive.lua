--- passive: passive health checks: a peer whose requests fail is ejected for a while, longer each time.
local abi = require "abi"
local cells = require "runtime.cells"
local log = require "tidegate.log"
local peers = require "runtime.peers"
local statuses = require "runtime.statuses"

local C, vm = abi.C, abi.vm
local floor, max, min, random = math.floor, math.max, math.min, math.random

local passive = {}
local Watcher = {}
Watcher.__index = Watcher

local NEVER, JITTER = 2, 0.1

--- put(rules, conf): what of it the core must know.
function passive.put(rules, conf)
  statuses.put(rules.failures, conf.statuses)
  rules.consecutive = conf.consecutive
  if not conf.errors and not conf.slow then
    rules.failed, rules.slow_share = NEVER, NEVER
    return
  end
  rules.window, rules.min = floor(conf.window * 1000), conf.min
  rules.failed = conf.errors or NEVER
  rules.slow = conf.slow and floor(conf.slow * 1000) or 0
  rules.slow_share = conf.slow and conf.slow_share or NEVER
end

--- watch(up, peer): judges it from now on.
function passive.watch(up, peer)
  cells.on_news(peer.cell, setmetatable({ peer = peer, up = up, conf = up.conf.passive }, Watcher))
end

local function reason(self)
  local conf, cell = self.conf, self.peer.cell
  if conf.consecutive > 0 and cell.consecutive >= conf.consecutive then return ("%d failures in a row"):format(cell.consecutive) end
  if not conf.errors and not conf.slow then return nil end
  C.tg_abi_cell_sum(cell, floor(conf.window * 1000))
  local all, failed, slow = tonumber(vm.number), tonumber(vm.out.n), vm.type
  if all < conf.min then return nil end
  if conf.errors and failed >= conf.errors * all then return ("%d of %d failed"):format(failed, all) end
  if conf.slow and slow >= conf.slow_share * all then return ("%d of %d were slow"):format(slow, all) end
  return nil
end

-- Whether one more may be ejected. The last one never is: where else should its requests go?
local function may_eject(self, now)
  local ejected = 0
  for _, peer in ipairs(self.up.list) do
    if peer.cell.ejected_until > now then ejected = ejected + 1 end
  end
  return ejected < min(#self.up.list - 1, max(1, floor(self.conf.max_ejected * #self.up.list)))
end

function Watcher:judge()
  local cell, conf, now = self.peer.cell, self.conf, vm.monotonic
  if cell.ejected_until > now then return end
  local why = reason(self)
  if not why or not may_eject(self, now) then return end
  -- One that was well for as long as it was out begins anew.
  local length = conf.eject * 2 ^ min(max(cell.ejections - 1, 0), 20)
  local times = now - cell.ejected_until > 2 * min(length, conf.eject_max) and 1 or cell.ejections + 1
  local seconds = min(conf.eject * 2 ^ min(times - 1, 20), conf.eject_max) * (1 + JITTER * (random() * 2 - 1))
  if C.tg_abi_cell_eject(cell, now + seconds, times) ~= 0 then return end
  C.tg_abi_cell_up(cell, now + seconds)
  peers.changed(self.up)
  log.warn("peer ejected", { upstream = self.up.name, peer = self.peer.name, seconds = seconds, reason = why })
end

return passive
