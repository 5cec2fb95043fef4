--- redis: tg.redis "name": commands of all coroutines, pipelined on few connections; there is nothing to open, to select or to give back.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local known = require "tidegate.redis_command"
local number = require "tidegate.number"
local reply = require "tidegate.redis_reply"
local task = require "tidegate.task"
local trace = require "tidegate.trace"

local C, vm, room = abi.C, abi.vm, abi.redis
local misuse, select, type = failure.misuse, select, type
local RUNS, ERROR, JOINED, ALONE, REPLICA = abi.CALL_RUNS, abi.REDIS_ERROR, abi.REDIS_JOINED, abi.REDIS_ALONE,
  abi.REDIS_REPLICA
local REDIRECTS, PAUSE = 5, 0.005 -- MOVED, ASK and TRYAGAIN of one command; seconds, times how often
local PIPED, TRANSACTION_MAX = 1000, 1000 -- commands of a pipeline on their way at once; of a transaction
local TRANSACTION_SIZE, WORD_EXTRA = 15 * 2 ^ 20, 16 -- bytes; of each word beside its text, at most
local WORDS_MAX = 1000000

local redis = { clients = {} } -- name -> client: { name, id, mark (of its servers), timeout, cluster?, doubt?(), waiting? }, by the runtime

-- ---------------------------------------------------------------- words

local digits = {}
for i = 0, 255 do digits[i] = ("%d"):format(i) end

local function text_of(value, at, spec)
  if type(value) == "number" then return digits[value] or number.text(value) end
  misuse(("argument %d of %s is a string or a number, found %s"):format(at, spec.name, value == nil and "nil" or "a " .. type(value)))
end

local function put(at, value, spec)
  if type(value) ~= "string" then value = text_of(value, at, spec) end
  room.held[at], room.words[at], room.lengths[at] = value, value, #value
end

local function put_list(spec, list, n)
  if n >= WORDS_MAX then misuse(("%s has more than %d words"):format(spec.name, WORDS_MAX)) end
  abi.redis_room(n + 1)
  put(0, spec.name)
  for i = 1, n do put(i, list[i], spec) end
  return n + 1
end

-- Puts the words of a command where the core reads them -> their number. Few need no table.
local function put_words(spec, ...)
  local n = select("#", ...)
  if n > 6 then return put_list(spec, { ... }, n) end
  local a, b, c, d, e, f = ...
  put(0, spec.name)
  if n > 0 then put(1, a, spec) end
  if n > 1 then put(2, b, spec) end
  if n > 2 then put(3, c, spec) end
  if n > 3 then put(4, d, spec) end
  if n > 4 then put(5, e, spec) end
  if n > 5 then put(6, f, spec) end
  return n + 1
end

local function spec_of(name)
  local spec = type(name) == "string" and known.of(name)
  if not spec then misuse(("not the name of a command: %s"):format(tostring(name))) end
  if spec.refused then misuse(spec.refused) end
  return spec
end

-- Which of the words of a command is its key, and the seconds that it blocks or false; `words` are those behind its name. Raises when
-- they may not go there.
local function find_key(spec, words)
  if spec.checks then
    local problem, key, seconds = known.problem(spec, words)
    if problem then misuse(problem) end
    return key, seconds
  end
  return spec.counted and (words[2] == nil or words[2] == "0") and 0 or spec.key, false
end

-- The key of those that have been put.
local function key_of(spec, count)
  if not spec.checks and not spec.counted then return spec.key end
  if not spec.checks then return (count < 3 or room.held[2] == "0") and 0 or spec.key end
  local list = {}
  for i = 1, count - 1 do list[i] = room.held[i] end
  local key = find_key(spec, list)
  return key
end

-- ---------------------------------------------------------------- one command

local names = {
  timeout = "no answer in time", open = "it has failed too often and is not asked for a while", busy = "too much is on its way to it",
  too_large = "a command or a reply of more than 16 MiB, or lists in lists to more than 7 levels", memory = "memory is short",
}
local codes = { reset = "connect", dns = "connect", protocol = "connect", none = "connect", tls = "connect" }

