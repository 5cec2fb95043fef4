--- redis_command: what is known of the commands of Redis: where their key is, which of them block, and which a shared connection does
-- not bear.
local redis_command = {}

-- The word that is the first key; 1 where nothing else is said. 0: it has none, and goes to one of the servers.
local key_at = {
  OBJECT = 2, BITOP = 2, XGROUP = 2, XINFO = 2, LMPOP = 2, ZMPOP = 2, SINTERCARD = 2, ZINTERCARD = 2, ZUNION = 2, ZINTER = 2, ZDIFF = 2,
  MEMORY = 2, DEBUG = 2, BLMPOP = 3, BZMPOP = 3, EVAL = 3, EVALSHA = 3, EVAL_RO = 3, EVALSHA_RO = 3, FCALL = 3, FCALL_RO = 3, MIGRATE = 3,
}
for name in ([[PING ECHO TIME INFO DBSIZE KEYS SCAN RANDOMKEY FLUSHALL FLUSHDB SWAPDB CONFIG CLIENT CLUSTER COMMAND SCRIPT FUNCTION PUBLISH
  PUBSUB LASTSAVE SAVE BGSAVE BGREWRITEAOF ROLE SLOWLOG LATENCY MODULE ACL FAILOVER REPLICAOF SHUTDOWN LOLWUT SENTINEL]]):gmatch "%S+" do
  key_at[name] = 0
end

-- Those whose second word is the number of keys that follow.
local counted = { EVAL = true, EVALSHA = true, EVAL_RO = true, EVALSHA_RO = true, FCALL = true, FCALL_RO = true }

local maps = { HGETALL = true }

local refused = {}
local function refuse(names, why)
  for name in names:gmatch "%S+" do refused[name] = why end
end
refuse("WAIT WAITAOF", "waits for what its own connection has written, and all commands of this worker share theirs")
refuse("SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE",
  "needs a connection of its own: db:subscribe(channel, f) in `start` has one")
refuse("MULTI EXEC DISCARD", "belongs to one caller alone: db:transaction(f)")
refuse("WATCH UNWATCH", "belongs to one caller alone: what must look before it writes is a script, db:script(source)")
refuse("SELECT AUTH HELLO RESET QUIT", "would change the connection for all: the configuration says user and database")
refuse("ASKING READONLY READWRITE MONITOR SYNC PSYNC REPLCONF", "would change the connection for all")

-- Those that block, and which of their words says for how many seconds: the first, or the last (0).
local blocking = { BLPOP = 0, BRPOP = 0, BLMOVE = 0, BRPOPLPUSH = 0, BZPOPMIN = 0, BZPOPMAX = 0, BLMPOP = 1, BZMPOP = 1 }

local client_refused = { REPLY = true, TRACKING = true, CACHING = true, SETNAME = true, ["NO-EVICT"] = true, ["NO-TOUCH"] = true }

local specs, count, COUNT_MAX = {}, 0, 1000 -- name in capitals -> what is known

--- of(name) -> { name, key, counted, map, refused, checks, slow } of a command, nil for what is no name of one. `checks`: problem() is to
-- be asked; `slow`: it may block.
function redis_command.of(name)
  local upper = name:upper()
  local spec = specs[upper]
  if spec then return spec end
  if not upper:find "^%u[%u%d_.%-]*$" or #upper > 64 then return nil end
  spec = {
    name = upper, key = key_at[upper] or 1, counted = counted[upper], map = maps[upper],
    refused = refused[upper] and ("%s %s"):format(upper, refused[upper]),
    slow = blocking[upper] ~= nil or upper == "XREAD" or upper == "XREADGROUP",
    checks = upper == "CLIENT" or upper == "SCRIPT" or upper == "XREAD" or upper == "XREADGROUP" or blocking[upper] ~= nil,
  }
  if count < COUNT_MAX then
    specs[upper], count = spec, count + 1
  end
  return spec
end

-- Seconds that a word asks to block for; nil: for ever, or it is no number.
local function seconds_of(word, unit)
  local n = tonumber(word)
  return n and n > 0 and n < math.huge and n * unit or nil
end

-- Where the keys of XREAD are, and for how long it blocks: false when it does not.
local function read_streams(words)
  local seconds = false
  for i = 1, #words do
    local word = type(words[i]) == "string" and words[i]:upper()
    if word == "STREAMS" then return i + 1, seconds end
    if word == "BLOCK" then seconds = seconds_of(words[i + 1], 0.001) end
  end
  return 0, seconds
end

--- problem(spec, words) -> why these words may not go there | nil, the word that is the key, the seconds that it blocks or false
function redis_command.problem(spec, words)
  local second = type(words[1]) == "string" and words[1]:upper() or ""
  if spec.name == "CLIENT" and client_refused[second] or spec.name == "SCRIPT" and second == "DEBUG" then
    return ("%s %s would change the connection for all"):format(spec.name, second)
  end
  local key, seconds = spec.key, false
  local at = blocking[spec.name]
  if at then
    seconds = seconds_of(words[at == 0 and #words or at], 1)
  elseif spec.slow then
    key, seconds = read_streams(words)
  end
  if seconds == nil then return spec.name .. " needs the seconds after which it gives up, more than 0" end
  return nil, key, seconds
end

return redis_command
