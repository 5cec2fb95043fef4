listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
for i = 1, 140 do dict("d" .. i) { size = "64KiB" } end
