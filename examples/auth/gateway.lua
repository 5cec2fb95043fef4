-- API keys, passwords and JSON Web Tokens side by side, with groups and plans.
listen { name = "public", port = 8080 }

-- Stands for a service: it is told who asks.
local function who(ctx)
  local consumer = ctx.consumer
  return tg.respond(200, ("%s, groups %s, credential %s\n"):format(consumer.username or consumer.id, table.concat(consumer.groups, " "),
    ctx.credential and ctx.credential.id or "-"))
end

consumer "ann" { username = "Ann", groups = { "staff" }, plan = "large", credentials = {
  key = { { key = "ann-key", id = "laptop" }, { key = "ann-old-key", expires = "2020-01-01" } },
} }
consumer "bob" { username = "Bob", groups = { "partners" }, credentials = {
  -- Only the hash stands here: printf %s bob-key | sha256sum
  key = { { sha256 = "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98" } },
  basic = { password = "correct horse" },
} }

-- Whoever is known, in one way or another; each plan has limits of its own.
route "hello" { listen = "public", path = "/hello", handler = who, use = {
  "key-auth", "basic-auth",
  { "jwt", alg = "HS256", secret = "an example is no secret: 32 bytes", iss = "example" },
  { "rate-limit", key = "${consumer.id}", limit = 3, per = "1m", plans = { large = { { limit = 1000, per = "1m" } } } },
} }
-- Staff alone.
route "staff" { listen = "public", path = "/staff", handler = who, use = { "key-auth", { "acl", allow = { "staff" } } } }
-- Who says nothing is a guest.
route "open" { listen = "public", path = "/open", handler = who, use = { "key-auth", "anonymous" } }
