--- response-rate-limit: limits whose cost the upstream tells with its response.
local floor = math.floor

-- "videos=2, images=1"; one limit alone may go without its name: "3".
local function costs_of(text, limits, only)
  local costs = {}
  local alone = only and text:match "^%s*(%d+%.?%d*)%s*$"
  if alone then costs[only] = tonumber(alone) end
  for name, cost in text:gmatch "([%w_.-]+)%s*=%s*(%d+%.?%d*)" do
    if limits[name] then costs[name] = (costs[name] or 0) + tonumber(cost) end
  end
  return costs
end

local function told(decisions, names)
  local policies, lefts = {}, {}
  for i, name in ipairs(names) do
    local headers = decisions[name]:headers()
    policies[i], lefts[i] = headers["RateLimit-Policy"], headers["RateLimit"]
  end
  return table.concat(policies, ", "), table.concat(lefts, ", ")
end

-- What is left of each limit. Redis is asked for all at once: together they wait no longer than one.
local function look(conf, state, key, group)
  local decisions, branches = {}, {}
  for _, name in ipairs(state.names) do
    local function take() return assert(state.limiters[name]:take(key, 0, group .. "." .. name)) end
    if conf.store == "local" or state.only then decisions[name] = take() else branches[name] = take end
  end
  if next(branches) == nil then return decisions end
  return assert(tg.fetch_all(branches))
end

return {
  api = 1,
  doc = [[
Limit what responses cost: the upstream says it in a header, as `videos=2, images=1`.
A request passes as long as each of the `limits` has something left; what it has cost is charged when its response is there, also beyond the limit. So
the last request may cost more than is left, as may those that are under way at the same time. Refused requests get 429 with `Retry-After`.]],

  schema = {
    limits = t.map(t.record {
      limit = t.number { min = 1, max = 1e12 }, per = t.duration { default = "1m", min = 0.001, max = 366 * 86400 },
      algorithm = t.enum { "fixed", "sliding", "gcra", default = "fixed" },
    }, { doc = "By the names that the upstream uses: { limit, per, algorithm } each." }),
    header = t.header { default = "X-Cost", doc = "Where the upstream says it." },
    keep_header = t.boolean { default = false, doc = "Pass that header on to the client." },
    key = t.any_of { t.template(), t.func(), default = "${client.network}", doc = "What is counted by: a template or a function of ctx." },
    group = t.optional(t.string { match = "^[%w_.:-]+$", len = 31,
      doc = "Name of the counters, which uses of the same name share. Default: the route's." }),
    store = t.string { default = "local", match = "^[%w_.:-]+$", doc = '"local", or "redis:NAME".' },
    on_down = t.enum { "local", "allow", "deny", default = "local", doc = "When Redis has no answer." },
    timeout = t.duration { default = "50ms", min = 0.001, max = 10, doc = "How long a request waits for Redis, for all limits together." },
    dict = t.dict { default = "rate-limit", doc = "Shared dictionary of the local counters." },
    headers = t.boolean { default = true, doc = "Tell clients what is left, as `RateLimit`." },
    message = t.string { default = "the cost of earlier requests has used up the limit", doc = "What the problem says." },
  },

  example = [[
route "media" { path = "/media/*", to = "orders", use = {
  { "response-rate-limit", limits = { videos = { limit = 10, per = "1h" }, images = { limit = 100, per = "1h" } } } } }]],

  check = function(conf)
    if next(conf.limits) == nil then return "needs at least one", "limits" end
    for name in pairs(conf.limits) do
      if not name:find "^[%w_.-]+$" or #name > 31 then return "a name has letters, digits, '_', '.' and '-'", "limits" end
    end
  end,

  setup = function(conf)
    local state = { limiters = {}, names = {} }
    for name, one in pairs(conf.limits) do
      local options = { name = name, algorithm = one.algorithm, rate = one.limit, per = one.per, store = conf.store, dict = conf.dict }
      if conf.store ~= "local" then options.on_down, options.timeout = conf.on_down, conf.timeout end
      state.limiters[name] = tg.limit.new(options)
      state.names[#state.names + 1] = name
    end
    table.sort(state.names)
    state.only = #state.names == 1 and state.names[1] or nil
    return state
  end,

  access = function(ctx, conf, state)
    local key = conf.key(ctx)
    if not key or key == "" then return tg.problem(400, "nothing to count by") end
    local decisions = look(conf, state, key, (conf.group or ctx.route.name):sub(1, 31))
    for _, name in ipairs(state.names) do
      local decision = decisions[name]
      if decision.source == "down" and not decision.allowed then return decision:response() end
      if decision.remaining < 1 then
        local refused = decision:response(429, conf.message)
        refused.headers["Retry-After"] = math.max(1, math.ceil(decision.reset_after))
        return refused
      end
    end
    ctx.vars[state] = { decisions = decisions }
  end,

  response = function(ctx, conf, state)
    local own = ctx.vars[state]
    local headers = ctx.res.headers
    local text = headers[conf.header]
    if not own then return end
    if text and ctx.res.source == "upstream" then own.costs = costs_of(text, conf.limits, state.only) end
    if text and not conf.keep_header then headers[conf.header] = nil end
    if not conf.headers then return end
    for name, cost in pairs(own.costs or {}) do
      own.decisions[name].remaining = math.max(0, floor(own.decisions[name].remaining - cost))
    end
    headers["RateLimit-Policy"], headers["RateLimit"] = told(own.decisions, state.names)
  end,

  log = function(ctx, _, state)
    local own = ctx.vars[state]
    for name, cost in pairs(own and own.costs or {}) do
      if cost > 0 then state.limiters[name]:settle(own.decisions[name], cost) end
    end
  end,
}
