--- revocation: tokens, credentials and consumers that are no longer good, before they expire by themselves.
local REMEMBERED = 10000 -- answers, in this worker

local function add(keys, conf, kind, id)
  if type(id) == "string" then keys[#keys + 1] = ("%s:%s:%s"):format(conf.prefix, kind, id) end
end

local function jti_of(claims) return type(claims) == "table" and claims.jti or nil end

-- The keys under which this client may have been revoked: as each method has known him, where all of several were asked for. The claims of a
-- token are not always the consumer's: a declared one has meta of his own.
local function keys_of(ctx, conf)
  local keys, vars = {}, ctx.vars
  add(keys, conf, "token", jti_of(vars.jwt))
  add(keys, conf, "token", vars.oidc and jti_of(vars.oidc.claims))
  for _, known in ipairs(vars.authenticated or { { ctx.consumer, ctx.credential } }) do
    local consumer, credential = known[1], known[2]
    add(keys, conf, "token", jti_of(consumer.meta))
    add(keys, conf, "credential", type(credential) == "table" and credential.id)
    add(keys, conf, "consumer", consumer.id)
  end
  return keys
end

-- Whether one of them is there: boolean | nil, err
local function ask(state, keys)
  local values, err = state.db:pipeline(function(p)
    for _, key in ipairs(keys) do p:exists(key) end -- one by one: in a cluster each is elsewhere
  end)
  if not values then return nil, err end
  local revoked = false
  for i = 1, #keys do
    if type(values[i]) ~= "number" then return nil, values[i] end
    revoked = revoked or values[i] > 0
  end
  return revoked
end

local function remember(state, mark, revoked, till)
  if state.count >= REMEMBERED then state.known, state.count = {}, 0 end
  state.known[mark], state.count = { revoked, till }, state.count + 1
end

return {
  api = 1,
  doc = [[
Deny tokens, credentials and consumers that were revoked.
A key of Redis, with any value, revokes: `<prefix>:token:<jti>`, `<prefix>:credential:<id>` or `<prefix>:consumer:<id>`; give it the time to live
that the token has left (`SET revoked:token:123 1 EX 3600`). All gateways see it after `cache` at the latest. The use stands behind the
authentication; without a consumer the answer is 401. While Redis is away nobody passes whose answer is not remembered (503), unless `on_down` is
"allow".]],

  schema = {
    redis = t.redis { doc = "Where the revoked ones are." },
    prefix = t.string { default = "revoked", match = "^[%w_.:-]+$", len = 63, doc = "What their keys begin with." },
    cache = t.duration { default = "1s", min = 0, max = 60, doc = "How long an answer holds." },
    on_down = t.enum { "deny", "allow", default = "deny", doc = "What happens while Redis gives no answer." },
    timeout = t.duration { default = "50ms", min = 0.001, max = 10, doc = "How long a request waits for Redis." },
  },

  example = [[
redis "main" { address = "127.0.0.1:6379" }
consumer "acme" { credentials = { key = { { key = "acme-key", id = "laptop" } } } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth", { "revocation", redis = "main" } } }]],

  setup = function(conf)
    return { db = tg.redis(conf.redis):with { timeout = conf.timeout }, known = {}, count = 0 }
  end,

  access = function(ctx, conf, state)
    if not ctx.consumer then return tg.problem(401, "authentication is needed") end
    local keys, now = keys_of(ctx, conf), tg.now.monotonic()
    local mark = table.concat(keys, "\0")
    local found = state.known[mark]
    local revoked
    if found and now < found[2] then
      revoked = found[1]
    else
      local err
      revoked, err = ask(state, keys)
      if revoked == nil then
        tg.log.warn("revocation gives no answer", { redis = conf.redis, reason = tostring(err) })
        if conf.on_down == "allow" then return end
        return tg.problem(503, "nobody can say whether this is still good", nil, { ["Retry-After"] = "1" })
      end
      if conf.cache > 0 then remember(state, mark, revoked, now + conf.cache) end
    end
    if revoked then return tg.problem(401, "this was revoked", nil, { ["WWW-Authenticate"] = 'Bearer error="invalid_token"' }) end
  end,
}
