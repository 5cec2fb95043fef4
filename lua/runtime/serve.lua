--- serve: what coroutines run: a request through its phases. Everything that can be known is computed in `build`.
local abi = require "abi"
local barrier = require "runtime.barrier"
local allowed_hosts = require "runtime.allowed_hosts"
local batch = require "tidegate.batch"
local body = require "runtime.body"
local branch = require "tidegate.branch"
local budget = require "runtime.budget"
local call = require "tidegate.call"
local chain = require "runtime.chain"
local consumers = require "tidegate.consumers"
local core_steps = require "runtime.core_steps"
local edits = require "tidegate.edits"
local exchange = require "runtime.exchange"
local failure = require "tidegate.failure"
local http = require "tidegate.http"
local gateway_metrics = require "runtime.gateway_metrics"
local guard = require "runtime.guard"
local handler = require "runtime.handler"
local limit = require "tidegate.limit"
local log = require "tidegate.log"
local log_sinks = require "runtime.log_sinks"
local messages = require "runtime.messages"
local ocsp = require "runtime.ocsp"
local own_uses = require "runtime.own_uses"
local pace = require "runtime.pace"
local plugin_times = require "runtime.plugin_times"
local probe = require "runtime.probe"
local quarantine = require "runtime.quarantine"
local redis = require "runtime.redis"
local refusals = require "runtime.refusals"
local response = require "tidegate.response"
local slots = require "runtime.route_slots"
local secret = require "tidegate.secret"
local sources = require "runtime.sources"
local task = require "tidegate.task"
local trace = require "tidegate.trace"
local upstreams = require "runtime.upstreams"
local vault = require "runtime.vault"

local C, vm, to_string = abi.C, abi.vm, abi.string
local yield, band, bor = coroutine.yield, bit.band, bit.bor
local CONSUMER, CREDENTIAL, UPSTREAM, PEERS, LEVEL = exchange.CONSUMER, exchange.CREDENTIAL, exchange.UPSTREAM, exchange.PEERS, exchange.LEVEL

local serve = { ask = nil } -- given by boot: asks the master
local live = {} -- slot -> ctx of an exchange between its phases
local deferred = {} -- slot -> { serial, entries of tg.defer }
local generation_id, all_uses, routes, routers, heads, ups -- heads: of a route what every request gets; ups: upstreams by number
local names -- route index -> name
local has_own -- some consumer has uses of his own
local PHASES, REWRITE, STRIP, TO = slots.PHASES, slots.REWRITE, slots.STRIP, slots.TO
local UPGRADE, GUARD, HAS_CTX = slots.UPGRADE, slots.GUARD, slots.HAS_CTX

-- ---------------------------------------------------------------- once a request

local function as_value(name, value)
  if type(value) == "table" and secret.is(value) then error(("response header %s: a secret becomes text by its reveal()"):format(name), 0) end
  return tostring(value)
end

