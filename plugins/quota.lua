--- quota: so many units a day, week, month or year of the calendar for each key, counted in Redis; readable and resettable as a handler.
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local DAY = 86400
local days_of, date_of = tg.time.days, tg.time.day

local function next_month(year, month)
  if month == 12 then return year + 1, 1 end
  return year, month + 1
end

local function month_before(year, month)
  if month == 1 then return year - 1, 12 end
  return year, month - 1
end

-- The day on which the period of a month begins: one that it does not have is its last.
local function day_in(year, month, day)
  local y, m = next_month(year, month)
  return min(days_of(year, month, day), days_of(y, m, 1) - 1)
end

-- { first day, first day of the next one } of the period that a day is in, with `anchor` { year, month, day }
local periods = {
  day = function(today) return today, today + 1 end,
  week = function(today, anchor)
    local first = today - (today - days_of(anchor[1], anchor[2], anchor[3])) % 7
    return first, first + 7
  end,
  month = function(today, anchor)
    local year, month = date_of(today)
    if today < day_in(year, month, anchor[3]) then year, month = month_before(year, month) end
    local y, m = next_month(year, month)
    return day_in(year, month, anchor[3]), day_in(y, m, anchor[3])
  end,
  year = function(today, anchor)
    local year = date_of(today)
    if today < day_in(year, anchor[2], anchor[3]) then year = year - 1 end
    return day_in(year, anchor[2], anchor[3]), day_in(year + 1, anchor[2], anchor[3])
  end,
}

-- ARGV: limit, cost, what is owed, end of the period. -> { whether it was charged, used as text }
local TAKE = [[
local used = tonumber(redis.call('GET', KEYS[1]) or 0) + tonumber(ARGV[3])
local cost = tonumber(ARGV[2])
local allowed = used + cost <= tonumber(ARGV[1]) + 1e-9
local more = tonumber(ARGV[3]) + (allowed and cost or 0)
if more ~= 0 then
  redis.call('INCRBYFLOAT', KEYS[1], string.format('%.17g', more))
  redis.call('EXPIREAT', KEYS[1], ARGV[4])
end
return { allowed and 1 or 0, string.format('%.17g', allowed and used + cost or used) }
]]

local KEEP, NO_LIMIT = 35 * DAY, 1e300 -- after its end a period can still be read

local function period_of(conf, state)
  local now = tg.now()
  if not state.till or now >= state.till or now < state.from then
    local shift = conf.utc_offset * 3600
    local first, next_first = periods[conf.period](floor((now + shift) / DAY), state.anchor)
    state.from, state.till = first * DAY - shift, next_first * DAY - shift
    state.label = ("%04d-%02d-%02d"):format(date_of(first))
  end
  return state
end

local function id_of(key)
  if #key > 64 or key:find "[{}%c]" then return tg.crypto.hex(tg.crypto.sha256(key)):sub(1, 32) end
  return key
end

local function name_of(conf, state, key)
  return ("tidegate:quota:{%s}:%s:%s"):format(id_of(key), conf.group, period_of(conf, state).label)
end

local function limit_for(ctx, conf)
  local consumer = ctx.consumer
  local plan = conf.plans and (conf.plan and conf.plan(ctx) or not conf.plan and consumer and (consumer.plan or consumer.meta and consumer.meta.plan))
  if plan and conf.plans[plan] then return conf.plans[plan] end
  for _, group in ipairs(conf.plans and not conf.plan and consumer and consumer.groups or {}) do
    if conf.plans[group] then return conf.plans[group] end
  end
  return conf.limit
end

-- Charges -> whether there was room, what is used | nil, err. What Redis did not hear of before is charged, too.
local function charge(conf, state, key, limit, cost)
  local name = name_of(conf, state, key)
  local owed = state.owed:get(name)
  if not (owed and state.owed:compare_set(name, owed, nil)) then owed = 0 end -- another may have been faster
  local reply, err = state.take({ name }, { limit, cost, owed, floor(state.till) + KEEP })
  local used = type(reply) == "table" and tonumber(reply[2])
  if used then return reply[1] == 1, used end
  if owed ~= 0 then state.owed:incr(name, owed, KEEP) end
  return nil, err
end

local function owe(conf, state, key, cost)
  if cost ~= 0 then state.owed:incr(name_of(conf, state, key), cost, KEEP) end
end

local function usage(conf, state, limit, used)
  return {
    name = conf.group, limit = limit, used = used, remaining = max(0, limit - used), period = conf.period,
    from = tg.time.iso(state.from), till = tg.time.iso(state.till),
  }
end

local function number_from(value, ctx)
  if type(value) == "number" then return value end
  value = tonumber((value(ctx)))
  return value and value >= 0 and value < math.huge and value or nil
end

-- Reads, sets or resets the usage of a key.
local function manage(conf, state, key, method, body, limit)
  local name = name_of(conf, state, key)
  local used
  if method == "DELETE" then
    assert(state.db:del(name))
    state.owed:delete(name)
  elseif method == "PUT" then
    used = type(body) == "table" and tonumber(body.used)
    if not used or used < 0 or used == math.huge then return tg.problem(400, 'found no {"used": NUMBER}') end
    assert(state.db:set(name, used, "EXAT", floor(state.till) + KEEP))
    state.owed:delete(name)
  elseif method == "GET" or method == "HEAD" then
    local text, err = state.db:get(name)
    if err then error(err) end
    used = (tonumber(text) or 0) + (state.owed:get(name) or 0)
  else
    return tg.respond(405, "", { Allow = "GET, HEAD, PUT, DELETE" })
  end
  return tg.respond(200, usage(conf, state, limit, used or 0), { ["Cache-Control"] = "no-store" })
