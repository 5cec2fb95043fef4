--- fallback: what answers when the upstream does not: a kept copy, another upstream, a fixed response, a function; the first that can.
local HOP = { connection = true, ["keep-alive"] = true, ["transfer-encoding"] = true, te = true, trailer = true, upgrade = true,
  ["content-length"] = true, ["proxy-connection"] = true, host = true, expect = true }
local NOT_KEPT = { ["set-cookie"] = true, date = true, age = true, ["content-encoding"] = true }

local step = t.any_of {
  t.record { stale = t.duration { min = 1, max = 30 * 86400 } },
  t.record { upstream = t.upstream(), timeout = t.duration { default = "5s", min = 0.001, max = 3600 } },
  t.record { status = t.status(200), body = t.optional(t.string()), headers = t.map(t.string(), {}) },
  t.func(),
}

-- Whether a copy of an answer to this request may be another's: it must say nothing of who has asked.
local function is_public(req)
  return req.method == "GET" and not req.headers.authorization and not req.headers.cookie and not req.headers.range
end

local function may_keep(res)
  local headers = res.headers
  if res.status ~= 200 or res.source ~= "upstream" or headers["set-cookie"] or headers.vary == "*" then return false end
  local control = (headers["cache-control"] or ""):lower()
  return not (control:find("no-store", 1, true) or control:find("private", 1, true))
end

local function key_of(ctx, conf)
  local req = ctx.req
  return ("%s %s%s?%s"):format(conf.group, req.host, req.raw_path, req.raw_query)
end

local function pack(res, body)
  local headers = {}
  for name, value in res.headers() do
    if not HOP[name:lower()] and not NOT_KEPT[name:lower()] then headers[#headers + 1] = { name, value } end
  end
  local head = tg.json.encode { at = tg.now(), headers = tg.json.array(headers) }
  return #head .. ":" .. head .. body
end

local function unpack_copy(text)
  local length, rest = text:match "^(%d+):()"
  if not length then return nil end
  local head = tg.json.decode(text:sub(rest, rest + tonumber(length) - 1))
  return head and { head = head, body = text:sub(rest + tonumber(length)) }
end

-- Passes the answer on and keeps a copy of it, if it is not too large.
local function keep(ctx, conf, state, key)
  local res, limit = ctx.res, conf.max_body
  local declared = tonumber(res.headers["content-length"])
  if declared and declared > limit then return end
  res:transform(function(input, write)
    local parts, size = {}, 0
    for chunk in input do
      write(chunk)
      size = size + #chunk
      if size <= limit then parts[#parts + 1] = chunk end
    end
    if size <= limit then state.dict:set(key, pack(res, table.concat(parts)), state.ttl) end
  end)
end

local answer = {}

function answer.stale(ctx, conf, one, state)
  if not is_public(ctx.req) then return nil end
  local copy = unpack_copy(state.dict:get(key_of(ctx, conf)) or "")
  local age = copy and tg.now() - copy.head.at
  if not copy or age > one.stale then return nil end
  local headers = { Age = tostring(math.max(0, math.floor(age))) }
  for _, pair in ipairs(copy.head.headers) do headers[pair[1]] = pair[2] end
  return tg.respond(200, copy.body, headers), "stale"
end

function answer.upstream(ctx, _, one)
  local req = ctx.req
  if req.method ~= "GET" and req.method ~= "HEAD" then return nil end -- the body has gone to the first one
  local headers = {}
  for name, value in req.headers() do
    if not HOP[name:lower()] then headers[name] = value end
  end
  local path = req.raw_path .. (req.raw_query ~= "" and "?" .. req.raw_query or "")
  local streams = req.method == "GET"
  local res = tg.upstream(one.upstream):request { method = req.method, path = path, headers = headers, timeout = one.timeout, stream = streams }
  if not res or res.status >= 500 then return nil end
  local back = {}
  for name, value in pairs(res.headers) do
    if not HOP[name] then back[name] = value end
  end
  return tg.respond(res.status, streams and res or nil, back), "upstream"
end

function answer.static(_, _, one)
  local headers = {}
  for name, value in pairs(one.headers) do headers[name] = value end
  return tg.respond(one.status, one.body, headers), "static"
end

local function kind_of(one)
  if type(one) == "function" then return "code" end
  return one.stale and "stale" or one.upstream and "upstream" or "static"
end

function answer.code(ctx, _, one)
  return one(ctx), "function"
end

return {
  api = 1,
  doc = [[
Answer in place of an upstream that fails.
When the answer has one of the statuses in `on` (also 502, 503 and 504 of the gateway itself: no connection, an open breaker, a full bulkhead),
the steps of `chain` are tried in turn: `{ stale = "10m" }` is a kept copy of an earlier answer that is not older, `{ upstream = "other" }`
asks another one (GET and HEAD), `{ status = 200, body = "..." }` is fixed, and a function of ctx returns a response or nothing. The first that
answers does; the client is told by `header`. Without one the failure goes out as it is.
Copies are kept of answers 200 to GET requests without `Authorization`, `Cookie` and `Range`, unless they set a cookie or are `private` or
`no-store`.]],

  schema = {
    chain = t.list(step, { min = 1, max = 10, doc = "What is tried, in turn." }),
    on = t.list(t.status(), { default = { 502, 503, 504 }, max = 50, doc = "Statuses that are failures." }),
    dict = t.optional(t.dict { doc = "Dictionary for the copies of `stale`." }),
    group = t.string { default = "fallback", doc = "Routes of the same group share their copies." },
    max_body = t.size { default = "256KiB", min = 0, max = 2 ^ 24, doc = "Larger answers are not kept." },
    refresh = t.duration { default = "5s", min = 0, max = 86400, doc = "A copy that is younger is not made again." },
    header = t.header { default = "X-Fallback", doc = "Header that tells the client how: `stale`, `upstream`, `static`, `function`." },
  },

  example = [[
dict "copies" { size = "1MiB" }
route "orders" { path = "/orders/*", to = "orders", use = {
  { "fallback", dict = "copies", chain = { { stale = "10m" }, { upstream = "users" }, { status = 503, body = "later" } } } } }]],

  check = function(conf)
    for _, one in ipairs(conf.chain) do
      if kind_of(one) == "stale" and not conf.dict then return "is needed for the copies of `stale`", "dict" end
    end
  end,

  setup = function(conf)
    local statuses, ttl = {}, nil
    for _, status in ipairs(conf.on) do statuses[status] = true end
    for _, one in ipairs(conf.chain) do
      if kind_of(one) == "stale" then ttl = math.max(ttl or 0, one.stale) end
    end
    return { statuses = statuses, ttl = ttl, dict = ttl and tg.dict(conf.dict) }
  end,

  around = function(ctx, conf, state)
    local res = ctx:next()
    if not state.statuses[res.status] then
      -- A copy is not made anew for each request.
      if not state.ttl or not is_public(ctx.req) or not may_keep(res) then return end
      local key = key_of(ctx, conf)
      local left = state.dict:ttl(key)
      if not left or state.ttl - left >= conf.refresh then keep(ctx, conf, state, key) end
      return
    end
    for _, one in ipairs(conf.chain) do
      local r, how = answer[kind_of(one)](ctx, conf, one, state)
      if r then
        r.headers = r.headers or {}
        r.headers[conf.header] = how
        return r
      end
    end
  end,
}
