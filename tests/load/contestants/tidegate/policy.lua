api = 1
listen { address = "127.0.0.1", port = @PORT@, keepalive_timeout = "10m", keepalive_requests = 100000000 }
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 2048, idle_timeout = "10m", requests = 0 } }
include "@DATA@/tidegate_keys.lua"
route "all" {
  path = "/*", to = "backend",
  use = {
    "key-auth",
    { "rate-limit", key = "${consumer.id}", limit = 1000000000, per = "1m", headers = {} },
    { "headers",
      request = { set = { ["X-Consumer"] = "${consumer.id}", ["X-Gateway"] = "tidegate" } },
      response = { set = { ["X-RateLimit-Limit"] = "1000000000", ["X-Served-By"] = "tidegate" } } },
  },
}
