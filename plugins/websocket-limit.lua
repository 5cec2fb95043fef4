--- websocket-limit: what may come through a WebSocket: how many messages and bytes, which kinds, how large, and how many connections at once.
local min, max = math.min, math.max
local seen = tg.metrics.counter("tidegate_websocket_messages_total", { help = "messages that were looked at", labels = { "route", "direction" } })
local volume = tg.metrics.counter("tidegate_websocket_bytes_total",
  { help = "bytes of messages that were looked at", labels = { "route", "direction" } })
local stopped = tg.metrics.counter("tidegate_websocket_limited_total",
  { help = "messages and connections that a limit has stopped", labels = { "route", "reason" } })

local UNSUPPORTED, POLICY, TOO_BIG, TRY_LATER = 1003, 1008, 1009, 1013

-- Who is counted together: a consumer, or those of one address when nobody has said who he is.
local function client_of(ctx)
  local consumer = ctx.consumer
  return consumer and "consumer " .. tostring(consumer.id) or "address " .. ctx.req.client.ip
end

local function key_of(ctx, conf)
  return (conf.key or client_of)(ctx)
end

-- A bucket of one connection. A message larger than all of it may come when it is full, and the next ones pay for that.
local function bucket_of(rate, burst)
  local room = max(1, rate * burst)
  return { rate = rate, room = room, level = room, at = tg.now.monotonic() }
end

-- How long there is to wait for `cost`, which is taken when that is 0.
local function wait_for(bucket, cost)
  local now = tg.now.monotonic()
  bucket.level = min(bucket.room, bucket.level + (now - bucket.at) * bucket.rate)
  bucket.at = now
  local needed = min(cost, bucket.room)
  if bucket.level + 1e-9 >= needed then
    bucket.level = bucket.level - cost
    return 0
  end
  return (needed - bucket.level) / bucket.rate
end

local function limiter_of(conf, name, rate)
  return rate and tg.limit.new { name = "websocket-limit." .. name, algorithm = "gcra", rate = rate, per = 1, burst = max(1, rate * conf.burst),
    dict = conf.dict, store = conf.store }
end

-- What is kept of a connection.
local function open(ctx, conf, state)
  local route = ctx.route.name
  local kept = {
    messages = conf.messages and bucket_of(conf.messages, conf.burst), bytes = conf.bytes and bucket_of(conf.bytes, conf.burst),
    key = (state.messages or state.bytes) and key_of(ctx, conf), messages_name = route .. ".messages", bytes_name = route .. ".bytes",
    route = route, seen = {}, volume = {},
  }
  for _, direction in ipairs { "upstream", "downstream" } do
    kept.seen[direction] = seen:with { route = route, direction = direction }
    kept.volume[direction] = volume:with { route = route, direction = direction }
  end
  ctx.vars[state] = kept
  return kept
end

-- Seconds to wait for room in a limit of the consumer; nil, err: it cannot be counted.
local function wait_for_consumer(limiter, key, cost, name)
  local decision, err = limiter:take(key, min(cost, limiter.limits[1].burst), name)
  if not decision then return nil, err end
  if decision.allowed then return 0 end
  return max(decision.retry_after, 0.001)
end

-- The first limit without room: its reason and how long there is to wait for it.
local function first_full(kept, state, size)
  local wait = kept.messages and wait_for(kept.messages, 1) or 0
  if wait > 0 then return "messages", wait end
  wait = kept.bytes and wait_for(kept.bytes, size) or 0
  if wait > 0 then return "bytes", wait end
  for _, name in ipairs { "messages", "bytes" } do
    local limiter = state[name]
    if limiter and (name == "messages" or size > 0) then
      local err
      wait, err = wait_for_consumer(limiter, kept.key, name == "messages" and 1 or size, kept[name .. "_name"])
      if not wait then return nil, nil, err end
      if wait > 0 then return "consumer_" .. name, wait end
    end
  end
end

local function stop(message, kept, reason, code, text)
  stopped:inc(1, { route = kept.route, reason = reason })
  return message:close(code, text)
end

local function limit_rate(message, conf, state, kept)
  local size = message.size
  while true do
    local reason, wait, err = first_full(kept, state, size)
    if err then
      tg.log.error("messages cannot be counted", { err = err.message })
      return stop(message, kept, "uncounted", TRY_LATER, "try again later")
    end
    if not reason then return end
    if conf.over == "close" then return stop(message, kept, reason, POLICY, "too much in too short a time") end
    if conf.over == "drop" then
      stopped:inc(1, { route = kept.route, reason = reason })
      return false
    end
    tg.sleep(wait)
  end
