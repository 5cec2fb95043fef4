-- Three backends with moods: good, broken (500), slow (two seconds). Real ones would be programs of their own.
dict "moods" { size = "64KiB" }

for name, port in pairs { one = 8081, two = 8082, three = 8083 } do
  listen { name = name, port = port }
  route("mood-" .. name) { listen = name, path = "/mood/{mood}", handler = function(ctx)
    tg.dict("moods"):set(name, ctx.req.params.mood)
    return tg.respond(200, name .. " is " .. ctx.req.params.mood .. "\n")
  end }
  route("serve-" .. name) { listen = name, path = "/*", handler = function()
    local mood = tg.dict("moods"):get(name)
    if mood == "broken" then return tg.respond(500, "out of order\n") end
    if mood == "slow" then tg.sleep(2) end
    return tg.respond(200, "from " .. name .. "\n")
  end }
end
