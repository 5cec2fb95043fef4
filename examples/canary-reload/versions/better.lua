return {
  doc = "What an amount costs: ten percent off.",

  handler = function(ctx)
    local amount = tonumber(ctx.req.params.amount)
    if not amount then return tg.problem(400, "an amount is a number") end
    local price = amount * 0.9
    return tg.respond(200, { rules = "better", price = price })
  end,
}
