--- warm: connections that are made before somebody needs them: `pool { min_idle = ... }`, in each worker.
local abi = require "abi"
local call = require "tidegate.call"
local peers = require "runtime.peers"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local warm = {}
local EVERY = 1 -- seconds
local AT_ONCE = 16 -- connections that are begun to one peer in that time

local function connect(up, peer)
  local timeout = up.conf.connect_timeout
  local one = call.new("GET", "/", peer.host, peer.index, { connects = true, timeout = timeout }, { timeout = timeout, connect_timeout = timeout })
  one:start()
  return one
end

local function fill(up, peer)
  local missing = math.min(AT_ONCE, up.conf.pool.min_idle - tonumber(C.tg_abi_peer_idle(peer.index)))
  local calls = {}
  for i = 1, missing do calls[i] = connect(up, peer) end
  for _, one in ipairs(calls) do
    while not one:poll() do task.wait_until(one:moment()) end
  end
end

--- start(up): the generation is current.
function warm.start(up)
  task.start(abi.TASK_SERVICE, function()
    while true do
      for _, peer in ipairs(up.list) do
        if peers.out_until(peer, vm.monotonic) == 0 then fill(up, peer) end
      end
      task.sleep(EVERY)
    end
  end)
end

return warm
