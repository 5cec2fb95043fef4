--- budget: how long a plugin may compute without waiting, and how much memory of Lua it may take meanwhile. Compiled code hears no signal and
-- no hook, so each loop counts its turns: the text of a plugin gets a counter at the head of each loop, on the same line; after so many turns
-- the processor's clock is read.
local abi = require "abi"

local C, vm = abi.C, abi.vm
-- `soft`: seconds of the processor; a phase may take ten times that before it is ended.
-- `hard`: times `soft`; `exceeded`: how often it was.
-- `memory`: bytes that Lua's memory may grow by until the next wait.
local budget = { soft = 0.05, hard = 10, memory = nil, exceeded = 0, loading = true, report = nil }
local TURNS, LOADING = 1000, 2 -- turns between two looks; seconds for a configuration and its set-up

local COUNT = " __turns = __turns - 1 if __turns < 0 then __turns = __poll() end "
local HEAD = "local __turns, __poll = " .. TURNS .. ", __poll; "

local resumes, started, warned = -1, 0, false

--- weigh(level?): the allocator has told (vm.grown) that memory grows by more than a call may. Raises when that is no garbage, and what runs is
-- a use: what the runtime keeps for all, such as consumers, is for no call's account.
function budget.weigh(level)
  if vm.mark[0] == 0 then
    vm.grown = 0
    return
  end
  if vm.grown == 1 then collectgarbage() end
  local excess = C.tg_abi_heap_excess()
  if excess == 0 then return end
  budget.exceeded = budget.exceeded + 1
  local most = budget.memory
  error(("it has taken %.1f MiB of memory without a pause, and may take %.1f MiB"):format((most + excess) / 2 ^ 20, most / 2 ^ 20), level or 0)
end

--- What a loop calls after so many turns. Raises when the time is over, and again each time as long as nobody gives way.
function budget.poll()
  if vm.grown ~= 0 then budget.weigh(3) end
  if C.tg_abi_heap_is_full() ~= 0 then
    collectgarbage() -- what is garbage is no reason to end it
    if C.tg_abi_heap_is_full() ~= 0 then error("not enough memory", 2) end
  end
  local now = C.tg_abi_cpu()
  if vm.resumes ~= resumes then
    resumes, started, warned = vm.resumes, now, false
    return TURNS
  end
  local used = now - started
  local loading = budget.loading
  if used > (loading and LOADING or budget.soft * budget.hard) then
    budget.exceeded = budget.exceeded + 1
    error(("it has computed for %.2f s without a pause, which is more than its budget allows"):format(used), 2)
  end
  if used > budget.soft and not warned and not loading then
    warned = true
    budget.report(("a phase computes for longer than its budget of %g s"):format(budget.soft))
  end
  return TURNS
end

--- forgive(): what runs next begins anew, after an error that has ended nothing but what raised it.
function budget.forgive()
  resumes = -1
  if vm.grown ~= 0 then
    collectgarbage()
    C.tg_abi_heap_forgive()
  end
end

-- ---------------------------------------------------------------- where loops begin

-- The end of a string, comment or long bracket that begins at `i`; nil when there is none.
local function skip(text, i)
  local comment = text:match("^%-%-()", i)
  local level = text:match("^%[(=*)%[", comment or i)
  if level then
    local _, last = text:find("]" .. level .. "]", comment or i, true)
    return (last or #text) + 1
  end
  if comment then return text:match("^[^\n]*()", i) end
  local quote = text:match("^[\"']", i)
  if not quote then return nil end
  local at = i + 1
  while true do
    local stop, what = text:match("()([\\" .. quote .. "\n])", at)
    if not stop then return #text + 1 end
    if what ~= "\\" then return stop + 1 end
    at = stop + 2
  end
end

-- For each keyword what it does to the stack of what is open; returns true where a loop's body begins.
local keywords = {
  ["while"] = function(open) open[#open + 1] = "loop" end,
  ["for"] = function(open) open[#open + 1] = "loop" end,
  ["function"] = function(open) open[#open + 1] = "block" end,
  ["if"] = function(open) open[#open + 1] = "block" end,
  ["repeat"] = function(open)
    open[#open + 1] = "block"
    return true
  end,
  ["do"] = function(open)
    if open[#open] == "loop" then
      open[#open] = "block"
      return true
    end
    open[#open + 1] = "block"
  end,
  ["end"] = function(open) open[#open] = nil end,
  ["until"] = function(open) open[#open] = nil end,
}

--- instrument(text) -> the same program, which counts; nil when it has no loop
function budget.instrument(text)
  local parts, open, from, i = {}, {}, 1, 1
  local function insert(at)
    parts[#parts + 1] = text:sub(from, at - 1)
    parts[#parts + 1] = COUNT
    from = at
  end
  if text:byte(1) == 35 then i = text:match("^[^\n]*()", 1) end -- a first line that is the shell's
  while i <= #text do
    local last = skip(text, i)
    local word, after = text:match("^([%a_][%w_]*)()", i)
    if last then
      i = last
    elseif word then
      local f = text:sub(i - 1, i - 1) ~= "." and keywords[word]
      if f and f(open) then insert(after) end
      i = after
    else
      local label = text:match("^::[%s]*[%a_][%w_]*[%s]*::()", i) -- `goto` may come back to it
      if label then insert(label) end
      i = label or text:match("^%w[%w.]*()", i) or i + 1
    end
  end
  if #parts == 0 then return nil end
  parts[#parts + 1] = text:sub(from)
  return HEAD .. table.concat(parts)
end

-- What was loaded last under a name, while a configuration is judged: its code goes into the bundle, and counting costs as much as all else.
local kept = {}

-- A file may do without: by a line "-- guard = false" among the comments that it begins with.
local function is_unguarded(text)
  for line in text:gmatch "[^\n]*" do
    if line:find "^%-%-+%s*guard%s*=%s*false%s*$" then return true end
    if line:find "%S" and not line:find "^%s*%-%-" and not line:find "^#" then return false end
  end
  return false
end

local function load_counting(text, chunk_name, guarded)
  local f, err = loadstring(text, chunk_name)
  if not f or text:byte(1) == 27 or not guarded and is_unguarded(text) then return f, err end
  local counting = budget.instrument(text)
  -- One that is at the limits of the language (200 locals, 60 upvalues) goes without.
  return counting and loadstring(counting, chunk_name) or f
end

--- load(text, chunk name, guarded?) -> function | nil, err; as loadstring, with counting loops, also in a file that wants none when it is
-- `guarded`. Its environment needs `__poll`.
function budget.load(text, chunk_name, guarded)
  local f, err = load_counting(text, chunk_name, guarded)
  if f and abi.validating and chunk_name then kept[chunk_name] = { text = text, f = f } end
  return f, err
end

--- dump(text, chunk name) -> the same as bytecode; nil when it is no Lua
function budget.dump(text, chunk_name)
  local last = kept[chunk_name]
  local f = last and last.text == text and last.f or load_counting(text, chunk_name)
  return f and string.dump(f)
end

return budget
