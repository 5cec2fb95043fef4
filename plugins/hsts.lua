--- hsts: browsers that came by https once come by https from then on (RFC 6797).
return {
  api = 1,
  doc = [[
Tell browsers to use https only.
`Strict-Transport-Security` is set on answers that go out over TLS; in plain text it would mean nothing. `preload` is for sites that are, or want
to be, in the lists that browsers bring along: it needs `include_subdomains` and a year.]],

  schema = {
    max_age = t.duration { default = "365d", min = 0, max = 63072000, doc = "How long browsers remember it; 0 takes it back." },
    include_subdomains = t.boolean { default = false, doc = "For all subdomains, too." },
    preload = t.boolean { default = false, doc = "May be in the lists of browsers." },
  },

  example = [[
use { { "hsts", include_subdomains = true } }]],

  check = function(conf)
    if conf.preload and (not conf.include_subdomains or conf.max_age < 31536000) then
      return "needs include_subdomains = true and max_age of at least a year", "preload"
    end
  end,

  setup = function(conf)
    return ("max-age=%d%s%s"):format(conf.max_age, conf.include_subdomains and "; includeSubDomains" or "", conf.preload and "; preload" or "")
  end,

  response = function(ctx, _, value)
    if ctx.req.scheme == "https" then ctx.res.headers["Strict-Transport-Security"] = value end
  end,
}
