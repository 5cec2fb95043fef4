--- upstream_config: the word `upstream` of the configuration: its fields, and what is wrong with them together.
local address = require "runtime.address"
local schema = require "runtime.schema"
local statuses = require "runtime.statuses"
local target = require "runtime.target"
local upstream_tls = require "runtime.upstream_tls"

local t = schema.t
local ERRORS = 0.5 -- what a breaker opens at when nothing is said
local MAX_WAIT = 7 * 86400 -- the core counts milliseconds in 32 bits
local upstream_config = {}

local function duration(default, min) return t.duration { default = default, min = min or 0.001, max = MAX_WAIT } end
local function maybe_duration() return t.optional(t.duration { min = 0.001, max = MAX_WAIT }) end
local function share(default) return t.number { default = default, min = 0, max = 1 } end
local function count(default, max) return t.integer { default = default, min = 1, max = max or 1e6 } end
local function maybe_count(max) return t.optional(t.integer { min = 1, max = max or 1e6 }) end
local function status_list(default) return t.list(t.any_of { t.integer { min = 100, max = 599 }, t.string() }, { default = default, max = 100 }) end

upstream_config.spec = {
  targets = t.list(
    t.any_of { t.string(), t.record {
      url = t.string(), weight = t.integer { default = 1, min = 1, max = 1000 }, priority = t.integer { default = 0, min = 0, max = 100 },
      zone = t.optional(t.string { match = "^[%w_.%-]+$", len = 63 }),
    } },
    { min = 1, max = 1000, doc = "where requests go" }),
  balance = t.any_of { t.enum { "round_robin", "least_conn", "random", "ewma", "hash", "maglev" }, t.func(), default = "round_robin" },
  hash = t.any_of { t.template(), t.func(), default = "${client.ip}" },
  sticky = t.optional(t.any { raw = true }), zone = t.optional(t.string { match = "^[%w_.%-]+$", len = 63 }),
  panic = share(0), slow_start = t.optional(t.duration { min = 1, max = 3600 }), host = t.string "pass", timeout = duration "30s",
  tls = t.optional(t.any { raw = true }), http2 = t.boolean(false),
  connect_timeout = duration "2s", first_byte_timeout = duration "30s", idle_timeout = duration "30s", try_timeout = maybe_duration(),
  deadline_header = t.optional(t.header()),
  pool = t.record({
    idle = t.integer { default = 1024, min = 0, max = 1e6 }, idle_timeout = duration "60s",
    requests = t.integer { default = 10000, min = 0, max = 2 ^ 31 }, age = maybe_duration(),
    connections = t.integer { default = 0, min = 0, max = 1e6 }, min_idle = t.integer { default = 0, min = 0, max = 1000 },
  }, { default = {} }),
  health = t.optional(t.any { raw = true }), passive = t.any { default = true, raw = true }, breaker = t.optional(t.any { raw = true }),
  retry = t.any { default = true, raw = true }, bulkhead = t.optional(t.any { raw = true }),
}

--- What a breaker may be told; of an upstream, and of a route.
upstream_config.breaker = {
  errors = t.optional(t.number { min = 0.001, max = 1 }), min = count(20), consecutive = maybe_count(),
  slow = maybe_duration(), slow_share = t.number { default = 0.5, min = 0.001, max = 1 }, statuses = status_list { "5xx" },
  window = duration("10s", 0.1), open = duration("5s", 0.05), open_max = duration("60s", 0.05), probes = count(3, 255),
  on_change = t.optional(t.func()),
}

--- What a bulkhead may be told.
upstream_config.bulkhead = {
  concurrency = count(100), queue = t.integer { default = 0, min = 0, max = 1e5 }, wait = duration "1s",
  order = t.enum { "fifo", "lifo", "adaptive", default = "adaptive" }, adaptive = t.boolean(false), min = count(4), tolerance = t.number {
    default = 2, min = 1, max = 10 }, retry_after = t.duration { default = "1s", min = 0, max = 86400 },
}

