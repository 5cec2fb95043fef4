--- chain: the uses of a route as one function a phase, made once a generation.
-- The functions are generated, one straight line a chain, so that the JIT compiles a request as a whole.
local abi = require "abi"
local exchange = require "runtime.exchange"
local response = require "tidegate.response"

local CONSUMER = exchange.CONSUMER
local chain = {}
local GROUP = 12 -- uses in one function: each takes five upvalues, and a function has sixty

local function is_authenticated(ctx)
  return ctx[CONSUMER] ~= false
end

local function check(result, use, phase)
  if response.is(result) then return result end
  error(("%s: %s must return a response or nothing, returned a %s"):format(use.label, phase, type(result)), 0)
end

-- One step as text. u[i] holds the use: f (the function), conf, state, when, use.
local function step(i, use, phase, lines)
  local guard = {}
  if use.when then guard[#guard + 1] = ("w%d(ctx)"):format(i) end
  if phase == "authenticate" then guard[#guard + 1] = "not is_authenticated(ctx)" end
  local open = #guard > 0 and "if " .. table.concat(guard, " and ") .. " then" or "do"
  local call = ("f%d(ctx, c%d, s%d)"):format(i, i, i)
  if use.on_error == "skip" or phase == "log" then
    call = ("guarded(u%d, f%d, ctx, c%d, s%d)"):format(i, i, i, i)
  end
  lines[#lines + 1] = ("  %s mark[0] = %d local r = %s if r ~= nil then return check(r, u%d, %q) end end"):format(
    open, use.index, call, i, phase)
end

-- An error in a log phase, or of a use with on_error = "skip", ends that use alone.
local function guarded(use, f, ctx, conf, state)
  local ok, result = pcall(f, ctx, conf, state)
  if ok then return result end
  if response.is(result) then return result end
  chain.report(use, result)
  return nil
end

local function compile(uses, phase, first)
  local names, lines, values = {}, {}, {}
  local last = math.min(first + GROUP - 1, #uses)
  for i = first, last do
    local use = uses[i]
    local k = i - first + 1
    names[#names + 1] = ("local f%d, c%d, s%d, w%d, u%d = v[%d].f, v[%d].conf, v[%d].state, v[%d].when, v[%d].use"):format(
      k, k, k, k, k, k, k, k, k, k)
    step(k, use, phase, lines)
    values[k] = { f = use.plugin[phase], conf = use.conf, state = use.state, when = use.when, use = use }
  end
  local rest = last < #uses and compile(uses, phase, last + 1) or nil
  if rest then lines[#lines + 1] = "  return rest(ctx)" end
  local text = "local v, mark, check, guarded, is_authenticated, rest = ...\n" .. table.concat(names, "\n")
    .. "\nreturn function(ctx)\n" .. table.concat(lines, "\n") .. "\nend\n"
  local f = assert(loadstring(text, "=chain of " .. phase))
  return f(values, abi.validating and {} or abi.vm.mark, check, guarded, is_authenticated, rest)
end

--- build(uses, phase, reverse) -> function(ctx) -> response|nil, or nil when no use has the phase
function chain.build(uses, phase, reverse)
  local having = {}
  for _, use in ipairs(uses) do
    if use.plugin[phase] then
      if reverse then table.insert(having, 1, use) else having[#having + 1] = use end
    end
  end
  if #having == 0 then return nil end
  return compile(having, phase, 1)
end

return chain
