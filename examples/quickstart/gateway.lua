-- The quickstart: two backends behind one gateway. Edit and save while it runs; it changes at once.
api = 1

listen { name = "public", port = 8080 }

-- The demo backends are this gateway, too, on other listeners: nothing else must run.
listen { name = "users-demo", address = "127.0.0.1", port = 8081 }
listen { name = "orders-demo", address = "127.0.0.1", port = 8082 }

upstream "users"  { targets = { "http://127.0.0.1:8081" } }
upstream "orders" { targets = { "http://127.0.0.1:8082" } }

consumer "demo" { groups = { "gold" }, credentials = { key = "demo-key" }, meta = { user = "1" } }

use { "correlation-id", { "access-log", path = "-" } }

-- Routing, and a header transformation.
route "users" {
  listen = "public", path = "/users/*", to = "users",
  use = { { "headers", response = { set = { ["X-Served-By"] = "tidegate" }, remove = { "X-Backend" } } } },
}

-- Key authentication, a rate limit by consumer, and a header that tells the backend who asks.
route "orders" {
  listen = "public", path = "/orders/*", to = "orders",
  use = {
    "key-auth", { "rate-limit", key = "${consumer.id}", limit = 10, per = "1m" },
    { "headers", request = { set = { ["X-Asked-By"] = "${consumer.id}" } } },
  },
}

-- One endpoint that aggregates two backends: plugins/home.lua.
route "home" { listen = "public", path = "/home", methods = "GET", handler = "home", use = { "key-auth" } }

include "backends.lua"
