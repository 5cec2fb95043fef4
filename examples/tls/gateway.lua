-- TLS with a certificate of our own making, plain text that is sent there, and routes by how a client comes.
listen { port = 8080 }
listen { port = 8081, tls = "self-signed" }
use { { "redirect-https", port = 8081 }, { "hsts", max_age = "1d" } }

route "two" { path = "/*", protocol = "h2", handler = function() return tg.respond(200, "over HTTP/2\n") end }
route "one" { path = "/*", handler = function(ctx)
  local tls = ctx.req.client.tls
  return tg.respond(200, ("over HTTP/1.1 and %s\n"):format(tls and tls.version or "plain text"))
end }
