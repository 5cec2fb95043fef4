--- home: a profile page from two services in one request. The profile is needed; the orders are best effort.
local users, orders = tg.upstream "users", tg.upstream "orders"

return {
  api = 1,
  doc = "GET /home: the user of the consumer and his orders, fetched in parallel.",
  handler = function(ctx)
    local id = ctx.consumer.meta.user
    local home, errors = tg.fetch_all({
      user = function() return users:get_json("/users/" .. id) end,
      orders = { function() return orders:get_json "/orders" end, timeout = 0.3, fallback = {} },
    }, { timeout = 0.8 })
    if not home then return tg.problem(502, "the profile is not available") end
    return tg.respond(200, {
      name = home.user.name, orders = tg.json.array(home.orders), complete = next(errors) == nil,
    })
  end,
}
