-- Bodies that change while they stream, of any length, in bounded memory.
api = 1
listen { name = "public", port = 8080 }
listen { name = "services", address = "127.0.0.1", port = 8081 }
upstream "pages" { targets = { "listener:services" } }
upstream "users" { targets = { "listener:services" } }

route "page" { listen = "public", path = "/page", to = "pages", use = { "inline-names" } }
route "export" { listen = "public", path = "/export", to = "pages", use = { { "ndjson-fields", remove = { "email" } } } }

route "page-service" { listen = "services", path = "/page", handler = function()
  return tg.respond(200, function(write)
    write "<p>Written by {{us" -- a chunk may end anywhere
    tg.sleep(0.05)
    write "er:1}}, read by {{user:2}}.</p>\n"
  end, { ["Content-Type"] = "text/html", ETag = '"v1"' })
end }
route "export-service" { listen = "services", path = "/export", handler = function()
  return tg.respond(200, function(write)
    for i = 1, 10000 do write(('{"id":%d,"email":"user%d@example.org"}\n'):format(i, i)) end
  end, { ["Content-Type"] = "application/x-ndjson" })
end }
route "users-service" { listen = "services", path = "/users/{id}", handler = function(ctx)
  return tg.respond(200, { name = ctx.req.params.id == "1" and "Ann" or "Ben" })
end }
