--- rate-limit: so many requests a window for each key, counted in memory that all workers share.
-- A fixed window: up to twice the limit can pass around its border. One counter a key and window, which ends by itself.
local floor, ceil, max = math.floor, math.ceil, math.max

-- What the names of this window's counters begin with; made once a window.
local function scope(state, counter, window)
  if state.window ~= window then state.window, state.scopes = window, {} end
  local name = state.scopes[counter]
  if not name then
    name = counter .. ":" .. window .. ":"
    state.scopes[counter] = name
  end
  return name
end

return {
  api = 1,
  doc = [[
Refuse more than `limit` requests in a window of `per`, for each value of `key`.
Refused requests get 429 with `Retry-After`. Every response says what is left in `RateLimit` and `RateLimit-Policy`
(draft-ietf-httpapi-ratelimit-headers); `legacy_headers` adds `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Counters survive reloads; a request
whose key has no value is refused with 400.]],

  schema = {
    limit = t.integer { min = 1, doc = "Requests in a window." },
    per = t.duration { default = "1m", min = 1, doc = "Length of the window." },
    key = t.template { default = "${client.ip}", doc = "What is counted by." },
    counter = t.optional(t.string { len = 63, doc = "Name of the counter; uses with the same name share it. Default: the route's name." }),
    dict = t.dict { default = "rate-limit", doc = "Shared dictionary that holds the counters." },
    headers = t.boolean { default = true, doc = "Tell clients what is left." },
    legacy_headers = t.boolean { default = false, doc = "Tell it in the `X-RateLimit-*` form, too." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "rate-limit", limit = 100, per = "1m" } } }]],

  setup = function(conf)
    return {
      counters = tg.dict(conf.dict),
      remaining = "rate_limit_remaining",
      tells = conf.headers or conf.legacy_headers,
      window = 0, scopes = {},
      policy = (';q=%d;w=%d'):format(conf.limit, conf.per),
      limit = ("%d"):format(conf.limit),
    }
  end,

  access = function(ctx, conf, state)
    local key = conf.key(ctx)
    if not key then return tg.problem(400, "nothing to count by") end
    if #key > 256 then key = tg.crypto.hex(tg.crypto.sha256(key)) end
    local now, per = tg.now(), conf.per
    local window = floor(now / per)
    local used = assert(state.counters:incr_in(scope(state, conf.counter or ctx.route.name, window), key, 1, per))
    if state.tells then ctx.vars[state.remaining] = max(0, conf.limit - used) end
    if used > conf.limit then
      local reset = ceil((window + 1) * per - now)
      return tg.problem(429, "rate limit exceeded", nil, { ["Retry-After"] = max(1, reset) })
    end
  end,

  response = function(ctx, conf, state)
    if not state.tells then return end
    local remaining = ctx.vars[state.remaining]
    if not remaining then return end
    local reset = ceil(conf.per - tg.now() % conf.per)
    local headers = ctx.res.headers
    if conf.headers then
      local name = '"' .. (conf.counter or ctx.route.name) .. '"'
      headers["RateLimit-Policy"] = name .. state.policy
      headers["RateLimit"] = name .. ";r=" .. remaining .. ";t=" .. reset
    end
    if conf.legacy_headers then
      headers["X-RateLimit-Limit"] = state.limit
      headers["X-RateLimit-Remaining"] = remaining
      headers["X-RateLimit-Reset"] = reset
    end
  end,
}
