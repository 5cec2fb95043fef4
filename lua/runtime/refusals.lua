--- refusals: what the runtime itself answers: no route matches, nobody knows the client, a path that can be read in two ways, nobody is up.
local response = require "tidegate.response"

local refusals = {}

--- no_route(status, allow?) -> response; `allow`: of a 405, the methods that there are
function refusals.no_route(status, allow)
  if status == 405 then return response.refusal(405, "the method is not allowed here", nil, { Allow = allow }) end
  return response.refusal(404, "no route matches")
end

--- unknown_client(challenge) -> response
function refusals.unknown_client(challenge)
  return response.refusal(401, "authentication is needed", nil, { ["WWW-Authenticate"] = challenge })
end

--- doubtful_path(doubts) -> response; nobody has said that the upstream reads the path as we do
function refusals.doubtful_path(doubts)
  return response.refusal(400, doubts == 2 and "the path is no UTF-8" or "an encoded slash in the path")
end

local reasons = { open = "the upstream is left alone for a while", busy = "too many requests at once", unavailable = "no upstream is up" }

--- unavailable(err) -> response: nothing may go to the upstream, or to the route, now
function refusals.unavailable(err)
  local seconds = math.max(1, math.ceil(err.retry_after or 1))
  return response.refusal(503, reasons[err.code] or err.message, nil, { ["Retry-After"] = tostring(seconds) })
end

return refusals
