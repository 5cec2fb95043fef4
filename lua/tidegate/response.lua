--- response: tg.respond and tg.problem. A response is a value: a plugin returns or throws it, the runtime sends it.
local json = require "tidegate.json"
local unread = require "tidegate.unread"

local GATEWAY = 3 -- TG_SOURCE_GATEWAY

local Response = { __name = "response" }
Response.__index = Response

local response = { Response = Response }

function Response:__tostring()
  return "response " .. self.status
end

local function check_status(status, level)
  if type(status) ~= "number" or status < 200 or status > 599 or status % 1 ~= 0 then
    error("a response needs a status from 200 to 599, found " .. tostring(status), level + 1)
  end
end

--- respond(status, body?, headers?) -> response. A table as body is sent as JSON; a function(write) writes it while it goes out, and
-- may wait; a streamed result is passed on.
function response.respond(status, body, headers)
  check_status(status, 2)
  local kind = type(body)
  local content_type
  if kind == "table" and not unread.is(body) and body.is_stream then
    body = body:pass_on()
  elseif kind == "table" then
    body = json.encode(body)
    content_type = "application/json"
  elseif kind == "number" then
    body = tostring(body)
  elseif body ~= nil and kind ~= "string" and kind ~= "function" then
    error("the body of a response is a string, a table or a function, found a " .. kind, 2)
  end
  return setmetatable({ status = status, body = body or "", headers = headers, content_type = content_type }, Response)
end

local titles = {
  [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [409] = "Conflict", [410] = "Gone", [413] = "Content Too Large", [415] = "Unsupported Media Type",
  [422] = "Unprocessable Content", [429] = "Too Many Requests", [500] = "Internal Server Error", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout",
}

--- problem(status, detail?, fields?, headers?) -> response in the form of RFC 9457.
function response.problem(status, detail, fields, headers)
  check_status(status, 2)
  local body = { title = titles[status], status = status, detail = detail }
  if fields then
    for name, value in pairs(fields) do body[name] = value end
  end
  return setmetatable({
    status = status, body = json.encode(body) .. "\n", headers = headers, content_type = "application/problem+json",
  }, Response)
end

--- refusal(...) -> as problem(...), of the gateway itself and of no plugin: logs say so
function response.refusal(...)
  local r = response.problem(...)
  r.source = GATEWAY
  return r
end

-- Where a browser would end up: a path of this site, or a URL whose host is among those that were allowed.
local function check_location(location, hosts)
  if type(location) ~= "string" or location:find "[%c%s\\]" then return "has a blank, a control byte or a backslash" end
  if location:sub(1, 1) == "/" then return location:sub(2, 2) == "/" and "begins with //, another host" or nil end
  local host = location:match "^https?://([^/?#@]+)"
  host = host and host:lower():gsub(":%d+$", "")
  for _, allowed in ipairs(hosts or {}) do
    if host == allowed:lower() then return nil end
  end
  return host and ("leads to " .. host .. ", which is not among `hosts`") or "is neither a path nor an http URL"
end

--- redirect(location, { status = 302, hosts = {} }?) -> response. `location` is a path, or a URL to one of `hosts`.
function response.redirect(location, options)
  local status = options and options.status or 302
  local problem = check_location(location, options and options.hosts)
  if problem then error(("redirect to %q: it %s"):format(tostring(location), problem), 2) end
  if status ~= 301 and status ~= 302 and status ~= 303 and status ~= 307 and status ~= 308 then
    error("a redirect has the status 301, 302, 303, 307 or 308, found " .. tostring(status), 2)
  end
  return setmetatable({ status = status, body = "", headers = { Location = location } }, Response)
end

function response.is(value)
  return type(value) == "table" and getmetatable(value) == Response
end

--- verdict(r) -> what a plugin that has given or raised this has decided: "passed", a status, or "raised"
function response.verdict(r)
  if r == nil then return "passed" end
  return response.is(r) and r.status or "raised"
end

return response
