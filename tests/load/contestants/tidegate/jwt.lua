api = 1
listen { address = "127.0.0.1", port = @PORT@, keepalive_timeout = "10m", keepalive_requests = 100000000 }
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 2048, idle_timeout = "10m", requests = 0 } }
route "all" {
  path = "/*", to = "backend",
  use = { { "jwt", secret = "@JWT_SECRET@", alg = { "HS256" }, iss = { "@JWT_ISS@" }, leeway = 0, cache = 0, hide_credentials = true,
    claims_to_headers = { sub = "X-Sub" } } },
}
