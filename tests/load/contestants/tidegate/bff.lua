api = 1
listen { address = "127.0.0.1", port = @PORT@, keepalive_timeout = "10m", keepalive_requests = 100000000 }
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 2048, idle_timeout = "10m", requests = 0 } }
route "bff" {
  path = "/bff",
  handler = function()
    local data, err = tg.fetch_all {
      users = { upstream = "backend", path = "/json/users" },
      orders = { upstream = "backend", path = "/json/orders" },
      stock = { upstream = "backend", path = "/json/stock" },
    }
    if not data then return tg.problem(502, tostring(err)) end
    return tg.respond(200, data)
  end,
}
