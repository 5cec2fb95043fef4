--- response: tg.respond and tg.problem. A response is a value: a plugin returns or throws it, the runtime sends it.
local json = require "tidegate.json"

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

--- respond(status, body?, headers?) -> response. A table as body is sent as JSON.
function response.respond(status, body, headers)
  check_status(status, 2)
  local kind = type(body)
  local content_type
  if kind == "table" then
    body = json.encode(body)
    content_type = "application/json"
  elseif kind == "number" then
    body = tostring(body)
  elseif body ~= nil and kind ~= "string" then
    error("the body of a response is a string or a table, found a " .. kind, 2)
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

function response.is(value)
  return type(value) == "table" and getmetatable(value) == Response
end

return response
