--- correlation-id: one id for an exchange, upstream and back, and in every log line.
return {
  api = 1,
  shadow = false,
  doc = [[
Give every exchange an id and pass it on.
An id that the client sent is kept when `keep` is on and it is harmless (a token of at most 128 bytes), otherwise a new one is made. It goes
upstream in `header`, back to the client when `echo` is on, with all calls as `X-Request-Id`, and is `ctx.id` for logs. In the gateway's own
`use` it holds for requests that find no route, too.]],

  schema = {
    header = t.header { default = "X-Request-Id", doc = "Header that carries the id." },
    generator = t.enum { "uuid7", "uuid", "hex", default = "uuid7",
      doc = "Form of a new id: a UUID that begins with the time (RFC 9562), a random one, or 32 hexadecimal digits." },
    keep = t.boolean { default = true, doc = "Keep the id that the client sent." },
    echo = t.boolean { default = true, doc = "Send the id back to the client." },
  },

  example = [[
use { "correlation-id" }]],

  idle = function(conf) return conf.echo and {} or { "response" } end,

  core = function(conf) return { rewrite = tg.correlation.step(conf.header, conf.keep, conf.generator) } end,

  rewrite = function(_, conf) tg.correlation.take(conf.header, conf.keep, conf.generator) end,

  setup = function(conf) return conf.echo and tg.correlation.edits(conf.header) or nil end,

  response_edits = function(_, echo) return echo end,

  response = function(_, conf) tg.correlation.echo(conf.header) end,
}
