--- service: the admin interface's own way of a request: from where, by whom, which operation; and a line for each change.
local abi = require "abi"
local access = require "admin.access"
local api = require "admin.api"
local ask = require "admin.ask"
local dashboard = require "admin.dashboard"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local log = require "tidegate.log"
local once = require "admin.once"
local openapi = require "admin.openapi"
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

-- What was asked for, without what the texts of a generation say: they are in the history, and may hold what nobody shall read here.
local function asked(body)
  local change = {}
  for name, value in pairs(body) do
    if name == "files" then
      value = json.array {}
      for file in pairs(body.files) do value[#value + 1] = file end
      table.sort(value)
    end
    change[name] = value
  end
  return next(change) and change or nil
end

local function audit(call, conf, r)
  local ctx = call.ctx
  local client = ctx.req.client.ip -- none where the client has come by a socket
  local line = json.encode({ time = vm.now, who = call.who, client = client ~= "" and client or nil, method = ctx.req.method, path = ctx.req.path,
    change = asked(call.body), status = r.status, generation = ctx.generation, id = ctx.id }, { sorted = true })
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

-- The body as a table, and as its text | nil, response.
local function body_of(ctx)
  local text, err = ctx.req:text(BODY_MAX)
  if not text then return nil, response.problem(failure.is(err) and err.status or 413, failure.is(err) and err.message or "the body is too large") end
  if text == "" then return {}, "" end
  local value, wrong = json.decode_object(text)
  if type(value) ~= "table" then return nil, response.problem(400, "the body is no JSON object: " .. tostring(wrong)) end
  return value, text
end

local function carry_out(op, call, conf)
  local r = op.run(call)
  audit(call, conf, r)
  return r
end

local function run(op, call, conf)
  local text
  call.body = {}
  if op.body or op.change then
    local refusal
    call.body, text = body_of(call.ctx)
    if not call.body then return text end
    refusal = openapi.judge(op, call.query, call.body)
    if refusal then return refusal end
    return op.change and once.run(call.ctx.req, text, carry_out, op, call, conf) or op.run(call)
  end
  return openapi.judge(op, call.query, call.body) or op.run(call)
end

local function not_allowed(entry)
  local allowed = {}
  for name in pairs(entry.methods) do allowed[#allowed + 1] = name end
  table.sort(allowed)
  return response.problem(405, "the method is not allowed here", nil, { Allow = table.concat(allowed, ", ") })
end

--- handle(ctx, conf) -> response
function service.handle(ctx, conf)
  local refusal = access.refuse_place(ctx, conf)
  if refusal then return refusal end
  local req = ctx.req
  local path = req.path
  if conf.dashboard then
    local page = dashboard.page(path)
    if page then return page end
  end
  local entry, params = find(path)
  local op = entry and entry.methods[req.method == "HEAD" and "GET" or req.method]
  local call = { who = "anybody", params = params, query = req.query, ctx = ctx }
  if op and conf.public_metrics and path == "/metrics" then return run(op, call, conf) end
  if not access.is_by_socket(conf) then call.token = token_of(conf) end
  if op and op.open then return run(op, call, conf) end
  local who, denied = access.who(ctx, conf, call.token)
  if not who then return denied end
  call.who = who
  if not entry then return response.problem(404, "there is nothing here; see /openapi.json") end
  return op and run(op, call, conf) or not_allowed(entry)
end

--- start(cfg, uses): the generation is made
function service.start(cfg, uses)
  api.cfg, api.uses = cfg, uses
  prepare()
end

return service
