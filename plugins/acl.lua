--- acl: which of those who are known may pass.
local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

-- A claim is one value, or a list of which one is enough.
local function has_claim(consumer, claims)
  for path, wanted in pairs(claims) do
    local found
    if type(consumer.meta) == "table" then found = tg.jwt.claim(consumer.meta, path) end
    local ok = false
    for _, one in ipairs(type(found) == "table" and found or { found }) do ok = ok or wanted[tostring(one)] end
    if not ok then return false end
  end
  return true
end

return {
  api = 1,
  doc = [[
Allow or deny those that an authentication has made known.
`allow` and `deny` are groups; who is in a denied one gets 403, and so does who is in none of those allowed. `consumers` allows by id. `claims` are
members of the consumer's `meta`, the claims of its token for `jwt`, each with the values of which it must have one. All that is given must hold. With
`methods` the use is about these methods only; HEAD is asked for what GET is. Without a consumer the answer is 401.]],

  schema = {
    allow = t.optional(t.list(t.string(), { min = 1, max = 1000, doc = "Groups, one of which the consumer must be in." })),
    deny = t.list(t.string(), { default = {}, max = 1000, doc = "Groups that may not pass." }),
    consumers = t.optional(t.list(t.string(), { min = 1, max = 10000, doc = "Consumers that may pass, by id." })),
    claims = t.map(t.list(t.string(), { min = 1 }), { default = {}, doc = "Claims and the values that are allowed, by path: `realm.role`." }),
    methods = t.optional(t.list(t.string(), { min = 1, max = 50, doc = "Methods that this is about; default: all." })),
  },

  example = [[
consumer "acme" { groups = { "gold" }, credentials = { key = "acme-key" } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth", { "acl", allow = { "gold" } } } }]],

  check = function(conf)
    if not conf.allow and #conf.deny == 0 and not conf.consumers and next(conf.claims) == nil then
      return "needs one of `allow`, `deny`, `consumers` and `claims`"
    end
  end,

  setup = function(conf)
    local claims = {}
    for path, values in pairs(conf.claims) do claims[path] = set_of(values) end
    local methods = conf.methods and set_of(conf.methods)
    if methods and methods.GET then methods.HEAD = true end -- as routes have it: it would tell whoever may not GET
    return {
      allow = conf.allow and set_of(conf.allow), deny = set_of(conf.deny), consumers = conf.consumers and set_of(conf.consumers),
      claims = next(claims) and claims, methods = methods,
    }
  end,

  access = function(ctx, _, state)
    if state.methods and not state.methods[ctx.req.method] then return end
    local consumer = ctx.consumer
    if not consumer then return tg.problem(401, "authentication is needed") end
    local has_group = tg.consumers.has_group
    local ok = not has_group(consumer, state.deny) and (not state.allow or has_group(consumer, state.allow))
      and (not state.consumers or state.consumers[consumer.id]) and (not state.claims or has_claim(consumer, state.claims))
    if not ok then return tg.problem(403, "not allowed") end
  end,
}
