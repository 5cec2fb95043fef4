return {
  doc = "Refuse requests outside of office hours (UTC).",
  schema = { from = t.integer { min = 0, max = 24 }, to = t.integer { min = 0, max = 24 }, message = t.string "we are closed" },
  access = function(_, conf)
    local hour = math.floor(tg.now() / 3600) % 24
    if hour < conf.from or hour >= conf.to then return tg.problem(503, conf.message, nil, { ["Retry-After"] = "3600" }) end
  end,
}
