-- What stands in for two services: handlers that answer by themselves.
local users = { ["1"] = { id = 1, name = "Ada" }, ["2"] = { id = 2, name = "Grace" } }

route "users-demo" {
  listen = "users-demo", path = "/users/{id}",
  handler = function(ctx)
    local user = users[ctx.req.params.id]
    if not user then return tg.problem(404, "no such user") end
    return tg.respond(200, user, { ["X-Backend"] = "users" })
  end,
}

route "orders-demo" {
  listen = "orders-demo", path = { "/orders", "/orders/{id}" },
  handler = function(ctx)
    local id = ctx.req.params.id
    if id then return tg.respond(200, { order = id, for_consumer = ctx.req.headers["X-Asked-By"] or tg.null }) end
    return tg.respond(200, tg.json.array { { order = "7", total = 12.5 }, { order = "8", total = 99 } })
  end,
}
