--- key-auth: who sends a known key is its consumer.
-- The keys of all consumers become one table when the generation is made: a request costs one look-up.
return {
  api = 1,
  doc = [[
Authenticate clients by an API key in a header or the query.
The key is looked up among the `key` credentials of the declared consumers. An unknown key is answered with 401; without a
key another authentication of the route may know the client, and if none does the answer is 401. The upstream gets
`X-Consumer-ID` and `X-Consumer-Groups`, which clients cannot send themselves, and not the key.]],

  schema = {
    header = t.header { default = "X-Api-Key", doc = "Header that holds the key." },
    query = t.optional(t.string { doc = "Query parameter that may hold the key, when the header is not there." }),
    hide = t.boolean { default = true, doc = "Take the key out of the request before it goes upstream." },
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
  },

  example = [[
consumer "acme" { credentials = { key = "acme-key" } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth" } }]],

  identity_headers = { "X-Consumer-ID", "X-Consumer-Groups" },

  challenge = function(conf) return ('Key realm="%s"'):format(conf.realm) end,

  setup = function(conf)
    local groups = {}
    local keys = tg.consumers.credentials "key"
    for i, consumer in ipairs(keys.consumers) do
      groups[i] = #consumer.groups > 0 and table.concat(consumer.groups, ", ")
    end
    return { keys = keys, groups = groups, challenge = ('Key realm="%s", error="invalid_key"'):format(conf.realm) }
  end,

  authenticate = function(ctx, conf, state)
    local req = ctx.req
    local headers = req.headers
    local consumer, number = state.keys:find_in(headers, conf.header)
    if consumer == false then
      local key = conf.query and req.query[conf.query]
      if not key then return end
      if conf.hide then req.query[conf.query] = nil end
      consumer, number = state.keys:find(key)
    elseif conf.hide then
      headers[conf.header] = nil
    end
    if not consumer then
      return tg.problem(401, "unknown API key", nil, { ["WWW-Authenticate"] = state.challenge })
    end
    ctx:authenticate(consumer)
    headers["X-Consumer-ID"] = consumer.id
    local groups = state.groups[number]
    if groups then headers["X-Consumer-Groups"] = groups end
  end,
}
