--- services: peers that are found by SRV records (RFC 2782): "http+srv://_http._tcp.orders.internal". They come and go as the records do.
local abi = require "abi"
local log = require "tidegate.log"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local services = {}
local FAILED_FOR, WEIGHT_MAX, LOOK_EVERY = 5, 1000, 0.01 -- seconds; of a target; seconds

--- fixed(targets) -> those that need not be found
function services.fixed(targets)
  local list = {}
  for _, target in ipairs(targets) do
    if not target.service then list[#list + 1] = target end
  end
  return list
end

-- Text of the records, seconds | nil, why
local function ask(name)
  local rc = C.tg_abi_services(name, #name)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_services(name, #name)
  end
  if rc ~= 0 then return nil, abi.out() ~= "" and abi.out() or abi.code(rc) end
  return abi.out(), tonumber(vm.number)
end

-- Weights of records go to 65535, and 0 is the smallest.
local function scale(list)
  local most = 1
  for _, target in ipairs(list) do most = math.max(most, target.weight) end
  for _, target in ipairs(list) do
    target.weight = math.max(1, math.floor(most > WEIGHT_MAX and target.weight * WEIGHT_MAX / most or target.weight))
  end
end

local function parse(text, target)
  local list = {}
  for priority, weight, port, host in text:gmatch "(%d+) (%d+) (%d+) (%S+)\n" do
    list[#list + 1] = { scheme = target.scheme, host = host:lower(), port = tonumber(port), weight = tonumber(weight),
      priority = target.priority * 65536 + tonumber(priority), zone = target.zone }
  end
  scale(list)
  return list
end

local function same(a, b)
  if #a ~= #b then return false end
  for i, one in ipairs(a) do
    local other = b[i]
    if one.host ~= other.host or one.port ~= other.port or one.weight ~= other.weight or one.priority ~= other.priority then return false end
  end
  return true
end

local function apply(up, found)
  local list = services.fixed(up.conf.targets)
  for i in ipairs(up.conf.targets) do
    for _, target in ipairs(found[i] or {}) do list[#list + 1] = target end
  end
  up:set_targets(list)
  up.unresolved = false
end

-- The last good answer goes on while there is no other.
local function follow(up, found, i, target)
  while true do
    local text, ttl = ask(target.service)
    if text then
      local list = parse(text, target)
      table.sort(list, function(a, b) return a.host .. a.port < b.host .. b.port end)
      if not found[i] or not same(found[i], list) then
        found[i] = list
        apply(up, found)
        log.info("services found", { upstream = up.name, name = target.service, peers = #list })
      end
    else
      log.warn("services", { upstream = up.name, name = target.service, reason = ttl })
      ttl = FAILED_FOR
    end
    task.sleep(ttl)
  end
end

--- start(up): the generation is current.
function services.start(up)
  local found = {}
  for i, target in ipairs(up.conf.targets) do
    if target.service then task.start(abi.TASK_SERVICE, follow, up, found, i, target) end
  end
end

--- wait(up): a request that comes before the first answer waits for it, as long as for a connection.
function services.wait(up)
  local till = vm.monotonic + up.conf.connect_timeout
  while up.unresolved and vm.monotonic < till do task.sleep(LOOK_EVERY) end
end

return services
