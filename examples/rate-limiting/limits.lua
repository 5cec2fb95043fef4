redis "shared" { address = "127.0.0.1:6390" }

local function hello(ctx) return tg.respond(200, "hello " .. (ctx.req.headers["X-Client"] or "stranger") .. "\n") end

-- Ten requests an hour for each client, whichever gateway they come to. Each one asks Redis.
route "exact" { path = "/exact", handler = hello,
  use = { { "rate-limit", limit = 10, per = "1h", key = "${header.X-Client}", store = "redis:shared" } } }

-- The same with portions that are taken in advance: a busy client costs Redis a few commands a second instead of one for each request.
route "leased" { path = "/leased", handler = hello,
  use = { { "rate-limit", limit = 1000, per = "1h", key = "${header.X-Client}", store = "redis:shared", mode = "lease" } } }

-- Two at once, an even rate of twenty a second with a burst, and a long window. Redis away means: nobody.
route "several" { path = "/several", handler = hello,
  use = { { "rate-limit", key = "${header.X-Client}", store = "redis:shared", on_down = "deny",
    limits = { { algorithm = "gcra", limit = 20, per = "1s", burst = 5 }, { limit = 100, per = "1h" } } } } }

-- No Redis at all: at most ten a second, and who comes too early waits for up to half a second.
route "queue" { path = "/queue", handler = hello, use = { { "rate-limit", algorithm = "leaky", limit = 10, per = "1s", delay = "500ms" } } }
