--- rehearsal_phases: what a generation in shadow would do with a request: its phases, in the order of serve.lua, on a view of the exchange that
-- takes all changes (shadow.lua). The upstream is not asked, and of a handler only what it computes is known: what the current generation has
-- from them stands for the rest.
local abi = require "abi"
local budget = require "runtime.budget"
local consumers = require "tidegate.consumers"
local exchange = require "runtime.exchange"
local failure = require "tidegate.failure"
local identity = require "runtime.identity"
local own_uses = require "runtime.own_uses"
local probe = require "runtime.probe"
local refusals = require "runtime.refusals"
local response = require "tidegate.response"
local slots = require "runtime.route_slots"
local secret = require "tidegate.secret"
local shadow = require "runtime.shadow"
local task = require "tidegate.task"
local upstreams = require "runtime.upstreams"

local vm, to_string = abi.vm, abi.string
local band = bit.band

local phases = {}
local PHASES, REWRITE, STRIP, TO = slots.PHASES, slots.REWRITE, slots.STRIP, slots.TO
local UPSTREAM, GATEWAY = 1, 3 -- enum tg_abi_source

-- ---------------------------------------------------------------- responses

local function value_of(value) return type(value) == "table" and secret.is(value) and "***" or tostring(value) end

-- The head of a response that a plugin has given, as the client would get it.
local function head_of(r)
  local fields = {}
  if r.content_type then fields["content-type"] = { r.content_type } end
  for name, value in pairs(r.headers or {}) do
    local list = {}
    for i, item in ipairs(type(value) == "table" and not secret.is(value) and value or { value }) do list[i] = value_of(item) end
    fields[tostring(name):lower()] = list
  end
  return { status = r.status, source = "plugin", fields = fields }
end

-- What it answers itself. Before the upstream is asked that is its decision.
local function answer(record, r)
  if not record.decided then record.decided, record.status = true, r.status end
  shadow.enter_response(record.view, head_of(r))
  record.answered = true
end

-- It lets the request pass: then comes the response that the current generation has got, if it has let it pass, too.
local function await_head(record)
  record.decided = true
  if record.head == false then
    record.unclear = "no response was recorded"
    error(shadow.UNKNOWN, 0)
  end
  while not record.head do
    vm.entry = abi.ENTRY_PARKED
    task.park()
    phases.see(record)
  end
  shadow.enter_response(record.view, record.head)
  record.answered = true
end

