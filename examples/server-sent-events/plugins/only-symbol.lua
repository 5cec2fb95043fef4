--- only-symbol: lets events of one symbol pass; whole events, however the network has cut them, and at once.
return {
  api = 1,
  doc = "Pass on events of the symbol that the path names.",
  response = function(ctx)
    local symbol = ctx.req.path:match "^/(%a+)$"
    if not symbol then return end
    ctx.res:transform(function(input, write)
      for event in input:events() do
        local price = event.data and tg.json.decode(event.data)
        if price and price.symbol == symbol:upper() then write(event) end
      end
    end)
  end,
}
