--- rate-limit: so many requests in a time for each key, counted by this gateway or, through Redis, by all of them.
local algorithms = { "sliding", "fixed", "log", "gcra", "leaky", "concurrency" }
local amount = t.number { min = 0.000001, max = 1e12, doc = "How many." }
local key_of = t.any_of { t.template(), t.func() }

local one = {
  limit = amount, per = t.duration { default = "1m", min = 0.001, max = 366 * 86400 },
  algorithm = t.optional(t.enum(algorithms)), burst = t.optional(t.number { min = 1 }), delay = t.optional(t.duration()),
  key = t.optional(key_of), name = t.optional(t.string { match = "^[%w_.:-]+$", len = 63 }),
}
local shadowed = tg.metrics.counter("tidegate_rate_limit_shadow_total",
  { help = "requests that a limit in shadow would have refused", labels = { "limit" } })

-- The limits of a use or of a plan as tg.limit takes them, and the key of each when they have several.
local function limiter_of(conf, list)
  local options = { name = conf.group or "rate-limit", limits = {}, dict = conf.dict, store = conf.store, count_denied = conf.count_denied }
  if conf.store ~= "local" then
    options.mode, options.on_down, options.timeout, options.nodes = conf.mode, conf.on_down, conf.timeout, conf.nodes
  end
  local keys, several = {}, false
  for i, each in ipairs(list) do
    options.limits[i] = {
      name = each.name, rate = each.limit, per = each.per, algorithm = each.algorithm or conf.algorithm, burst = each.burst, delay = each.delay,
    }
    keys[i] = each.key or conf.key
    several = several or each.key ~= nil
  end
  return { limiter = tg.limit.new(options), keys = several and keys or nil }
end

-- The limits that this consumer's plan has, else those of the use.
local function chosen(ctx, conf, state)
  local plans = state.plans
  if not plans then return state.own end
  local name = conf.plan and conf.plan(ctx)
  if name and plans[name] then return plans[name] end
  local consumer = ctx.consumer
  if consumer and not conf.plan then
    local named = consumer.plan or consumer.meta and consumer.meta.plan
    if named and plans[named] then return plans[named] end
    for _, group in ipairs(consumer.groups or {}) do
      if plans[group] then return plans[group] end
    end
  end
  return state.own
end

local function keys_for(ctx, conf, limits)
  if not limits.keys then return conf.key(ctx) end
  local list = {}
  for i, f in ipairs(limits.keys) do
    list[i] = f(ctx)
    if not list[i] then return nil end
  end
  return list
end

local function cost_for(ctx, conf)
  local cost = conf.cost
  if type(cost) == "number" then return cost end
  cost = tonumber((cost(ctx)))
  if not cost or cost < 0 or cost ~= cost or cost == math.huge then return nil end
  return cost
end

-- In shadow, where the runtime holds back what is returned, it is counted by the limit's name, too.
local function refuse(ctx, name, refused)
  if ctx.shadow then shadowed:inc(1, { limit = name }) end
  return refused
end

local settled = {
  request_bytes = function(ctx) return ctx.bytes_in end,
  response_bytes = function(ctx) return ctx.bytes_out end,
}

