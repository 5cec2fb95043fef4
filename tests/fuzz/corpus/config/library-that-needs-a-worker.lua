listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
local d = tg.dict "rate-limit"
d:incr("a", 1)