-- What has no answer. `node` is where it went, if anywhere.
local function failed(self, what, rc, node)
  local client = self.client
  local cause = abi.code(rc)
  local code = codes[cause] or cause
  if code == "invalid" then misuse "no I/O while a configuration is loaded: move this into `start` or a phase" end
  local place, why = "", names[code]
  if rc == abi.ENONE then
    why = "no server is known yet"
  elseif C.tg_abi_redis_node_name(client.id, node) == 0 then
    place = " at " .. abi.out()
    if code == "connect" or code == "open" then
      C.tg_abi_redis_why(client.id, node)
      local last = abi.out()
      why = code == "open" and ("%s (%s)"):format(why, last) or last ~= "" and last or "it is not connected"
    end
  end
  if client.doubt and code ~= "busy" and code ~= "too_large" then client.doubt() end
  if redis.failed then redis.failed:inc(1, { redis = client.name, code = code }) end
  return failure.new(code, ("redis %s%s: %s: %s"):format(client.name, place, what, why or code), 503)
end

-- after: on the same connection as that command
local function send(self, node, count, key, timeout, after, flags)
  if abi.validating then failure.no_worker() end
  local command = C.tg_abi_redis_send(self.client.id, node, count, room.words, room.lengths, key, timeout, after, flags or self.flags or 0)
  if command == nil then return nil, tonumber(vm.number), vm.type end
  return command, nil, vm.type
end

-- The same for words that stand in a table, with their number, spec, key and flags.
local function send_words(self, words, node, timeout, after, flags)
  local count = put_list(words.spec, words, words.n)
  return send(self, node, count, words.key, timeout, after, flags or words.flags)
end

-- For what is done again: how long it still may take, in milliseconds. The nearest: the difference of two moments is a little less
-- or more than it was made of, and one that lost a millisecond would not count as a failure of the server.
local function left_until(till)
  return math.max(1, math.floor((till - vm.monotonic) * 1000 + 0.5))
end

local function wait_for(command)
  while command.state == RUNS do task.wait() end
end

