--- access-log: one JSON line an exchange. The file is written by a thread: no disk can hold up a request.
local format = string.format
local quote = tg.json.quote

-- A field as text; `null` where there is no value, so that every line has the same members.
local function text(value)
  if value == nil then return "null" end
  return quote(value)
end

local function seconds(value)
  if value == nil then return "null" end
  return format("%.6f", value)
end

return {
  api = 1,
  doc = [[
Write a line of JSON for every exchange, also for those that the gateway itself has refused.
Members: time (Unix, seconds), id, client, method, host, path, status, source, route, upstream, peer, consumer, generation,
duration, upstream_time (seconds), bytes_in, bytes_out (bodies), aborted. Lines are queued (1 MiB) and written by a thread;
what does not fit is dropped and counted. The file is opened anew on SIGUSR1.]],

  schema = {
    path = t.string { default = "-", len = 4000, doc = "File to append to; `-` is standard output." },
    extra = t.map(t.template(), { default = {}, doc = "More members: name = template." }),
  },

  example = [[
use { { "access-log", path = "/var/log/tidegate/access.log", extra = { agent = "${header.User-Agent}" } } }]],

  setup = function(conf)
    local names = {}
    for name in pairs(conf.extra) do names[#names + 1] = name end
    table.sort(names)
    local labels, values = {}, {}
    for i, name in ipairs(names) do labels[i], values[i] = "," .. quote(name) .. ":", conf.extra[name] end
    return { sink = tg.log.sink(conf.path), labels = labels, values = values }
  end,

  log = function(ctx, _, state)
    local req, route, consumer, peer = ctx.req, ctx.route, ctx.consumer, ctx.peer
    local line = '{"time":' .. seconds(ctx.started) .. ',"id":"' .. ctx.id .. '","client":' .. text(req.client.ip)
      .. ',"method":' .. text(req.method) .. ',"host":' .. text(req.host) .. ',"path":' .. text(req.path)
      .. ',"status":' .. (ctx.status or 499) .. ',"source":' .. text(ctx.res and ctx.res.source)
      .. ',"route":' .. text(route and route.name) .. ',"upstream":' .. text(ctx.upstream)
      .. ',"peer":' .. text(peer and peer.name) .. ',"consumer":' .. text(consumer and consumer.id)
      .. ',"generation":' .. text(ctx.generation) .. ',"duration":' .. seconds(ctx.duration)
      .. ',"upstream_time":' .. seconds(ctx.upstream_time) .. ',"bytes_in":' .. ctx.bytes_in .. ',"bytes_out":' .. ctx.bytes_out
      .. ',"aborted":' .. (ctx.aborted and "true" or "false")
    local labels, values = state.labels, state.values
    for i = 1, #labels do line = line .. labels[i] .. text(values[i](ctx)) end
    state.sink:write(line .. "}")
  end,
}