end

return {
  api = 1,
  doc = [[
Refuse what is beyond `limit` units in a day, week, month or year, for each value of `key`; counted in Redis, so it lasts as long as that keeps it.
A period begins at midnight (`utc_offset` hours from UTC) on the day of `anchor`: of a month without that day, on its last. Refused requests get 429
with `Retry-After`, the end of the period. While Redis is away `on_down` decides; what passes then is charged when it is back.
As the handler of a route it tells the usage of a key as JSON: `GET` reads, `DELETE` resets, `PUT {"used": 5}` sets. Such a route must be for
administrators only: give it a plugin that authenticates. The admin interface has the same at `/plugins/quota/GROUP/KEY`.]],

  schema = {
    group = t.string { match = "^[%w_.:-]+$", len = 63, doc = "Of the counters; the handler for the usage has the same." },
    limit = t.number { min = 1, max = 1e15, doc = "Units in a period." },
    plans = t.optional(t.map(t.number { min = 0, max = 1e15 }, { doc = "Other limits for consumers of these plans." })),
    plan = t.optional(t.any_of { t.template(), t.func(), doc = "Name of the plan. Default: the consumer's `plan`, or one of its groups." }),
    period = t.enum { "day", "week", "month", "year", default = "month", doc = "Of the calendar." },
    anchor = t.date { default = "2024-01-01",
      doc = "A day on which a period begins: of a month its day, of a week its weekday, of a year day and month." },
    utc_offset = t.number { default = 0, min = -12, max = 14, doc = "Hours from UTC, of midnight." },
    key = t.any_of { t.template(), t.func(), default = "${consumer.id}", doc = "What is counted by: a template or a function of ctx." },
    cost = t.any_of { t.number { min = 0 }, t.template(), t.func(), default = 1, doc = "What a request costs." },
    settle = t.optional(t.func { doc = "A function of ctx that gives what it has cost in the end; the rest is charged, or given back." }),
    redis = t.redis { doc = "Where it is counted." },
    timeout = t.duration { default = "50ms", min = 0.001, max = 10, doc = "How long a request waits for Redis." },
    on_down = t.enum { "allow", "deny", default = "allow", doc = "When Redis has no answer." },
    dict = t.dict { default = "rate-limit", doc = "Shared dictionary of what is owed to Redis." },
    headers = t.boolean { default = true, doc = "Tell clients what is left, as `RateLimit`." },
  },

  example = [[
redis "main" { address = "127.0.0.1:6379" }
route "api" { path = "/api/*", to = "orders", use = { "key-auth",
  { "quota", group = "api", limit = 10000, plans = { gold = 1000000 }, redis = "main" } } }
route "usage" { path = "/admin/usage/{id}", handler = { "quota", group = "api", limit = 10000, redis = "main", key = "${params.id}" },
  use = { "key-auth" } }]],

  setup = function(conf)
    local db = tg.redis(conf.redis):with { timeout = conf.timeout }
    return { db = db, take = db:script(TAKE), owed = tg.dict(conf.dict), anchor = { date_of(floor(conf.anchor / DAY)) } }
  end,

  idle = function(conf)
    local names = {}
    if not conf.headers then names[1] = "response" end
    if not conf.settle then names[#names + 1] = "log" end
    return names
  end,

  access = function(ctx, conf, state)
    local key = conf.key(ctx)
    if not key or key == "" then return tg.problem(400, "nothing to count by") end
    local cost, limit = number_from(conf.cost, ctx), limit_for(ctx, conf)
    if not cost then return tg.problem(400, "the cost of the request is no number") end
    local allowed, used = charge(conf, state, key, limit, cost)
    local down = allowed == nil
    if down then
      tg.log.warn("a quota cannot be counted", { quota = conf.group, err = tostring(used) })
      if conf.on_down == "deny" then return tg.problem(503, "the quota cannot be counted now", nil, { ["Retry-After"] = 1 }) end
      owe(conf, state, key, cost)
    end
    ctx.vars[state] = { key = key, limit = limit, cost = cost, used = not down and used or nil }
    if allowed == false then
      ctx.vars[state].cost = nil
      return tg.problem(429, "the quota is used up", usage(conf, state, limit, used), { ["Retry-After"] = max(1, ceil(state.till - tg.now())) })
    end
  end,

  response = function(ctx, conf, state)
    local own = ctx.vars[state]
    if not own or not own.used then return end
    local headers = ctx.res.headers
    headers["RateLimit-Policy"] = ('"%s";q=%d;w=%d'):format(conf.group, own.limit, state.till - state.from)
    headers["RateLimit"] = ('"%s";r=%d;t=%d'):format(conf.group, max(0, floor(own.limit - own.used)), max(0, ceil(state.till - tg.now())))
  end,

  log = function(ctx, conf, state)
    local own = ctx.vars[state]
    local actual = own and own.cost and number_from(conf.settle, ctx)
    if not actual or actual == own.cost then return end
    if charge(conf, state, own.key, NO_LIMIT, actual - own.cost) == nil then owe(conf, state, own.key, actual - own.cost) end
  end,

  handler = function(ctx, conf, state)
    local key = conf.key(ctx)
    if not key or key == "" then return tg.problem(404, "no such key") end
    local body = ctx.req.method == "PUT" and assert(ctx.req:json(1024)) or nil
    return manage(conf, state, key, ctx.req.method, body, limit_for(ctx, conf))
  end,

  -- Of the admin interface: GROUP/KEY.
  admin = function(request, conf, state)
    if request.path[1] ~= conf.group or not request.path[2] then return nil end
    return manage(conf, state, table.concat(request.path, "/", 2), request.method, request.body, conf.limit)
  end,
}
