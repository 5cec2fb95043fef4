--- upstreams: the upstreams of the generation: which peer an attempt goes to, what it is counted in, and calls from Lua to them.
local abi = require "abi"
local balancers = require "runtime.balancers"
local breaker = require "runtime.breaker"
local bulkhead = require "runtime.bulkhead"
local call = require "tidegate.call"
local cells = require "runtime.cells"
local failure = require "tidegate.failure"
local health = require "runtime.health"
local histogram = require "tidegate.histogram"
local http = require "tidegate.http"
local passive = require "runtime.passive"
local peers = require "runtime.peers"
local retry = require "runtime.retry"
local services = require "runtime.services"
local statuses = require "runtime.statuses"
local sticky = require "runtime.sticky"
local upstream_metrics = require "runtime.upstream_metrics"
local upstream_tls = require "runtime.upstream_tls"
local warm = require "runtime.warm"

local C, vm = abi.C, abi.vm
local floor, random = math.floor, math.random

local Upstream = { __name = "upstream" }
Upstream.__index = Upstream

local upstreams = { by_name = {}, count = 0 }
local tell_name -- (kind, number, text), when lines of logs say what peers are called
local public = {} -- index of a peer -> what plugins see of it
local NEVER = 2 -- a share that nothing reaches

-- ---------------------------------------------------------------- once a generation

local function intern(target, conf)
  if abi.validating then return 0 end
  local peer = abi.peer(target.host, target.port, target.scheme == "https" and upstream_tls.number(conf) or 0, conf.http2, conf.pool)
  if peer < 0 then error(("target %s:%d: %s"):format(target.host, target.port, abi.code(peer)), 0) end
  return peer
end

local function new_peer(target, conf)
  local name = target.path and "unix:" .. target.path or target.host .. ":" .. target.port
  local peer = {
    target = target, address = target.host, port = target.port, weight = target.weight, priority = target.priority, zone = target.zone,
    index = intern(target, conf), default_port = target.scheme == "https" and 443 or 80,
    name = name, host = (target.own or target.path) and "localhost" or name, host_name = name,
  }
  public[peer.index] = { address = peer.address, port = peer.port, weight = peer.weight, priority = peer.priority, zone = peer.zone, name = name }
  if tell_name then tell_name(abi.NAME.peer, peer.index, name) end
  return peer
end

-- How attempts at its peers are judged; nil where nobody asks.
local function peer_rules(conf)
  local own_breaker = conf.breaker and conf.breaker.scope == "peer" and conf.breaker
  local rules = abi.rules()
  rules.failed, rules.slow_share = NEVER, NEVER
  if own_breaker then
    breaker.put(rules, own_breaker)
  elseif conf.passive then
    passive.put(rules, conf.passive)
  else
    statuses.put(rules.failures, statuses.parse { "5xx" })
  end
  if conf.retry then statuses.put(rules.retried, conf.retry.on) end
  return rules
end

local function upstream_rules(conf)
  local adaptive = conf.bulkhead and conf.bulkhead.adaptive
  local has_breaker = conf.breaker and conf.breaker.scope == "upstream"
  if not adaptive and not has_breaker then return nil end
  local rules = abi.rules()
  rules.failed, rules.slow_share, rules.timed = NEVER, NEVER, adaptive and 1 or 0
  if has_breaker then
    breaker.put(rules, conf.breaker)
  else
    statuses.put(rules.failures, statuses.parse { "5xx" })
  end
  return rules
end

local function own_breaker(up, peer)
  local conf = up.conf
  local patience = conf.connect_timeout + conf.first_byte_timeout + 1
  return breaker.new(conf.breaker, peer.cell, ("upstream %s, peer %s"):format(up.name, peer.name), patience, function() peers.changed(up) end)
end

-- What follows from who its peers are.
local function add_members(up, list)
  local conf = up.conf
  up.by_index = {}
  for _, peer in ipairs(list) do up.by_index[peer.index] = peer end
  peers.add(up, list)
  up.needs_ctx = balancers.prepare(up)
  if conf.sticky then sticky.prepare(up) end
  for _, peer in ipairs(abi.validating and {} or list) do
    if not peer.watched then
      peer.watched = true
      if conf.passive then passive.watch(up, peer) end
      if conf.breaker and conf.breaker.scope == "peer" then up.peer_breakers[peer] = own_breaker(up, peer) end
    end
  end
end

