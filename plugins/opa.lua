--- opa: the Open Policy Agent decides, by its REST API (https://www.openpolicyagent.org/docs/latest/rest-api/#data-api).

-- What comes twice is shown whole: an agent that saw one of two values would decide about another request than the upstream gets.
local function headers_of(req)
  local headers = {}
  for name, value in req.headers() do
    name = name:lower()
    headers[name] = headers[name] and req.headers[name] or value
  end
  return headers
end

local function query_of(req)
  local query = {}
  for name in req.query() do
    local values = query[name] == nil and req.query(name)
    if values then query[name] = #values > 1 and tg.json.array(values) or values[1] end
  end
  return query
end

local function input_of(ctx, conf)
  local req, headers, query = ctx.req, headers_of(ctx.req), query_of(ctx.req)
  local input = {
    method = req.method, path = req.path, host = req.host, scheme = req.scheme, headers = headers, query = query, client_ip = req.client.ip,
    params = req.params, route = ctx.route and ctx.route.name,
  }
  local consumer = ctx.consumer
  if consumer then
    local groups = tg.json.array { unpack(consumer.groups or {}) }
    input.consumer = { id = consumer.id, username = consumer.username, groups = groups, plan = consumer.plan }
  end
  if conf.max_body > 0 then
    local body, err = req:text(conf.max_body)
    if not body then error(tg.problem(err.status, err.message), 0) end
    input.body = body
  end
  return input
end

local function denied(conf, decision)
  local status = type(decision.status) == "number" and decision.status >= 400 and decision.status <= 599 and decision.status or conf.status
  local headers = {}
  for name, value in pairs(type(decision.headers) == "table" and decision.headers or {}) do
    if tg.is_token(name) and type(value) == "string" then headers[name] = value end
  end
  return tg.problem(status, type(decision.reason) == "string" and decision.reason or "the policy denies this", nil, headers)
end

local function undecided(conf, why)
  tg.log.warn("opa gives no decision", { upstream = conf.upstream, policy = conf.policy, reason = tostring(why) })
  return tg.problem(503, "nobody can say whether this is allowed", nil, { ["Retry-After"] = "1" })
end

return {
  api = 1,
  doc = [[
Let the Open Policy Agent decide.
It is asked `POST /v1/data/<policy>` with the request as `input`: `method path host scheme headers query params client_ip route consumer`, and
`body` with `max_body`; a header that comes twice is joined by a comma, a query parameter is a list. The result is `true`, or an object with `allow =
true` and perhaps `request_headers` for the upstream, of which `upstream_headers` must have the names; anything else denies, with `status`,
`reason` and `headers` of the object. No result, an error, another header or no answer in `timeout` denies with 503.]],

  schema = {
    upstream = t.upstream { doc = "The agent." },
    policy = t.string { match = "^[%w_./-]+$", doc = "Path of the decision: `httpapi/authz`." },
    upstream_headers = t.list(t.header(),
      { default = {}, max = 100, doc = "Headers that a decision may set for the upstream; clients cannot send them." }),
    status = t.status { default = 403, doc = "Status of a denial that has none." },
    timeout = t.duration { default = "1s", min = 0.001, max = 60, doc = "Time for the decision." },
    max_body = t.size { default = 0, min = 0, max = 2 ^ 20, doc = "How much of a body it sees; 0: none." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "opa", upstream = "users", policy = "httpapi/authz" } } }]],

  identity_headers = function(conf) return conf.upstream_headers end,

  setup = function(conf)
    local settable = {}
    for _, name in ipairs(conf.upstream_headers) do settable[name:lower()] = true end
    return settable
  end,

  access = function(ctx, conf, settable)
    local answer, err = tg.upstream(conf.upstream):request {
      method = "POST", path = "/v1/data/" .. conf.policy, json = { input = input_of(ctx, conf) }, timeout = conf.timeout, expect = 200,
    }
    local body = answer and answer:json()
    local result = type(body) == "table" and body.result
    if result == nil or type(body) ~= "table" then return undecided(conf, err or "no result") end
    if result == true then return end
    local decision = type(result) == "table" and result or {}
    if decision.allow ~= true then return denied(conf, decision) end
    for name, value in pairs(type(decision.request_headers) == "table" and decision.request_headers or {}) do
      -- One that clients may send, too, would be theirs whenever the policy is silent.
      if type(value) ~= "string" or not settable[tostring(name):lower()] then
        return undecided(conf, ("request_headers: %s is not in upstream_headers, or no text"):format(tostring(name)))
      end
      ctx.req.headers[name] = value
    end
  end,
}