--- see(record): the response head that came for the current generation, before it has changed anything. There is none to look at where that one
-- has answered itself, or nobody has answered it.
function phases.see(record)
  local x = record[1]
  if record.head or x.passed == 0 or x.source == GATEWAY then return end
  local fields = {}
  for name, value in exchange.fields(x, abi.RESPONSE)() do
    local key = name:lower()
    local list = fields[key]
    if not list then
      list = {}
      fields[key] = list
    end
    list[#list + 1] = value
  end
  record.head = { status = tonumber(x.status), source = x.source == UPSTREAM and "upstream" or "plugin", fields = fields }
end

-- As serve.lua has it: what a plugin that wraps others gets when they raise.
local function caught(ok, r)
  if ok or response.is(r) then return r end
  if failure.is(r) and r.status >= 400 then return response.problem(r.status, r.status < 500 and r.message or nil) end
  error(r, 0)
end

-- ---------------------------------------------------------------- what answers

local function call_handler(self, view)
  if not abi.offline then vm.mark[0] = self.mark end
  local r = self.handler(view, self.conf, self.state)
  if vm.grown ~= 0 then budget.weigh() end
  if not response.is(r) then error("a handler must return a response, returned a " .. type(r), 0) end
  return r
end

-- As while a configuration is loaded, nothing that waits or reaches others can be begun meanwhile. -> whether its answer can be known, as pcall
local function run_withheld(record, view, handler)
  local before = abi.validating
  abi.refused, abi.validating, abi.withholds, record.handles = nil, true, not abi.offline, true
  local ok, r = pcall(call_handler, handler, view)
  abi.validating, abi.withholds, record.handles = before, false, false
  local is_known = not abi.refused and not record.unknown and r ~= shadow.UNKNOWN
  abi.refused, record.unknown = nil, nil
  return is_known, ok, r
end

-- The answer of its handler, where that only computes; otherwise what the current generation's has answered.
local function rehearse_handler(record, view, route)
  if not route.handler.handler then return await_head(record) end -- that of a plugin which changes exchanges by other ways
  local is_known, ok, r = run_withheld(record, view, route.handler)
  if not is_known then
    budget.forgive()
    return await_head(record)
  end
  record.decided = true
  answer(record, caught(ok, r))
end

-- The peer that it would ask first, where that is not a matter of turns, of chance, or of what is in flight | nil
local function wanted_peer(view, route)
  local name, balance = shadow.chosen(view), route[PHASES].balance
  local up = name and upstreams.by_name[name] or route[TO]
  if not up or abi.offline then return nil end
  if balance then
    shadow.enter_balance(view, up:peers())
    local choice = balance(view)
    local peer = choice and up:find(choice)
    if peer then return peer end
  end
  return up:foresee(view)
end

local function pass_on(record, view)
  local route = record.route
  if route and route.handler then return rehearse_handler(record, view, route) end
  if route then record.peer = wanted_peer(view, route) end
  await_head(record)
end

-- ---------------------------------------------------------------- around

local function pass(view) view:next() end

local function run_level(record, view, level)
  local r
  local frame = { level = level, used = false }
  if level.access then r = caught(pcall(level.access, view)) end
  if not r and level.around then
    local before = record.frame
    record.frame = frame
    r = caught(pcall(level.when and not level.when(view) and pass or level.around, view))
    record.frame = before
    if not r and not frame.used then error(level.label .. ": around must call ctx:next() or return a response", 0) end
  end
  if r then answer(record, r) elseif not record.answered then pass_on(record, view) end
  r = level.response and caught(pcall(level.response, view))
  if r then answer(record, r) end
end

local function next_level_of(record)
  return function(view)
    local frame = record.frame
    if not frame then error("ctx:next() is for `around`", 3) end
    if frame.used then error("ctx:next() can be called once", 3) end
    frame.used = true
    run_level(record, view, frame.level.inner)
    record.frame = frame
    return view.res
  end
end

-- ---------------------------------------------------------------- a request

local function strip_path(req, prefix)
  local path = req.raw_path:sub(#prefix + 1)
  req.raw_path = path == "" and "/" or path
end

local function authenticate(view, route, p)
  local r = p.authenticate(view)
  if r then return r end
  if view.consumer then
    consumers.tell_in(view.req.headers, view.consumer, view.credential)
  elseif not route.optional then
    return refusals.unknown_client(p.challenge)
  end
end

-- The phases of its route up to what answers; a response ends it.
local function run_route(record, view, route)
  local p = route[PHASES]
  if route[STRIP] then strip_path(view.req, route[STRIP]) end
  local r = route[REWRITE] and route[REWRITE](view) or p.authenticate and authenticate(view, route, p)
  if r then return r end
  if p.own and view.consumer and own_uses.are_of(view.consumer) then p = p.own end
  record.phases = p
  if p.level then return run_level(record, view, p.level) end
  return p.access and p.access(view)
end

-- Up to its answer | nil: it lets the request pass.
local function decide(record, x, server)
  local table_of_routes, view = record.router or server.routers[x.shadow], record.view
  if not table_of_routes then return refusals.no_route(404) end
  local r = server.rewrite and server.rewrite(view)
  if r then return r end
  local req = view.req
  probe.x = x
  local index, params, allow = table_of_routes:match(req.method, req.host, req.path, record.probe or probe)
  local head = index and server.heads[index]
  if x.path_doubts ~= 0 and (not head or band(x.path_doubts, head.doubts) ~= 0) then return refusals.doubtful_path(x.path_doubts) end
  if not head then return refusals.no_route(params, allow) end
  local route = server.routes[index]
  record.route, record.counted = route, head.counted
  shadow.enter_route(view, route, params)
  return run_route(record, view, route)
end

-- Where a use wraps others, all of them have been through it.
local function run_response(record, server)
  local p = record.phases or record.route and record.route[PHASES] or server.shared
  if record.wrapped or not p.response then return end
  local r = caught(pcall(p.response, record.view))
  if r then answer(record, r) end
end

local function run(record, x, server)
  record.next_level = next_level_of(record)
  local r = caught(pcall(decide, record, x, server))
  if r then answer(record, r) else record.wrapped = record.answered end
  if not record.answered then pass_on(record, record.view) end
  run_response(record, server)
end

--- text(value) -> a line of it, without control bytes
function phases.text(value)
  return (tostring(value):match "^[^\n]*":gsub("[^\32-\126]", "?"))
end

-- What cannot be known, or a fault: of its phases up to the answer, or of those of the response.
local function judge_error(record, err)
  budget.forgive()
  if err == shadow.UNKNOWN then
    record.decided = true
  elseif record.decided then
    record.response_raised = phases.text(err)
  else
    record.decided, record.status, record.raised = true, 500, phases.text(err)
  end
end

--- run(record, x, server): all its phases; waits for the response, if it lets the request pass. What has come of it is in `record`.
-- `decided`: `status` is that of its own answer, nil: it lets the request pass; `raised`: what it has raised; `unknown`: why that cannot be known.
-- Of an exchange that is none: `ctx`, `router`, `probe`, `enter_route` and `head` (false: there is none) are given in it.
-- `done`: the view's response is what the client would get; `response_raised` and `unclear`: the same of that.
function phases.run(record, x, server)
  record.view = shadow.rehearsal(record.ctx or exchange.unchanged(x), record, identity.names)
  local ok, err = pcall(run, record, x, server)
  if not ok then judge_error(record, err) end
  record.done = true
end

--- way(record) -> name of the upstream that it would go to | nil, whether a handler would answer
function phases.way(record)
  local route = record.route
  if not route then return nil, false end
  local name = shadow.chosen(record.view)
  return name or route.upstream and route.upstream.name, route.handler ~= nil
end

--- path(x) -> as the client has it
function phases.path(x) return to_string(x.raw_path.p, x.raw_path.n) end

return phases
