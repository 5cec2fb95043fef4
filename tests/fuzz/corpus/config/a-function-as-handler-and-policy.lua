listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
route "f" { path = "/f", handler = function(ctx) return tg.respond(200, ctx.req.path) end }
route "g" { path = "/g", to = "a", use = { function(ctx) ctx.vars.seen = true end, { "key-auth", when = function(ctx) return ctx.req.method ~= "GET" end } } }
