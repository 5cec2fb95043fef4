--- service: the admin interface's own way of a request: from where, by whom, which operation; and a line for each change.
local abi = require "abi"
local access = require "admin.access"
local api = require "admin.api"
local ask = require "admin.ask"
local dashboard = require "admin.dashboard"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local log = require "tidegate.log"
local response = require "tidegate.response"

local C, vm = abi.C, abi.vm
local service = {}
local BODY_MAX = 4 * 1024 * 1024
local patterns -- list of { pattern, names, by method }
local audit_sink, generated

-- ---------------------------------------------------------------- operations

local function pattern_of(path)
  local names = {}
  local pattern = path:gsub("[%-%.]", "%%%0"):gsub("{([%w_]+)(%*?)}", function(name, star)
    names[#names + 1] = name
    return star == "*" and "(.+)" or "([^/]+)"
  end)
  return "^" .. pattern .. "$", names
end

local function prepare()
  local by_path = {}
  patterns = {}
  for _, op in ipairs(api.operations) do
    local entry = by_path[op.path]
    if not entry then
      local pattern, names = pattern_of(op.path)
      entry = { pattern = pattern, names = names, methods = {} }
      by_path[op.path], patterns[#patterns + 1] = entry, entry
    end
    entry.methods[op.method] = op
  end
end

local function find(path)
  for _, entry in ipairs(patterns) do
    local found = { path:match(entry.pattern) }
    if found[1] then
      local params = {}
      for i, name in ipairs(entry.names) do params[name] = found[i] end
      return entry, params
    end
  end
end

-- ---------------------------------------------------------------- audit

local function audit(ctx, conf, who, r)
  local line = json.encode({ time = vm.now, who = who, client = ctx.req.client.ip, method = ctx.req.method, path = ctx.req.path,
    status = r.status, generation = ctx.generation }, { sorted = true })
  if not conf.audit then return log.warn("admin: " .. line) end
  audit_sink = audit_sink or C.tg_abi_sink_open(conf.audit, #conf.audit)
  line = line .. "\n"
  if audit_sink < 0 or C.tg_abi_sink_write(audit_sink, line, #line) ~= 0 then log.error("admin: the audit log is lost: " .. line) end
end

-- ---------------------------------------------------------------- requests

local function token_of(conf)
  if conf.token then return conf.token:reveal() end
  if not generated then
    local text, err = ask.text("admin", "token")
    if not text then error(failure.new("unavailable", "there is no admin token: " .. tostring(err), 503), 0) end
    generated = text:gsub("%s+$", "")
  end
  return generated
end

local function body_of(ctx)
  local text = ctx.req:text(BODY_MAX)
  if not text or text == "" then return {} end
  local value, err = json.decode_object(text)
  if type(value) ~= "table" then return nil, response.problem(400, "the body is no JSON object: " .. tostring(err)) end
  return value
end

local function log_in(ctx, token)
  local body, refusal = body_of(ctx)
  if not body then return refusal end
  local ok = type(body.token) == "string" and access.is_token(ctx.req, body.token, token)
  if ok == nil then return response.problem(429, "too many wrong tokens", nil, { ["Retry-After"] = "60" }) end
  if not ok then return response.problem(401, "that is not the token (see: tidegate token)") end
  return response.respond(204, nil, { ["Set-Cookie"] = access.session(token, ctx.req.scheme == "https") })
end

local function run(ctx, entry, params, who, conf)
  local method = ctx.req.method == "HEAD" and "GET" or ctx.req.method
  local op = entry.methods[method]
  if not op then
    local allowed = {}
    for name in pairs(entry.methods) do allowed[#allowed + 1] = name end
    table.sort(allowed)
    return response.problem(405, "the method is not allowed here", nil, { Allow = table.concat(allowed, ", ") })
  end
  local body, refusal = {}, nil
  if op.change then body, refusal = body_of(ctx) end
  if refusal then return refusal end
  local r = op.run { who = who, params = params, body = body, query = ctx.req.query, ctx = ctx }
  if op.change then audit(ctx, conf, who, r) end
  return r
end

--- handle(ctx, conf) -> response
function service.handle(ctx, conf)
  local refusal = access.refuse_place(ctx, conf)
  if refusal then return refusal end
  local path = ctx.req.path
  if conf.dashboard then
    local page = dashboard.page(path)
    if page then return page end
  end
  local entry, params = find(path)
  if conf.public_metrics and path == "/metrics" then return run(ctx, entry, params, "anybody", conf) end
  local token = token_of(conf)
  if path == "/session" and ctx.req.method == "PUT" then return log_in(ctx, token) end
  local who, denied = access.who(ctx, conf, token)
  if not who then return denied end
  if path == "/session" then return response.respond(204, nil, { ["Set-Cookie"] = access.no_session() }) end
  if not entry then return response.problem(404, "there is nothing here; see /openapi.json") end
  return run(ctx, entry, params, who, conf)
end

--- start(cfg, uses): the generation is made
function service.start(cfg, uses)
  api.cfg, api.uses = cfg, uses
  prepare()
end

return service
