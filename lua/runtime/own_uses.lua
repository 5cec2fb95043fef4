--- own_uses: the uses that a consumer has of his own: they run for his requests alone, in place of the same ones of a route, or behind them.
-- A route has its phases twice then: as they are, for everybody, and with a place for what is a consumer's own. Which of them an exchange goes
-- through is decided once, when the client is known; without such a consumer nothing of this is there.
local abi = require "abi"
local chain = require "runtime.chain"

local own_uses = { any = false } -- any: some consumer has uses of his own
local profiles = {} -- consumer -> { keys, [key] = { access, response, log: chains } }
local replaced = {} -- set of the keys that some consumer has

local PHASES = { "access", "response", "log" }
local TOO_EARLY = "cannot be of a consumer: its `%s` runs before anybody knows who asks, or goes around what others do"
local REFUSED = { "authenticate", "rewrite", "around", "balance", "websocket" }

-- What two uses must have in common for one to stand in place of the other.
local function key_of(use) return use.name or use.plugin_name end

--- problem(use) -> why this use, whose plugin is loaded, cannot be a consumer's | nil
function own_uses.problem(use)
  local plugin = use.plugin
  if use.shadow then return "cannot be of a consumer and in shadow" end
  for _, phase in ipairs(REFUSED) do
    if plugin[phase] and not (phase == "rewrite" and plugin.of_consumer) then return TOO_EARLY:format(phase) end
  end
  if plugin.core then return "cannot be of a consumer: the core does for all exchanges alike what it does" end
  if not (plugin.access or plugin.response or plugin.log or plugin.of_consumer) then
    return "cannot be of a consumer: it does nothing with his requests"
  end
end

--- plugin_of(plugin) -> it, as it runs for a consumer: what it does before he is known it does when he is.
function own_uses.plugin_of(plugin)
  if not plugin.of_consumer then return plugin end
  local late = {}
  for name, value in pairs(plugin) do late[name] = value end
  late.rewrite, late.access = nil, plugin.of_consumer
  return late
end

--- define(list): once a generation, before routes are built. list of { consumer (the object), uses }
function own_uses.define(list)
  own_uses.any = #list > 0
  for _, entry in ipairs(list) do
    local keys, by_key = {}, {}
    for _, use in ipairs(entry.uses) do
      local key = key_of(use) or use
      if not by_key[key] then
        keys[#keys + 1], by_key[key] = key, {}
        replaced[key] = true
      end
      table.insert(by_key[key], use)
    end
    local profile = { keys = keys }
    for _, key in ipairs(keys) do
      local chains = {}
      for _, phase in ipairs(PHASES) do chains[phase] = chain.build(by_key[key], phase, phase == "response") end
      profile[key] = chains
    end
    profiles[entry.consumer] = profile
  end
end

--- are_of(consumer) -> whether he has some
function own_uses.are_of(consumer) return profiles[consumer] ~= nil end

local function profile_of(ctx) return profiles[ctx.consumer] end

-- In place of a use: the consumer's, all those of this key where the first of the route's stands.
local function in_place(use, key, phase, is_first)
  local usual = chain.build({ use }, phase)
  return function(ctx)
    local own = profile_of(ctx)[key]
    if not own then return usual and usual(ctx) end
    local f = is_first and own[phase]
    if f then return f(ctx) end
  end
end

-- Behind all others: those of which the route has none.
local function behind(has, phase, reverse)
  return function(ctx)
    local profile = profile_of(ctx)
    local keys = profile.keys
    for i = reverse and #keys or 1, reverse and 1 or #keys, reverse and -1 or 1 do
      local f = not has[keys[i]] and profile[keys[i]][phase]
      local r = f and f(ctx)
      if r then return r end
    end
  end
end

local function run_all(steps)
  if #steps == 0 then return nil end
  return function(ctx)
    for i = 1, #steps do
      local r = steps[i](ctx)
      if r then return r end
    end
  end
end

--- builder(uses) -> f(list, phase, reverse, ends) as chain.build, of some of these uses, for those who have uses of their own; `ends`: behind them
-- comes what the consumer has and the route has not.
function own_uses.builder(uses)
  local has, first = {}, {}
  for _, use in ipairs(uses) do
    local key = key_of(use)
    if key and replaced[key] and not use.shadow and not has[key] then has[key], first[use] = true, true end
  end
  return function(list, phase, reverse, ends)
    local steps, plain = {}, {}
    local function flush()
      local made = #plain > 0 and chain.build(plain, phase) or nil
      if made then steps[#steps + 1] = made end
      plain = {}
    end
    if reverse and ends then steps[1] = behind(has, phase, true) end
    for i = reverse and #list or 1, reverse and 1 or #list, reverse and -1 or 1 do
      local use = list[i]
      local key = key_of(use)
      if key and has[key] and not use.shadow then
        flush()
        steps[#steps + 1] = in_place(use, key, phase, first[use])
      else
        plain[#plain + 1] = use
      end
    end
    flush()
    if ends and not reverse then steps[#steps + 1] = behind(has, phase, false) end
    return run_all(steps)
  end
end

--- enter(x, p, consumer) -> the phases that the exchange goes through from now on: p, or those with a place for what is his own
function own_uses.enter(x, p, consumer)
  local own = p.own
  if not own or not profiles[consumer] then return p end
  x.edits, x.wants = abi.no_edits, bit.bor(x.wants, own.wants)
  return own
end

--- told(list, uses) -> what `tidegate explain` says of them on a route: list of { consumer, name, at, instead }. list: as of define
function own_uses.told(list, uses)
  local said, at = {}, {}
  for _, use in ipairs(uses) do
    local key = key_of(use)
    if key and not use.shadow then at[key] = at[key] or use.at end
  end
  for _, entry in ipairs(list) do
    for _, use in ipairs(entry.uses) do
      said[#said + 1] = { consumer = entry.consumer.id, name = use.label, at = use.at, instead = at[key_of(use) or false],
        ["when"] = use.conditional or nil }
    end
  end
  return said
end

return own_uses
