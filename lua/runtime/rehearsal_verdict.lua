--- rehearsal_verdict: what a generation in shadow would have done with an exchange that is over, held against what the current one has done.
local abi = require "abi"
local exchange = require "runtime.exchange"
local phases = require "runtime.rehearsal_phases"
local slots = require "runtime.route_slots"
local shadow = require "runtime.shadow"
local upstreams = require "runtime.upstreams"

local C, to_string = abi.C, abi.string
local verdict = {}
local TO = slots.TO
local UPSTREAM, GATEWAY = 1, 3 -- enum tg_abi_source
local PATH_MAX = 100

local function name_of(place)
  if place == 0 then return "no route" end
  return C.tg_abi_metric_route_name(place) == 0 and ('route "%s"'):format(abi.out()) or "a route"
end

local function answer(status) return status and ("answers %d"):format(status) or "lets it pass" end

-- Fields that differ from one time to the next, or are none of the request's.
local VOLATILE = { traceparent = true, tracestate = true, connection = true, ["keep-alive"] = true, te = true, upgrade = true,
  ["transfer-encoding"] = true, ["content-length"] = true, expect = true }

local function id_of(x) return x.id.n > 0 and to_string(x.id.p, x.id.n) or nil end

-- The name of a field that the upstream would have got with another value, or not at all.
local function different_field(x, record, up)
  local edits, now, was = shadow.edits(record.view), exchange.fields(x, abi.REQUEST), exchange.fields(x, abi.ORIGINAL)
  local seen, id = {}, id_of(x)
  if up.conf.deadline_header then seen[up.conf.deadline_header:lower()] = true end
  local function differs(name)
    local key = name:lower()
    if seen[key] or VOLATILE[key] then return false end
    seen[key] = true
    local own = edits[key]
    local wanted, found = table.concat(own or own == nil and was(key) or {}, ", "), table.concat(now(key), ", ")
    return wanted ~= found and found ~= id and key
  end
  for name in pairs(edits) do
    if differs(name) then return name:lower() end
  end
  for name in now() do
    if differs(name) then return name:lower() end
  end
  for name in was() do
    if not name:find("_", 1, true) and differs(name) then return name:lower() end
  end
end

local function different_target(x, req)
  local method, query, path = exchange.method(x), to_string(x.query.p, x.query.n), to_string(x.raw_path.p, x.raw_path.n)
  if req.method ~= method then return ("method %s now, %s in shadow"):format(method, req.method) end
  if req.raw_path ~= path and req.path ~= to_string(x.path.p, x.path.n) then
    return ("path %s now, %s in shadow"):format(path:sub(1, PATH_MAX), phases.text(req.raw_path):sub(1, PATH_MAX))
  end
  if req.raw_query ~= query then return "another query" end -- which may hold secrets
end

-- Both have let it pass: kind, text.
local function compare_ways(x, record)
  local route = record.route
  local to_upstream = x.attempt > 0
  if route.handler then
    if to_upstream then return "upstream", "goes to a peer now, to its handler in shadow" end
    return "same"
  end
  local name = shadow.chosen(record.view)
  local up = name and upstreams.by_name[name] or route[TO]
  if not up then return "raised", "it has neither handler nor upstream" end
  if not to_upstream then
    if x.source == UPSTREAM or x.status == 503 or x.source == GATEWAY then return "same" end -- nobody could take it
    return "upstream", ("answered by its handler now, upstream %s in shadow"):format(up.name)
  end
  if #up.list > 0 and not up.by_index[tonumber(x.peer)] then
    return "upstream", ("another peer now, upstream %s in shadow"):format(up.name)
  end
  local peer = record.peer
  if peer and x.attempt == 1 and peer.index ~= tonumber(x.peer) then
    return "upstream", ("peer %s now, %s in shadow"):format(upstreams.peer(tonumber(x.peer)).name, peer.name)
  end
  local target = different_target(x, record.view.req)
  if target then return "target", target end
  local field = different_field(x, record, up)
  if field then return "headers", ("header %s differs"):format(phases.text(field)) end
  return "same"
end

