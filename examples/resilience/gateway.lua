-- One upstream of three flaky backends: what its clients do not notice, and what they are told when nothing helps any more.
include "services.lua"
listen { name = "front", port = 8080 }
dict "copies" { size = "1MiB" }

upstream "app" {
  targets = { "http://127.0.0.1:8081", "http://127.0.0.1:8082", "http://127.0.0.1:8083" },
  passive = { consecutive = 3, statuses = { "5xx" }, eject = "2s" },
  retry = { attempts = 3, on = { "connect", "reset", "timeout", "5xx" }, try_timeout = "300ms", budget = 0.5 },
  breaker = { consecutive = 9, open = "2s", probes = 1 },
  bulkhead = { concurrency = 64, queue = 64, wait = "500ms" },
}

route "app" { listen = "front", path = "/*", to = "app", use = {
  { "fallback", dict = "copies", on = { 500, 502, 503, 504 },
    chain = { { stale = "10m" }, { status = 503, body = "we are mending it\n", headers = { ["Retry-After"] = "5" } } } },
} }
