--- cache: tg.cache(name, options, loader?): values that are loaded once and kept, in this worker and in memory that all share.
-- Who asks for a key that is being loaded waits for it, in whichever worker; what is stale is given at once and loaded anew beside.
local abi = require "abi"
local dict = require "tidegate.dict"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local metrics = require "tidegate.metrics"
local task = require "tidegate.task"

local C, vm = abi.C, abi.vm
local asked = metrics.counter("tidegate_cache_requests_total",
  { help = "What caches were asked for: hit, stale, or miss.", labels = { "cache", "result" } })
local loads = metrics.counter("tidegate_cache_loads_total", { help = "What loaders of caches have come to.", labels = { "cache", "outcome" } })
local cache = {}
local LOCAL_MAX, LOAD_TIME, POLL = 1000, 10, 0.005 -- keys in a worker; seconds: of a load that others wait for, between two looks

local Cache = { __name = "cache" }
Cache.__index = Cache

local shared -- the dict of all caches, once somebody uses it
local function store()
  shared = shared or dict.open "cache"
  return shared
end

local function version(self)
  return store():get(self.name .. "\1version") or 0
end

-- An entry is { t = until when it is fresh, v = the value } or without v: there is none; times are of the wall clock, since workers share it.
local function remember(self, key, text)
  if self.count >= LOCAL_MAX then self.entries, self.count = {}, 0 end
  if not self.entries[key] then self.count = self.count + 1 end
  self.entries[key] = text
end

-- What other workers have changed is forgotten here. A purge leaves old entries where nobody looks for them any more.
local function look(self)
  local now_version = version(self)
  if self.version ~= now_version then
    self.entries, self.count, self.version = {}, 0, now_version
    self.prefix = ("%s\1%d\1"):format(self.name, store():get(self.name .. "\1purges") or 0)
  end
  return self.prefix
end

local function read(self, key)
  local prefix = look(self)
  local text = self.entries[key]
  if not text then
    text = store():get(prefix .. key)
    if not text then return nil end
    remember(self, key, text)
  end
  return (json.decode(text))
end

local function write(self, key, value, ttl)
  local text = json.encode { t = vm.now + ttl, v = value }
  remember(self, key, text)
  store():set(look(self) .. key, text, ttl + self.stale)
end

local function usable(self, entry)
  return entry and vm.now < entry.t + self.stale
end

-- What raises is counted before it goes on.
local function called(self, ok, value, err, ttl)
  self.loads[ok and err == nil and "loaded" or "failed"]:inc()
  if not ok then error(value, 0) end
  return value, err, ttl
end

local function load(self, key, loader)
  local value, err, ttl = called(self, task.catching(loader, key))
  if value ~= nil then
    write(self, key, value, ttl or self.ttl)
  elseif err == nil and self.negative > 0 then
    write(self, key, nil, self.negative)
  end
  return value, err
end

local function wake_all(flight)
  flight.done = true
  for _, waiter in ipairs(flight) do C.tg_abi_wake(waiter[1], waiter[2]) end
end

-- One load a key and gateway: in this worker the others wait to be woken, in other workers they look again and again.
local function load_once(self, key, loader)
  local flight = self.flights[key]
  if flight then
    while not flight.done do
      flight[#flight + 1] = { vm.coroutine, vm.coroutine_serial }
      task.wait()
    end
    if flight.err then return nil, flight.err end
    local entry = read(self, key)
    if usable(self, entry) then return entry.v end
    return nil, failure.new("busy", ("%s: %q could not be loaded"):format(self.name, key))
  end
  local lock, till = self.name .. "\1load\1" .. key, vm.monotonic + LOAD_TIME
  while not store():add(lock, true, LOAD_TIME) do
    task.sleep(POLL)
    local entry = read(self, key)
    if entry and vm.now < entry.t then return entry.v end
    if vm.monotonic >= till then break end
  end
  flight = {}
  self.flights[key] = flight
  local deferred = task.defer(function()
    self.flights[key] = nil
    store():delete(lock)
    wake_all(flight)
  end)
  local ok, value, err = pcall(load, self, key, loader)
  flight.err = not ok and task.to_failure(value) or err
  deferred.done = true
  deferred.f()
  if not ok then error(value, 0) end
  return value, err
end

local function refresh(self, key, loader)
  if self.flights[key] then return end
  pcall(task.background, "cache " .. self.name, load_once, self, key, loader)
end

--- get(key, loader?) -> value | nil, err. loader(key) -> value | value, nil, its own ttl | nil (there is none) | nil, err. A stale value is
-- better than an err.
function Cache:get(key, loader)
  loader = loader or self.loader
  local entry = read(self, key)
  if entry and vm.now >= entry.t then -- another worker may have loaded it meanwhile
    self.entries[key], self.count = nil, self.count - 1
    entry = read(self, key)
  end
  if entry and vm.now < entry.t then
    self.hits:inc()
    return entry.v
  end
  if loader and usable(self, entry) and entry.v ~= nil then
    self.stales:inc()
    refresh(self, key, loader)
    return entry.v
  end
  self.misses:inc()
  if not loader then return nil end
  return load_once(self, key, loader)
end

--- set(key, value, ttl?)
function Cache:set(key, value, ttl)
  write(self, key, value, ttl or self.ttl)
  store():incr(self.name .. "\1version")
end

--- delete(key): all workers see it at once.
function Cache:delete(key)
  store():delete(look(self) .. key)
  store():incr(self.name .. "\1version")
end

--- purge(name): the cache of this name begins empty, in all workers.
function cache.purge(name)
  store():incr(name .. "\1purges")
  store():incr(name .. "\1version")
end

--- open(name, { ttl, stale = 0, negative = 0 }, loader?) -> cache; seconds. `negative`: how long is remembered that there is none.
function cache.open(name, options, loader)
  if type(name) ~= "string" or name == "" or name:find "%c" then error("a cache needs a name", 2) end
  if type(options) ~= "table" or type(options.ttl) ~= "number" then error("a cache needs a ttl in seconds: { ttl = 60 }", 2) end
  return setmetatable({
    name = name, ttl = options.ttl, stale = options.stale or 0, negative = options.negative or 0, loader = loader, entries = {}, count = 0,
    version = -1, prefix = nil, flights = {},
    hits = asked:with { cache = name, result = "hit" }, stales = asked:with { cache = name, result = "stale" },
    misses = asked:with { cache = name, result = "miss" },
    loads = { loaded = loads:with { cache = name, outcome = "loaded" }, failed = loads:with { cache = name, outcome = "failed" } },
  }, Cache)
end

return cache
