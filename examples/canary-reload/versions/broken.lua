return {
  doc = "What an amount costs: meant to be ten percent off from 100 on. Nobody has tried an amount below.",

  handler = function(ctx)
    local amount = tonumber(ctx.req.params.amount)
    if not amount then return tg.problem(400, "an amount is a number") end
    local discount
    if amount >= 100 then discount = 0.1 end
    local price = amount * (1 - discount)
    return tg.respond(200, { rules = "broken", price = price })
  end,
}
