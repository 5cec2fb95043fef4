--- revocations: what is no longer good before it expires by itself: names such as "token:123", in the configuration and in Redis.
-- What is in Redis (PREFIX is `prefix`; all three in one transaction):
--   PREFIX:ids      a sorted set of the names; the score is the time, in Unix seconds, from which on it may be forgotten, 0: never
--   PREFIX:log      a stream of those that were added, in the field `id`; short, since it is read all the time
--   PREFIX:changed  a channel; any message on it says that there is something new
-- Each worker keeps a Bloom filter of the set: who is not in it is good, and Redis is asked only of the others. The channel makes new ones known at
-- once; since a message may be lost, and a connection may be dead without a word, the log is read all the time, too. It is read from the entry that
-- was read last, that one included: when it is not there any more, entries may be missing, and the whole set is read anew.
local abi = require "abi"
local failure = require "tidegate.failure"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local redis = require "tidegate.redis"
local task = require "tidegate.task"
local timer = require "tidegate.timer"

local C, vm, to_string = abi.C, abi.vm, abi.string
local revocations = {}
local KINDS = { token = true, credential = true, consumer = true }
local PORTION = 1000 -- entries of the log that are read at once
local FEW = 250 -- names of the set that are: others wait meanwhile, and the server goes all over its memory for them
local SPARE, LEAST = 1.5, 10000 -- room for how many times as many names, and for how many at least
local PATIENCE = 2 -- seconds that a portion of the set may take
local GRACE, CLEAN, FORGOTTEN = 660, 60, 1000 -- seconds: tokens live for their leeway after they have expired; between two times; names at once
local AGAIN = 5 -- seconds between two readings of a set that somebody changes without the log
local ANSWERS = 5000 -- that are remembered, in each of two halves
local EXPECTED = "token:ID, credential:ID or consumer:ID"

local asked = metrics.counter("tidegate_revocation_lookups_total",
  { help = "Clients of whom Redis was asked whether they are revoked.", labels = { "redis", "result" } })
local loads = metrics.counter("tidegate_revocation_loads_total",
  { help = "How often a worker has read the set of what is revoked.", labels = { "redis" } })

local List = {}
List.__index = List

--- kind_of(name) -> the kind of a name such as "token:123" | nil: it is none
function revocations.kind_of(name)
  local kind = type(name) == "string" and name:match "^(%l+):."
  return kind and KINDS[kind] and kind or nil
end

-- ---------------------------------------------------------------- what is declared

