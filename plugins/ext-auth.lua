--- ext-auth: another service is asked whether a request may pass (forward authentication).
local function url_of(ctx)
  local req = ctx.req
  return req.raw_path .. (req.raw_query ~= "" and "?" .. req.raw_query or "")
end

local function headers_for(ctx, conf)
  local req, headers = ctx.req, {}
  for _, name in ipairs(conf.request_headers) do headers[name] = req.headers[name] end
  headers["X-Forwarded-Method"], headers["X-Forwarded-Uri"] = req.method, url_of(ctx)
  headers["X-Forwarded-Host"], headers["X-Forwarded-Proto"], headers["X-Forwarded-For"] = req.host, req.scheme, req.client.ip
  return headers
end

-- What decides: the same question within `cache` has the same answer. `about`: who is asked, and what is taken of his answer.
local function question_of(about, headers)
  local names, parts = {}, { about }
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do parts[#parts + 1] = name .. "=" .. headers[name] end
  return tg.crypto.hex(tg.crypto.sha256(table.concat(parts, "\n")))
end

-- { status, headers, body, is_own } | nil, err
local function ask(ctx, conf, headers)
  local body
  if conf.max_body > 0 then
    local err
    body, err = ctx.req:text(conf.max_body)
    if not body then error(tg.problem(err.status, err.message), 0) end -- 413: what is not seen is not let through
  end
  local options = { method = conf.method, path = conf.path, headers = headers, timeout = conf.timeout, max_body = 65536, retries = 0 }
  if body and body ~= "" then options.body = body end
  local res, err = tg.upstream(conf.upstream):request(options)
  if not res then return nil, err end
  if res.status >= 500 then return nil, "status " .. res.status end
  local answer = { status = res.status, body = res.status >= 300 and res:text() or nil, headers = {}, is_own = false }
  for _, name in ipairs(res.status < 300 and conf.upstream_headers or conf.client_headers) do
    local values = res.headers(name)
    answer.headers[#answer.headers + 1] = { name, values }
    answer.is_own = answer.is_own or name:lower() == "set-cookie" and #values > 0
  end
  return answer
end

-- As ask, but the same question once. A cookie is for one client: of an answer that sets one is kept that everybody must ask for his own.
local function ask_once(ctx, conf, state, headers)
  local mine
  local answer, err = state.cache:get(question_of(state.about, headers), function()
    local why
    mine, why = ask(ctx, conf, headers)
    if mine and mine.is_own then return { is_own = true } end
    return mine, why
  end)
  if answer and answer.is_own then return mine or ask(ctx, conf, headers) end
  return answer, err
end

return {
  api = 1,
  doc = [[
Ask another service whether a request may pass.
The service gets `request_headers` and, in `X-Forwarded-Method`, `X-Forwarded-Uri`, `X-Forwarded-Host`, `X-Forwarded-Proto` and `X-Forwarded-For`,
what the upstream would get of the request as it is by now, and with `max_body` the body. An answer 2xx lets the request pass, with
`upstream_headers` of it; any other below 500 goes to the client, with its body and `client_headers` (a redirect to a login page, say). A service
that is away, slow, or answers 5xx denies with 503, unless `on_failure` is "allow". With `cache` the same question is not asked again for a while;
an answer that sets a cookie is never another client's.]],

  schema = {
    upstream = t.upstream { doc = "The service." },
    path = t.string { default = "/", match = "^/[^%c%s]*$", doc = "Path that is asked." },
    method = t.enum { "GET", "POST", default = "GET", doc = "Method that it is asked with." },
    request_headers = t.list(t.header(),
      { default = { "Authorization", "Cookie" }, max = 100, doc = "Headers of the request that the service sees." }),
    upstream_headers = t.list(t.header(),
      { default = {}, max = 100, doc = "Headers of its answer that go upstream; clients cannot send them." }),
    client_headers = t.list(t.header(), { default = { "Location", "WWW-Authenticate", "Set-Cookie", "Content-Type" }, max = 100,
      doc = "Headers of a refusal that go to the client." }),
    timeout = t.duration { default = "3s", min = 0.001, max = 60, doc = "Time for the answer." },
    max_body = t.size { default = 0, min = 0, max = 2 ^ 24, doc = "How much of a body the service sees; a larger one gets 413; 0: it sees none." },
    on_failure = t.enum { "deny", "allow", default = "deny", doc = "What happens when the service gives no answer." },
    cache = t.duration { default = 0, min = 0, max = 3600, doc = "How long an answer holds; 0: each is asked for." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = {
  { "ext-auth", upstream = "users", path = "/auth", upstream_headers = { "X-User" } } } }]],

  identity_headers = function(conf) return conf.upstream_headers end,

  setup = function(conf)
    if conf.cache == 0 or conf.max_body > 0 then return {} end
    return {
      cache = tg.cache("ext-auth " .. conf.upstream .. conf.path, { ttl = conf.cache }),
      about = tg.json.encode { conf.upstream, conf.path, conf.method, conf.upstream_headers, conf.client_headers },
    }
  end,

  access = function(ctx, conf, state)
    local headers = headers_for(ctx, conf)
    local answer, err
    if state.cache then answer, err = ask_once(ctx, conf, state, headers) else answer, err = ask(ctx, conf, headers) end
    if not answer then
      tg.log.warn("ext-auth gives no answer", { upstream = conf.upstream, reason = tostring(err) })
      if conf.on_failure == "allow" then return end
      return tg.problem(503, "nobody can say whether this is allowed", nil, { ["Retry-After"] = "1" })
    end
    if answer.status >= 300 then
      local back = {}
      for _, pair in ipairs(answer.headers) do back[pair[1]] = pair[2] end
      return tg.respond(answer.status, answer.body, back)
    end
    for _, pair in ipairs(answer.headers) do
      local values = pair[2]
      ctx.req.headers[pair[1]] = values[1] and table.concat(values, ", ") or nil
    end
  end,
}
