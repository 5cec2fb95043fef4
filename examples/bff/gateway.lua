-- A mobile home screen out of five services, of which one is slow and one is dead.
api = 1
listen { name = "public", port = 8080 }

-- The demo services are routes of this gateway, on a listener of their own: services.lua.
listen { name = "services", address = "127.0.0.1", port = 8081 }
for _, name in ipairs { "users", "orders", "products", "recommendations" } do
  upstream(name) { targets = { "listener:services" } }
end
upstream "ads" { targets = { "http://127.0.0.1:1" } } -- nobody listens there

-- Declared: what is needed, what may be missing, and what becomes of it.
route "home" {
  listen = "public", path = "/home/{id}",
  handler = { "aggregate", timeout = "1s", calls = {
    user = { upstream = "users", path = "/users/${params.id}", deny = { "password_hash" }, cache = "10s", stale = "5m" },
    orders = { upstream = "orders", path = "/orders", query = { user = "${answers.user.id}" }, target = "items", fallback = {} },
    -- A call for each order, eight at once, and each product once only.
    products = { upstream = "products", path = "/products/${item.product}", each = "answers.orders", allow = { "name", "price" } },
    recommendations = { upstream = "recommendations", path = "/for/${answers.user.segment}", timeout = "200ms", optional = true },
    ads = { upstream = "ads", optional = true },
  } },
}

-- The same by hand, where rules are not enough: plugins/home.lua.
route "by-hand" { listen = "public", path = "/by-hand/{id}", handler = "home" }

include "services.lua"