return {
  api = 1,
  doc = [[
Refuse more than `limit` requests in `per`, for each value of `key`.
`sliding` counts this window and, as much as is not yet over, the one before; `fixed` begins anew with each window, so twice the limit may pass around
its border; `log` remembers each request and is exact in every window; `gcra` lets `limit` in `per` through at an even rate and `burst` at once;
`leaky` lets them through one after the other and makes those wait that come too early, up to `delay`; `concurrency` is how many may be under way.
Several `limits` are counted all together or, when one of them refuses, not at all. Refused requests get 429 with `Retry-After` and a problem
that names the limit; a request whose key has no value gets 400. A key may be `"${client.network}"` (an address, of IPv6 the first 64 bits),
`"${consumer.id}"`, `"${credential.id}"`, `"${consumer.meta.NAME}"` (a claim of its token), `header`, `cookie`, `query` or `params` (of the path)
with `.NAME`, `"${route.name}"`, or several of them in one text. Counters survive reloads. With `shadow = true`, as of any use, it counts, but
refuses and delays nothing.

`store = "redis:NAME"` counts in that Redis, for all gateways, on its clock. `mode = "lease"` takes portions in advance and asks a few times a second
for each key instead of for each request: all together never let more through; what may be refused too early are the units in portions, an eighth of a
window's limit at most, and of a burst rate * 0.25 s, a quarter at most. While Redis is away (`timeout` is the longest that a request waits for it),
`on_down = "local"` goes on with the gateway's share of the limit, which it knows from how many gateways there were; what it lets through is charged
when Redis is back. What a master of Redis has not told its replica before it dies is forgotten with it.]],

  schema = {
    limit = t.optional(amount),
    per = t.duration { default = "1m", min = 0.001, max = 366 * 86400, doc = "In which time." },
    algorithm = t.enum { "sliding", "fixed", "log", "gcra", "leaky", "concurrency", default = "sliding", doc = "How it is counted." },
    burst = t.optional(t.number { min = 1, doc = "Of `gcra`: how many at once. Default: `limit`." }),
    delay = t.optional(t.duration { doc = "Of `leaky`: how long one may wait. Default: 1 s." }),
    limits = t.optional(t.list(t.record(one), { min = 1, max = 8,
      doc = "Several at once: { limit, per, algorithm, burst, delay, key, name } each." })),
    plans = t.optional(t.map(t.list(t.record(one), { min = 1, max = 8 }), { doc = "Other limits for consumers of these plans." })),
    plan = t.optional(t.any_of { t.template(), t.func(), doc = "Name of the plan. Default: the consumer's `plan`, or one of its groups." }),
    key = t.any_of { t.template(), t.func(), default = "${client.network}", doc = "What is counted by: a template or a function of ctx." },
    group = t.optional(t.string { match = "^[%w_.:-]+$", len = 63,
      doc = "Name of the counters, which uses of the same name share. Default: the route's." }),
    cost = t.any_of { t.number { min = 0 }, t.template(), t.func(), default = 1,
      doc = "What a request costs: a number, or a template or function that gives one." },
    settle = t.optional(t.any_of { t.enum { "request_bytes", "response_bytes" }, t.func(),
      doc = "What it has cost in the end, charged after the response: bytes, or a function of ctx." }),
    store = t.string { default = "local", match = "^[%w_.:-]+$", doc = '"local", or "redis:NAME".' },
    mode = t.enum { "exact", "lease", default = "exact", doc = "In Redis: each request asks, or portions are taken in advance." },
    on_down = t.enum { "local", "allow", "deny", default = "local", doc = "When Redis has no answer." },
    timeout = t.duration { default = "50ms", min = 0.001, max = 10, doc = "How long a request waits for Redis." },
    nodes = t.optional(t.integer { min = 1, doc = "How many gateways share the limit while Redis is away. Default: as many as there were." }),
    count_denied = t.boolean { default = false, doc = "Charge also what is refused." },
    dict = t.dict { default = "rate-limit", doc = "Shared dictionary of the local counters." },
    headers = t.list(t.enum { "draft", "x-ratelimit", "kong" }, { default = { "draft" },
      doc = "Forms in which clients are told what is left; {}: none." }),
    status = t.status { default = 429, doc = "Of what is refused." },
    message = t.string { default = "rate limit exceeded", doc = "What the problem says." },
    body = t.optional(t.string { doc = "In place of the problem that tells of a limit." }),
    content_type = t.string { default = "text/plain", doc = "Of `body`." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = {
  { "rate-limit", limits = { { limit = 10, per = "1s" }, { limit = 1000, per = "1h" } }, key = "${client.network}" } } }]],

  check = function(conf)
    if (conf.limit == nil) == (conf.limits == nil) then return "needs either `limit` or `limits`" end
    if conf.limits and (conf.burst or conf.delay) then return "belongs into `limits`", conf.burst and "burst" or "delay" end
    if conf.plan and not conf.plans then return "is the name of one of `plans`, and there are none", "plan" end
  end,

  setup = function(conf)
    local state = { own = limiter_of(conf, conf.limits or { { limit = conf.limit, per = conf.per, burst = conf.burst, delay = conf.delay } }) }
    if conf.plans then
      state.plans = {}
      for name, list in pairs(conf.plans) do state.plans[name] = limiter_of(conf, list) end
    end
    state.tells = state.own.limiter:tells(conf.headers)
    for _, limits in pairs(state.plans or {}) do limits.limiter:tells(conf.headers) end
    return state
  end,

  -- What is told is known when the request is let through or not; the core puts it into the response.
  response_edits = function(_, state) return state.tells and tg.limit.told or nil end,

  idle = function(conf)
    local names = {}
    if #conf.headers == 0 then names[1] = "response" end
    if not conf.settle then names[#names + 1] = "log" end
    return names
  end,

  access = function(ctx, conf, state)
    local limits = chosen(ctx, conf, state)
    local key = keys_for(ctx, conf, limits)
    local name = conf.group or ctx.route.name
    if not key or key == "" then return refuse(ctx, name, tg.problem(400, "nothing to count by")) end
    local cost = cost_for(ctx, conf)
    if not cost then return refuse(ctx, name, tg.problem(400, "the cost of the request is no number")) end
    local decision
    if not state.tells or ctx.shadow then
      decision = assert(limits.limiter:take(key, cost, name))
      ctx.vars[state] = decision
    elseif conf.settle then
      decision = assert(limits.limiter:take(key, cost, name))
      decision:tell(conf.headers)
      ctx.vars[state] = decision
    else
      decision = assert(limits.limiter:admit(key, cost, name))
      if decision == true then return end
    end
    if decision.delay > 0 and not ctx.shadow then tg.sleep(decision.delay) end
    if decision.allowed then return end
    local refused = decision:response(conf.status, conf.message)
    if ctx.shadow or not conf.body or decision.source == "down" then return refuse(ctx, name, refused) end
    return tg.respond(conf.status, conf.body, { ["Content-Type"] = conf.content_type, ["Retry-After"] = refused.headers["Retry-After"] })
  end,

  response = function(ctx, conf, state)
    local decision = ctx.vars[state]
    if decision and (not state.tells or ctx.shadow) then decision:apply(ctx, conf.headers) end
  end,

  log = function(ctx, conf, state)
    local decision = ctx.vars[state]
    if not decision then return end
    local actual = (settled[conf.settle] or conf.settle)(ctx)
    if type(actual) == "number" and actual >= 0 then decision.limiter:settle(decision, actual) end
  end,
}
