--- access-log: a line an exchange, as JSON or text, to files, sockets, syslog, HTTP or Redis. Nothing that takes lines can hold up a request.
local PENDING = 32 * 1024 * 1024 -- bytes that wait for HTTP or Redis, in each worker

local function batch_of(conf, name, send)
  return tg.batch { name = "access-log " .. name, size = conf.batch, every = conf.every, max_pending = conf.queue, max_bytes = PENDING, send = send,
    backoff = 30, give_up = conf.give_up }
end

local function http_sink(conf)
  local http, headers = conf.http, { ["Content-Type"] = conf.http.encoding == "json" and "application/json" or "application/x-ndjson" }
  for name, value in pairs(http.headers) do headers[name] = value:reveal() end
  local up = http.upstream and tg.upstream(http.upstream)
  return batch_of(http, http.url or http.upstream, function(lines)
    local body = http.encoding == "json" and "[" .. table.concat(lines, ",") .. "]" or table.concat(lines, "\n") .. "\n"
    local options = { headers = headers, timeout = http.timeout, retries = 0, expect = "2xx" }
    if up then return up:post(http.path, body, options) end
    return tg.http.post(http.url, body, options)
  end)
end

local function redis_sink(conf)
  local redis = conf.redis
  local db = tg.redis(redis.name):with { timeout = redis.timeout }
  return batch_of(redis, redis.name, function(lines)
    local replies, err = db:pipeline(function(p)
      for i = 1, #lines do p:xadd(redis.stream, "MAXLEN", "~", redis.max_length, "*", redis.field, lines[i]) end
    end)
    if not replies then return nil, err end
    local last = replies[#replies]
    if type(last) == "table" and last ~= tg.null then return nil, last end -- what refuses one refuses all: no memory, read-only, another type
    return true
  end)
end

local batched = {
  timeout = t.duration { default = "3s", min = 0.05, max = 30, doc = "Time for one portion." },
  batch = t.integer { default = 200, min = 1, max = 10000, doc = "Lines sent together." },
  every = t.duration { default = "1s", min = 0.05, max = 60, doc = "After so long also fewer are sent." },
  queue = t.integer { default = 10000, min = 1, max = 1000000, doc = "Lines that may wait, in each worker; 32 MiB at most." },
  give_up = t.duration { default = "1m", min = 1, max = 3600, doc = "A portion that cannot be sent for so long is dropped." },
}

local function with_batch(fields)
  for name, kind in pairs(batched) do fields[name] = kind end
  return fields
end

return {
  api = 1,
  doc = [[
Write a line for every exchange, also for those that the gateway itself has refused.
JSON has these members, or `members` of them: time (Unix, seconds), id, trace, span, client, method, host, path, status, source, route, upstream,
peer, consumer, generation, duration, upstream_time (seconds), bytes_in, bytes_out (bodies), aborted; and what is in `extra`. With `format` a
line is a text: `${client.ip} "${method} ${path}" ${status} ${duration}`; an absent value is `-`. Beside the variables of all templates there are
`status source duration upstream_time bytes_in bytes_out aborted attempts date time query raw_path scheme version upstream peer.name generation
trace.id span.id tls.version tls.cipher tls.server_name` and `response.NAME`. Control bytes, quotes and what is no UTF-8 are escaped: one
exchange is one line. What is a secret by its name (`Authorization`, cookies, `token` of a query ...) is shown as `***`.
Which exchanges are logged: all, a `sample`, or those for which the use has `when = function(ctx) return ctx.status >= 400 end`.
Lines go to `path`, or to `http` or `redis`. They wait in memory of bounded size; what does not fit is dropped and counted
(`tidegate_log_dropped_total`, `tidegate_batch_dropped_total`). A file is opened anew on SIGUSR1.]],

  schema = {
    path = t.string { default = "-", len = 4000,
      doc = "File; `-`: standard output; `tcp://host:port`, `tcp+octets://host:port` (RFC 6587), `udp://host:port`,"
        .. " `unix:/path`, `unixgram:/path`; `kafka://host:port,host:port/topic`, where the program was built with librdkafka." },
    kafka = t.map(t.secret(), { default = {},
      doc = "Settings of librdkafka by their names: `security.protocol`, `sasl.password`, `compression.type` ..." }),
    rotate = t.optional(t.size { min = 65536, doc = "From this size on the file becomes `path.1`, that `path.2` ..." }),
    keep = t.integer { default = 5, min = 1, max = 100, doc = "How many of them are kept." },
    format = t.optional(t.string { len = 4000, doc = "Text with variables, in place of JSON." }),
    members = t.list(t.string(), { default = {}, doc = "Members of JSON, by the names of variables, in this order; default: those above." }),
    extra = t.map(t.any_of { t.string(), t.func() }, { default = {}, doc = "More members: name = text with variables, or a function of ctx." }),
    mask = t.list(t.string(), { default = {}, doc = "More names of headers and of members of queries whose values are secrets." }),
    show = t.list(t.string(), { default = {}, doc = "Names that are not." }),
    sample = t.number { default = 1, min = 0, max = 1, doc = "Share of the exchanges that is logged." },
    always = t.optional(t.record({
      status = t.integer { default = 500, min = 100, max = 1000, doc = "From this status on." },
      slower = t.optional(t.duration { doc = "What took longer." }),
    }, { doc = "What is logged whatever `sample` says; also what has no answer." })),
    syslog = t.optional(t.record({
      facility = t.enum { "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "local0", "local1",
        "local2", "local3", "local4", "local5", "local6", "local7", default = "local0" },
      app = t.string { default = "tidegate", match = "^[!-~]+$", len = 48 },
      message_id = t.string { default = "access", match = "^[!-~]+$", len = 32 },
      hostname = t.optional(t.string { match = "^[!-~]+$", len = 255 }),
    }, { doc = "Lines are messages of RFC 5424: `facility app message_id hostname`; of severity err from status 500 on, warning from 400." })),
    http = t.optional(t.record(with_batch {
      upstream = t.optional(t.upstream()), path = t.string { default = "/", match = "^/" }, url = t.optional(t.url()),
      encoding = t.enum { "ndjson", "json", default = "ndjson" }, headers = t.map(t.secret(), {}),
    }, { doc = "Lines are sent together by POST: to `path` of an `upstream`, or to a `url`; as lines (`ndjson`) or an array (`json`)." })),
    redis = t.optional(t.record(with_batch {
      name = t.redis(), stream = t.string { default = "access-log" }, field = t.string { default = "line" },
      max_length = t.integer { default = 100000, min = 1 },
    }, { doc = "Lines are added to a `stream`, of about `max_length`, as its `field`." })),
  },

  example = [[
use { { "access-log", path = "/var/log/tidegate/access.log", rotate = "100MiB", extra = { agent = "${header.User-Agent}" } } }]],

  check = function(conf)
    if conf.http and conf.redis then return "lines go to http or to redis; use it twice for both" end
    if not conf.http and not conf.redis then
      local problem = tg.log.judge(conf.path, conf.kafka)
      if problem then return problem, "path" end
    end
    if conf.http and (conf.http.upstream == nil) == (conf.http.url == nil) then return "one of upstream and url says where lines go", "http" end
    if conf.http and conf.http.encoding == "json" and conf.format then return "an array of JSON needs lines of JSON", "format" end
  end,

  setup = function(conf)
    local state = { line = tg.log.line(conf) }
    if conf.http or conf.redis then
      state.queue = (conf.http and http_sink or redis_sink)(conf)
    else
      state.sink = tg.log.sink(conf.path, conf)
    end
    return state
  end,

  core = function(_, state) return { log = state.sink and state.line:step(state.sink) } end,

  log = function(ctx, _, state)
    local line = state.line
    if not line:wanted() then return end
    if state.sink then
      line:write(ctx, state.sink)
    else
      state.queue:add(line:make(ctx))
    end
  end,
}
