-- A shop that is watched: metrics for Prometheus, traces for an OTLP receiver, a line for each request, and a page for people.
listen { name = "public", port = 8080 }
admin { port = 9901 }
upstream "traces" { targets = { "http://127.0.0.1:4318" } }
upstream "shop" { targets = { "http://127.0.0.1:8081" } }

-- First of all, so that its span holds whatever happens to a request.
use {
  { "tracing", upstream = "traces", protocol = "json", ratio = 1, every = "200ms" },
  { "access-log", format = "${status} ${method} ${path} ${duration} trace ${trace.id}" },
}

local orders = tg.metrics.counter("shop_orders_total", { help = "Orders, by what was bought.", labels = { "thing" } })
route "order" { listen = "public", path = "/order/{thing}", handler = function(ctx)
  local thing = ctx.req.params.thing
  local stock = tg.span("look for it", function() return tg.upstream("shop"):get("/stock/" .. thing) end)
  if stock.status ~= 200 then return tg.problem(404, "there is no " .. thing) end
  orders:inc(1, { thing = thing })
  return tg.respond(200, "one " .. thing .. "\n")
end }
route "stock" { listen = "public", path = "/stock/*", to = "shop" }

-- Stands for a service, which would be a program of its own.
listen { name = "shop", port = 8081 }
local stock = { lamp = true, chair = true }
route "shop" { listen = "shop", path = "/stock/{thing}", handler = function(ctx)
  return tg.respond(stock[ctx.req.params.thing] and 200 or 404, "")
end }
