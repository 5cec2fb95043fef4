--- home: the home screen by hand. `answers.user` in a branch waits for that branch; what waits for nothing runs at once.
local users, orders, recommendations = tg.upstream "users", tg.upstream "orders", tg.upstream "recommendations"

return {
  api = 1,
  doc = "GET /by-hand/{id}: the user is needed, orders and recommendations are best effort.",
  handler = function(ctx)
    local home, errors = tg.fetch_all({
      user = function() return users:get_json("/users/" .. tg.url.encode(ctx.req.params.id)) end,
      orders = { function(answers) return orders:get_json("/orders", { query = { user = answers.user.id } }) end, fallback = { items = {} } },
      recommendations = { function(answers) return recommendations:get_json("/for/" .. answers.user.segment) end, timeout = 0.2, optional = true },
    }, { timeout = 1 })
    if not home then return tg.problem(502, "no user", { cause = errors.code }) end
    return tg.respond(200, {
      greeting = "Hello " .. home.user.name, open_orders = #home.orders.items, recommendations = tg.json.array(home.recommendations or {}),
    }, { ["X-Completed"] = tostring(next(errors) == nil) })
  end,
}
