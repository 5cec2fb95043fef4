listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
error("elsewhere:7: not here", 0)
