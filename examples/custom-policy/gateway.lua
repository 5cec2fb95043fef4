-- A policy of one's own: plugins/office-hours.lua.
api = 1
listen { name = "public", port = 8080 }
listen { name = "service", address = "127.0.0.1", port = 8081 }
upstream "desk" { targets = { "listener:service" } }

route "always" { listen = "public", path = "/desk/*", to = "desk", use = { { "office-hours", from = 0, to = 24 } } }
route "never" { listen = "public", path = "/closed/*", to = "desk", use = { { "office-hours", from = 0, to = 0, message = "come back never" } } }

route "desk-service" { listen = "service", path = "/*", handler = function() return tg.respond(200, "how may I help you?\n") end }