local blocks = {
  sticky = {
    cookie = t.string { default = "tidegate_peer", match = "^[%w!#$%%&'*+.^_`|~-]+$", len = 63 }, secret = t.secret(), ttl = maybe_duration(),
    path = t.string { default = "/", match = "^/[^%c;]*$", len = 255 }, same_site = t.enum { "Lax", "Strict", "None", default = "Lax" },
    secure = t.optional(t.boolean()),
  },
  health = {
    type = t.enum { "http", "tcp", "grpc", default = "http" }, path = t.string { default = "/", match = "^/[^%c%s]*$", len = 2048 },
    method = t.enum { "GET", "HEAD", default = "GET" }, headers = t.map(t.string(), {}),
    service = t.string { default = "", match = "^[%w_./-]*$", len = 127 },
    port = t.optional(t.integer { min = 1, max = 65535 }), every = duration("5s", 0.01), every_unhealthy = maybe_duration(), timeout = duration "1s",
    jitter = share(0.2), rise = count(2, 100), fall = count(3, 100), expect = status_list { "2xx", "3xx" }, body = t.optional(t.regex()),
  },
  passive = {
    consecutive = t.integer { default = 5, min = 0, max = 1e6 }, statuses = status_list { 502, 503, 504 },
    errors = t.optional(t.number { min = 0.001, max = 1 }),
    slow = maybe_duration(), slow_share = t.number { default = 0.5, min = 0.001, max = 1 }, min = count(20), window = duration("10s", 0.1),
    eject = duration("10s", 0.05), eject_max = duration("5m", 0.05), max_ejected = share(0.5),
  },
  breaker = { scope = t.enum { "upstream", "peer", default = "upstream" } },
  retry = {
    attempts = count(2, 20), on = status_list { "connect", "reset" },
    methods = t.list(t.string { match = "^%u[%u%-]*$", len = 32 }, { default = {}, max = 20 }),
    backoff = duration "25ms", backoff_max = duration "1s", retry_after_max = t.duration { default = "1s", min = 0, max = 60 },
    budget = share(0.1), budget_min = t.integer { default = 10, min = 0, max = 1e6 }, body = t.size { default = "64KiB", min = 0, max = 2 ^ 26 },
    try_timeout = maybe_duration(),
  },
  bulkhead = upstream_config.bulkhead,
}
for name, kind in pairs(upstream_config.breaker) do blocks.breaker[name] = kind end

--- block(spec, value, at, path, report) -> what was said, with its defaults | nil: false, or something was reported.
function upstream_config.block(spec, value, at, path, report)
  if value == false then return nil end
  if value == true then value = {} end
  if type(value) ~= "table" then
    report:found(at, path, value, "a table, or false")
    return nil
  end
  return schema.unfrozen(spec, value, { report = report, at = at, path = path })
end

-- "5xx" and the like become sets; each names where it stands.
local function read_statuses(block, names, at, path, report)
  for _, name in ipairs(names) do
    local set, wrong = statuses.parse(block[name], name == "on")
    if not set then report:found(at, { path[1], path[2], name }, wrong, statuses.expected(name == "on")) end
    block[name] = set
  end
end

local lists = { health = { "expect" }, passive = { "statuses" }, breaker = { "statuses" }, retry = { "on" } }

--- read_block(name, spec, holder, at, path, report): replaces holder[name] by what it says, or nil.
function upstream_config.read_block(name, spec, holder, at, path, report)
  local place = { path[1], name }
  if holder[name] == nil then return end
  local block = upstream_config.block(spec, holder[name], at, place, report)
  if block and lists[name] then read_statuses(block, lists[name], at, place, report) end
  if block and name == "breaker" and not block.consecutive and not block.slow then block.errors = block.errors or ERRORS end
  holder[name] = block
end

local function check(up, given, at, path, report)
  if up.breaker and up.breaker.scope == "peer" then
    if type(given.passive) == "table" then
      report:problem(at, { path[1], "passive" }, 'a breaker with scope = "peer" takes peers out itself: leave out one of them')
    end
    up.passive = nil
  end
  local order = up.bulkhead
  if order and order.adaptive and order.min > order.concurrency then
    report:problem(at, { path[1], "bulkhead", "min" }, "is above concurrency")
  end
  if up.health and up.health.type == "grpc" and not up.http2 then
    report:problem(at, { path[1], "health", "type" }, "the health protocol of gRPC needs http2 = true")
  end
end

--- read(cfg, item, up, report): judges what the schema has let pass (nil: nothing), and adds it to the configuration.
function upstream_config.read(cfg, item, up, report)
  if not up then return end
  local path = { ('upstream "%s"'):format(item.name) }
  local targets = {}
  for i, one in ipairs(up.targets) do
    targets[#targets + 1] = target.read(cfg, one, item, { path[1], "targets", "[" .. i .. "]" }, report)
  end
  up.targets = targets
  if not address.parse_authority(up.host) then
    report:found(item.at, { path[1], "host" }, up.host, '"pass", "target" or the name of a host')
  end
  if up.tls ~= nil then upstream_tls.read(up, item.at, path, report) end
  for name, spec in pairs(blocks) do upstream_config.read_block(name, spec, up, item.at, path, report) end
  check(up, item.value, item.at, path, report)
  up.index = #cfg.upstreams + 1
  cfg.upstreams[up.index] = up
  cfg.upstream[item.name] = up
end

--- read_route(route, item, path, report): the breaker and the bulkhead of a route.
function upstream_config.read_route(route, item, path, report)
  upstream_config.read_block("breaker", upstream_config.breaker, route, item.at, path, report)
  upstream_config.read_block("bulkhead", upstream_config.bulkhead, route, item.at, path, report)
end

return upstream_config
