--- abi: the only place that knows FFI. What it returns is for lua/tidegate and lua/runtime, never for plugins.
local ffi = require "ffi"

local declarations = _G.tg_abi_text
_G.tg_abi_text = nil
local null = _G.tg_null
_G.tg_null = nil

local C, yield = ffi.C, coroutine.yield
local PIECE = 4096 -- bytes of declarations, at least

-- A worker that builds a generation has requests meanwhile; elsewhere nothing happens. Below a function of C it goes on at once.
local function give_way()
  if C.tg_abi_build_is_over() ~= 0 then pcall(yield) end
end

local function declare()
  ffi.cdef "int tg_abi_build_is_over(void);"
  local at = 1
  while at <= #declarations do
    local _, stop = declarations:find("\n};\n", at + PIECE, true)
    ffi.cdef(declarations:sub(at, stop or -1))
    at = (stop or #declarations) + 1
    give_way()
  end
end

declare()
local vm = C.tg_abi_vm
local to_string = ffi.string

local abi = {
  C = C,
  give_way = give_way,
  vm = vm,
  string = to_string,
  null = null,
  slice = ffi.new "struct tg_slice",
  jws = ffi.new "struct tg_abi_jws",
  numbers = ffi.new "union { double float64; float float32; uint32_t halves[2]; }", -- floating-point numbers and their bits
  -- While a configuration is validated there is no worker: set-up must not reach for one.
  validating = false,
  -- A generation in shadow: what it keeps is kept apart, and what it counts is not counted.
  in_shadow = false,
  -- A tool that runs phases where there is no worker: what a plugin has asked for that only a worker has.
  offline = false,
  refused = nil,
  -- A handler runs of which nobody is to notice anything: as `validating`, but what was declared is there.
  withholds = false,

  ENTRY_REQUEST = C.TG_ENTRY_REQUEST, ENTRY_BALANCE = C.TG_ENTRY_BALANCE, ENTRY_RESPONSE = C.TG_ENTRY_RESPONSE,
  ENTRY_LOG = C.TG_ENTRY_LOG, ENTRY_TASK = C.TG_ENTRY_TASK, ENTRY_REQUEST_BODY = C.TG_ENTRY_REQUEST_BODY,
  ENTRY_RESPONSE_BODY = C.TG_ENTRY_RESPONSE_BODY,
  ENTRY_REQUEST_MESSAGE = C.TG_ENTRY_REQUEST_MESSAGE, ENTRY_RESPONSE_MESSAGE = C.TG_ENTRY_RESPONSE_MESSAGE, ENTRY_PARKED = C.TG_ENTRY_PARKED,
  ENTRY_SHADOW = C.TG_ENTRY_SHADOW, ENTRY_COMPARE = C.TG_ENTRY_COMPARE, ENTRY_HEAD = C.TG_ENTRY_HEAD,
  CALL_RUNS = C.TG_CALL_RUNS, CALL_DONE = C.TG_CALL_DONE, CALL_HEAD = C.TG_CALL_HEAD,
  CALL_TO_HEAD = C.TG_CALL_TO_HEAD, CALL_STREAMS = C.TG_CALL_STREAMS,
  CALL_UPLOADS = C.TG_CALL_UPLOADS, CALL_FRESH = C.TG_CALL_FRESH, CALL_CONNECTS = C.TG_CALL_CONNECTS, CALL_RETRY = C.TG_CALL_RETRY,
  TASK_CHILD = C.TG_TASK_CHILD, TASK_BACKGROUND = C.TG_TASK_BACKGROUND, TASK_SERVICE = C.TG_TASK_SERVICE,
  VERDICT_NONE = C.TG_VERDICT_NONE, VERDICT_PROXY = C.TG_VERDICT_PROXY, VERDICT_RESPOND = C.TG_VERDICT_RESPOND,
  WANT_RESPONSE = C.TG_WANT_RESPONSE, WANT_LOG = C.TG_WANT_LOG,
  EDIT = { set = tonumber(C.TG_EDIT_SET), add = tonumber(C.TG_EDIT_ADD), remove = tonumber(C.TG_EDIT_REMOVE), rename = tonumber(C.TG_EDIT_RENAME),
    set_id = tonumber(C.TG_EDIT_SET_ID), tell = tonumber(C.TG_EDIT_TELL) },
  REDIS_NIL = C.TG_REDIS_NIL, REDIS_NUMBER = C.TG_REDIS_NUMBER, REDIS_STRING = C.TG_REDIS_STRING, REDIS_STATUS = C.TG_REDIS_STATUS,
  REDIS_ERROR = C.TG_REDIS_ERROR, REDIS_LIST = C.TG_REDIS_LIST, REDIS_JOINED = C.TG_REDIS_JOINED, REDIS_ALONE = C.TG_REDIS_ALONE,
  REDIS_REPLICA = C.TG_REDIS_REPLICA,
  REQUEST = C.TG_SIDE_REQUEST, RESPONSE = C.TG_SIDE_RESPONSE, ORIGINAL = C.TG_SIDE_ORIGINAL, TRAILERS = C.TG_SIDE_TRAILERS,

  LINE = {
    value = C.TG_LINE_VALUE, time = C.TG_LINE_TIME, date = C.TG_LINE_DATE, id = C.TG_LINE_ID, client = C.TG_LINE_CLIENT, method = C.TG_LINE_METHOD,
    host = C.TG_LINE_HOST, path = C.TG_LINE_PATH, status = C.TG_LINE_STATUS, source = C.TG_LINE_SOURCE, duration = C.TG_LINE_DURATION,
    upstream_time = C.TG_LINE_UPSTREAM_TIME, bytes_in = C.TG_LINE_BYTES_IN, bytes_out = C.TG_LINE_BYTES_OUT, aborted = C.TG_LINE_ABORTED,
    attempts = C.TG_LINE_ATTEMPTS, trace = C.TG_LINE_TRACE, span = C.TG_LINE_SPAN, priority = C.TG_LINE_PRIORITY,
    route = C.TG_LINE_ROUTE, upstream = C.TG_LINE_UPSTREAM, peer = C.TG_LINE_PEER, generation = C.TG_LINE_GENERATION,
    consumer = C.TG_LINE_CONSUMER, scheme = C.TG_LINE_SCHEME, version = C.TG_LINE_VERSION,
  },
  NAME = { route = C.TG_NAME_ROUTE, route_upstream = C.TG_NAME_ROUTE_UPSTREAM, upstream = C.TG_NAME_UPSTREAM, peer = C.TG_NAME_PEER,
    generation = C.TG_NAME_GENERATION },

  -- enum tg_rc
  AGAIN = 1, ENOMEM = -1, EINVAL = -2, ENONE = -3, ELIMIT = -4, ETIMEOUT = -8, EBUSY = -14, EDENIED = -16,
}

--- The string that the last call of the core has put out.
function abi.out()
  return to_string(vm.out.p, vm.out.n)
end

--- The bytes of a string, as long as somebody holds it.
function abi.bytes(text)
  return ffi.cast("const char *", text)
end

--- A map from bytes to numbers above 0; freed when nobody holds it.
function abi.map()
  local map = C.tg_abi_map_new()
  if map == nil then error("memory is short", 0) end
  return ffi.gc(map, C.tg_abi_map_free)
end

--- Copies a string to where the core has room for it.
function abi.copy(to, text) ffi.copy(to, text, #text) end

--- filter_of(name) -> the Bloom filter of this name, which another generation may have filled | nil: there is none; let go when nobody holds it.
function abi.filter_of(name)
  local filter = C.tg_abi_filter_take(name, #name)
  return filter ~= nil and ffi.gc(filter, C.tg_abi_filter_give) or nil
end

--- new_filter(name, names) -> an empty one for so many names, which is the one of this name from now on.
function abi.new_filter(name, names)
  local filter = C.tg_abi_filter_new(name, #name, names)
  if filter == nil then error("memory is short", 0) end
  return ffi.gc(filter, C.tg_abi_filter_give)
end

--- A set of networks; freed when nobody holds it.
function abi.networks()
  local list = C.tg_abi_cidr_new()
  if list == nil then error("memory is short", 0) end
  return ffi.gc(list, C.tg_abi_cidr_free)
end

--- A line of an access log; freed when nobody holds it.
function abi.line()
  local line = C.tg_abi_line_new()
  if line == nil then error("memory is short", 0) end
  return ffi.gc(line, C.tg_abi_line_free)
end

--- What is done when an exchange is over; freed when nobody holds it.
function abi.ending()
  local ending = C.tg_abi_ending_new()
  if ending == nil then error("memory is short", 0) end
  return ffi.gc(ending, C.tg_abi_ending_free)
end

--- edits({ kind, name, value } ...) -> changes of fields, made once | nil, the one that cannot be made, its enum tg_rc
function abi.edits(list)
  local fields, text = 0, 0
  for _, edit in ipairs(list) do
    fields, text = fields + (edit[1] == abi.EDIT.rename and 2 or 1), text + #edit[2] + #(edit[3] or "")
  end
  local edits = C.tg_abi_edits_new(fields, text)
  if edits == nil then error("memory is short", 0) end
  ffi.gc(edits, C.tg_abi_edits_free)
  for _, edit in ipairs(list) do
    local value = edit[3] or ""
    local rc = C.tg_abi_edits_add(edits, edit[1], edit[2], #edit[2], value, #value)
    if rc ~= 0 then return nil, edit, rc end
  end
  return edits
end

--- routes() -> a table of routes, without any
function abi.routes()
  local table_of_routes = C.tg_abi_routes_new()
  if table_of_routes == nil then error("memory is short", 0) end
  return ffi.gc(table_of_routes, C.tg_abi_routes_free)
end

--- look_up(): each function, once, before there are requests: one that a trace meets for the first time ends that trace.
function abi.look_up()
  for name in declarations:gmatch "[%s%*](tg_abi_[%w_]+)%(" do
    assert(C[name])
    give_way()
  end
  declarations = nil
end

--- routes_of(n) -> n of struct tg_abi_route, from 1 on, each in a cache line of its own; and their memory, which whoever uses them holds
function abi.routes_of(n)
  local LINE = ffi.sizeof "struct tg_abi_route"
  local memory = ffi.new("uint8_t[?]", LINE * (n + 2))
  local at = ffi.cast("uintptr_t", memory)
  return ffi.cast("struct tg_abi_route *", at + (LINE - at % LINE) % LINE), memory
end

--- What stands for no edits.
abi.no_edits = ffi.cast("const struct tg_abi_edits *", nil)

--- A call that streams: its handle is let go when nobody holds it any more.
function abi.held_call(call)
  return ffi.gc(call, C.tg_abi_call_let_go)
end

local url, id, age = ffi.new "struct tg_slice", ffi.new "struct tg_slice", ffi.new "double[1]"

--- ocsp_ask(chain) -> request, URL, id of the certificate | nil, why not
function abi.ocsp_ask(chain)
  if C.tg_abi_ocsp_ask(chain, #chain, url, id) ~= 0 then return nil, abi.out() end
  return abi.out(), abi.string(url.p, url.n), abi.string(id.p, id.n)
end

--- ocsp_judge(chain, response) -> seconds that it still holds, seconds that it has held | nil, why not, whether it says revoked
function abi.ocsp_judge(chain, response)
  local rc = C.tg_abi_ocsp_judge(chain, #chain, response, #response, age)
  if rc ~= 0 then return nil, abi.out(), rc == abi.EDENIED end
  return abi.vm.number, age[0]
end

local pool = ffi.new "struct tg_abi_pool"

--- peer(host, port, tls, http2, { idle, idle_timeout, requests, age?, connections? }) -> index | negative enum tg_rc. Times in seconds.
function abi.peer(host, port, tls, http2, limits)
  pool.idle, pool.idle_timeout, pool.requests = limits.idle, limits.idle_timeout * 1000, limits.requests
  pool.age, pool.connections = (limits.age or 0) * 1000, limits.connections or 0
  return C.tg_abi_peer(host, #host, port, tls, http2 and 1 or 0, pool)
end

--- What is counted of a route, all of it 0. Whoever uses it holds it.
function abi.route_count()
  return ffi.new "struct tg_abi_route_count"
end

--- One exchange as it is remembered. Whoever uses it holds it.
function abi.exemplar()
  return ffi.new "struct tg_abi_exemplar"
end

function abi.trail()
  return ffi.new "struct tg_abi_trail"
end

--- What is counted of a generation.
function abi.generation_count()
  return ffi.new "struct tg_abi_generation_count"
end

--- How results are judged: struct tg_abi_rules, all of it 0. Whoever uses it holds it.
function abi.rules()
  return ffi.new "struct tg_abi_rules"
end

-- A collection is worth its time when half of what codings hold may be garbage.
local COLLECT_MIN = 64 * 1024 * 1024
local collect_at = COLLECT_MIN

--- The number of a way to speak TLS, or nil and what is wrong with it.
function abi.tls_client(options)
  local c = ffi.new "struct tg_abi_tls_client"
  for _, name in ipairs { "ca", "certificate", "key", "name", "pins" } do
    c[name].p, c[name].n = options[name], #options[name]
  end
  c.verify, c.tls12, c.http2 = options.verify and 1 or 0, options.tls12 and 1 or 0, options.http2 and 1 or 0
  c.kernel = options.ktls and 1 or 0
  local number = C.tg_abi_tls_client(c)
  if number < 0 then return nil, abi.out() end
  return number
end

--- The state of one content coding, nil when memory is short; freed when nobody holds it, or by coding_free.
-- A body that is given up leaves MiBs to a collector that sees a few bytes of them, so it is told.
function abi.coding(name, decode, level, output_max)
  if C.tg_abi_coding_memory() > collect_at then
    collectgarbage()
    collect_at = math.max(COLLECT_MIN, 2 * C.tg_abi_coding_memory())
  end
  local coding = C.tg_abi_coding_new(name, #name, decode and 1 or 0, level, output_max)
  if coding == nil then return nil end
  return ffi.gc(coding, C.tg_abi_coding_free)
end

--- coding_run(coding, piece, last) -> rc of tg_abi_coding_run, what it has put out.
function abi.coding_run(coding, piece, last)
  local rc = C.tg_abi_coding_run(coding, piece, #piece, last)
  if rc < 0 then return rc end
  return rc, to_string(vm.out.p, vm.out.n)
end

function abi.coding_free(coding)
  C.tg_abi_coding_free(ffi.gc(coding, nil))
end

--- What finds the items of an array in a stream; freed when nobody holds it.
function abi.items(path)
  local items = C.tg_abi_items_new(path, #path)
  return items ~= nil and ffi.gc(items, C.tg_abi_items_free) or nil
end

--- A compiled pattern and its groups, or nil and what is wrong; freed when nobody holds it.
function abi.regex(pattern, flags)
  local regex = C.tg_abi_regex_new(pattern, #pattern, flags, #flags)
  if regex == nil then return nil, abi.out() end
  return ffi.gc(regex, C.tg_abi_regex_free), tonumber(vm.number), vm.type ~= 0
end

local parts = ffi.new("struct tg_slice[?]", C.TG_KEY_PARTS)

local function owned_key(key)
  if key == nil then return nil, abi.out() end
  return ffi.gc(key, C.tg_abi_key_free)
end

--- key_read(text, password) -> a key from PEM or DER, freed when nobody holds it | nil, why not
function abi.key_read(text, password)
  return owned_key(C.tg_abi_key_read(text, #text, password, #password))
end

--- key_make(kind, bits, numbers) -> the same from the numbers of a JWK, { [part] = bytes }
function abi.key_make(kind, bits, numbers)
  for i = 0, C.TG_KEY_PARTS - 1 do
    local bytes = numbers[i] or ""
    parts[i].p, parts[i].n = bytes, #bytes
  end
  return owned_key(C.tg_abi_key_make(kind, bits, parts))
end

--- limits: names of the algorithms of limits, as the core knows them
abi.limits = {
  gcra = tonumber(C.TG_LIMIT_GCRA), leaky = tonumber(C.TG_LIMIT_LEAKY), fixed = tonumber(C.TG_LIMIT_FIXED), sliding = tonumber(C.TG_LIMIT_SLIDING),
  log = tonumber(C.TG_LIMIT_LOG),
}

--- limit_forms: how clients are told of a limit, as far as the core knows it
abi.limit_forms = { draft = tonumber(C.TG_LIMIT_DRAFT), ["x-ratelimit"] = tonumber(C.TG_LIMIT_X_RATELIMIT) }

--- limit{ algorithm, rate, per, burst?, delay? } -> what the core counts by. Whoever uses it holds it.
function abi.limit(one)
  return ffi.new("struct tg_abi_limit", abi.limits[one.algorithm], 0, one.rate, one.per, one.burst or 0, one.delay or 0)
end

--- taken[1 to 8]: what came of the last decision on limits, by their places plus 1: struct tg_abi_taken of the core.
abi.taken = {}
for i = 1, tonumber(C.TG_LIMITS) do abi.taken[i] = C.tg_abi_limit_taken(i - 1) end

--- records[1 to 8]: lists of numbers in a dictionary, by their places plus 1: tg_abi_record of the core.
abi.records = {}
for i = 1, tonumber(C.TG_RECORDS) do abi.records[i] = C.tg_abi_record(i - 1) end

-- Words of a command to Redis: what C reads, and what keeps them from the collector until it has.
local words_max = 64
local redis = { words = ffi.new("const char *[?]", words_max), lengths = ffi.new("size_t[?]", words_max), held = {} }
abi.redis = redis

--- Makes room for `count` words in abi.redis.
function abi.redis_room(count)
  if count <= words_max then return end
  while words_max < count do words_max = words_max * 2 end
  redis.words, redis.lengths, redis.held = ffi.new("const char *[?]", words_max), ffi.new("size_t[?]", words_max), {}
end

local settings = ffi.new "struct tg_abi_redis_settings"

local function slice_of(to, text)
  to.p, to.n = text, #text
end

--- redis_open(key, conf) -> index | negative enum tg_rc. conf: name, username, password: strings; db, connections, timeout,
-- connect_timeout, tls: numbers, times in milliseconds; cluster.
function abi.redis_open(key, conf)
  slice_of(settings.name, conf.name)
  slice_of(settings.username, conf.username)
  slice_of(settings.password, conf.password)
  settings.db, settings.connections, settings.timeout = conf.db, conf.connections, conf.timeout
  settings.connect_timeout, settings.cluster, settings.tls = conf.connect_timeout, conf.cluster and 1 or 0, conf.tls
  return C.tg_abi_redis_open(key, #key, settings)
end

local codes = {
  [-1] = "memory", [-2] = "invalid", [-3] = "none", [-4] = "too_large", [-5] = "system", [-6] = "reset", [-7] = "reset",
  [-8] = "timeout", [-9] = "connect", [-10] = "dns", [-11] = "protocol", [-12] = "cancelled", [-13] = "script",
  [-14] = "busy", [-15] = "stale", [-16] = "denied", [-17] = "tls", [-18] = "open",
}

--- The lasting name of an enum tg_rc; `code` of errors.
function abi.code(rc)
  return codes[rc] or "unknown"
end

return abi
