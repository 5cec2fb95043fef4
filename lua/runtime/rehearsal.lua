--- rehearsal: a generation in shadow: what it would do with requests that the current one answers, held against what that one did.
-- Its phases run as they would, up to the handler or the upstream, on a view of the exchange that takes all changes (shadow.lua); nothing is sent,
-- and nothing of the exchange is touched. Made and used only where a generation is in shadow.
local abi = require "abi"
local call = require "tidegate.call"
local chain = require "runtime.chain"
local budget = require "runtime.budget"
local consumers = require "tidegate.consumers"
local exchange = require "runtime.exchange"
local failure = require "tidegate.failure"
local identity = require "runtime.identity"
local limit = require "tidegate.limit"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local probe = require "runtime.probe"
local records = require "tidegate.records"
local redis = require "runtime.redis"
local response = require "tidegate.response"
local shadow = require "runtime.shadow"
local task = require "tidegate.task"
local upstreams = require "runtime.upstreams"

local C, vm, to_string = abi.C, abi.vm, abi.string
local band = bit.band

local rehearsal = {}
local KINDS = { "same", "unjudged", "raised", "route", "status", "upstream", "target", "headers" } -- enum tg_shadow_kind
local COUNTED, STRIP, TO, DOUBTS = 11, 5, 7, 8 -- slots of a route, as in serve.lua
local UPSTREAM, GATEWAY = 1, 3 -- enum tg_abi_source
local SOFT, OVERRUNS_MAX = 0.02, 3 -- seconds of the processor for a phase; so many that took longer, and nothing is judged any more
local PATH_MAX, TEXT_MAX = 100, 256

local counted = metrics.counter("tidegate_generation_shadow_total",
  { help = "Requests that a generation in shadow has judged, by what would have been different.", labels = { "verdict" } })
counted.of_shadow = true
local live = {} -- slot -> record of the exchange that is judged there
local told = {} -- kind -> the master has an example
local routers, rewrite, generation, all_uses
local counts = {} -- kind -> what counts it

-- ---------------------------------------------------------------- what it would do

-- Slots 1 and 2 as in ctx. In the fields named: what it would answer (`status`) or that it would let pass, and where to.
local function new_record(x)
  return { x, x.serial, serial = x.serial, counted = 0, method = exchange.method(x), path = to_string(x.raw_path.p, x.raw_path.n), deferred = {} }
end

local function record_of(x) return records.of(live, x) end