local function add_declared(self, name, what)
  if not revocations.kind_of(name) then error(("%s\nfound     %q\nexpected  %s"):format(what, tostring(name), EXPECTED), 0) end
  local rc = C.tg_abi_map_add(self.declared, name, #name, 1)
  if rc ~= 0 and rc ~= abi.EBUSY then error(what .. ": " .. abi.code(rc), 0) end
end

local function declare(self, ids, text)
  self.declared = abi.map()
  for i, name in ipairs(ids) do add_declared(self, name, ("ids[%d]"):format(i)) end
  local number = 0
  for line in ((text or "") .. "\n"):gmatch "(.-)\r?\n" do
    number = number + 1
    local name = line:match "^%s*(.-)%s*$"
    if name ~= "" and name:byte() ~= 35 then add_declared(self, name, "file, line " .. number) end
  end
end

local function is_declared(self, kind, id)
  local name = kind .. ":" .. id
  return C.tg_abi_map_find(self.declared, name, #name) ~= 0
end

-- ---------------------------------------------------------------- what is remembered

local function forget_answers(self) self.young, self.old, self.count = {}, {}, 0 end

local function remember(self, name, revoked)
  if self.conf.cache <= 0 then return end
  if self.count >= ANSWERS then self.old, self.young, self.count = self.young, {}, 0 end
  self.young[name], self.count = { revoked, vm.monotonic + self.conf.cache }, self.count + 1
end

local function remembered(self, name)
  local found = self.young[name] or self.old[name]
  if found and vm.monotonic < found[2] then return found[1] end
  return nil
end

-- ---------------------------------------------------------------- following Redis

local function add(self, name)
  if type(name) ~= "string" or C.tg_abi_filter_add(self.filter, name, #name) ~= 0 then
    return log.warn("a revocation names nothing that could be revoked", { redis = self.conf.redis, expected = EXPECTED })
  end
  self.filter.held = self.filter.held + 1
end

-- Goes on with what the generation before has got, if that is whole.
local function take_over(self)
  local filter = abi.filter_of(self.name)
  if not filter or filter.whole == 0 then return end
  self.filter, self.size = filter, filter.size
  self.last = filter.last_n > 0 and to_string(filter.last, filter.last_n) or nil -- nil: the log was empty
end

local function set_last(self, id)
  local filter = self.filter
  self.last = id
  if id and #id > C.TG_FILTER_LAST_MAX then error("not an id of a stream: " .. id, 0) end
  filter.last_n = id and #id or 0
  if id then abi.copy(filter.last, id) end
end

-- One that was good a moment ago is so no longer.
local function heard_of(self, name)
  add(self, name)
  if type(name) == "string" then self.young[name], self.old[name] = nil, nil end
end

local function check(reply, err)
  if reply == nil then error(err, 0) end
  if failure.is(reply) then error(reply, 0) end
  return reply
end

local function each_of(replies, err)
  check(replies, err)
  for _, reply in ipairs(replies) do check(reply) end
  return unpack(replies)
end

-- Reads the whole set into a new filter. What comes meanwhile is in the log behind what was its last entry before. Another generation that takes the
-- filter takes it whole: it has its name when all is in it.
local function read_set(self, why)
  self.fresh_till = -math.huge
  local db = self.patient
  local last, size = each_of(db:pipeline(function(p)
    p:xrevrange(self.log, "+", "-", "COUNT", 1)
    p:zcard(self.ids)
  end))
  self.missing, self.read_at = 0, vm.monotonic
  self.filter = nil -- the old one is let go before there is another
  self.filter = abi.new_filter(self.name, math.max(LEAST, math.floor(size * SPARE)))
  self.size = size
  local cursor = "0"
  repeat
    local portion = check(db:zscan(self.ids, cursor, "COUNT", FEW))
    cursor = portion[1]
    for i = 1, #portion[2], 2 do add(self, portion[2][i]) end
  until cursor == "0"
  set_last(self, last[1] and last[1][1])
  self.filter.size, self.filter.whole = self.size, 1
  forget_answers(self)
  loads:inc(1, { redis = self.conf.redis })
  log.info("what is revoked was read",
    { redis = self.conf.redis, names = self.filter.held, bytes = tonumber(self.filter.bytes), why = why })
end

local function id_in(fields)
  for i = 1, #fields, 2 do
    if fields[i] == "id" then return fields[i + 1] end
  end
end

-- Who adds to the set and writes no log would not be heard of: then it grows by more than the log tells. A name that is on its way into both may be
-- seen in the set first, so it is waited for once.
local function is_missing_some(self, size, logged)
  local before = self.missing
  self.missing = math.max(0, before + math.max(0, size - self.size) - logged)
  self.size, self.filter.size = size, size
  return before > 0 and self.missing > 0 and vm.monotonic - self.read_at >= AGAIN
end

-- Reads what is new -> why the set has to be read anew | nil
local function read_log(self)
  local filter = self.filter
  if not filter then return "it is read first" end
  local began, last = vm.monotonic, self.last
  local size, entries = each_of(self.db:pipeline(function(p)
    p:zcard(self.ids)
    p:xrange(self.log, last or "-", "+", "COUNT", PORTION)
  end))
  local first = last and 2 or 1
  if last and not (entries[1] and entries[1][1] == last) then return "its log does not go back to what was read last" end
  for i = first, #entries do heard_of(self, id_in(entries[i][2])) end
  if #entries >= first then set_last(self, entries[#entries][1]) end
  if #entries == PORTION then
    self.rung = true -- there is more
    if first == 1 then return "its log has begun with more than is read at once" end
    self.size = size
    return nil
  end
  if is_missing_some(self, size, #entries - first + 1) then return "it has grown by more than its log tells" end
  if filter.held > filter.room then return "it has grown" end
  self.fresh_till = began + self.conf.lag
end

local function look(self)
  local why = read_log(self)
  if not why then return end
  read_set(self, why)
  self.rung = true
end

local function tell_trouble(self, err)
  if self.trouble then return end
  self.trouble = true
  log.warn("what is revoked is not followed: Redis is asked for each client", { redis = self.conf.redis, reason = tostring(err) })
end

local function follow(self)
  while true do
    self.rung = false
    local ok, err = pcall(look, self)
    if ok then
      if self.trouble and not self.rung then
        self.trouble = false
        log.info("what is revoked is followed again", { redis = self.conf.redis })
      end
    else
      self.rung = false
      tell_trouble(self, err)
    end
    local till = vm.monotonic + self.conf.lag / 2
    self.sleeper, self.serial = vm.coroutine, vm.coroutine_serial
    while not self.rung and vm.monotonic < till do task.wait_until(till) end
    self.sleeper = nil
  end
end

local function ring(self)
  self.rung = true
  if self.sleeper then C.tg_abi_wake(self.sleeper, self.serial) end
end

-- By the clock of the server: that of a gateway may be wrong. Who revokes anew what is to be forgotten is not between the two commands.
local FORGET = ([[
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '(0', redis.call('TIME')[1] - %d, 'LIMIT', 0, %d)
if #old > 0 then redis.call('ZREM', KEYS[1], unpack(old)) end
return #old]]):format(GRACE, FORGOTTEN)

local function clean(self)
  repeat
    local count, err = self.forget { self.ids }
    if not count then return log.debug("expired revocations stay", { redis = self.conf.redis, reason = tostring(err) }) end
  until count < FORGOTTEN
end

--- list:start(), in `start`: follows Redis from now on, in this worker. May be called again.
function List:start()
  if self.started or not self.db then return end
  self.started = true
  take_over(self)
  task.start(abi.TASK_SERVICE, follow, self)
  task.start(abi.TASK_SERVICE, redis.listen, self.db.client, -1, self.conf.prefix .. ":changed", function() ring(self) end, function() ring(self) end)
  timer.after(1, function() clean(self) end)
  timer.every(CLEAN, function() clean(self) end)
end

-- ---------------------------------------------------------------- asking

--- suspect(kind, id, names) -> names, or a new list, with this name in it when it may be revoked; a name that is declared is for certain, and
-- makes it `true`. An id that is no text is nobody's.
function List:suspect(kind, id, names)
  if type(id) ~= "string" or names == true then return names end
  if self.declared and is_declared(self, kind, id) then return true end
  if not self.db then return names end
  if vm.monotonic < self.fresh_till and C.tg_abi_filter_has(self.filter, kind, #kind, id, #id) == 0 then return names end
  names = names or {}
  names[#names + 1] = kind .. ":" .. id
  return names
end

-- Of those that nobody remembers.
local function ask(self, names)
  local revoked = false
  local scores, err = self.db:pipeline(function(p)
    for _, name in ipairs(names) do p:zscore(self.ids, name) end
  end)
  if not scores then return nil, err end
  for i, name in ipairs(names) do
    if failure.is(scores[i]) then return nil, scores[i] end
    local found = scores[i] ~= abi.null
    remember(self, name, found)
    revoked = revoked or found
  end
  return revoked
end

--- is_revoked(names) -> whether one of the names that `suspect` has gathered is | nil, err: nobody can say
function List:is_revoked(names)
  if names == true then return true end
  local unknown = {}
  for _, name in ipairs(names) do
    local revoked = remembered(self, name)
    if revoked then return true end
    if revoked == nil then unknown[#unknown + 1] = name end
  end
  if #unknown == 0 then return false end
  local revoked, err = ask(self, unknown)
  asked:inc(1, { redis = self.conf.redis, result = revoked == nil and "failed" or revoked and "revoked" or "good" })
  return revoked, err
end

-- ---------------------------------------------------------------- changing

local function check_name(name)
  if not revocations.kind_of(name) then return nil, failure.new("invalid", ("found %q, expected %s"):format(tostring(name), EXPECTED), 400) end
  return true
end

--- find(name) -> when its revocation may be forgotten, in Unix seconds, 0: never | nil: it is not revoked | nil, err
function List:find(name)
  local ok, err = check_name(name)
  if not ok then return nil, err end
  if self.declared and C.tg_abi_map_find(self.declared, name, #name) ~= 0 then return 0 end
  local score
  score, err = self.db:zscore(self.ids, name)
  return tonumber(score), err
end

--- revoke(name, expires = 0) -> true | nil, err. All gateways that follow this list know it at once.
function List:revoke(name, expires)
  local ok, err = check_name(name)
  if not ok then return nil, err end
  ok, err = self.db:transaction(function(p)
    p:zadd(self.ids, expires or 0, name)
    p:xadd(self.log, "MAXLEN", "~", 10000, "*", "id", name)
    p:publish(self.conf.prefix .. ":changed", name)
  end)
  return ok and true, err
end

--- restore(name) -> whether it was revoked | nil, err. Gateways remember for `cache` that it was.
function List:restore(name)
  local ok, err = check_name(name)
  if not ok then return nil, err end
  local count
  count, err = self.db:zrem(self.ids, name)
  if not count then return nil, err end
  self.young[name], self.old[name] = nil, nil
  return count > 0
end

local lists = {} -- the uses of one configuration share what they follow

--- open { redis?, prefix, timeout, lag, cache, ids, file? } -> list, to be made in `setup`. `file`: its text. One that is malformed raises.
function revocations.open(conf)
  local words = { conf.redis or "", conf.prefix, conf.timeout, conf.lag, conf.cache, table.concat(conf.ids, "\0"), conf.file or "" }
  local mark = table.concat(words, "\1")
  if lists[mark] then return lists[mark] end
  local self = setmetatable({ conf = conf, ids = conf.prefix .. ":ids", log = conf.prefix .. ":log", fresh_till = -math.huge, rung = false,
    missing = 0, read_at = -math.huge }, List)
  if #conf.ids > 0 or conf.file then declare(self, conf.ids, conf.file) end
  forget_answers(self)
  if conf.redis then
    local db = redis.open(conf.redis)
    self.name = db.client.mark .. self.ids
    self.db, self.patient = db:with { timeout = conf.timeout }, db:with { timeout = math.max(conf.timeout, PATIENCE) }
    self.forget = self.patient:script(FORGET)
  end
  lists[mark] = self
  return self
end

return revocations
