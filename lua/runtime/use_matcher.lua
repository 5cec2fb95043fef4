--- use_matcher: `when` of a use that is no function: what a route may ask of a request, asked of one that has its route already.
local route_config = require "runtime.route_config"
local router = require "runtime.router"
local schema = require "runtime.schema"

local use_matcher = {}
local t = schema.t
local spec = { path = t.list(route_config.path_type, { default = { "/*" }, min = 1 }) }
for name, kind in pairs(route_config.asks) do spec[name] = kind end

-- What the router asks for beyond method, host and path. One for all: nothing waits while it is asked.
local request = { ctx = false }
function request:header(name) return self.ctx.req.headers[name] end
function request:query(name) return self.ctx.req.query[name] end
function request:connection(name) return self.ctx.req[name] end -- of those there is but `scheme`

-- As the router has seen it, before the route's prefix was taken off.
local function path_of(ctx, req)
  local route = ctx.route
  local prefix = route and route.stripped
  return prefix and prefix .. req.path or req.path
end

--- read(value, at, path, report) -> function(ctx) -> boolean | nil: something was reported
function use_matcher.read(value, at, path, report)
  local prefix = { unpack(path) }
  prefix[#prefix + 1] = "when"
  if type(value) ~= "table" or next(value) == nil then
    report:found(at, path, value, "a function of ctx as `when`, or what a request must have: { path = ..., methods = ..., headers = ... }")
    return nil
  end
  local asks = schema.unfrozen(spec, value, { report = report, at = at, path = prefix })
  if not asks or not route_config.check_asks(asks, at, prefix, report) then return nil end
  asks.index, asks.priority, asks.at, asks.name = 1, 0, at, "when"
  local matcher = router.build({ asks }, report)
  return function(ctx)
    local req = ctx.req
    request.ctx = ctx
    return matcher:fits(req.method, req.host or "", path_of(ctx, req), request)
  end
end

return use_matcher
