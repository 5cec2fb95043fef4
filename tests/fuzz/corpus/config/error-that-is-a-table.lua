listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
error(setmetatable({}, { __tostring = function() error("again") end }))
