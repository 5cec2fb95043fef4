--- sources: what a source has becomes a generation. One worker follows it, pushes what it finds to the master as an operator would, and tells
-- the fleet what has come of it. A source that is away, or holds what cannot be a generation, changes nothing.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local dict = require "tidegate.dict"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local log = require "tidegate.log"
local task = require "tidegate.task"
local time = require "tidegate.time"

local C, vm = abi.C, abi.vm
local sources = {}
local kinds = { redis = "runtime.source_redis", etcd = "runtime.source_etcd", consul = "runtime.source_consul" } -- modules

local PAUSE_MIN, PAUSE_MAX, JITTER = 0.5, 5, 0.25 -- seconds between two attempts; a share of each pause
local SETTLE = 0.1 -- seconds: keys that are written one after the other are one change
local TELL_EVERY, TELL_TTL = 20, 60 -- seconds
local BYTES_MAX = 8 * 2 ^ 20 -- of all files as one text: what the master takes
local ERROR_MAX, SHORT = 1000, 12 -- bytes
local KEY = "source:state" -- in the dictionary `source`, which survives this generation

local conf, pushed, generation -- of the running generation
local ask -- (who, command, payload) -> what the master says | nil, err
local memory -- the dictionary
local own -- digest of the files that it is made of, or nil
local teller -- the coroutine that tells, or nil
local news = false

local function digest(text) return crypto.hex(crypto.sha256(text)) end

local function spread(seconds) return seconds * (1 - JITTER + math.random() * 2 * JITTER) end

-- ---------------------------------------------------------------- what was seen

-- { seen = digest of what was pushed last, outcome = "asked"|"done"|"refused", error?, generation = the one that ran then }
local function state() return memory:get(KEY) or {} end

local function keep(entry)
  entry.generation = generation
  local ok, err = memory:set(KEY, entry)
  if not ok then log.error("source: " .. err) end
  news = true
  if teller then C.tg_abi_wake(teller[1], teller[2]) end
end

-- What was refused is tried once more by another generation, which may have what was missing. What this one is made of is done. What a
-- rollback has left behind is neither: it stays seen, so that the rollback holds until the source changes.
local function begin()
  local last = state()
  if last.seen and last.seen == own then
    keep { seen = own, outcome = "done" }
  elseif last.outcome == "asked" or last.outcome == "refused" and last.generation ~= generation then
    keep {}
  end
end

-- ---------------------------------------------------------------- following

-- The files as one text, the same for the same files | nil, what is wrong with them.
local function text_of(files)
  if next(files) == nil then return nil, "it holds no files" end
  for name, text in pairs(files) do
    if type(text) ~= "string" then return nil, ("file %s: found a %s, expected a text"):format(name, type(text)) end
  end
  local text = json.encode(files, { sorted = true })
  if #text > BYTES_MAX then return nil, ("its files have more than %d bytes"):format(BYTES_MAX) end
  return text
end

-- False: the master has no time for it now.
local function push(text)
  local before, seen = state(), digest(text)
  if seen == before.seen then return true end
  if seen == own and not before.seen then
    keep { seen = seen, outcome = "done" }
    return true
  end
  keep { seen = seen, outcome = "asked" }
  local answer, err = ask("source:" .. conf.kind, "push", text)
  if answer then
    keep { seen = seen, outcome = "done" } -- most often the next generation does it, since this one has ended
  elseif err.code == "refused" and err.message:find "the generation %x+ goes on$" then -- the master has told the log why
    keep { seen = seen, outcome = "refused", error = err.message:sub(1, ERROR_MAX) }
  else
    keep(before)
    return false
  end
  return true
end

-- Each trouble is told once, and its end. `kind`: of one that has ever other words.
local function tell_trouble(self, err, kind)
  kind = kind or err
  if err and kind ~= self.trouble then log.warn(("source %s: %s; generation %s goes on"):format(conf.kind, err, generation)) end
  if not err and self.trouble then log.info(("source %s is well"):format(conf.kind)) end
  self.trouble = kind
end

-- One look at the source. True: it is up to date.
local function look(self)
  local files, err = self.source:fetch()
  local text
  if files then text, err = text_of(files) end
  tell_trouble(self, err, files == nil and "away" or nil)
  if files == nil then return false end
  return not text or push(text)
end

local function message_of(err) return failure.is(err) and err.message or tostring(err) end

local function follow(self)
  local pause = PAUSE_MIN
  while true do
    local ok, fresh = pcall(look, self)
    if not ok then tell_trouble(self, message_of(fresh)) end
    if ok and fresh then
      pause = PAUSE_MIN
      ok = pcall(self.source.wait, self.source, math.ceil(spread(conf.every)))
      task.sleep(ok and SETTLE or PAUSE_MIN)
    else
      task.sleep(spread(pause))
      pause = math.min(pause * 2, PAUSE_MAX)
    end
  end
end

-- ---------------------------------------------------------------- the fleet

local function report()
  local last = state()
  return json.encode({
    generation = generation, source = own and own:sub(1, SHORT), time = time.iso(vm.now), error = last.error,
    refused = last.outcome == "refused" and last.seen:sub(1, SHORT) or nil,
  }, { sorted = true })
end

local function keep_telling(self)
  teller = { vm.coroutine, vm.coroutine_serial }
  while true do
    news = false
    pcall(self.source.tell, self.source, conf.name, report(), TELL_TTL) -- a source that is away is told by who follows it
    local till = vm.monotonic + spread(TELL_EVERY)
    while vm.monotonic < till and not news do task.wait_until(till) end
  end
end

local function host_name()
  local file = io.open "/proc/sys/kernel/hostname"
  local name = file and file:read "*l" or "gateway"
  if file then file:close() end
  return name
end

--- prepare(source, files, id, ask_master): of the generation that is made; `files` is the text that was pushed, or nil.
function sources.prepare(source, files, id, ask_master)
  conf, pushed, generation, ask = source, files, id, ask_master
  memory = dict.open "source"
end

--- start(): the generation is current.
function sources.start()
  local text = pushed
  pushed = nil
  if not conf or vm.worker ~= 0 then return end
  conf.name = conf.name or host_name()
  own = text and digest(text)
  begin()
  local self = { source = require(kinds[conf.kind]).new(conf), trouble = nil }
  task.start(abi.TASK_SERVICE, keep_telling, self)
  task.start(abi.TASK_SERVICE, follow, self)
end

return sources
