-- Server-sent events: made by a handler, and of an upstream, filtered on their way.
api = 1
listen { name = "public", port = 8080 }
listen { name = "service", address = "127.0.0.1", port = 8081 }
upstream "prices" { targets = { "listener:service" }, idle_timeout = "1m" }
dict "clients" { size = "64KiB" }

route "clock" { listen = "public", path = "/clock", handler = "clock" }
route "prices" { listen = "public", path = "/prices/*", strip_path = true, to = "prices", use = { "only-symbol" } }
route "clients" { listen = "public", path = "/clients", handler = function()
  return tg.respond(200, ("%d listening\n"):format(tg.dict("clients"):get "now" or 0))
end }

-- A feed of prices: two symbols, in turn.
route "feed" { listen = "service", path = "/*", handler = function()
  return tg.respond(200, function(write)
    for i = 1, 6 do
      write { event = "price", id = i, data = { symbol = i % 2 == 0 and "TEA" or "CUP", price = i } }
      tg.sleep(0.02)
    end
  end, { ["Content-Type"] = "text/event-stream" })
end }
