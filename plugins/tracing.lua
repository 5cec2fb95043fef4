--- tracing: spans of exchanges, sent to a collector. What is recorded is in tidegate/trace, who decides and what is sent in tidegate/tracer.
local FORMATS = { "w3c", "b3", "b3-multi", "jaeger" }

return {
  api = 1,
  shadow = false,
  doc = [[
Record traces of exchanges, and send them to a collector (OTLP over HTTP, or Zipkin).
An exchange belongs to the trace that its client names, or begins one; both go upstream and with all calls. Recorded: the request, each attempt
upstream, each plugin that waits, each call and each command to Redis, and what `tg.span(name, f)` runs. Which exchanges: what the client's
trace says (`parent = "follow"`), of others a `ratio`; at most `per_second`; those that end with 5xx or without an answer always
(`errors`: then the request and its last attempt alone); and those with a signed `force` header. Spans wait in a queue of bounded length and
are sent in the background; a collector that is away costs spans, which are counted (`tidegate_batch_dropped_total{batch="tracing"}`), and no
request. Use it before all others, in the gateway's own `use`.]],

  schema = {
    upstream = t.optional(t.upstream { doc = "The collector. This or `url`." }),
    path = t.string { default = "/v1/traces", match = "^/", doc = "Where `upstream` takes them; of Zipkin `/api/v2/spans`." },
    url = t.optional(t.url { doc = "The collector by its URL; a private address needs `http { allow }`." }),
    protocol = t.enum { "protobuf", "json", "zipkin", default = "protobuf", doc = "OTLP as protobuf or JSON, or Zipkin v2 JSON." },
    headers = t.map(t.secret(), { default = {}, doc = "Fields for the collector, as an API key." }),
    timeout = t.duration { default = "5s", min = 0.1, max = 30, doc = "Time for one portion." },
    batch = t.integer { default = 256, min = 1, max = 4096, doc = "Spans sent together." },
    every = t.duration { default = "1s", min = 0.05, max = 60, doc = "After so long also fewer are sent." },
    queue = t.integer { default = 8192, min = 1, max = 1000000, doc = "Spans that may wait, in each worker." },
    give_up = t.duration { default = "1m", min = 1, max = 3600, doc = "A portion that cannot be sent for so long is dropped." },
    ratio = t.number { default = 0.01, min = 0, max = 1, doc = "Share of traces that is recorded, by the trace id: all gateways choose the same." },
    parent = t.enum { "follow", "ignore", default = "follow", doc = "Whether the client's decision counts." },
    per_second = t.optional(t.number { min = 0.01, max = 100000,
      doc = "At most so many exchanges a second, in each worker; also of those that the client wants." }),
    errors = t.boolean { default = true, doc = "Record what ends with 5xx, or without an answer." },
    force = t.optional(t.record({
      header = t.header { default = "X-Trace-Force", doc = "Header: `EXPIRES.HMAC`, Unix seconds, and HMAC-SHA-256 of them in hexadecimal." },
      secret = t.secret { doc = "Key of the HMAC." },
    }, { doc = "Record what is signed so, whatever else is said; valid for an hour at most." })),
    extract = t.list(t.enum(FORMATS), { default = { "w3c" }, min = 1, doc = "Formats in which the client may name its trace, the first that fits." }),
    inject = t.list(t.enum(FORMATS), { default = { "w3c" }, min = 1, doc = "Formats in which it goes on." }),
    response_header = t.optional(t.header { doc = "Header that tells the client the id of a trace that is recorded." }),
    query = t.boolean { default = false, doc = "Record the query, too, with what looks like a secret masked." },
    service = t.string { default = "tidegate", len = 255, doc = "`service.name`." },
    resource = t.map(t.string { len = 1024 }, { default = {}, doc = "More attributes of the resource: name = text." }),
    attributes = t.map(t.template(), { default = {}, doc = "More attributes of the request's span: name = template." }),
  },

  example = [[
use { { "tracing", upstream = "collector", ratio = 0.05, per_second = 20, resource = { ["deployment.environment.name"] = "production" } } }]],

  check = function(conf)
    if (conf.upstream == nil) == (conf.url == nil) then return "one of upstream and url says where the collector is" end
    if conf.protocol == "zipkin" and conf.upstream and conf.path == "/v1/traces" then return "zipkin takes spans at /api/v2/spans", "path" end
  end,

  setup = function(conf)
    return tg.trace.tracer(conf, conf.upstream and tg.upstream(conf.upstream))
  end,

  core = function(_, tracer) return tracer:steps() end,

  rewrite = function(_, _, tracer) tracer:begin() end,

  log = function(ctx, _, tracer) tracer:finish(ctx) end,
}