-- Where "host:port" of a redirection leads to. Without a host it is that of the server which says so.
local function redirected_to(client, place, from)
  local host, port = place:match "^(.*):(%d+)$"
  if not host then return nil end
  if host == "" and C.tg_abi_redis_node_name(client.id, from) == 0 then host = abi.out():match "^%[?(.-)%]?:%d+$" or "" end
  if host == "" then return nil end
  local node = C.tg_abi_redis_node(client.id, host, #host, tonumber(port))
  return node >= 0 and node or nil
end

local ASKING = { name = "ASKING" }

-- Sends once more what a cluster has refused with `text` -> command, node | nil, rc, node. nil alone: there is no way.
local function send_again(self, words, text, node, till, n)
  local client = self.client
  local kind, slot, place = text:match "^(%u+) (%d+) (%S+)"
  local asking
  if kind == "MOVED" or kind == "ASK" then
    local to = redirected_to(client, place, node)
    if not to then return nil end
    node = to
    if kind == "MOVED" then
      C.tg_abi_redis_assign(client.id, tonumber(slot), tonumber(slot), to)
      client.doubt()
    else
      local rc
      asking, rc = send(self, node, put_words(ASKING), 0, left_until(till))
      if not asking then return nil, rc, node end
    end
  elseif text:find "^TRYAGAIN" then
    task.sleep(PAUSE * n)
  else
    return nil
  end
  if vm.monotonic >= till then return nil, abi.ETIMEOUT, node end
  local command, rc = send_words(self, words, node, left_until(till), asking, asking and JOINED)
  if asking then C.tg_abi_redis_free(asking) end
  if not command then return nil, rc, node end
  return command, node
end

local function finish(self, spec, command, node)
  local state, value, err = command.state, nil, nil
  if state < 0 then
    err = failed(self, spec.name, tonumber(state), node)
  else
    local text = reply.error_of(command)
    if text then
      err = reply.refusal(text, ("redis %s: %s"):format(self.client.name, spec.name))
      if err.kind == "READONLY" and self.client.doubt then self.client.doubt() end
    else
      value = (spec.map and reply.map or reply.value)(command)
    end
  end
  C.tg_abi_redis_free(command)
  return value, err
end

-- The answer of a cluster that knows better, or of the server it has named.
local function follow(self, words, command, node, till)
  for n = 1, self.client.cluster and REDIRECTS or 0 do
    local text = command.state == 0 and reply.error_of(command)
    if not text then break end
    local next_command, to, at = send_again(self, words, text, node, till, n)
    if not next_command then
      if not to then break end
      C.tg_abi_redis_free(command)
      return nil, failed(self, words.spec.name, to, at)
    end
    C.tg_abi_redis_free(command)
    command, node = next_command, to
    wait_for(command)
  end
  return finish(self, words.spec, command, node)
end

-- Waits until a server is known, where one has to be found first.
local function await_server(self, till)
  local client, coroutine = self.client, vm.coroutine
  if not client.waiting then return false end
  client.doubt()
  client.waiting[coroutine] = vm.coroutine_serial
  local found = false
  while not found and vm.monotonic < till do
    task.wait_until(till)
    found = C.tg_abi_redis_node_of(client.id, 0) >= 0
  end
  client.waiting[coroutine] = nil
  return found
end

-- What became of a command that was sent, or not, at first.
local function conclude(self, words, till, command, rc, node)
  if not command and rc == abi.ENONE and await_server(self, till) then
    command, rc, node = send_words(self, words, -1, left_until(till))
  end
  if not command then return nil, failed(self, words.spec.name, rc, node) end
  wait_for(command)
  return follow(self, words, command, node, till)
end

local function answers(command)
  while command.state == RUNS do task.wait() end
  return command.state == 0 and command.values[0].type ~= ERROR
end

local function take(spec, command)
  local value = (spec.map and reply.map or reply.value)(command)
  C.tg_abi_redis_free(command)
  return value
end

-- As nearly all go: no table is made for the words.
local function execute(self, spec, ...)
  local count = put_words(spec, ...)
  local key, till = key_of(spec, count), vm.monotonic + self.timeout / 1000
  local command, rc, node = send(self, -1, count, key, self.timeout)
  if command and answers(command) then return take(spec, command) end
  return conclude(self, { spec = spec, n = count - 1, key = key, ... }, till, command, rc, node)
end

-- ends: when it is too late, if that is sooner than the timeout says.
local function execute_words(self, words, ends)
  local timeout = self.timeout + (words.blocks or 0)
  if ends then timeout = math.min(timeout, left_until(ends)) end
  local till = vm.monotonic + timeout / 1000
  local command, rc, node = send_words(self, words, -1, timeout)
  if command and answers(command) then return take(words.spec, command) end
  return conclude(self, words, till, command, rc, node)
end

local BLOCKS_MAX = 3600 -- seconds

-- One that may block has a connection of its own, on which nobody waits for it.
local function execute_slow(self, spec, ...)
  local words = { spec = spec, n = select("#", ...), ... }
  local key, seconds = find_key(spec, words)
  words.key = key
  if seconds then
    if seconds > BLOCKS_MAX then misuse(("%s blocks for %d seconds at most"):format(spec.name, BLOCKS_MAX)) end
    words.flags, words.blocks = ALONE, math.ceil(seconds * 1000)
  end
  return execute_words(self, words)
end

-- ---------------------------------------------------------------- spans

local function ended(span, value, err, ...)
  trace.done(span, nil, value == nil and err or nil)
  return value, err, ...
end

-- Runs f(...) in a span of the running exchange, when that is recorded.
local function traced(self, name, f, ...)
  local span = trace.client(name)
  if not span then return f(...) end
  span:set("db.system.name", "redis")
  span:set("db.operation.name", name)
  span:set("tidegate.redis", self.client.name)
  return ended(span, f(...))
end

-- ---------------------------------------------------------------- db

-- What is not a field of db is the name of a command, so all fields are there from the begin.
local Redis, methods = { __name = "redis" }, {}

local function method_of(name)
  local spec = spec_of(name)
  return function(self, ...)
    if getmetatable(self) ~= Redis then misuse(("call it with a colon: db:%s(...)"):format(name)) end
    local run = spec.slow and execute_slow or execute
    if trace.on then return traced(self, spec.name, run, self, spec, ...) end
    return run(self, spec, ...)
  end
end

function Redis.__index(_, name)
  local method = methods[name]
  if not method and type(name) == "string" then
    method = method_of(name)
    methods[name] = method
  end
  return method
end

--- db:get(key), db:set(key, value) ...: any command as a method -> value | nil (null) | nil, err. Integers are numbers, beyond 2^53
-- texts; null in a list is tg.null; hgetall gives a map. What blocks, as db:blpop(key, seconds), has a connection of its own.
-- db:call("CMD", ...): the same for names that Lua has no form for.
function methods:call(name, ...)
  local spec = spec_of(name)
  local run = spec.slow and execute_slow or execute
  if trace.on then return traced(self, spec.name, run, self, spec, ...) end
  return run(self, spec, ...)
end

--- db:with { timeout = 0.01, replica = true } -> db with another timeout, in seconds; and whose commands go to replicas of a cluster's or a
-- sentinel's masters, as long as there are any: they are behind by a little, and write nothing. To be made in set-up.
function methods:with(options)
  if type(options) ~= "table" then misuse "with needs a table: { timeout = seconds, replica = true }" end
  for key in pairs(options) do
    if key ~= "timeout" and key ~= "replica" then misuse(("with has no option %s"):format(tostring(key))) end
  end
  local seconds = options.timeout or self.timeout / 1000
  if type(seconds) ~= "number" or not (seconds > 0 and seconds <= 60) then misuse "a timeout is a number of seconds, up to 60" end
  local flags = self.flags
  if options.replica ~= nil then flags = options.replica and REPLICA end
  if flags then self.client.replicas = true end
  return setmetatable({ client = self.client, timeout = math.max(1, math.floor(seconds * 1000)), flags = flags }, Redis)
end

-- ---------------------------------------------------------------- many commands

-- What gathers them: p:get(key), p:call("CMD", ...).
local Gathered = { __name = "commands" }

local function gather(self, spec, ...)
  local n = select("#", ...)
  local words = { spec = spec, n = n, ... }
  for i = 1, n do
    if type(words[i]) ~= "string" then words[i] = text_of(words[i], i, spec) end
  end
  local key, seconds = find_key(spec, words)
  if seconds then misuse(spec.name .. " blocks: it does not go into others") end
  words.key = key
  self[#self + 1] = words
end

local apart = { with = true, pipeline = true, transaction = true, script = true, subscribe = true }
local gathering = {
  call = function(self, name, ...) gather(self, spec_of(name), ...) end,
}

function Gathered.__index(_, name)
  local method = gathering[name]
  if not method and type(name) == "string" then
    if apart[name] then misuse(("%s stands by itself: it does not go into others"):format(name)) end
    local spec = spec_of(name)
    method = function(self, ...)
      if getmetatable(self) ~= Gathered then misuse(("call it with a colon: p:%s(...)"):format(name)) end
      gather(self, spec, ...)
    end
    gathering[name] = method
  end
  return method
end

local function gathered_by(f)
  if type(f) ~= "function" then misuse "needs a function(p), which calls p:get(key) and so on" end
  local commands = setmetatable({}, Gathered)
  f(commands)
  return commands
end

-- The commands of one pipeline to one server go on one connection: there they keep their order.
local function send_piped(self, words, timeout, last)
  local node = -1
  if self.flags then return send_words(self, words, -1, timeout) end -- they only read, so their order does not matter
  if self.client.cluster and words.key > 0 then
    local key = words[words.key]
    if key then node = C.tg_abi_redis_node_of(self.client.id, C.tg_abi_redis_slot(key, #key)) end
  end
  local command, rc, to = send_words(self, words, node >= 0 and node or -1, timeout, last[node])
  last[node] = command
  return command, rc, to
end

-- Those that were sent and are not read any more: the rest of a failure.
local function free_from(sent, first)
  for i = first, #sent do C.tg_abi_redis_free(sent[i]) end
end

-- A portion of a pipeline, its results into `results`; nil, err when one has no answer.
local function run_portion(self, commands, first, last, results)
  local sent, nodes, last_sent, till = {}, {}, {}, vm.monotonic + self.timeout / 1000
  for i = first, last do
    local command, rc, node = send_piped(self, commands[i], self.timeout, last_sent)
    if not command and i == first and rc == abi.ENONE and await_server(self, till) then
      command, rc, node = send_piped(self, commands[i], left_until(till), last_sent)
    end
    if not command then
      free_from(sent, 1)
      return nil, failed(self, commands[i].spec.name, rc, node)
    end
    sent[#sent + 1], nodes[#nodes + 1] = command, node
  end
  for i, command in ipairs(sent) do
    wait_for(command)
    local words = commands[first + i - 1]
    local value, err = follow(self, words, command, nodes[i], till)
    if err and err.code ~= "redis" then
      free_from(sent, i + 1)
      return nil, err
    end
    if err then value = err elseif value == nil then value = abi.null end
    results[#results + 1] = value
  end
  return results
end

local function run_pipeline(self, commands)
  local results = {}
  for first = 1, #commands, PIPED do
    local ok, err = run_portion(self, commands, first, math.min(first + PIPED - 1, #commands), results)
    if not ok then return nil, err end
  end
  return results
end

--- db:pipeline(function(p) p:get "a" p:incr "b" end) -> list of replies in their order | nil, err when one has no answer. A reply is
-- tg.null for null, and an err for what the server refuses. They are sent together; others may come in between.
function methods:pipeline(f)
  return traced(self, "PIPELINE", run_pipeline, self, gathered_by(f))
end

-- The slot that all of these keys are in; nil: there is no key.
local function common_slot(client, keys, what)
  local slot
  for _, key in ipairs(client.cluster and keys or {}) do
    local found = C.tg_abi_redis_slot(key, #key)
    if slot and found ~= slot then
      misuse(("%s: the keys %q and %q are in different slots of the cluster; what is in {braces} decides"):format(what, keys[1], key))
    end
    slot = found
  end
  return slot
end

local MULTI, EXEC = { spec = { name = "MULTI" }, n = 0, key = 0 }, { spec = { name = "EXEC" }, n = 0, key = 0 }

-- Sends a transaction in one piece, so that nobody's command comes in between -> list of the sent, node | nil, rc, node
local function send_transaction(self, commands, node, timeout)
  local first, rc
  first, rc, node = send_words(self, MULTI, node, timeout)
  if not first then return nil, rc, node end
  local sent = { first }
  for i = 1, #commands + 1 do
    local command
    command, rc = send_words(self, commands[i] or EXEC, node, timeout, sent[i], JOINED)
    if not command then
      free_from(sent, 1)
      return nil, rc, node
    end
    sent[i + 1] = command
  end
  return sent, node
end

local function run_transaction(self, commands, node, till)
  local sent, rc, at = send_transaction(self, commands, node, left_until(till))
  if not sent and rc == abi.ENONE and await_server(self, till) then
    sent, rc, at = send_transaction(self, commands, node, left_until(till))
  end
  if not sent then return nil, failed(self, "MULTI", rc, at) end
  local refusal
  for i = 1, #sent - 1 do
    wait_for(sent[i])
    refusal = refusal or sent[i].state == 0 and reply.error_of(sent[i]) or nil
    C.tg_abi_redis_free(sent[i])
  end
  local exec = sent[#sent]
  wait_for(exec)
  local results, err = finish(self, EXEC.spec, exec, rc)
  if results then return results end
  if refusal and err and err.code == "redis" then
    local refused = reply.refusal(refusal, ("redis %s: transaction"):format(self.client.name))
    return nil, refused, refusal, rc
  end
  return nil, err
end

local function repeat_transaction(self, commands, slot)
  local client, till = self.client, vm.monotonic + self.timeout / 1000
  for n = 1, REDIRECTS do
    local node = slot and C.tg_abi_redis_node_of(client.id, slot) or -1
    local results, err, refusal, from = run_transaction(self, commands, node >= 0 and node or -1, till)
    if results or not refusal or not client.cluster or n == REDIRECTS then return results, err end
    local place = refusal:match "^MOVED %d+ (%S+)"
    local to = place and redirected_to(client, place, from)
    if not to or vm.monotonic >= till then return nil, err end
    C.tg_abi_redis_assign(client.id, slot, slot, to)
    client.doubt()
  end
end

--- db:transaction(function(p) p:incr "a" p:expire("a", 60) end) -> list of replies | nil, err: all of them and nothing in between (MULTI,
-- EXEC), or none when one is malformed. In a cluster their keys share a slot. Between them nothing can be read: that is what scripts do.
function methods:transaction(f)
  local commands, keys, size = gathered_by(f), {}, 0
  if #commands == 0 then return {} end
  if self.flags then misuse "a replica has no transactions" end
  if #commands > TRANSACTION_MAX then misuse(("a transaction has at most %d commands"):format(TRANSACTION_MAX)) end
  for i, words in ipairs(commands) do
    local key = words.key > 0 and words[words.key]
    if key then keys[#keys + 1] = key end
    for k = 1, words.n do size = size + #words[k] + WORD_EXTRA end
    if i == 1 and self.client.cluster and not key then misuse "in a cluster a transaction begins with a command that has a key" end
  end
  -- One that breaks off in the middle costs the connection.
  if size > TRANSACTION_SIZE then return nil, failure.new("too_large", "redis: a transaction of more than 15 MiB", 500) end
  return traced(self, "MULTI", repeat_transaction, self, commands, common_slot(self.client, keys, "transaction"))
end

-- ---------------------------------------------------------------- scripts

local EVALSHA, EVAL = known.of "EVALSHA", known.of "EVAL"

local function words_of_script(digest, keys, args)
  local words, n = { digest, #keys, spec = EVALSHA, key = #keys > 0 and 3 or 0 }, 2
  for i = 1, #keys do words[n + i] = keys[i] end
  n = n + #keys
  for i = 1, #args do words[n + i] = args[i] end
  words.n = n + #args
  return words
end

local function run_script(self, words, source, ends)
  local value, err = execute_words(self, words, ends)
  if not err or err.kind ~= "NOSCRIPT" then return value, err end
  words[1], words.spec = source, EVAL
  return execute_words(self, words, ends)
end

--- db:script(source) -> f(keys, args, ends?) -> value | nil, err. Sent as its digest; a server that does not know it gets the source. In a
-- cluster the keys must share a slot. All of it takes no longer than the timeout, nor beyond `ends`, a moment of tg.now.monotonic().
function methods:script(source)
  if type(source) ~= "string" then misuse("a script is a string, found a " .. type(source)) end
  local digest, none = crypto.hex(crypto.sha1(source)), {}
  return function(keys, args, ends)
    keys, args, ends = keys or none, args or none, ends or vm.monotonic + self.timeout / 1000
    if type(keys) ~= "table" or type(args) ~= "table" then misuse "a script takes two lists: f({ key, ... }, { argument, ... })" end
    if #keys > 1 then common_slot(self.client, keys, "script") end
    return traced(self, "EVALSHA", run_script, self, words_of_script(digest, keys, args), source, ends)
  end
end

-- ---------------------------------------------------------------- subscriptions

local SUBSCRIBE = { name = "SUBSCRIBE" }
local PAUSE_MIN, PAUSE_MAX, AT_ONCE = 0.1, 5, 64 -- seconds between two attempts; messages before others have their turn

--- listen(client, node, channel, f): gives the messages of a channel to f(message, channel), for ever; what is published while the
-- connection is away is lost. `began()` is called each time it is there.
function redis.listen(client, node, channel, f, began)
  local pause = PAUSE_MIN
  while true do
    local command = C.tg_abi_redis_subscribe(client.id, node, put_words(SUBSCRIBE, channel), room.words, room.lengths)
    local rc, count = command ~= nil and 0 or abi.ENONE, 0
    while rc >= 0 do
      rc = C.tg_abi_redis_next(command)
      if rc == abi.AGAIN then
        task.wait()
      elseif rc == 0 and command.count > 0 then
        local message = reply.value(command)
        if type(message) == "table" and message[1] == "subscribe" then
          pause = PAUSE_MIN
          if began then began() end
        elseif type(message) == "table" and message[1] == "message" then
          local ok, err = pcall(f, message[3], message[2])
          if not ok then task.report(("redis %s: subscription to %q: %s"):format(client.name, channel, tostring(err))) end
        end
        count = count + 1
        if count % AT_ONCE == 0 then task.sleep(0) end
      end
    end
    if command ~= nil then C.tg_abi_redis_free(command) end
    task.sleep(pause * (0.75 + math.random() / 2))
    pause = math.min(pause * 2, PAUSE_MAX)
  end
end

--- db:subscribe(channel, f), in `start` only: f(message, channel) for each message, one after the other, until the generation ends.
-- What is published while the connection is away is lost.
function methods:subscribe(channel, f)
  if type(channel) ~= "string" or type(f) ~= "function" then misuse "subscribe needs a channel and a function(message, channel)" end
  if abi.validating or vm.entry ~= abi.ENTRY_TASK or vm.task ~= 0 then misuse "subscribe belongs into `start`" end
  task.start(abi.TASK_SERVICE, redis.listen, self.client, -1, channel, f)
end

-- ---------------------------------------------------------------- for the runtime

--- ask(client, node, seconds, name, ...) -> value | nil, err; and the node that was asked
function redis.ask(client, node, seconds, name, ...)
  local self = { client = client, timeout = math.floor(seconds * 1000) }
  local spec = known.of(name)
  local command, rc, at = send(self, node, put_words(spec, ...), 0, self.timeout)
  if not command then return nil, failed(self, name, rc, at), at end
  wait_for(command)
  local value, err = finish(self, spec, command, at)
  return value, err, at
end

--- open(name) -> db; an unknown name is an error at load.
function redis.open(name)
  local client = redis.clients[name]
  if not client then error('there is no redis "' .. tostring(name) .. '"', 2) end
  return setmetatable({ client = client, timeout = client.timeout, flags = false }, Redis)
end

return redis