--- upstream:set_targets(targets): these are its peers from now on, in this worker; those that were among them before go on as they are.
function Upstream:set_targets(targets)
  local list, known = {}, {}
  for _, target in ipairs(targets) do
    local id = ("%s://%s:%d"):format(target.scheme, target.host, target.port)
    if not known[id] then
      local peer = self.known[id] or new_peer(target, self.conf)
      peer.weight, peer.priority = target.weight, target.priority
      known[id], list[#list + 1] = peer, peer
    end
  end
  local before = self.list or {}
  self.known = known
  add_members(self, list)
  self.view = nil
  for _, peer in ipairs(before) do
    peer.gone = self.by_index[peer.index] ~= peer
    if peer.gone and peer.cell then cells.drop(peer.cell) end
  end
  if self.started then health.start(self) end
end

local function milliseconds(seconds) return floor(seconds * 1000) end

local function define(conf)
  local up = setmetatable({ name = conf.name, conf = conf, known = {}, peer_breakers = nil }, Upstream)
  if conf.breaker and conf.breaker.scope == "peer" then up.peer_breakers = {} end
  if conf.retry then retry.prepare(conf.retry) end
  up:set_targets(services.fixed(conf.targets))
  up.unresolved = #up.list < #conf.targets and #up.list == 0
  up.host = conf.host ~= "pass" and conf.host ~= "target" and conf.host or nil
  up.host_of_target = conf.host == "target"
  local try = conf.try_timeout or conf.retry and conf.retry.try_timeout
  up.connect_timeout, up.first_byte_timeout = milliseconds(conf.connect_timeout), milliseconds(conf.first_byte_timeout)
  up.idle_timeout, up.try_timeout = milliseconds(conf.idle_timeout), try and milliseconds(try) or 0
  up.keeps_body = conf.retry and conf.retry.attempts > 1 and conf.retry.body > 0
  up.defaults = { timeout = conf.timeout, connect_timeout = conf.connect_timeout, retry = conf.retry or nil, times = histogram.new(),
    scheme = conf.targets[1].scheme }
  if not abi.validating then
    up.peer_rules, up.rules = peer_rules(conf), upstream_rules(conf)
    if conf.breaker and conf.breaker.scope == "upstream" then
      up.breaker = breaker.new(conf.breaker, up.cell, "upstream " .. up.name, conf.connect_timeout + conf.first_byte_timeout + 1)
    end
    if conf.bulkhead then up.bulkhead = bulkhead.new(conf.bulkhead, up.cell, "upstream " .. up.name) end
  end
  upstreams.by_name[conf.name], upstreams.count = up, upstreams.count + 1
  up.number = upstreams.count
end

--- Makes the upstreams of a configuration known; called once, before plugins are loaded.
function upstreams.define(list)
  for _, conf in ipairs(list) do define(conf) end
end

--- start(): the generation is current: health checks, and what is learnt.
function upstreams.start()
  cells.start()
  upstream_metrics.start(upstreams.by_name)
  for _, up in pairs(upstreams.by_name) do
    up.started = true
    health.start(up)
    services.start(up)
    if up.conf.pool.min_idle > 0 then warm.start(up) end
    if up.bulkhead then up.bulkhead:start() end
  end
end

-- ---------------------------------------------------------------- an attempt

local function none(self)
  local err = failure.new("unavailable", ("upstream %s: no peer is up"):format(self.name), 503)
  err.retry_after = 1
  return nil, err
end

-- Whether its own breaker lets it through.
local function admits(self, peer, watch)
  local own = self.peer_breakers and self.peer_breakers[peer]
  local period = own and own:enter() or 0
  if own and not period then return false end
  if period ~= 0 then watch.probe = period end
  return true
end

-- Another peer is preferred to one at which this request has failed.
local function choose_carefully(self, view, watch, tried, first)
  if not (tried and tried[first]) and admits(self, first, watch) then return first end
  local start, refused = random(view.n), tried and tried[first] and first or nil
  for i = 1, view.n do
    local peer = view.list[(start + i) % view.n + 1]
    if peer ~= first and not (tried and tried[peer]) and admits(self, peer, watch) then return peer end
  end
  if refused and admits(self, refused, watch) then return refused end
  return none(self)
end

-- peer | nil, err
local function choose(self, x, ctx, watch, tried)
  local view = self.view
  if not view or view.version ~= self.cell.version or vm.monotonic >= view.due then view = peers.view(self) end
  if view.length == 0 then return none(self) end
  local peer = self.sticky and x and sticky.peer(self, x)
  if not peer then
    local pick = self.needs_ctx and not ctx and balancers.round_robin or self.pick
    peer = pick(self, view, ctx)
  end
  if tried or self.peer_breakers then return choose_carefully(self, view, watch, tried, peer) end
  return peer
end

-- Its breaker and its bulkhead: true | nil, err. `again`: the request has been let in already.
local function let_in(self, watch, remaining, again)
  watch.cell = self.cell
  watch.rules = self.rules
  if again then return true end
  if self.breaker then
    local period, err = self.breaker:enter()
    if not period then return nil, err end
    if period ~= 0 then watch.probe = period end
  end
  if self.bulkhead then return self.bulkhead:enter(watch, remaining) end
  return true
end

local function remaining(x)
  return x.started + x.total_timeout / 1000 - vm.now
end

local function set_deadline(self, x)
  local name, value = self.conf.deadline_header, ("%.3f"):format(x.started + x.total_timeout / 1000)
  C.tg_abi_field_set(x, abi.REQUEST, name, #name, value, #value)
end

--- upstream:prepare(x, ctx, peer?) -> true | nil, err: makes an attempt of an exchange ready; a plugin may have chosen the peer.
function Upstream:prepare(x, ctx, peer)
  local again = x.attempt > 0
  local err
  if self.unresolved then services.wait(self) end
  if again or self.breaker or self.bulkhead then
    local ok
    ok, err = let_in(self, x.watch[1], remaining(x), again)
    if not ok then return nil, err end
  else
    local watch = x.watch[1]
    watch.cell = self.cell
    watch.rules = self.rules
  end
  if not again and self.keeps_body then retry.keep_body(self.conf.retry, x) end
  if not peer then
    peer, err = choose(self, x, ctx, x.watch[0], again and retry.failed(x, self.by_index[x.peer]) or nil)
    if not peer then return nil, err end
  end
  local watch = x.watch[0]
  watch.cell = peer.cell
  watch.rules = self.peer_rules
  x.peer = peer.index
  x.connect_timeout, x.first_byte_timeout = self.connect_timeout, self.first_byte_timeout
  x.idle_timeout, x.try_timeout = self.idle_timeout, self.try_timeout
  if self.host or self.host_of_target then
    local host = self.host or peer.port == peer.default_port and peer.address or peer.host
    C.tg_abi_set_upstream_host(x, host, #host)
  end
  if self.conf.deadline_header then set_deadline(self, x) end
  return true
end

--- upstream:foresee(ctx) -> the peer that its `balance` names for this request | nil: turns, chance, a cookie or what is in flight decide
function Upstream:foresee(ctx)
  if not self.needs_ctx or self.sticky then return nil end
  local view = peers.view(self)
  if view.length == 0 then return nil end
  if self.choice then return self.choice(ctx, view.list) end
  return self.pick(self, view, ctx)
end

--- upstream:again(x) -> whether a failed attempt is followed by another one; waits until it is time for it.
function Upstream:again(x)
  return retry.again(self, x)
end

--- upstream:bind(x): the response to a client that is to stay with its peer.
function Upstream:bind(x)
  local peer = self.by_index[tonumber(x.peer)]
  if peer and x.attempt > 0 then sticky.bind(self, x, peer) end
end

--- upstream:next_target(tried?, again) -> index of the peer, what goes to it as Host | nil, nil, err: for one attempt of a call. Nothing
-- may wait between this and the start of the call.
function Upstream:next_target(tried, again)
  local watch = C.tg_abi_call_watch()
  if watch[1].cell ~= nil then C.tg_abi_call_unwatch() end -- of a call that was not started
  local ok, err = let_in(self, watch[1], nil, again)
  if not ok then
    C.tg_abi_call_unwatch()
    return nil, nil, err
  end
  local ctx = self.needs_ctx and call.exchange and call.exchange() or nil
  local peer
  peer, err = choose(self, nil, ctx, watch[0], tried)
  if not peer then
    C.tg_abi_call_unwatch()
    return nil, nil, err
  end
  watch[0].cell = peer.cell
  watch[0].rules = self.peer_rules
  if tried then tried[peer] = true end
  return peer.index, self.host or peer.host
end

--- upstream:may_retry() -> whether the budget of retries, which all workers share, allows one more.
function Upstream:may_retry()
  local conf = self.conf.retry
  return not conf or C.tg_abi_cell_budget_retry(self.cell, conf.budget, conf.budget_min) == 0
end

-- ---------------------------------------------------------------- what plugins see

--- upstream:peers(x?) -> list of { name, address, port, weight, priority, zone, healthy, in_flight, latency }; without those at which the
-- exchange has failed
function Upstream:peers(x)
  local list, tried = {}, x and x.attempt > 0 and retry.failed(x, self.by_index[tonumber(x.peer)]) or {}
  for _, peer in ipairs(self.list) do
    if not tried[peer] then
      list[#list + 1] = {
        name = peer.name, address = peer.address, port = peer.port, weight = peer.weight, priority = peer.priority, zone = peer.zone,
        healthy = not peer.cell or peers.out_until(peer, vm.monotonic) == 0,
        in_flight = peer.cell and tonumber(peer.cell.in_flight) or 0, latency = peer.cell and tonumber(peer.cell.latency) or 0,
      }
    end
  end
  return list
end

local function find(self, name)
  if type(name) == "table" then name = name.name end
  for _, peer in ipairs(self.list) do
    if peer.name == name then return peer end
  end
  return nil
end

--- upstream:find(choice) -> the peer that a plugin has chosen from peers(), by table or name | nil
Upstream.find = find

local flags = { down = { 1, 2 }, drain = { 2, 1 }, up = { 0, 3 } } -- to set, to clear

--- upstream:mark(peer, "up"|"down"|"drain", seconds?): takes a peer out or in again, for all workers; with `seconds` it comes back by itself.
function Upstream:mark(choice, state, seconds)
  local peer, change = find(self, choice), flags[state]
  if not peer then error(("upstream %s has no peer %s"):format(self.name, tostring(choice)), 2) end
  if not change then error('a peer is marked "up", "down" or "drain"', 2) end
  if abi.in_shadow then return end -- all workers would leave it alone, for the sake of a request that is another's
  if abi.validating then error("peers are marked while requests are served: move this into `start` or a phase", 2) end
  if state == "down" and seconds then
    C.tg_abi_cell_eject(peer.cell, vm.monotonic + seconds, 1)
  else
    C.tg_abi_cell_flag(peer.cell, change[1], change[2])
    if state == "up" then C.tg_abi_cell_up(peer.cell, vm.monotonic) end
  end
  peers.changed(self)
end

function upstreams.peer(index)
  return public[index]
end

--- tell_names(tell): tell(kind, number, text) for each upstream and each peer, also for those that come later
function upstreams.tell_names(tell)
  tell_name = tell
  for _, up in pairs(upstreams.by_name) do tell(abi.NAME.upstream, up.number, up.name) end
  for index, peer in pairs(public) do tell(abi.NAME.peer, index, peer.name) end
end

http.add_verbs(Upstream, function(self, method, path, options, form)
  return http.send(method, path, self.name, self, options, self.defaults, form)
end)

--- tg.upstream(name)
function upstreams.get(name)
  local up = upstreams.by_name[name]
  if not up then error('there is no upstream "' .. tostring(name) .. '"', 2) end
  return up
end

local function form_of(request)
  if request.result or request.read then return nil end
  return request.lazy and "lazy" or "json"
end

local function upstream_of(request)
  local up = upstreams.by_name[request.upstream]
  if not up then failure.misuse('there is no upstream "' .. tostring(request.upstream) .. '"') end
  return up
end

--- request { upstream, path, method = "GET", lazy = false, result = false, read?, ... } -> a call that has not begun, and gives decoded
-- JSON, a document, the whole result, or what read(result, request) makes of it; what a branch of fetch_all is that was given as a table
function upstreams.request(request)
  local up = upstream_of(request)
  return call.new(request.method or "GET", request.path, up.name, up, request, up.defaults, form_of(request))
end

--- begin, settle, adopt: the same for one of which nothing is asked but JSON: as begin_bare, settle_bare and adopt of call
function upstreams.begin(request, about)
  local up = upstream_of(request)
  return call.begin_bare(up, request, up.defaults, about)
end

function upstreams.settle(handle, request, begun)
  return call.settle_bare(handle, request, upstreams.by_name[request.upstream].defaults, begun)
end

function upstreams.adopt(handle, request, begun)
  local up = upstreams.by_name[request.upstream]
  return call.adopt(handle, up, request, up.defaults, form_of(request), begun)
end

--- fetch(request) -> decoded JSON | nil, err; the same for one with `url`, or with `cache`, and waits.
function upstreams.fetch(request)
  local form = form_of(request)
  if request.url then return http.fetch(request.method or "GET", request.url, request, form) end
  local up = upstream_of(request)
  return http.send(request.method or "GET", request.path, up.name, up, request, up.defaults, form)
end

return upstreams
