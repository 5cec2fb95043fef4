api = 1
listen {
  address = "127.0.0.1", port = @PORT@, keepalive_timeout = "10m", keepalive_requests = 100000000, client_connections = 0,
  tls = { cert = "@CERT@", key = secret "file:@KEY@" },
}
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 2048, idle_timeout = "10m", requests = 0 } }
route "all" { path = "/*", to = "backend" }
