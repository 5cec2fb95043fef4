--- tg: the public library, the one global that plugins see beside `t`.
local abi = require "abi"
local branch = require "tidegate.branch"
local response = require "tidegate.response"
local secret = require "tidegate.secret"
local task = require "tidegate.task"
local time = require "tidegate.time"
local timer = require "tidegate.timer"
local trace = require "tidegate.trace"

local C = abi.C
local json = require "tidegate.json"

local tg = {
  respond = response.respond,
  problem = response.problem,
  redirect = response.redirect,
  http = require "tidegate.http",
  fetch_all = branch.fetch_all,
  as_completed = branch.as_completed,
  first = branch.first,
  spawn = task.spawn,
  sleep = task.sleep,
  within = task.within,
  defer = task.defer,
  background = task.background,
  every = timer.every,
  after = timer.after,
  cache = require("tidegate.cache").open,
  batch = require("tidegate.batch").open,
  crypto = require "tidegate.crypto",
  json = json,
  re = require "tidegate.re",
  redis = require("tidegate.redis").open,
  null = json.null,
  limit = require("tidegate.limit").public,
  log = require "tidegate.log",
  metrics = require "tidegate.metrics",
  now = time.now,
  time = { http_date = time.http_date, iso = time.iso, parse = time.parse, days = time.days, day = time.day },
  correlation = require "tidegate.correlation",
  dict = require("tidegate.dict").open,
  url = require "tidegate.url",
  secret = secret.word(),
  cidr = require("tidegate.cidr").set,
  network = require("tidegate.cidr").network,
  consumers = require "tidegate.consumers",
  cookie = require "tidegate.cookie",
  span = trace.span,
  trace = { context = trace.context },
}

-- Each generation would load these, and few use them: they come when they are asked for. Values: module, and which part of it.
local function later(t, modules)
  setmetatable(t, {
    __index = function(_, name)
      local from = modules[name]
      if not from then return nil end
      local module = require(from[1])
      local value = from[2] and module[from[2]] or module
      rawset(t, name, value)
      return value
    end,
  })
end

later(tg, {
  claims = { "tidegate.claims" },
  http_signature = { "tidegate.http_signature" },
  jwt = { "tidegate.jwt" },
  openid = { "tidegate.openid" },
  protobuf = { "tidegate.protobuf" },
  revocations = { "tidegate.revocations" },
  semaphore = { "tidegate.semaphore", "open" },
  session = { "tidegate.session" },
  xml = { "tidegate.xml" },
})
later(tg.trace, { otlp = { "tidegate.otlp" }, tracer = { "tidegate.tracer", "new" }, zipkin = { "tidegate.zipkin" } })

--- uuid.v4() -> a random UUID; uuid.v7() -> one that begins with the time, greater than all before it in this worker (RFC 9562)
tg.uuid = {
  v4 = function()
    C.tg_abi_uuid()
    return abi.out()
  end,
  v7 = function()
    C.tg_abi_uuid7()
    return abi.out()
  end,
}

--- is_token(s) -> whether it is a token (RFC 9110, section 5.6.2)
function tg.is_token(s)
  return C.tg_abi_valid_name(s, #s) == 0
end

--- is_field_value(s) -> whether it may be the value of a header (RFC 9110, section 5.5)
function tg.is_field_value(s)
  return C.tg_abi_valid_value(s, #s) == 0
end

--- template(text, { roots?, escape? }?) -> function(ctx, given?) -> text | nil when a variable is missing. To be made in set-up.
-- "${header.X-Tenant}" and the other variables of configurations; `roots = { "answers" }` adds "${answers.user.orders.0.id}", whose values
-- are in `given`; lists are counted from 0. `escape = "url"` percent-encodes each value, "json" puts in its JSON text.
function tg.template(text, options)
  return require("runtime.template").new(text, options)
end

--- edits { remove?, rename?, set?, add? } -> edits: changes of headers, in this order, judged and prepared once. To be made in set-up.
-- `remove`: names; `rename`: from = to; `set`, `add`: name = text, or a template, whose field stays as it is when a variable is missing.
-- edits:apply(ctx, ctx.req) or (ctx, ctx.res) does them; edits.idle: there is nothing to do.
function tg.edits(changes)
  return require("tidegate.edits").new(changes)
end

--- upstream "name" -> object with get, post ... get_json and peers. An unknown name is an error at load.
function tg.upstream(name)
  return require("runtime.upstreams").get(name)
end

return tg
