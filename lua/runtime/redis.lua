--- redis: the Redis servers of the generation: which of them is asked, as sentinels and clusters tell.
-- What is found is kept by the core, so that the next generation begins with it.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local library = require "tidegate.redis"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local task = require "tidegate.task"
local tls = require "tidegate.tls"

local C, vm = abi.C, abi.vm
local ASK_TIME, ASK_EVERY, ASK_AGAIN, JITTER = 1, 10, 1, 0.25 -- seconds: for an answer; between two rounds; after a failure; a share of them
local COUNT_EVERY = 1 -- seconds
local servers = { list = {} }

local function milliseconds(seconds) return math.max(1, math.floor(seconds * 1000)) end

local function reveal(secret) return secret and secret:reveal() or "" end

-- All that makes a client another one. The password is in it as its digest only.
local function key_of(kind, conf, settings)
  local parts = { kind, settings.username, crypto.hex(crypto.sha256(settings.password)), settings.db, settings.connections, settings.timeout,
    settings.connect_timeout, tostring(settings.cluster), settings.tls, conf.name, conf.master or "" }
  for _, place in ipairs(conf.servers) do parts[#parts + 1] = place.host .. " " .. place.port end
  return table.concat(parts, "\n")
end

local function open(kind, conf, settings)
  if abi.validating then return 0 end
  local number, problem = 0, nil
  if conf.tls then number, problem = tls.number(conf.tls) end
  if not number then error(('redis "%s": tls: %s'):format(conf.name, problem), 0) end
  settings.tls = number
  local id = abi.redis_open(key_of(kind, conf, settings), settings)
  if id < 0 then error(('redis "%s": %s'):format(conf.name, abi.code(id)), 0) end
  return id
end

local function node_of(client, place)
  if abi.validating then return 0 end
  return C.tg_abi_redis_node(client.id, place.host, #place.host, place.port)
end

local function add_seeds(client)
  for _, place in ipairs(client.places) do node_of(client, place) end
end

-- `doubt()` wakes who asks for the servers, when it has not just done so.
local function watch(client)
  client.asked = -1000
  client.doubt = function()
    local service = client.service
    if not service or client.doubted or vm.monotonic < client.asked + ASK_AGAIN then return end
    client.doubted = true
    C.tg_abi_wake(service[1], service[2])
  end
end

local function define(conf)
  local client = { name = conf.name, mode = conf.mode, timeout = milliseconds(conf.timeout), cluster = conf.mode == "cluster", places = conf.servers }
  local settings = {
    name = "tidegate-" .. conf.name, username = conf.username or "", password = reveal(conf.password), db = conf.db, connections = conf.connections,
    timeout = client.timeout, connect_timeout = milliseconds(conf.connect_timeout), cluster = client.cluster,
  }
  client.id = open(conf.mode, conf, settings)
  client.mark = abi.validating and "" or crypto.sha256(key_of(conf.mode, conf, settings))
  if conf.mode == "single" then
    local node = node_of(client, conf.servers[1])
    if not abi.validating then C.tg_abi_redis_assign(client.id, 0, 0, node) end
  elseif conf.mode == "cluster" then
    add_seeds(client)
  else
    client.master, client.waiting = conf.master, {}
    client.sentinels = { name = conf.name .. " (sentinels)", timeout = ASK_TIME * 1000, places = conf.servers }
    client.sentinels.id = open("sentinels", conf, {
      name = settings.name, username = conf.sentinel_username or "", password = reveal(conf.sentinel_password), db = 0, connections = 1,
      timeout = ASK_TIME * 1000, connect_timeout = settings.connect_timeout, cluster = false,
    })
    add_seeds(client.sentinels)
  end
  if conf.mode ~= "single" then watch(client) end
  servers.list[#servers.list + 1] = client
  library.clients[conf.name] = client
end

--- Makes the clients of a configuration known; called once, before plugins are loaded.
function servers.define(list)
  for _, conf in ipairs(list) do define(conf) end
  if #list > 0 and not abi.validating then
    library.failed = metrics.counter("tidegate_redis_failures_total",
      { help = "commands to Redis without an answer", labels = { "redis", "code" } })
    servers.metrics = {
      commands = metrics.counter("tidegate_redis_commands_total", { help = "commands that Redis has answered in time", labels = { "redis" } }),
      seconds = metrics.counter("tidegate_redis_seconds_total", { help = "what these took, together", labels = { "redis" } }),
      connections = metrics.counter("tidegate_redis_connections_total", { help = "connections made to Redis", labels = { "redis" } }),
    }
  end
end

-- ---------------------------------------------------------------- sentinels

local function wake_waiting(client)
  for coroutine, serial in pairs(client.waiting) do C.tg_abi_wake(coroutine, serial) end
end

-- A sentinel may be behind: the server itself must say that it is the master.
local function is_master(client, node)
  local role = library.ask(client, node, ASK_TIME, "ROLE")
  return type(role) == "table" and role[1] == "master"
end

local function use_master(client, host, port)
  local node = C.tg_abi_redis_node(client.id, host, #host, port)
  if node < 0 then return false end
  local before = C.tg_abi_redis_node_of(client.id, 0)
  if before == node then return true end
  if not is_master(client, node) then return false end
  C.tg_abi_redis_assign(client.id, 0, 0, node)
  log.info(("redis %s: the master is %s:%d"):format(client.name, host, port))
  wake_waiting(client)
  return true
end

-- One of those that follow the master and are not thought dead; another one each time.
local function choose_replica(client)
  local list = library.ask(client.sentinels, node_of(client.sentinels, client.sentinels.places[1]), ASK_TIME, "SENTINEL", "replicas", client.master)
  local found = {}
  for _, fields in ipairs(type(list) == "table" and not list.code and list or {}) do
    local replica = {}
    for i = 1, #fields - 1, 2 do replica[fields[i]] = fields[i + 1] end
    if replica.flags == "slave" and replica["master-link-status"] == "ok" then found[#found + 1] = replica end
  end
  local one = found[math.random(math.max(1, #found))]
  local node = one and C.tg_abi_redis_node(client.id, one.ip, #one.ip, tonumber(one.port)) or -1
  C.tg_abi_redis_assign_replica(client.id, 0, 0, node)
end

local function ask_sentinels(client)
  local sentinels = client.sentinels
  for i, place in ipairs(sentinels.places) do
    local node = node_of(sentinels, place)
    local found = library.ask(sentinels, node, ASK_TIME, "SENTINEL", "get-master-addr-by-name", client.master)
    if type(found) == "table" and use_master(client, found[1], tonumber(found[2])) then
      if i > 1 then -- the next time first the one that knew
        table.remove(sentinels.places, i)
        table.insert(sentinels.places, 1, place)
      end
      if client.replicas then choose_replica(client) end
      C.tg_abi_redis_settle(client.id)
      return true
    end
  end
  return false
end

-- What a sentinel tells by itself, which is faster than asking: "NAME OLD-HOST OLD-PORT HOST PORT".
local function hear_sentinel(client, place)
  library.listen(client.sentinels, node_of(client.sentinels, place), "+switch-master", function(message)
    local name, host, port = message:match "^(%S+) %S+ %d+ (%S+) (%d+)$"
    if name == client.master then use_master(client, host, tonumber(port)) end
  end, function()
    client.asked = -1000 -- it may have told while nobody heard
    client.doubt()
  end)
end

-- ---------------------------------------------------------------- clusters

-- CLUSTER SLOTS: { first, last, { host, port, id, ... } the master, replicas ... } each. A host that is not known is the one that was asked.
local function assign_slots(client, ranges, asked)
  local own = C.tg_abi_redis_node_name(client.id, asked) == 0 and abi.out():match "^%[?(.-)%]?:%d+$"
  local function known_node(server)
    local host = server[1]
    if type(host) ~= "string" or host == "" or host == "?" then host = own or "" end
    return C.tg_abi_redis_node(client.id, host, #host, server[2])
  end
  for _, range in ipairs(ranges) do
    local first, last, node = range[1], range[2], known_node(range[3])
    if node >= 0 then C.tg_abi_redis_assign(client.id, first, last, node) end
    local replica = client.replicas and range[4] and known_node(range[math.random(4, #range)]) or -1
    C.tg_abi_redis_assign_replica(client.id, first, last, replica)
  end
  C.tg_abi_redis_settle(client.id)
end

local function ask_cluster(client)
  for _ = 1, #client.places + 1 do
    local ranges, err, node = library.ask(client, -1, ASK_TIME, "CLUSTER", "SLOTS")
    if type(ranges) == "table" and #ranges > 0 then
      assign_slots(client, ranges, node)
      return true
    end
    if err and err.code == "redis" then log.warn(tostring(err)) end
    add_seeds(client) -- those that are known may all be gone
  end
  return false
end

-- ---------------------------------------------------------------- services

local function keep_asking(client)
  local ask = client.mode == "cluster" and ask_cluster or ask_sentinels
  client.service = { vm.coroutine, vm.coroutine_serial }
  while true do
    client.asked, client.doubted = vm.monotonic, false
    local ok, found = pcall(ask, client)
    if not ok then log.error(tostring(found)) end
    local pause = (ok and found and ASK_EVERY or ASK_AGAIN) * (1 - JITTER + math.random() * 2 * JITTER)
    local till = vm.monotonic + pause
    while vm.monotonic < till and not client.doubted do task.wait_until(till) end
  end
end

-- What the core has counted since the last time, into the metrics. The counts outlive generations: what was before is another's.
local function keep_counting()
  local before = {}
  while true do
    for _, client in ipairs(servers.list) do
      local counts, last = C.tg_abi_redis_counts(client.id), before[client] or {}
      for name, metric in pairs(servers.metrics) do
        local now = counts[name]
        if last[name] and now > last[name] then metric:inc(now - last[name], { redis = client.name }) end
        last[name] = now
      end
      before[client] = last
    end
    task.sleep(COUNT_EVERY)
  end
end

--- Begins to ask for servers; called when the generation is current, before the `start` hooks of plugins.
function servers.start()
  if #servers.list > 0 then task.start(abi.TASK_SERVICE, keep_counting) end
  for _, client in ipairs(servers.list) do
    if client.mode ~= "single" then task.start(abi.TASK_SERVICE, keep_asking, client) end
    for _, place in ipairs(client.sentinels and { unpack(client.sentinels.places) } or {}) do
      task.start(abi.TASK_SERVICE, hear_sentinel, client, place)
    end
  end
end

return servers
