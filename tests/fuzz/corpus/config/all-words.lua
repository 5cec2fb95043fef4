api = 1
log { level = "warn" }
defaults { timeout = "30s", body_limit = "1MiB" }
listen { name = "public", address = "::1", port = 8443, header_timeout = "5s", head = "16KiB", fields = 50 }
dict "counts" { size = "2MiB" }
upstream "users" { targets = { "http://10.0.0.5:8080", { url = "http://[::1]:81", weight = 2 } }, host = "target", pool = { idle = 4 } }
consumer "acme" { groups = { "gold" }, credentials = { key = "k" }, meta = { plan = 1 } }
use { "correlation-id", { "access-log", path = "-", extra = { agent = "${header.User-Agent}" } } }
route "user" {
  host = { "api.example.com", "*.example.org" }, path = { "/users/{id}", "/u/{id?}" }, methods = "GET", headers = { ["X-V"] = "1" },
  query = { v = "2" }, listen = "public", priority = 3, to = "users", use = { "key-auth", { "rate-limit", limit = 5, per = "1m" } },
  timeout = "2s", body_limit = 0, auth = "optional",
}
