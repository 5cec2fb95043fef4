return {
  doc = "What an amount costs.",

  handler = function(ctx)
    local amount = tonumber(ctx.req.params.amount)
    if not amount then return tg.problem(400, "an amount is a number") end
    local price = amount
    return tg.respond(200, { rules = "old", price = price })
  end,
}
