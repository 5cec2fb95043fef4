--- correlation-id: one id for an exchange, upstream and back, and in every log line.
return {
  api = 1,
  doc = [[
Give every exchange an id and pass it on.
An id that the client sent is kept when `keep` is on and it is harmless (a token of at most 128 bytes), otherwise a new one is made. It goes
upstream in `header`, back to the client when `echo` is on, and is `ctx.id` for logs and for calls to upstreams.]],

  schema = {
    header = t.header { default = "X-Request-Id", doc = "Header that carries the id." },
    generator = t.enum { "hex", "uuid", default = "hex", doc = "Form of a new id: 32 hexadecimal digits, or a random UUID." },
    keep = t.boolean { default = true, doc = "Keep the id that the client sent." },
    echo = t.boolean { default = true, doc = "Send the id back to the client." },
  },

  example = [[
use { "correlation-id" }]],

  access = function(ctx, conf)
    local headers = ctx.req.headers
    local id = conf.keep and headers[conf.header]
    if id and #id <= 128 and tg.is_token(id) then
      ctx.id = id
    else
      if conf.generator == "uuid" then ctx.id = tg.uuid.v4() end
      headers[conf.header] = ctx.id
    end
  end,

  response = function(ctx, conf)
    if conf.echo then ctx.res.headers[conf.header] = ctx.id end
  end,
}
