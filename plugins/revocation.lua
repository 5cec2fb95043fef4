--- revocation: tokens, credentials and consumers that are no longer good, before they expire by themselves.
local claim = tg.jwt.claim

local function jti_of(claims) return type(claims) == "table" and claim(claims, "jti") or nil end

-- The names under which a client whom one method has known may have been revoked.
local function add_known(list, names, consumer, credential, claims)
  names = list:suspect("consumer", consumer.id, names)
  if type(credential) == "table" then names = list:suspect("credential", credential.id, names) end
  local meta = consumer.meta
  if meta and meta ~= claims then names = list:suspect("token", jti_of(meta), names) end
  return names
end

-- The same of all of them, where all of several methods were asked for. The claims of a token are not always the consumer's: a declared one has meta
-- of his own.
local function suspects(list, ctx, consumer)
  local vars = ctx.vars
  local claims, names = vars.jwt, nil
  if claims then names = list:suspect("token", jti_of(claims), names) end
  if vars.oidc then names = list:suspect("token", jti_of(vars.oidc.claims), names) end
  if not vars.authenticated then return (add_known(list, names, consumer, ctx.credential, claims)) end
  for _, known in ipairs(vars.authenticated) do names = add_known(list, names, known[1], known[2], claims) end
  return names
end

local function refuse()
  return tg.problem(401, "this was revoked", nil, { ["WWW-Authenticate"] = 'Bearer error="invalid_token"' })
end

-- What the admin interface tells of a name: PREFIX/token:123.
local function manage(list, name, method, body)
  local _, err, expires
  if method == "PUT" then
    expires = type(body) == "table" and body.expires or 0
    if expires < 0 or expires == math.huge then return tg.problem(400, "expires is a time in Unix seconds, 0: never") end
    _, err = list:revoke(name, expires)
  elseif method == "DELETE" then
    _, err = list:restore(name)
  else
    expires, err = list:find(name)
  end
  if err then return tg.problem(err.status == 400 and 400 or 503, tostring(err.message)) end
  return tg.respond(200, { name = name, revoked = expires ~= nil, expires = expires }, { ["Cache-Control"] = "no-store" })
end

return {
  api = 1,
  doc = [[
Deny tokens, credentials and consumers that were revoked.
They are named `token:<jti>`, `credential:<id>` and `consumer:<id>`: here in `ids`, in a `file` with one on each line, which is followed, and in
Redis, for all gateways. There `<prefix>:ids` is a sorted set of names, each with the time, in Unix seconds, after which it may be forgotten (that of
the token's `exp`; 0: never), `<prefix>:log` a stream of those that were added, and `<prefix>:changed` a channel. Who revokes writes all three:

    MULTI
    ZADD revoked:ids 1767225600 token:123
    XADD revoked:log MAXLEN ~ 10000 * id token:123
    PUBLISH revoked:changed token:123
    EXEC

or `PUT /plugins/revocation/revoked/token:123` with `{"expires": 1767225600}` at the admin interface; `ZREM`, or `DELETE` there, takes it back. Each
worker keeps a Bloom filter of the set (2 bytes a name, with room for half as many again): who is not in it passes without a question, and of the
others, which are 6 in 10,000 of the good ones, Redis is asked; its answer holds for `cache`. A message makes a new one known at once; without it, or
when it is lost, the log does within half of `lag`. While a worker could not read the log for `lag`, or has not read the set yet, Redis is asked of
each client; when it gives no answer nobody passes (503), unless `on_down` is "allow". Names are forgotten eleven minutes after their time. In a
cluster the keys must be in one slot: `prefix = "{revoked}"`. The use stands behind the authentication; without a consumer the answer is 401.]],

  schema = {
    ids = t.list(t.string { len = 512 }, { default = {}, max = 100000, doc = "Names that are revoked." }),
    file = t.optional(t.file { follow = true, doc = "File of such names, one on each line, at most 16 MiB; `#` begins a comment." }),
    redis = t.optional(t.redis { doc = "Where the revoked ones of all gateways are." }),
    prefix = t.string { default = "revoked", match = "^[%w_.:{}-]+$", len = 63, doc = "What its keys begin with." },
    cache = t.duration { default = "1s", min = 0, max = 60, doc = "How long an answer of Redis holds." },
    lag = t.duration { default = "1s", min = 0.1, max = 60, doc = "How old what is known may be, before Redis is asked of each client." },
    on_down = t.enum { "deny", "allow", default = "deny", doc = "What happens to those of whom Redis must be asked while it gives no answer." },
    timeout = t.duration { default = "50ms", min = 0.001, max = 10, doc = "How long a request waits for Redis." },
  },

  example = [[
redis "main" { address = "127.0.0.1:6379" }
consumer "acme" { credentials = { key = { { key = "acme-key", id = "laptop" } } } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth", { "revocation", redis = "main", ids = { "credential:lost-phone" } } } }]],

  check = function(conf)
    if not conf.redis and not conf.file and #conf.ids == 0 then return "needs `redis`, `file` or `ids`: nothing would be revoked" end
  end,

  setup = tg.revocations.open,

  start = function(_, list) list:start() end,

  access = function(ctx, conf, list)
    local consumer = ctx.consumer
    if not consumer then return tg.problem(401, "authentication is needed") end
    local names = suspects(list, ctx, consumer)
    if not names then return end
    local revoked, err = list:is_revoked(names)
    if revoked then return refuse() end
    if revoked == nil then
      tg.log.warn("revocation gives no answer", { redis = conf.redis, reason = tostring(err) })
      if conf.on_down == "allow" then return end
      return tg.problem(503, "nobody can say whether this is still good", nil, { ["Retry-After"] = "1" })
    end
  end,

  admin = function(request, conf, list)
    if not conf.redis or request.path[1] ~= conf.prefix or not request.path[2] then return nil end
    return manage(list, table.concat(request.path, "/", 2), request.method, request.body)
  end,
}