local function strip_path(req, prefix)
  local path = req.raw_path:sub(#prefix + 1)
  req.raw_path = path == "" and "/" or path
end

local function authenticate(view, route, p)
  local r = p.authenticate(view)
  if r then return r.status end
  if view.consumer then
    consumers.tell_in(view.req.headers, view.consumer, view.credential)
  elseif not route.optional then
    return 401
  end
end

-- The phases of its route, in the order in which they run in serve.lua.
local function run_route(record, view, route)
  local p = route.phases
  if route[STRIP] then strip_path(view.req, route[STRIP]) end
  local r = route.rewrite and route.rewrite(view)
  if r then return r.status end
  local status = p.authenticate and authenticate(view, route, p)
  if status then return status end
  r = p.access and p.access(view)
  if r then return r.status end
  record.wrapped = p.level ~= nil
end

local function evaluate(record, x)
  local table_of_routes = routers[x.shadow]
  local view = shadow.rehearsal(x, record, identity.names)
  record.view = view
  if not table_of_routes then return 404 end
  local r = rewrite and rewrite(view)
  if r then return r.status end
  local req = view.req
  probe.x = x
  local route, params = table_of_routes:match(req.method, req.host, req.path, probe)
  if x.path_doubts ~= 0 and (not route or band(x.path_doubts, route[DOUBTS]) ~= 0) then return 400 end
  if not route then return params end
  record.route, record.counted = route, route[COUNTED]
  shadow.enter_route(view, route, params)
  return run_route(record, view, route)
end

local function text_of(value)
  return (tostring(value):match "^[^\n]*":gsub("[^\32-\126]", "?"))
end

-- What came of it when it did not return: a response that was thrown, an error with a status, what cannot be known, or a fault.
local function judge_error(record, err)
  budget.forgive()
  if err == shadow.UNKNOWN then return end
  if response.is(err) or failure.is(err) and err.status >= 400 then
    record.status = err.status
  else
    record.status, record.raised = 500, text_of(err)
  end
end

local function run_deferred(record)
  local list = record.deferred
  record.deferred = {}
  task.run_deferred(list)
end

local function begin(x)
  local router_of_it = routers[x.shadow]
  if router_of_it and router_of_it.is_admin then return end
  local record = new_record(x)
  live[x.slot] = record
  if budget.exceeded >= OVERRUNS_MAX then
    record.done, record.unknown = true, "its phases compute for longer than their budget, nothing is judged in this worker any more"
    return
  end
  local ok, result = pcall(evaluate, record, x)
  if ok then record.status = result else judge_error(record, result) end
  record.done = true
  run_deferred(record)
end

-- ---------------------------------------------------------------- what was done

local function name_of(place)
  if place == 0 then return "no route" end
  return C.tg_abi_metric_route_name(place) == 0 and ('route "%s"'):format(abi.out()) or "a route"
end

local function answer(status) return status and ("answers %d"):format(status) or "lets it pass" end

-- Fields that differ from one time to the next, or are none of the request's.
local VOLATILE = { traceparent = true, tracestate = true, connection = true, ["keep-alive"] = true, te = true, upgrade = true,
  ["transfer-encoding"] = true, ["content-length"] = true, expect = true }

local function id_of(x) return x.id.n > 0 and to_string(x.id.p, x.id.n) or nil end

-- The name of a field that the upstream would have got with another value, or not at all.
local function different_field(x, record, up)
  local edits, now, was = shadow.edits(record.view), exchange.fields(x, abi.REQUEST), exchange.fields(x, abi.ORIGINAL)
  local seen, id = {}, id_of(x)
  if up.conf.deadline_header then seen[up.conf.deadline_header:lower()] = true end
  local function differs(name)
    local key = name:lower()
    if seen[key] or VOLATILE[key] then return false end
    seen[key] = true
    local own = edits[key]
    local wanted, found = table.concat(own or own == nil and was(key) or {}, ", "), table.concat(now(key), ", ")
    return wanted ~= found and found ~= id and key
  end
  for name in pairs(edits) do
    if differs(name) then return name:lower() end
  end
  for name in now() do
    if differs(name) then return name:lower() end
  end
  for name in was() do
    if not name:find("_", 1, true) and differs(name) then return name:lower() end
  end
end

local function different_target(x, req)
  local method, query, path = exchange.method(x), to_string(x.query.p, x.query.n), to_string(x.raw_path.p, x.raw_path.n)
  if req.method ~= method then return ("method %s now, %s in shadow"):format(method, req.method) end
  if req.raw_path ~= path and req.path ~= to_string(x.path.p, x.path.n) then
    return ("path %s now, %s in shadow"):format(path:sub(1, PATH_MAX), text_of(req.raw_path):sub(1, PATH_MAX))
  end
  if req.raw_query ~= query then return "another query" end -- which may hold secrets
end

-- Both have let it pass: kind, text.
local function compare_ways(x, record)
  local route = record.route
  local to_upstream = x.attempt > 0
  if route.handler then
    if to_upstream then return "upstream", "goes to a peer now, to its handler in shadow" end
    return "same"
  end
  local name = shadow.chosen(record.view)
  local up = name and upstreams.by_name[name] or route[TO]
  if not up then return "raised", "it has neither handler nor upstream" end
  if not to_upstream then
    if x.source == UPSTREAM or x.status == 503 or x.source == GATEWAY then return "same" end -- nobody could take it
    return "upstream", ("answered by its handler now, upstream %s in shadow"):format(up.name)
  end
  if #up.list > 0 and not up.by_index[tonumber(x.peer)] then
    return "upstream", ("another peer now, upstream %s in shadow"):format(up.name)
  end
  local target = different_target(x, record.view.req)
  if target then return "target", target end
  local field = different_field(x, record, up)
  if field then return "headers", ("header %s differs"):format(text_of(field)) end
  return "same"
end

-- kind, text: what it would have done against what was done.
local function compare(x, record)
  if not record.done then return "unjudged", "it has waited for longer than the exchange took" end
  if record.unknown then return "unjudged", record.unknown end
  local passed, status = x.passed ~= 0, tonumber(x.status)
  if not passed and (status == 0 or x.source == GATEWAY and status ~= 500) then return "unjudged", "the request has come to no decision" end
  if record.raised and (passed or status ~= 500) then return "raised", record.raised end
  if tonumber(x.counted) ~= record.counted then
    local too = record.status ~= (not passed and status or nil) and ", which " .. answer(record.status) or ""
    return "route", ("%s now, %s in shadow%s"):format(name_of(tonumber(x.counted)), name_of(record.counted), too)
  end
  if record.status and passed or record.status ~= status and not passed then
    if record.wrapped and not record.status then return "unjudged", "a plugin with `around` was not run" end
    return "status", ("%s now, %s in shadow"):format(answer(not passed and status or nil), answer(record.status))
  end
  if not passed then return "same" end
  return compare_ways(x, record)
end

local function tell(record, kind, text)
  counts[kind]:inc()
  if kind == "same" then return end
  local line = ("%s %s: %s"):format(text_of(record.method), record.path:sub(1, PATH_MAX), text):sub(1, TEXT_MAX)
  if kind ~= "unjudged" then log.info(kind .. ": " .. line) end
  if told[kind] then return end
  told[kind] = true
  for i, name in ipairs(KINDS) do
    if name == kind then C.tg_abi_differs(i - 1, line, #line) end
  end
end

local function finish(x)
  local record = record_of(x)
  if not record then return end
  live[x.slot] = nil
  local ok, kind, text = pcall(compare, x, record)
  if not ok then kind, text = "raised", text_of(kind) end
  tell(record, kind, text)
  run_deferred(record)
end

-- ---------------------------------------------------------------- coroutines

local ENTRY_SHADOW, ENTRY_COMPARE, ENTRY_TASK = tonumber(abi.ENTRY_SHADOW), tonumber(abi.ENTRY_COMPARE), tonumber(abi.ENTRY_TASK)

local function on_task(id, run_hooks)
  if id == 0 then
    redis.start()
    limit.start()
    consumers.start()
    return run_hooks "start"
  end
  if id == 1 or id == 2 then return run_hooks("stop", id == 1 and "reload" or "shutdown") end
  task.run(id)
end

local function main_of(run_hooks)
  return function()
    task.adopt()
    while true do
      local entry = vm.entry
      if entry == ENTRY_SHADOW then
        begin(vm.exchange)
      elseif entry == ENTRY_COMPARE then
        finish(vm.exchange)
      elseif entry == ENTRY_TASK then
        on_task(vm.task, run_hooks)
      end
      vm.entry = 0
      coroutine.yield()
    end
  end
end

local function judge(value, traceback)
  log.raised(2, ("in shadow: %s [generation %s]\n%s"):format(tostring(value), generation, traceback), value)
  return false
end

local function describe()
  local use = all_uses[vm.mark[0]]
  return (" [in shadow, plugin %s, generation %s]"):format(use and use.label or "-", generation)
end

local function defer(entry)
  local record = records.current(live)
  if record then record.deferred[#record.deferred + 1] = entry end
end

--- start(server, cfg, uses, id, run_hooks) -> main, judge: as serve.start, whose settings are changed to those of one that answers nothing
function rehearsal.start(server, cfg, uses, id, run_hooks)
  routers, rewrite, generation, all_uses = server.routers, server.rewrite, id, uses
  for _, kind in ipairs(KINDS) do counts[kind] = counted:with { verdict = kind } end
  budget.soft, budget.hard, budget.exceeded, budget.report = math.min(cfg.defaults.budget, SOFT), 1, 0, function() end
  log.context = describe
  task.defer_to_exchange = defer
  task.report = function(text) log.warn(text) end
  call.exchange = function()
    local record = records.current(live)
    return record and record.view or nil
  end
  function chain.report(_, err) -- of uses with on_error = "skip"
    local record = records.current(live)
    if err ~= shadow.UNKNOWN and record then log.info("it has raised: " .. text_of(err)) end
    budget.forgive()
  end
  return main_of(run_hooks), judge
end

return rehearsal