-- Both have answered, or both have let it pass. Fields that are the connection's, or differ from one time to the next.
local OF_CONNECTION = { date = true, connection = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["content-length"] = true, age = true,
  traceparent = true, tracestate = true, ["server-timing"] = true, ["x-tidegate-explain"] = true }

-- Limits of a generation in shadow begin anew: of what they tell, only that they do is compared.
local function is_counted(key)
  return key == "retry-after" or key == "expires" or key:find "^x?%-?ratelimit" ~= nil
end

-- Of cookies the names: what is sealed is never the same twice.
local function names_of_cookies(list)
  local names = {}
  for i, value in ipairs(list) do names[i] = value:match "^%s*([^=;]*)" end
  table.sort(names)
  return table.concat(names, ", ")
end

local function said_by(key, list)
  if key == "set-cookie" then return names_of_cookies(list) end
  if is_counted(key) then return #list > 0 and "some" or "" end
  return table.concat(list, ", ")
end

-- The name of a field that the client would have got with another value, or not at all.
local function different_answer(x, record)
  local wanted, found, id, seen = record.view.res.headers, exchange.fields(x, abi.RESPONSE), id_of(x), {}
  local up = record.route and record.route[TO]
  local function differs(name)
    local key = name:lower()
    if seen[key] or OF_CONNECTION[key] or key == "set-cookie" and up and up.sticky then return false end
    seen[key] = true
    local now = said_by(key, found(key))
    return said_by(key, wanted(key)) ~= now and now ~= id and key
  end
  for name in wanted() do
    if differs(name) then return name:lower() end
  end
  for name in found() do
    if differs(name) then return name:lower() end
  end
end

-- What the client gets, where nothing before it differs. A response that the core has made, for a peer that failed or a phase that raised, says
-- nothing of the phases of the response, which it never saw.
local function compare_answers(x, record)
  local status = tonumber(x.status)
  if record.response_raised and status ~= 500 then return "raised", record.response_raised end
  if record.unclear then return "unjudged", record.unclear end
  if not record.done then
    if record.head then return "unjudged", "its phases of the response have waited for longer than the exchange took" end
    return "same"
  end
  local wanted = record.response_raised and 500 or record.view.res.status
  if wanted ~= status then
    if x.source == GATEWAY and x.passed ~= 0 and status ~= 500 then return "same" end
    return "response", ("status %d now, %d in shadow"):format(status, wanted)
  end
  if x.source == GATEWAY and (x.passed ~= 0 or status == 500) then return "same" end
  local field = different_answer(x, record)
  if field then return "response", ("header %s differs"):format(phases.text(field)) end
  return "same"
end

-- Statuses with which the core ends a request while policies still look at it: its body is malformed, late or too large, or their time is over.
-- All others are what the runtime itself has decided: no route, an unknown client, no peer.
local UNDECIDED = { [400] = true, [408] = true, [413] = true, [504] = true }

local function is_undecided(x, status) return UNDECIDED[status] ~= nil and (status ~= 400 or x.path_doubts == 0) end

local function compare_decisions(x, record)
  if not record.decided then return "unjudged", "it has waited for longer than the exchange took" end
  if record.unknown then return "unjudged", record.unknown end
  local passed, status = x.passed ~= 0, tonumber(x.status)
  if not passed and (status == 0 or x.source == GATEWAY and is_undecided(x, status)) then
    return "unjudged", "the request has come to no decision"
  end
  if record.raised and (passed or status ~= 500) then return "raised", record.raised end
  if tonumber(x.counted) ~= record.counted then
    local too = record.status ~= (not passed and status or nil) and ", which " .. answer(record.status) or ""
    return "route", ("%s now, %s in shadow%s"):format(name_of(tonumber(x.counted)), name_of(record.counted), too)
  end
  if record.status and passed or record.status ~= status and not passed then
    return "status", ("%s now, %s in shadow"):format(answer(not passed and status or nil), answer(record.status))
  end
  if not passed then return "same" end
  return compare_ways(x, record)
end

--- compare(x, record) -> kind, text: what it would have done against what was done, where it first differs
function verdict.compare(x, record)
  local kind, text = compare_decisions(x, record)
  if kind == "same" and not record.raised then return compare_answers(x, record) end
  return kind, text
end

return verdict