local function set_header(x, name, value)
  value = as_value(name, value)
  local rc = C.tg_abi_field_set(x, abi.RESPONSE, name, #name, value, #value)
  if rc ~= 0 then error(("response header %s: its value may not stand there"):format(name), 0) end
end

local function add_header(x, name, value)
  local rc = C.tg_abi_field_add(x, abi.RESPONSE, name, #name, value, #value)
  if rc ~= 0 then error(("response header %s: its value may not stand there"):format(name), 0) end
end

-- Makes `r` the response of the exchange.
local function apply(x, r)
  local text = r.body
  local writes = type(text) == "function"
  if writes then text = "" end
  body.drop(x)
  local rc = C.tg_abi_respond(x, r.status, text, #text)
  if rc ~= 0 then error("the response cannot be sent: " .. abi.code(rc), 0) end
  if r.source then x.source = r.source end
  if writes then body.produce(x, abi.RESPONSE, r.body) end
  if r.content_type then set_header(x, "Content-Type", r.content_type) end
  local headers = r.headers
  if headers then
    for name, value in pairs(headers) do
      if type(value) == "table" and not secret.is(value) then
        for _, item in ipairs(value) do
          add_header(x, name, as_value(name, item))
        end
      else
        set_header(x, name, value)
      end
    end
  end
end

-- An exchange without a route has the phases of the gateway's own uses.
local function not_found(x, status, allow)
  local shared = serve.shared
  x.wants = (shared.response and abi.WANT_RESPONSE or 0) + (shared.logs and abi.WANT_LOG or 0)
  x.edits = shared.response_edits
  if trace.on then trace.want(x) end
  x.total_timeout = 60000
  apply(x, refusals.no_route(status, allow))
end

-- The peer that a balance phase wants for the next attempt, if any.
local function wanted_peer(x, route, ctx, up)
  local balance = ctx and route[PHASES].balance
  if not balance then return nil end
  ctx[PEERS] = up:peers(x)
  local choice = balance(ctx)
  return choice and up:find(choice)
end

-- Makes an attempt ready. The refusal is returned: there is none.
local function attempt(x, up, ctx, peer)
  x.passed = 1
  local ok, err = up:prepare(x, ctx, peer)
  if not ok then return refusals.unavailable(err) end
  if up.sticky then x.wants = bor(x.wants, abi.WANT_RESPONSE) end
  if trace.on then trace.attempt(x, up, up.by_index[tonumber(x.peer)]) end
  x.verdict = abi.VERDICT_PROXY
end

-- The same with all that the route asks before it.
local function choose_peer(x, route, ctx)
  x.passed = 1
  local up = ctx and ctx[UPSTREAM] or route[TO]
  if not up then error("the route has no upstream and nothing answered", 0) end
  if route[GUARD] and x.watch[2].cell == nil then
    local ok, err = route[GUARD]:enter(x)
    if not ok then return refusals.unavailable(err) end
  end
  return attempt(x, up, ctx, wanted_peer(x, route, ctx, up))
end

local function proxy(x, route, ctx)
  local r = choose_peer(x, route, ctx)
  if r then apply(x, r) end
end

local function run_handler(ctx, route)
  vm.exchange.passed = 1
  if route[GUARD] then
    local ok, err = route[GUARD]:enter(exchange.live(ctx))
    if not ok then return refusals.unavailable(err) end
  end
  return handler.run(route.handler, ctx)
end

local function authenticate(ctx, route, p)
  local r = p.authenticate(ctx)
  if r then return r end
  local consumer = ctx[CONSUMER]
  if consumer then
    consumers.tell(exchange.live(ctx), consumer, ctx[CREDENTIAL])
  elseif not route.optional then
    return refusals.unknown_client(p.challenge)
  end
end

-- authenticate, access and handler; a response ends it.
local function run_phases(ctx, route)
  local p = route[PHASES]
  if route[REWRITE] then
    local r = route[REWRITE](ctx)
    if r then return r end
  end
  if p.authenticate then
    local r = authenticate(ctx, route, p)
    if r then return r end
    if has_own then p = own_uses.enter(exchange.live(ctx), p, ctx[CONSUMER]) end
  end
  if p.access then
    if p.is_long then barrier.pass() end
    local r = p.access(ctx)
    if r then return r end
  end
  if route.handler then return run_handler(ctx, route) end
  return nil
end

-- ---------------------------------------------------------------- around

-- Lets the core go on, and waits for its next entry: the response is there.
local function park()
  vm.entry = abi.ENTRY_PARKED
  task.park()
end

-- What a plugin that wraps others gets when they raise: the response that was thrown, or what fits the error.
local function caught(ok, r)
  if ok then return r end
  plugin_times.finish()
  if response.is(r) then return r end
  if failure.is(r) and r.status >= 400 then return response.problem(r.status, r.status < 500 and r.message or nil) end
  error(r, 0)
end

local function pass(ctx) ctx:next() end

-- One level, from its access phases to its response phases; when it returns, the response of the exchange is there.
local function run_level(ctx, x, route, level)
  local r
  local frame = { level = level, route = route, used = false, before = ctx[LEVEL] }
  if level.access then r = caught(pcall(level.access, ctx)) end
  if not r and level.around then
    ctx[LEVEL] = frame
    local skip = level.when and not level.when(ctx)
    local step = trace.live and not skip and trace.enter(level.label, "around")
    r = caught(pcall(skip and pass or level.around, ctx))
    if step then trace.leave(step, r) end
    ctx[LEVEL] = frame.before
    if not r and not frame.used then
      error(level.label .. ": around must call ctx:next() or return a response", 0)
    end
  elseif not r and route.handler then
    r = caught(pcall(run_handler, ctx, route))
  end
  if r then apply(x, r) end
  if x.parked == 0 then
    if not r then proxy(x, route, ctx) end
    x.parked = 1
    park()
    if trace.on then trace.answered(x) end
  end
  if level.response then
    r = caught(pcall(level.response, ctx))
    if r then apply(x, r) end
  end
end

--- ctx:next() -> ctx.res: all later plugins, and what answers.
local function next_level(ctx)
  local x = exchange.live(ctx)
  local frame = ctx[LEVEL]
  if not frame then error("ctx:next() is for `around`", 2) end
  if frame.used then error("ctx:next() can be called once", 2) end
  frame.used = true
  run_level(ctx, x, frame.route, frame.level.inner)
  ctx[LEVEL] = frame
  return ctx.res
end

local function on_wrapped_request(x, ctx, route, level)
  local p = route[PHASES]
  if route[REWRITE] then
    local r = route[REWRITE](ctx)
    if r then return apply(x, r) end
  end
  if p.authenticate then
    local r = authenticate(ctx, route, p)
    if r then return apply(x, r) end
    if has_own then level = own_uses.enter(x, p, ctx[CONSUMER]).level end
  end
  run_level(ctx, x, route, level)
end

local function strip_path(x, prefix)
  local path = to_string(x.raw_path.p, x.raw_path.n):sub(#prefix + 1)
  if path == "" then path = "/" end
  C.tg_abi_set_path(x, path, #path)
end

-- The first of the route's protocols that the client asks for.
local function allow_upgrade(x, route)
  for _, name in ipairs(route[UPGRADE]) do
    if C.tg_abi_allow_upgrade(x, name, #name, route.tunnel_timeout) == 0 then
      if route[PHASES].to_client and name:lower() == "websocket" then C.tg_abi_message_watch(x, route.max_message, route.message_deflate) end
      return
    end
  end
end


-- rewrite phases run before there is a route; an exchange that ends in one has none.
local function rewrite(x)
  local ctx = exchange.new(x)
  live[x.slot] = ctx
  x.total_timeout = 60000
  local r = serve.rewrite(ctx)
  if r then apply(x, r) end
  return ctx, r
end

local function on_request(x)
  if x.asks ~= 0 then core_steps.decide() end
  local early
  local table_of_routes = routers[x.listener]
  if serve.rewrite and not (table_of_routes and table_of_routes.is_admin) then
    local r
    early, r = rewrite(x)
    if r then return end
  end
  if not table_of_routes then return not_found(x, 404) end
  local index, pattern, allow = table_of_routes.only, nil, nil
  if not index then index, pattern, allow = table_of_routes:find(x, probe) end
  if x.path_doubts ~= 0 and (not index or band(x.path_doubts, heads[index].doubts) ~= 0) then
    return apply(x, refusals.doubtful_path(x.path_doubts))
  end
  if not index then return not_found(x, pattern, allow) end
  -- heads[index] in a variable of its own would be an object for each request.
  local rc = C.tg_abi_route_enter(x, heads + index)
  if rc ~= 0 then error("headers: " .. abi.code(rc), 0) end
  if trace.on then trace.want(x) end
  if heads[index].more == 0 then
    local r = attempt(x, ups[heads[index].upstream])
    return r and apply(x, r)
  end
  local route = routes[index]
  local params = route[HAS_CTX] and pattern and table_of_routes:params(pattern, x) or nil
  if route[STRIP] then strip_path(x, route[STRIP]) end
  if route[UPGRADE] then allow_upgrade(x, route) end
  if not route[HAS_CTX] then return proxy(x, route) end
  local ctx = early or exchange.new(x, route, params)
  if early then exchange.enter_route(ctx, route, params) end
  live[x.slot] = ctx
  local level = route[PHASES].level
  if level then return on_wrapped_request(x, ctx, route, level) end
  local r = run_phases(ctx, route)
  if r then return apply(x, r) end
  proxy(x, route, ctx)
end

-- The ctx of an exchange between its phases; made now when no phase has needed one yet.
local function ctx_of(x)
  local ctx = live[x.slot]
  if ctx and exchange.is_of(ctx, x) then return ctx end
  ctx = exchange.new(x, routes[x.route])
  live[x.slot] = ctx
  return ctx
end

-- The phases that an exchange goes through, once its client is known.
local function phases_of(x, route)
  local p = route and route[PHASES] or serve.shared
  if not has_own or not p.own then return p end
  local ctx = live[x.slot]
  return ctx and exchange.is_of(ctx, x) and own_uses.are_of(ctx[CONSUMER]) and p.own or p
end

local function on_balance(x)
  if trace.on then trace.failed(x) end
  local route = routes[x.route]
  local ctx = route[HAS_CTX] and ctx_of(x) or nil
  local up = ctx and ctx[UPSTREAM] or route.upstream
  if up:again(x) then choose_peer(x, route, ctx) end -- when nobody takes it, what has happened is told
end

local function on_response(x)
  if trace.on then trace.answered(x) end
  local route = routes[x.route]
  local p = phases_of(x, route)
  local ctx = p.response and ctx_of(x) or live[x.slot]
  local up = ctx and exchange.is_of(ctx, x) and ctx[UPSTREAM] or route and route.upstream
  if up and up.sticky then up:bind(x) end
  if not p.response then return end
  local r = p.response(ctx)
  if r then apply(x, r) end
end

local function on_log(x)
  local p = phases_of(x, routes[x.route])
  if p.log then p.log(ctx_of(x)) end
  local list = deferred[x.slot]
  if list then
    deferred[x.slot] = nil
    if list.serial == x.serial then task.run_deferred(list) end
  end
  live[x.slot] = nil
end

-- A message of a WebSocket that some plugin looks at; `run` is the chain of its direction.
local function on_message(x, side, run)
  local message = messages.new(x, side)
  if not message then return end
  run(ctx_of(x), message)
  messages.over(message)
end

-- What tg.defer keeps until the exchange is over.
local function defer_to_exchange(entry)
  local x = vm.exchange
  if x == nil then return end
  local list = deferred[x.slot]
  if not list or list.serial ~= x.serial then
    list = { serial = x.serial }
    deferred[x.slot] = list
  end
  list[#list + 1] = entry
  x.wants = bit.bor(x.wants, abi.WANT_LOG)
end

-- ---------------------------------------------------------------- coroutines

local function run_hooks(phase, why)
  for _, use in ipairs(all_uses) do
    local hook = use.plugin[phase]
    if hook then
      vm.mark[0] = use.index
      local ok, err = pcall(hook, use.conf, use.state, why)
      if not ok then chain.report(use, err) end
    end
  end
end

-- The core's own tasks: 0 the generation is current, 1 it is drained, 2 so is the worker, 3 requests are to be told of.
local function on_task(id)
  if id == 0 then
    upstreams.start()
    ocsp.start()
    guard.start()
    redis.start()
    limit.start()
    log_sinks.start()
    consumers.start()
    sources.start()
    vault.start()
    if C.tg_abi_trace_asked() ~= 0 then require("runtime.live_trace").start(serve) end
    return run_hooks "start"
  end
  if id == 3 then return require("runtime.live_trace").start(serve) end
  if id == 1 or id == 2 then
    run_hooks("stop", id == 1 and "reload" or "shutdown")
    limit.flush()
    return batch.flush_all()
  end
  task.run(id)
end

local ENTRY_REQUEST_MESSAGE, ENTRY_RESPONSE_MESSAGE = tonumber(abi.ENTRY_REQUEST_MESSAGE), tonumber(abi.ENTRY_RESPONSE_MESSAGE)
local ENTRY_REQUEST, ENTRY_RESPONSE, ENTRY_LOG, ENTRY_TASK, ENTRY_REQUEST_BODY, ENTRY_RESPONSE_BODY =
  tonumber(abi.ENTRY_REQUEST), tonumber(abi.ENTRY_RESPONSE), tonumber(abi.ENTRY_LOG), tonumber(abi.ENTRY_TASK),
  tonumber(abi.ENTRY_REQUEST_BODY), tonumber(abi.ENTRY_RESPONSE_BODY)

local function main()
  task.adopt()
  while true do
    local entry = vm.entry
    if entry == ENTRY_REQUEST then
      on_request(vm.exchange)
    elseif entry == ENTRY_RESPONSE then
      on_response(vm.exchange)
    elseif entry == ENTRY_LOG then
      on_log(vm.exchange)
    elseif entry == ENTRY_TASK then
      on_task(vm.task)
    elseif entry == ENTRY_RESPONSE_BODY then
      body.flow(vm.exchange, abi.RESPONSE)
    elseif entry == ENTRY_REQUEST_BODY then
      body.flow(vm.exchange, abi.REQUEST)
    elseif entry == ENTRY_REQUEST_MESSAGE then
      on_message(vm.exchange, abi.REQUEST, routes[vm.exchange.route][PHASES].to_upstream)
    elseif entry == ENTRY_RESPONSE_MESSAGE then
      on_message(vm.exchange, abi.RESPONSE, routes[vm.exchange.route][PHASES].to_client)
    else
      on_balance(vm.exchange)
    end
    if vm.grown ~= 0 and entry ~= ENTRY_TASK then budget.weigh() end -- a task has been looked at
    vm.entry = 0 -- the work is done: only here, since a plugin could yield, too
    yield()
  end
end

local function describe(mark)
  local use = all_uses[mark]
  local x = vm.exchange
  local route = x ~= nil and names[x.route]
  local about = (" [plugin %s, route %s, generation %s"):format(use and use.label or "-", route or "-", generation_id)
  if x == nil or C.tg_abi_id(x, 0) ~= 0 then return about .. "]" end
  about = ("%s, request %s"):format(about, to_string(vm.out.p, vm.out.n))
  local id = trace.ids(x)
  return id and ("%s, trace %s]"):format(about, id) or about .. "]"
end

function chain.report(use, err)
  if trace.on then trace.note "raised" end
  C.tg_abi_metric_raised()
  plugin_times.errors:inc(1, { plugin = use.label })
  quarantine.raised(use)
  vm.mark[0] = use.index
  log.raised(3, tostring(err) .. describe(use.index), err)
end

-- The error value of a coroutine that raised: a response, an `err` with its status, or something to be logged.
local function judge(value, traceback, entry, mark)
  plugin_times.failed()
  if trace.on then trace.raised(value) end
  local x = vm.exchange
  local answers = x ~= nil and (entry == ENTRY_REQUEST or entry == ENTRY_RESPONSE)
  if answers and response.is(value) then
    apply(x, value)
    return true
  end
  local first = task.traceback_of(value)
  log.raised(3, tostring(value) .. describe(mark) .. "\n" .. (first and first .. "\nraised again at\n" or "") .. traceback, value)
  if not failure.is(value) then
    C.tg_abi_metric_raised()
    plugin_times.errors:inc(1, { plugin = all_uses[mark] and all_uses[mark].label or "-" })
    quarantine.raised(all_uses[mark])
  end
  if answers and failure.is(value) and value.status >= 400 then
    apply(x, response.problem(value.status, value.status < 500 and value.message or nil))
    return true
  end
  return false
end

local function has_stop(uses)
  for _, use in ipairs(uses) do
    if use.plugin.stop then return true end
  end
  return false
end

--- route_name(x) -> of its route | nil
function serve.route_name(x) return names[x.route] end

--- start(server, cfg, uses, id) -> main, judge, whether exchanges without a route are logged, whether there are `stop` hooks
function serve.start(server, cfg, uses, id)
  generation_id, all_uses, routes, routers = id, uses, server.routes, server.routers
  heads, ups, names = server.heads, server.ups, server.names
  serve.heads_memory = server.heads_memory
  serve.shared, serve.rewrite = server.shared, server.rewrite
  exchange.generation, has_own = id, own_uses.any
  edits.close()
  plugin_times.route_name = function(index) return names[index] end
  log.rate = cfg.log.rate
  consumers.exchange_of, consumers.know = exchange.live, exchange.know
  exchange.next = next_level
  for index, name in pairs(names) do
    heads[index].counted = C.tg_abi_metric_route(name, #name)
    pace.breathe()
  end
  if not abi.in_shadow then gateway_metrics.start(cfg, id) end
  core_steps.start(server, cfg, id)
  budget.soft, budget.loading, budget.report = cfg.defaults.budget, false, function(text)
    log.warn(text)
    quarantine.raised(all_uses[vm.mark[0]])
  end
  budget.memory = cfg.defaults.call_memory
  C.tg_abi_heap_growth(budget.memory)
  task.weigh, task.forgive = budget.weigh, budget.forgive
  http.allowed = allowed_hosts.new(cfg.http.allow)
  task.defer_to_exchange = defer_to_exchange
  task.report = function(text) log.error(text) end
  branch.request, branch.fetch = upstreams.request, upstreams.fetch
  branch.begin, branch.settle, branch.adopt = upstreams.begin, upstreams.settle, upstreams.adopt
  exchange.upstream_of = function(name) return upstreams.by_name[name] end
  exchange.peer_of = upstreams.peer
  log.context = function() return describe(vm.mark[0]) end
  call.exchange = function() return vm.exchange ~= nil and ctx_of(vm.exchange) or nil end
  if abi.in_shadow then
    main, judge = require("runtime.rehearsal").start(server, cfg, uses, id, run_hooks)
    return main, judge, false, has_stop(uses)
  end
  -- What only loading needs is garbage from now on, and need not be marked again and again.
  for _, name in ipairs { "boot", "config", "plugin", "router", "routes", "schema", "template" } do
    package.loaded["runtime." .. name] = nil
  end
  return main, judge, server.shared.logs, has_stop(uses) or #batch.all > 0 or #limit.all > 0
end

return serve
