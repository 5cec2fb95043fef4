--- cors: which sites' scripts may read what is answered (the Fetch standard, section 3.2).
local function compile(conf)
  local state = { exact = {}, any = false, suffixes = {} }
  for _, origin in ipairs(conf.origins) do
    if origin == "*" then
      state.any = true
    elseif origin:find("*", 1, true) then
      local scheme, suffix = origin:lower():match "^(https?://)%*(%.[%w.-]+:?%d*)$"
      state.suffixes[#state.suffixes + 1] = { scheme, suffix }
    else
      state.exact[origin:lower()] = true
    end
  end
  return state
end

local function is_allowed(origin, conf, state)
  if state.any then return true end
  local lower = origin:lower()
  if state.exact[lower] then return true end
  for _, pair in ipairs(state.suffixes) do
    if lower:sub(1, #pair[1]) == pair[1] and #lower > #pair[1] + #pair[2] and lower:sub(-#pair[2]) == pair[2] then return true end
  end
  for _, pattern in ipairs(conf.origin_patterns) do
    local m = pattern:match(origin)
    if m and m[0] == origin then return true end -- the whole of it: a pattern without anchors would let others in
  end
  return false
end

local function set_origin(headers, origin, conf, state)
  headers["Access-Control-Allow-Origin"] = state.any and not conf.credentials and "*" or origin
  if conf.credentials then headers["Access-Control-Allow-Credentials"] = "true" end
end

-- What a browser asks before it sends the request itself; nobody is logged in here.
local function preflight(req, origin, conf, state)
  local headers = { Vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" }
  if not is_allowed(origin, conf, state) then return tg.problem(403, "the origin is not allowed", nil, headers) end
  set_origin(headers, origin, conf, state)
  headers["Access-Control-Allow-Methods"] = state.methods
  headers["Access-Control-Allow-Headers"] = state.headers or req.headers["access-control-request-headers"]
  if conf.max_age > 0 then headers["Access-Control-Max-Age"] = state.max_age end
  if conf.private_network and req.headers["access-control-request-private-network"] == "true" then
    headers["Access-Control-Allow-Private-Network"] = "true"
  end
  return tg.respond(204, nil, headers)
end

local function add_vary(headers)
  local vary = headers.vary
  if not vary then
    headers.vary = "Origin"
  elseif vary ~= "*" and not ("," .. vary:lower():gsub("%s", "") .. ","):find(",origin,", 1, true) then
    headers.vary = vary .. ", Origin"
  end
end

return {
  api = 1,
  doc = [[
Let scripts of other sites read the answers (cross-origin resource sharing).
Preflight requests are answered here, before anybody is asked who he is, also where the route has no OPTIONS among its `methods`. `origins` are
exact ("https://app.example.com"), "*", or "https://*.example.com"; `origin_patterns` must match the whole origin. With
`credentials` the origin is named, and "*" is refused. All answers have `Vary: Origin`, also those that the gateway makes itself; what an upstream
says of CORS is replaced.]],

  schema = {
    origins = t.list(t.string { match = "^[%w:/.*%[%]-]+$", len = 255 }, { default = {}, max = 1000, doc = "Origins that are allowed." }),
    origin_patterns = t.list(t.regex(), { default = {}, max = 100, doc = "Patterns of origins that are allowed." }),
    methods = t.list(t.string { match = "^%u+$" },
      { default = { "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE" }, doc = "Methods that are allowed." }),
    headers = t.optional(t.list(t.header(), { doc = "Request headers that are allowed; default: those that are asked for." })),
    expose = t.list(t.header(), { default = {}, max = 100, doc = "Response headers that scripts may read." }),
    credentials = t.boolean { default = false, doc = "Whether cookies and the like may come along." },
    max_age = t.duration { default = "10m", min = 0, max = 86400, doc = "How long a browser remembers a preflight." },
    private_network = t.boolean { default = false, doc = "Whether public sites may reach this private one." },
  },

  example = [[
route "orders" { path = "/orders/*", to = "orders", use = { { "cors", origins = { "https://app.example.com" }, credentials = true } } }]],

  check = function(conf)
    if #conf.origins == 0 and #conf.origin_patterns == 0 then return "needs `origins` or `origin_patterns`" end
    for _, origin in ipairs(conf.origins) do
      if origin == "*" and conf.credentials then
        return '"*" would let every site act in the name of who is logged in: name the origins', "origins"
      end
      if origin ~= "*" and origin ~= "null" and not origin:find "^https?://[%w.*%[%]:-]+$" then
        return ("%q is no origin: \"https://app.example.com\", without a path"):format(origin), "origins"
      end
      if origin ~= "*" and origin:find("*", 1, true) and not origin:find "^https?://%*%.[%w.-]+:?%d*$" then
        return ('%q: a star stands for subdomains only: "https://*.example.com"'):format(origin), "origins"
      end
    end
  end,

  preflight = true,

  setup = function(conf)
    local state = compile(conf)
    state.methods, state.max_age = table.concat(conf.methods, ", "), ("%d"):format(conf.max_age)
    state.headers = conf.headers and table.concat(conf.headers, ", ")
    state.expose = #conf.expose > 0 and table.concat(conf.expose, ", ")
    return state
  end,

  rewrite = function(ctx, conf, state)
    local req = ctx.req
    if req.method ~= "OPTIONS" then return end
    if req.headers["access-control-request-method"] then return preflight(req, req.headers.origin or "", conf, state) end
  end,

  response = function(ctx, conf, state)
    local headers, origin = ctx.res.headers, ctx.req.original.headers.origin
    if headers["access-control-allow-methods"] and ctx.res.source == "plugin" then return end -- a preflight of ours
    headers["Access-Control-Allow-Origin"], headers["Access-Control-Allow-Credentials"], headers["Access-Control-Expose-Headers"] = nil, nil, nil
    add_vary(headers)
    if not origin or not is_allowed(origin, conf, state) then return end
    set_origin(headers, origin, conf, state)
    headers["Access-Control-Expose-Headers"] = state.expose or nil
  end,
}
