--- ip-restriction: which addresses may ask.
local function judge(ctx, conf, state)
  local ip = ctx.req.client.ip
  local ok = not (state.deny and state.deny:contains(ip)) and (not state.allow or state.allow:contains(ip))
  if not ok then return tg.problem(conf.status, conf.message) end
end

return {
  api = 1,
  doc = [[
Allow or deny clients by their address, before anything else is done for them.
`allow` and `deny` are addresses and networks of IPv4 and IPv6; an IPv4 address is the same when IPv6 wraps it. With `allow` everybody else gets
403; who is in `deny` gets it in any case. A hundred thousand networks are searched in a tenth of a microsecond; long lists may stand in a file of
their own, which the configuration takes in: `include "blocked.lua"`. The address is that of the client behind trusted proxies. As a use of
a consumer it says from where he may ask.]],

  schema = {
    allow = t.optional(t.list(t.cidr(), { min = 1, max = 1e6, doc = "Networks that may ask." })),
    deny = t.optional(t.list(t.cidr(), { min = 1, max = 1e6, doc = "Networks that may not." })),
    status = t.status { default = 403, doc = "What the others get." },
    message = t.string { default = "your address is not allowed", doc = "What they are told." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "ip-restriction", allow = { "10.0.0.0/8", "::1" }, deny = { "10.6.6.6" } } } }]],

  check = function(conf)
    if not conf.allow and not conf.deny then return "needs `allow` or `deny`" end
  end,

  setup = function(conf)
    return { allow = conf.allow and tg.cidr(conf.allow), deny = conf.deny and tg.cidr(conf.deny) }
  end,

  rewrite = judge,
  of_consumer = judge,
}
