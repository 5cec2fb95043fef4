--- chain: the uses of a route as one function a phase, made once a generation.
-- The functions are generated, one straight line a chain, so that the JIT compiles a request as a whole.
local abi = require "abi"
local barrier = require "runtime.barrier"
local budget = require "runtime.budget"
local exchange = require "runtime.exchange"
local messages = require "runtime.messages"
local plugin_times = require "runtime.plugin_times"
local response = require "tidegate.response"
local trace = require "tidegate.trace"

local CONSUMER, vm = exchange.CONSUMER, abi.vm
local chain = {}
local GROUP = 7 -- uses in one function: each takes six upvalues, what runs them up to a dozen, and a function has sixty

local function is_authenticated(ctx)
  return ctx[CONSUMER] ~= false
end

local function check(result, use, phase)
  if phase == "balance" then
    local is_peer = type(result) == "string" or type(result) == "table" and type(result.name) == "string" and not response.is(result)
    if is_peer then return result end
    local kind = response.is(result) and "response" or type(result)
    error(("%s: balance must return one of ctx.peers or nothing, returned a %s"):format(use.label, kind), 0)
  end
  if response.is(result) then return result end
  error(("%s: %s must return a response or nothing, returned a %s"):format(use.label, phase, type(result)), 0)
end

-- One step as text, which says nothing of its use but what sort it is. Of use i there are: f (the function), c(onf), s(tate), w(hen), u(se), m(ark).
local function step(i, use, phase, lines, measured)
  local guard = {}
  if use.when then guard[#guard + 1] = ("w%d(ctx)"):format(i) end
  if phase == "authenticate" then guard[#guard + 1] = "not is_authenticated(ctx)" end
  local open = #guard > 0 and "if " .. table.concat(guard, " and ") .. " then" or "do"
  local arguments = phase == "websocket" and "ctx, message" or "ctx"
  local pass = barrier.needed(use.plugin[phase]) and "pass()" or ""
  local guards = use.on_error == "skip" or phase == "log"
  local call = ("f%d(%s, c%d, s%d)"):format(i, arguments, i, i)
  if measured then
    call = ("measured(u%d, %q, n, %s, f%d, %s, c%d, s%d)"):format(i, phase, guards and "guarded" or "direct", i, arguments, i, i)
  elseif guards then
    call = ("guarded(u%d, f%d, %s, c%d, s%d)"):format(i, i, arguments, i, i)
  end
  -- Where nothing is traced, nothing is asked.
  local before, after = "", ""
  if measured and phase ~= "websocket" then
    before, after = ("local t = trace.on and trace.enter(u%d.label, %q)"):format(i, phase), "if t then trace.leave(t, r) end"
  elseif trace.on and phase ~= "websocket" then
    before, after = ("local t = enter(u%d.label, %q)"):format(i, phase), "if t then leave(t, r) end"
  end
  -- What a call has taken is its own, not the next one's. A guarded one has been looked at.
  local weigh = guards and "" or "if vm.grown ~= 0 then weigh() end"
  local judge = phase == "websocket" and ("if r ~= nil and take(message, r, u%d) then return end"):format(i)
    or ("if r ~= nil then return check(r, u%d, %q) end"):format(i, phase)
  lines[#lines + 1] = ("  %s mark[0] = m%d %s %s local r = %s %s %s %s end"):format(open, i, before, pass, call, weigh, after, judge)
end

-- What a phase gets is named one by one, also where one of them is nothing: a list of arguments is not always compiled.

-- An error in a log phase, or of a use with on_error = "skip", ends that use alone.
local function guarded(use, f, a, b, c, d)
  local ok, result = pcall(f, a, b, c, d)
  if vm.grown ~= 0 and ok then ok, result = pcall(budget.weigh) end
  if ok then return result end
  if response.is(result) then return result end
  chain.report(use, result)
  if vm.grown ~= 0 then budget.forgive() end
  return nil
end

local function direct(_, f, a, b, c, d) return f(a, b, c, d) end

-- One that is measured, of many that are not: it stands for `weight` of them.
local function measured(use, phase, weight, run, f, a, b, c, d)
  plugin_times.begin(use, phase, weight)
  local result = run(use, f, a, b, c, d)
  plugin_times.finish()
  return result
end

-- Of each chain that measures at times: what sets how many calls are left until it does.
local setters = {}
local kept -- what was left of each while all calls are measured

--- measure_all(on): from now on all calls are measured and traced, and counted as one each; or as before.
function chain.measure_all(on)
  if on == (kept ~= nil) then return end
  local before = kept
  kept, plugin_times.each = on and {} or nil, on and 1 or plugin_times.EVERY
  for i, set in ipairs(setters) do
    local left = set(on and 0 or before[i])
    if on then kept[i] = left end
  end
end

-- Chains of the same text are one program for the JIT compiler: thousands of routes are hot together, where each alone never would be.
local made = {}

-- `other` is the same chain as it measures, and takes every so many turns; nil: this is that one.
local function compile(uses, phase, first, other)
  local names, lines, values = {}, {}, {}
  local last = math.min(first + GROUP - 1, #uses)
  for i = first, last do
    local use = uses[i]
    local k = i - first + 1
    names[#names + 1] = ("local f%d, c%d, s%d, w%d, u%d, m%d = unpack(v[%d], 1, 6)"):format(k, k, k, k, k, k, k)
    step(k, use, phase, lines, not other)
    values[k] = { use.plugin[phase], use.conf, use.state, use.when, use, use.index }
  end
  -- The first one stands for itself, and each later one for all since: what is counted is what has happened.
  if not other then
    table.insert(lines, 1, ("  local n = 1 if times.each ~= 1 then n, weight = weight, %d end"):format(plugin_times.EVERY))
  end
  local rest = last < #uses and compile(uses, phase, last + 1, other and direct) or nil
  if rest then lines[#lines + 1] = "  return rest(ctx, message)" end
  if other and other ~= direct then
    table.insert(lines, 1, "  turn = turn - 1 if turn < 0 then turn = times.each - 1 return other(ctx, message) end")
  end
  local text = "local v, mark, rest, other, check, take, guarded, is_authenticated, measured, direct, enter, leave, trace, times, pass, "
    .. "vm, weigh = ...\nlocal turn, weight = 0, 1\n" .. table.concat(names, "\n") .. "\nreturn function(ctx, message)\n" .. table.concat(lines, "\n")
    .. "\nend, function(n) local left = turn turn = n return left end\n"
  local f = made[text] or assert(loadstring(text, "=chain of " .. phase))
  made[text] = f
  local run, set = f(values, abi.validating and {} or abi.vm.mark, rest, other,
    check, messages.take, guarded, is_authenticated, measured, direct, trace.enter, trace.leave, trace, plugin_times,
    barrier.pass, vm, budget.weigh)
  if other and other ~= direct and not abi.validating then setters[#setters + 1] = set end
  return run
end

--- forget(): all chains are built.
function chain.forget() made = {} end

--- build(uses, phase, reverse) -> function(ctx) -> response|nil (of `websocket`: function(ctx, message)), or nil when no use has the phase
function chain.build(uses, phase, reverse)
  local having = {}
  for _, use in ipairs(uses) do
    if use.plugin[phase] then
      if reverse then table.insert(having, 1, use) else having[#having + 1] = use end
      plugin_times.prepare(use, phase)
    end
  end
  if #having == 0 then return nil end
  if phase == "around" then return compile(having, phase, 1, direct) end -- its time is that of all that it wraps
  return compile(having, phase, 1, compile(having, phase, 1))
end

return chain
