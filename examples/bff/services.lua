-- Five services in miniature.
local function service(name, path, f)
  route(name) { listen = "services", path = path, handler = f }
end

service("users-service", "/users/{id}", function(ctx)
  if ctx.req.params.id == "0" then return tg.respond(404, { error = "no such user" }) end
  local user = { id = ctx.req.params.id, name = "Ann", segment = "gold", password_hash = "$2b$..." }
  return tg.respond(200, user, { ["Cache-Control"] = "private, max-age=60" })
end)

service("orders-service", "/orders", function(ctx)
  local items = { { id = 7, product = "tea" }, { id = 8, product = "cup" }, { id = 9, product = "tea" } }
  return tg.respond(200, { user = ctx.req.query.user, items = items })
end)

service("products-service", "/products/{name}", function(ctx)
  return tg.respond(200, { name = ctx.req.params.name, price = #ctx.req.params.name * 1.5, supplier = "internal" })
end)

service("recommendations-service", "/for/{segment}", function()
  tg.sleep(3) -- the slow one
  return tg.respond(200, { "kettle" })
end)