end

local function is_websocket(ctx)
  local upgrade = ctx.req.headers["Upgrade"]
  return upgrade ~= nil and upgrade:lower() == "websocket"
end

return {
  api = 1,
  doc = [[
Limit what comes through WebSockets: messages and bytes a second, their size, their kinds, and connections at once.
`messages` and `bytes` are a second's of one connection, `consumer_messages` and `consumer_bytes` those of all connections of a consumer (without one,
of an address; `key` says otherwise) on a route, in all workers, or, with `store = "redis:NAME"`, of all gateways;
`burst` seconds' worth may come at once.
What is over them closes the connection with 1008, is dropped, or waits: then nothing more is read of that side, which slows its sender down.
A message larger than `max_message` closes with 1009, one of a kind that is not among `types` with 1003; when nobody can count, 1013.
Pings and pongs are messages, too; a close always goes through. `consumer_connections` at once are let in; the next one gets 429.
The route needs `upgrade = "websocket"`.]],

  schema = {
    messages = t.optional(t.number { min = 0.001, max = 1e9, doc = "Messages a second of a connection." }),
    bytes = t.optional(t.size { min = 1, doc = "Bytes a second of a connection." }),
    consumer_messages = t.optional(t.number { min = 0.001, max = 1e9, doc = "Messages a second of all connections of a consumer." }),
    consumer_bytes = t.optional(t.size { min = 1, doc = "Bytes a second of all connections of a consumer." }),
    consumer_connections = t.optional(t.integer { min = 1, max = 4096, doc = "Connections of a consumer at once." }),
    burst = t.number { default = 2, min = 0.001, max = 3600, doc = "How many seconds' worth may come at once." },
    max_message = t.optional(t.size { min = 0, doc = "Bytes of a message. The route's own `max_message` holds, too." }),
    types = t.list(t.enum { "text", "binary", "ping", "pong" },
      { default = { "text", "binary", "ping", "pong" }, doc = "Kinds of messages that may come." }),
    direction = t.enum { "upstream", "downstream", "both", default = "upstream", doc = "Whose messages are limited: those on their way there." },
    over = t.enum { "close", "drop", "wait", default = "close", doc = "What becomes of a message that is over a rate." },
    key = t.optional(t.any_of { t.template(), t.func(), doc = "What consumers are told apart by: a template or a function of ctx." }),
    store = t.string { default = "local", match = "^[%w_.:-]+$", doc = '"local", or "redis:NAME".' },
    dict = t.dict { default = "rate-limit", doc = "Shared dictionary of the local counters." },
  },

  example = [[
route "orders" { path = "/orders/live", to = "orders", upgrade = "websocket", use = {
  { "key-auth" },
  { "websocket-limit", messages = 10, consumer_connections = 5, max_message = "4KiB", types = { "text", "ping", "pong" } } } }]],

  setup = function(conf)
    local types = {}
    for _, name in ipairs(conf.types) do types[name] = true end
    return {
      types = types,
      directions = { upstream = conf.direction ~= "downstream", downstream = conf.direction ~= "upstream" },
      messages = limiter_of(conf, "messages", conf.consumer_messages), bytes = limiter_of(conf, "bytes", conf.consumer_bytes),
      connections = conf.consumer_connections and tg.limit.new { name = "websocket-limit.connections", algorithm = "concurrency",
        rate = conf.consumer_connections, dict = conf.dict, store = conf.store },
    }
  end,

  access = function(ctx, conf, state)
    if not state.connections or not is_websocket(ctx) then return end
    local decision = assert(state.connections:take(key_of(ctx, conf), 1, ctx.route.name .. ".connections"))
    if decision.allowed then return end
    stopped:inc(1, { route = ctx.route.name, reason = "connections" })
    return decision:response(429, "too many connections at once")
  end,

  websocket = function(ctx, message, conf, state)
    local kind, direction = message.type, message.direction
    if kind == "close" or not state.directions[direction] then return end
    local kept = ctx.vars[state] or open(ctx, conf, state)
    kept.seen[direction]:inc(1)
    kept.volume[direction]:inc(message.size)
    if not state.types[kind] then return stop(message, kept, "type", UNSUPPORTED, "no " .. kind .. " messages here") end
    if conf.max_message and message.size > conf.max_message then return stop(message, kept, "size", TOO_BIG, "a message that is too large") end
    return limit_rate(message, conf, state, kept)
  end,
}
