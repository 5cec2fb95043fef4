--- authentication: several methods on a route: the first that knows the client, or all of them; and what is said to those that none knows.
local chain = require "runtime.chain"
local exchange = require "runtime.exchange"
local response = require "tidegate.response"

local CONSUMER, CREDENTIAL = exchange.CONSUMER, exchange.CREDENTIAL
local authentication = {}

local function challenge_of(use)
  local challenge = use.plugin.challenge
  if type(challenge) == "function" then challenge = challenge(use.conf) end
  return challenge or use.label
end

-- The uses that authenticate; of those named, if any are. Who lets in whom nobody knows comes last, and has no part where all are asked for.
local function methods_of(uses, names, is_all)
  local list, last, wanted = {}, {}, nil
  for _, name in ipairs(names or {}) do
    wanted = wanted or {}
    wanted[name] = true
  end
  for _, use in ipairs(uses) do
    local name = use.name or use.plugin_name
    local is_wanted = not wanted or wanted[name] or use.plugin.anonymous and not is_all
    if is_all and is_wanted and use.plugin.anonymous then error(("auth.all names %q, which would be whom all others have known"):format(name), 0) end
    if use.plugin.authenticate and is_wanted then
      if use.plugin.anonymous then last[#last + 1] = use else list[#list + 1] = use end
      if wanted and name then wanted[name] = nil end
    end
  end
  local missing = wanted and next(wanted)
  if missing then error(("auth names %q, which is no use of the route that authenticates (in shadow none does)"):format(missing), 0) end
  for _, use in ipairs(last) do list[#list + 1] = use end
  return list
end

-- 401 with what each method asks for, or says of the credential that it was given.
local function unauthorized(said, all)
  local challenges = {}
  for i, challenge in ipairs(all) do challenges[i] = said[i] or challenge end
  return response.problem(401, "authentication is needed", nil, { ["WWW-Authenticate"] = table.concat(challenges, ", ") })
end

local function said_by(r)
  return r.headers and r.headers["WWW-Authenticate"]
end

-- The verdict when the first methods do not know the client: `given` has what those before `from` have said. A wrong credential is told by the
-- method that it was for, unless another one knows him; a method whose own backend fails denies in the same way.
local function ask_the_rest(ctx, methods, challenges, given, from)
  local failed, wrong, said = nil, nil, {}
  for i, method in ipairs(methods) do
    if i < from or not ((wrong or failed) and method.anonymous) then
      local r = given[i]
      if i >= from then r = method.chain(ctx) end
      if i >= from and not r and ctx[CONSUMER] then return nil end
      if r and r.status == 401 then
        wrong, said[i] = r, said_by(r)
      elseif r then
        failed = failed or r
      end
    end
  end
  if failed then return failed end
  if wrong and #methods > 1 then return unauthorized(said, challenges) end
  return wrong
end

-- The first that knows the client wins. The two that know most clients are asked without a loop, which would keep the path of a request from
-- being compiled.
local function any_of(methods, challenges)
  local first, second = methods[1].chain, methods[2].chain
  return function(ctx)
    local a = first(ctx)
    if a then return ask_the_rest(ctx, methods, challenges, { a }, 2) end
    if ctx[CONSUMER] then return nil end
    local b = second(ctx)
    if not b and ctx[CONSUMER] then return nil end
    return ask_the_rest(ctx, methods, challenges, { nil, b }, 3)
  end
end

-- Who it is says the last one; all that they have known are in ctx.vars.authenticated: { consumer, credential } each.
local function all_of(methods, challenges)
  return function(ctx)
    local known = {}
    ctx.vars.authenticated = known
    for _, method in ipairs(methods) do
      exchange.forget_consumer(ctx)
      local r = method.chain(ctx)
      if r then return r end
      if not ctx[CONSUMER] then return unauthorized({}, challenges) end
      known[#known + 1] = { ctx.consumer, ctx[CREDENTIAL] }
    end
  end
end

-- A use in shadow lets everybody pass: that is what it is for, but not what a route wants that says so.
local function refuse_shadows(uses, auth)
  for _, use in ipairs(auth == "required" and uses or {}) do
    if use.plugin.authenticate_shadow then error('auth = "required", and all uses that authenticate are in shadow', 0) end
  end
end

--- build(uses, auth) -> function(ctx) -> response | nil, its challenges; nil when nothing authenticates. `auth`: { any = names } or
-- { all = names }, or nothing.
function authentication.build(uses, auth)
  local methods, challenges = {}, {}
  local rules = type(auth) == "table" and auth or {}
  local list = methods_of(uses, rules.all or rules.any, rules.all ~= nil)
  if #list == 0 then
    refuse_shadows(uses, auth)
    return nil
  end
  for i, use in ipairs(list) do
    methods[i] = { chain = chain.build({ use }, "authenticate"), anonymous = use.plugin.anonymous }
    if not use.plugin.anonymous then challenges[#challenges + 1] = challenge_of(use) end
  end
  local text = #challenges > 0 and table.concat(challenges, ", ") or nil
  if #list == 1 and not rules.all then return methods[1].chain, text end
  return (rules.all and all_of or any_of)(methods, challenges), text
end

return authentication
