listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
for i, p in ipairs { "a", "/a//b", "/../a", "/{x}/{x}", "/{x?}/b", "/a*b", "/%41" } do route("r" .. i) { path = p, to = "a" } end
