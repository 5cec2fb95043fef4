--- anonymous: who says nothing of himself is let in as a consumer of his own.
return {
  api = 1,
  doc = [[
Let in whom no other authentication of the route knows.
The client becomes the consumer `consumer`, with its groups and plan, and the upstream gets `X-Anonymous-Consumer: true`. A wrong credential,
also one that is malformed, is still answered with 401: whoever shows one wants to be known by it. A consumer that is `disabled` lets nobody in.]],

  schema = {
    consumer = t.string { default = "anonymous", doc = "A declared consumer, or a name for one without groups." },
  },

  example = [[
consumer "acme" { credentials = { key = "acme-key" } }
consumer "guest" { groups = { "guests" } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth", { "anonymous", consumer = "guest" } } }]],

  anonymous = true,

  setup = function(conf)
    if tg.consumers.is_disabled(conf.consumer) then return false end
    local consumer = { id = conf.consumer, groups = {}, anonymous = true }
    for name, value in pairs(tg.consumers.find(conf.consumer) or {}) do consumer[name] = value end
    return consumer
  end,

  authenticate = function(ctx, _, consumer)
    if consumer then ctx:authenticate(consumer) end
  end,
}
