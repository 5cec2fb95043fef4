api = 1
listen { address = "127.0.0.1", port = @PORT@, keepalive_timeout = "10m", keepalive_requests = 100000000 }
redis "main" { address = "127.0.0.1:@REDIS@", timeout = "2s" }
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 2048, idle_timeout = "10m", requests = 0 } }
local count
route "all" {
  path = "/*", to = "backend",
  use = { function(ctx)
    local key = ctx.req.headers["X-Api-Key"]
    if not key then return tg.respond(401) end
    count = count or tg.redis "main":script [[
      local c = redis.call('INCR', KEYS[1])
      if c == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
      return c]]
    local n = assert(count({ "rl:" .. key .. ":" .. math.floor(tg.now() / 60) }, { 60 }))
    if n > 1000000000 then return tg.respond(429) end
  end },
}
