listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
upstream "a" { targets = { "http://h" } }
listen { port = 8080 }
log { level = "info" }
log { level = "info" }
