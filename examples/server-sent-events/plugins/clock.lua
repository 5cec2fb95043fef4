--- clock: events from a handler. When the client goes away the handler ends where it waits, and what it has deferred runs.
return {
  api = 1,
  doc = "Stream the time once a tick, and a comment in between so that nobody takes the stream for dead.",
  schema = { tick = t.duration "100ms" },
  handler = function(_, conf)
    return tg.respond(200, function(write)
      local clients = tg.dict "clients"
      clients:incr("now")
      tg.defer(function() clients:incr("now", -1) end)
      for n = 1, math.huge do
        write { event = "tick", id = n, data = tg.time.iso(tg.now()) }
        tg.sleep(conf.tick / 2)
        write ": still here\n\n"
        tg.sleep(conf.tick / 2)
      end
    end, { ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-store" })
  end,
}
