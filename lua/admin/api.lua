--- api: what the admin interface answers: a list of operations, of which its OpenAPI document is made.
local abi = require "abi"
local access = require "admin.access"
local ask = require "admin.ask"
local cache = require "tidegate.cache"
local diff = require "admin.diff"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local limit = require "tidegate.limit"
local metrics = require "tidegate.metrics"
local openapi = require "admin.openapi"
local plugin_times = require "runtime.plugin_times"
local response = require "tidegate.response"
local route_summary = require "runtime.route_summary"
local statistics = require "admin.statistics"
local tail = require "admin.tail"
local turn = require "tidegate.turn"

local C = abi.C
local api = { operations = {}, cfg = nil, uses = nil }
local PIECE = 16 * 1024 -- bytes of metrics that are written together

local function answer(value, err)
  if value == nil and err then
    return response.problem(failure.is(err) and err.status or 500, tostring(failure.is(err) and err.message or err))
  end
  return response.respond(200, value, { ["Cache-Control"] = "no-store" })
end

local function missing(what, name) return response.problem(404, ("there is no %s %q"):format(what, name)) end

-- operation(method, path, summary, run, { change?, body?, needs?, query?, kind?, empty?, open? }): run(call) -> response; call has who, params,
-- body, query, ctx, conf. body: field -> type, or list of the words it may be; needs: fields that must be there; query: name -> what it says;
-- kind: content type; empty: it answers 204; open: without a token.
local function operation(method, path, summary, run, more)
  local list = api.operations
  local op = { method = method, path = path, summary = summary, run = run }
  for key, value in pairs(more or {}) do op[key] = value end
  list[#list + 1] = op
end

-- ---------------------------------------------------------------- reading

operation("GET", "/status", "Totals, workers and generations.", function(call)
  local status, err = ask.json(call.who, "status --json")
  if not status then return answer(nil, err) end
  status.totals = statistics.totals()
  return answer(status)
end)

operation("GET", "/metrics", "All metrics, in the text format of Prometheus, or OpenMetrics when it is asked for.", function(call)
  local accept = call.ctx.req.headers["Accept"] or ""
  local open = accept:find("application/openmetrics-text", 1, true) ~= nil
  local kind = open and "application/openmetrics-text; version=1.0.0; charset=utf-8" or "text/plain; version=0.0.4; charset=utf-8"
  return response.respond(200, function(write)
    metrics.write(write, open, PIECE, turn.new())
  end, { ["Content-Type"] = kind })
end, { kind = "text/plain" })

local function route_of(conf, counts)
  local route = route_summary.of(conf)
  route.counts = counts[conf.name]
  route.plugins = plugin_times.of_route(conf.name)
  route.breaker, route.bulkhead = statistics.guard_of(conf)
  return route
end

-- Thousands of routes are said one after the other: all at once they would hold the loop for as long as that takes.
operation("GET", "/routes", "All routes, with what was counted of them.", function()
  local on = turn.new()
  local list, counts = {}, statistics.counts(on)
  for i, conf in ipairs(api.cfg.route) do
    list[i] = json.encode(route_of(conf, counts))
    on:breathe()
  end
  local rest = json.encode { none = counts.none, bounds = statistics.bounds() }
  local text = ('{"routes":[%s],%s'):format(table.concat(list, ","), rest:sub(2))
  return response.respond(200, text, { ["Cache-Control"] = "no-store", ["Content-Type"] = "application/json" })
end)

operation("GET", "/routes/{name}", "One route.", function(call)
  for _, conf in ipairs(api.cfg.route) do
    if conf.name == call.params.name then return answer(route_of(conf, statistics.counts(turn.new()))) end
  end
  return missing("route", call.params.name)
end)

operation("GET", "/upstreams", "All upstreams and their peers.", function() return answer { upstreams = statistics.upstreams() } end)

operation("GET", "/upstreams/{name}", "One upstream.", function(call)
  local up = statistics.upstreams(call.params.name)
  return up and answer(up) or missing("upstream", call.params.name)
end)

operation("GET", "/failures", "The last exchanges that failed or were slow, newest first.", function()
  local list = {}
  statistics.trails(true, nil, function(trail) list[#list + 1] = trail end)
  table.sort(list, function(a, b) return a.at > b.at end)
  return answer { failures = json.array(list) }
end)

operation("GET", "/tail", "Exchanges as they end: server-sent events.", function(call) return tail.respond(call.query) end,
  { kind = "text/event-stream", query = tail.filters })

operation("GET", "/consumers", "Those that the configuration declares, without their credentials.", function()
  return answer { consumers = statistics.consumers() }
end)

operation("GET", "/limits", "What each rate limit has decided, and the keys that were refused most.", function()
  local list = {}
  for _, name in ipairs(limit.names()) do
    local status = limit.status(name)
    list[#list + 1] = { name = name, allowed = status.allowed, denied = status.denied, fallen = status.fallen, top = json.array(status.top) }
  end
  return answer { limits = json.array(list) }
end)

operation("GET", "/plugins", "What plugins have used, of a sample: calls, seconds, those of the processor, bytes of Lua; and the errors raised.",
  function()
    local list = plugin_times.all()
    for _, entry in ipairs(list) do entry.errors = plugin_times.errors:with({ plugin = entry.plugin }):value() end
    return answer { plugins = json.array(list) }
  end)

operation("GET", "/profile", "Where the processor time of `worker` (0) goes within `seconds` (10): folded stacks of Lua and C.",
  function(call)
    local seconds, worker = call.query.seconds or "10", call.query.worker or "0"
    if not seconds:find "^%d+$" or not worker:find "^%d+$" then return response.problem(400, "seconds and worker are numbers") end
    local text, err = ask.text(call.who, ("profile %s %s"):format(seconds, worker))
    if not text then return answer(nil, err) end
    return response.respond(200, text, { ["Content-Type"] = "text/plain; charset=utf-8", ["Cache-Control"] = "no-store" })
  end, { kind = "text/plain", query = { seconds = "1 to 50", worker = "its number" } })

operation("GET", "/memory", "Lua memory of each worker, and what plugins have allocated of it, freed or not.", function()
  return answer { lua_bytes = collectgarbage "count" * 1024, coding_bytes = C.tg_abi_coding_memory(), all = statistics.totals().lua_bytes,
    workers = statistics.heaps(), plugins = plugin_times.all() }
end)

-- ---------------------------------------------------------------- generations

operation("GET", "/generations", "The generations that are kept, newest first, and reports of those that were in shadow.", function(call)
  local list, err = ask.json(call.who, "history --json")
  local generations, shadows = {}, {}
  for _, entry in ipairs(list or {}) do
    local into = entry.shadow and shadows or generations
    into[#into + 1] = entry.shadow or entry
  end
  return answer(list and { generations = json.array(generations), shadows = json.array(shadows) }, err)
end)

operation("GET", "/generations/{id}", "The texts that a generation was made of, by name. Secrets are not among them.", function(call)
  local files, err = ask.json(call.who, "sources " .. call.params.id)
  return answer(files and { id = call.params.id, files = files }, err)
end)

operation("GET", "/generations/{id}/diff/{other}", "What `other` changes of generation `id`, as text.", function(call)
  local before, err = ask.json(call.who, "sources " .. call.params.id)
  if not before then return answer(nil, err) end
  local after, other_err = ask.json(call.who, "sources " .. call.params.other)
  if not after then return answer(nil, other_err) end
  return response.respond(200, diff.files(before, after), { ["Content-Type"] = "text/plain; charset=utf-8" })
end, { kind = "text/plain" })

local function command(call, line, payload)
  local text, err = ask.text(call.who, line, payload)
  return answer(text and { message = (text:gsub("%s+$", "")) }, err)
end

local TRIAL = { "canary", "shadow", "watch", "by", "max_errors", "max_latency", "least" }

-- What is said of a trial, as words of the control socket | nil, response. Who asks by HTTP does not wait for its end.
local function trial_words(body)
  local words = {}
  for _, name in ipairs(TRIAL) do
    local value = body[name]
    if value ~= nil then
      if not tostring(value):find "^[%w_.:%%-]+$" then return nil, response.problem(400, name .. " has a value that no option has") end
      words[#words + 1] = ("--%s=%s"):format(name:gsub("_", "-"), tostring(value))
    end
  end
  if #words > 0 then words[#words + 1] = "--detach" end
  return table.concat(words, " ")
end

local function with_trial(fields)
  for _, name in ipairs(TRIAL) do fields[name] = name == "least" and "integer" or "string" end
  return fields
end

operation("POST", "/reload", "Loads the configuration anew, in all workers or in none; `canary` tries it first, `shadow` compares it.", function(call)
  local words, refusal = trial_words(call.body)
  if refusal then return refusal end
  return command(call, "reload" .. (words ~= "" and " " .. words or ""))
end, { change = true, body = with_trial {} })

operation("PUT", "/generations", "Makes a generation of `files`, texts by name; `canary` tries it first, `shadow` compares it.", function(call)
  local words, refusal = trial_words(call.body)
  if refusal then return refusal end
  return command(call, "push" .. (words ~= "" and " " .. words or ""), json.encode(call.body.files))
end, { change = true, body = with_trial { files = "object" }, needs = { "files" } })

operation("PUT", "/canary", "Ends the trial of a generation, also one in shadow: `promoted` or `aborted`.", function(call)
  return command(call, call.body.state == "promoted" and "canary promote" or "canary abort")
end, { change = true, body = { state = { "promoted", "aborted" } }, needs = { "state" } })

operation("POST", "/rollback", "Returns to the generation before, or to the one whose id begins with `id`.", function(call)
  local id = call.body.id
  if id ~= nil and (type(id) ~= "string" or not id:find "^%x+$") then return response.problem(400, "id is the id of a generation, or its begin") end
  return command(call, "rollback " .. (id or ""))
end, { change = true, body = { id = "string" } })

-- ---------------------------------------------------------------- changes

local function is_word(text) return text:find "^[^%s%c]+$" ~= nil end

operation("PUT", "/upstreams/{name}/peers/{peer}", "Takes a peer out for all workers, or in again: `up`, `down`, `drain`.", function(call)
  if not is_word(call.params.name) or not is_word(call.params.peer) then return missing("peer", call.params.peer) end
  return command(call, ("upstream %s %s %s"):format(call.params.name, call.body.state, call.params.peer))
end, { change = true, body = { state = { "up", "down", "drain" } }, needs = { "state" } })

for _, kind in ipairs { "upstream", "route" } do
  operation("PUT", ("/%ss/{name}/breaker"):format(kind), "Opens the circuit breaker for good, or closes it.", function(call)
    if not is_word(call.params.name) then return missing(kind, call.params.name) end
    return command(call, ("%s %s %s"):format(kind, call.params.name, call.body.state == "open" and "open" or "close"))
  end, { change = true, body = { state = { "open", "closed" } }, needs = { "state" } })
end

operation("PUT", "/log", "From which level on the error log is written, until the next generation.", function(call)
  return command(call, "log " .. call.body.level)
end, { change = true, body = { level = { "debug", "info", "warn", "error" } }, needs = { "level" } })

operation("DELETE", "/caches/{name}", "Forgets all that a cache of tg.cache holds, in all workers.", function(call)
  cache.purge(call.params.name)
  return response.respond(204)
end, { change = true, empty = true })

-- What plugins offer of their own: quota tells and resets usage, revocation revokes.
local function plugin_operation(call)
  local rest = {}
  for segment in call.params.rest:gmatch "[^/]+" do rest[#rest + 1] = segment end
  local found = false
  for _, use in ipairs(api.uses) do
    local offered = use.plugin.admin
    if offered and use.label == call.params.plugin then
      found = true
      local r = offered({ method = call.ctx.req.method, path = rest, body = call.body }, use.conf, use.state)
      if response.is(r) then return r end
    end
  end
  return found and response.problem(404, "the plugin has nothing by this name") or missing("plugin with an interface here", call.params.plugin)
end

for _, method in ipairs { "GET", "PUT", "DELETE" } do
  operation(method, "/plugins/{plugin}/{rest*}", "What a plugin offers: `quota/GROUP/KEY` is the usage of a key, `revocation/PREFIX/NAME` one.",
    plugin_operation, { change = method ~= "GET", body = method == "PUT" and { used = "number", expires = "number" } or nil })
end

-- ---------------------------------------------------------------- the interface itself

operation("PUT", "/session", "Signs a browser in, which shows the token: it gets a cookie for twelve hours.", function(call)
  if not call.token then return response.problem(409, "nobody needs a token here") end
  local ok = access.is_token(call.ctx.req, call.body.token, call.token)
  if ok == nil then return response.problem(429, "too many wrong tokens", nil, { ["Retry-After"] = "60" }) end
  if not ok then return response.problem(401, "that is not the token (see: tidegate token)") end
  return response.respond(204, nil, { ["Set-Cookie"] = access.session(call.token, call.ctx.req.scheme == "https") })
end, { body = { token = "string" }, needs = { "token" }, empty = true, open = true })

operation("DELETE", "/session", "Signs a browser out.", function()
  return response.respond(204, nil, { ["Set-Cookie"] = access.no_session() })
end, { empty = true })

operation("GET", "/openapi.json", "This interface, as an OpenAPI document.", function() return answer(openapi.document(api.operations)) end)

return api
