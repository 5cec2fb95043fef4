--- key-auth: who sends a known key is its consumer.
-- The keys of all consumers become one table when the generation is made: a request costs one look-up.

-- A key that comes in two places is hidden in both: the upstream writes what it sees into logs.
local function hide(req, conf)
  if conf.query and req.query[conf.query] then req.query[conf.query] = nil end
  if conf.cookie and req.cookies[conf.cookie] then req.cookies[conf.cookie] = nil end
end

return {
  api = 1,
  doc = [[
Authenticate clients by an API key in a header, the query or a cookie.
The key is looked up among the `key` credentials of the declared consumers: a text, a secret, or a table `{ key = ..., id = ..., expires =
"2027-01-01T00:00:00Z", disabled = false }`, in which `sha256 = "hex"` may stand in place of the key. An unknown or expired key is answered with
401; without a key another authentication of the route may know the client, and if none does the answer is 401. The upstream gets
`X-Consumer-ID`, `X-Consumer-Groups` and the like, which clients cannot send themselves, and not the key.]],

  schema = {
    header = t.header { default = "X-Api-Key", doc = "Header that holds the key." },
    query = t.optional(t.string { doc = "Query parameter that may hold the key, when the header is not there." }),
    cookie = t.optional(t.string { doc = "Cookie that may hold the key, when neither is there." }),
    hide_credentials = t.boolean { default = true, doc = "Take the key out of the request before it goes upstream." },
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
  },

  example = [[
consumer "acme" { credentials = { key = "acme-key" } }
route "orders" { path = "/orders/*", to = "orders", use = { "key-auth" } }]],

  challenge = function(conf) return ('Key realm="%s"'):format(conf.realm) end,

  setup = function(conf)
    return {
      keys = tg.consumers.credentials "key", elsewhere = (conf.query or conf.cookie) ~= nil,
      challenge = ('Key realm="%s", error="invalid_key"'):format(conf.realm),
    }
  end,

  authenticate = function(ctx, conf, state)
    local req = ctx.req
    local headers = req.headers
    local known = state.keys:authenticate_in(ctx, headers, conf.header)
    if known == false then
      local key = conf.query and req.query[conf.query]
      if not key then
        key = conf.cookie and req.cookies[conf.cookie]
        if not key then return end
      end
      if conf.hide_credentials then hide(req, conf) end
      local consumer, credential = state.keys:find(key)
      known = consumer ~= nil
      if known then ctx:authenticate(consumer, credential) end
    elseif conf.hide_credentials then
      headers[conf.header] = nil
      if state.elsewhere then hide(req, conf) end
    end
    if not known then
      return tg.problem(401, "unknown API key", nil, { ["WWW-Authenticate"] = state.challenge })
    end
  end,
}
