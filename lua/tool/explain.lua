--- explain: tidegate explain. What a configuration would do with a request: which route, which ones nearly, which plugins, which upstream.
local inspection = require "tool.inspection"
local json = require "tidegate.json"
local options = require "tool.options"
local request_file = require "tool.request_file"

local explain = {}
local OPTIONS = { config = "value", plugins = "value", listen = "value", generation = "value", control = "value", json = "flag",
  brief = "flag", run = "flag", salt = "value" }

local OWN_MAX = 20 -- uses of consumers that are told

local function line(name, text) print(("%-10s %s"):format(name, text)) end

local function describe_near(entry)
  if entry.what == "order" then return "matches too, but comes later" end
  return ("%s: found %s, wanted %s"):format(entry.what, tostring(entry.found), tostring(entry.wanted))
end

local function tell_uses(said)
  local last = {}
  for _, use in ipairs(said.uses) do
    local marks = {}
    if use.when then marks[#marks + 1] = "under a condition" end
    if use.shadow then marks[#marks + 1] = "in shadow" end
    if use.around and use.phase ~= "log" then marks[#marks + 1] = "wraps all later ones" end
    local text = ("%-13s %-20s %s%s"):format(use.phase, use.name, use.at, #marks > 0 and "  " .. table.concat(marks, ", ") or "")
    line(last.uses and "" or "uses", text)
    last.uses = true
  end
  if last.uses and not said.run then line("", "not evaluated offline: plugins may wait, and ask others (--run: those that do not)") end
end

-- A few of what may be thousands.
local function tell_own(said)
  local own = said.own or {}
  for i = 1, math.min(#own, OWN_MAX) do
    local use = own[i]
    local where = use.instead and "in place of " .. use.instead or "behind the route's"
    line(i == 1 and "consumers" or "", ("%-13s %-20s %s  %s%s"):format(use.consumer, use.name, use.at, where,
      use.when and ", under a condition" or ""))
  end
  if #own > OWN_MAX then line("", ("and %d more (--json)"):format(#own - OWN_MAX)) end
end

local function tell_limits(said)
  for i, limit in ipairs(said.limits) do
    line(i == 1 and "limits" or "", ("%s: %s%s"):format(limit.name, tostring(limit.limit),
      limit.per and " in " .. (type(limit.per) == "number" and ("%g s"):format(limit.per) or tostring(limit.per)) or ""))
  end
  local bounds = said.bounds
  local body = bounds.body and ("%.0f bytes"):format(bounds.body) or "anything"
  line(said.limits[1] and "" or "limits", ("%g s in all, %s as body%s%s"):format(bounds.timeout, body, bounds.breaker and ", a circuit breaker" or "",
    bounds.bulkhead and ", a bulkhead" or ""))
end

local function tell_headers(name, headers)
  local names = {}
  for key in pairs(headers) do names[#names + 1] = key end
  table.sort(names)
  for i, key in ipairs(names) do line(i == 1 and name or "", headers[key] and ("%s: %s"):format(key, headers[key]) or key .. " is removed") end
end

local function tell_run(run)
  if run.unknown then return line("run", "cannot be known offline: " .. run.unknown) end
  if run.raised then
    line("run", "raises: " .. run.raised)
  elseif run.answers then
    line("run", ("answers %d"):format(run.answers))
  else
    line("run", "lets it pass to " .. (run.handler and "its handler" or "upstream " .. tostring(run.upstream)))
  end
  if run.request then
    line("gets", ("%s %s%s"):format(run.request.method, run.request.path, run.request.query ~= "" and " and a query" or ""))
    tell_headers("changed", run.request.headers)
  end
  if run.response then
    line("client", ("gets %d"):format(run.response.status))
    tell_headers("", run.response.headers)
  elseif not run.raised then
    line("client", "gets what is not known: " .. (run.unclear or "nothing has come"))
  end
end

local function tell(said)
  if said.method then line("request", ("%s %s of %q on %s"):format(said.method, said.path, said.host, said.listen)) end
  if said.route then
    line("route", ("%s  %s%s"):format(said.route.name, said.route.at, said.route.shadow and "  in shadow" or ""))
    for name, value in pairs(said.params or {}) do line("", ("{%s} = %q"):format(name, value)) end
  else
    line("answer", ("%d: %s%s"):format(said.status, said.why, said.allow and "; allowed are " .. said.allow or ""))
  end
  for i, entry in ipairs(said.near or {}) do
    line(i == 1 and "nearly" or "", ("%s  %s  %s: %s"):format(entry.route, entry.at, entry.path, describe_near(entry)))
  end
  if said.run and not said.route then tell_run(said.run) end
  if not said.route then return end
  tell_uses(said)
  tell_own(said)
  tell_limits(said)
  if said.handler then line("handler", said.handler) end
  if said.upstream then
    line("upstream", ("%s  %s  gets %s"):format(said.upstream.name, said.upstream.at, said.upstream_path))
    for _, target in ipairs(said.upstream.targets) do line("", ("%s  weight %g"):format(target.name, target.weight)) end
  end
  if said.run then tell_run(said.run) end
end

local function trouble(text, status)
  io.stderr:write("tidegate explain: ", text, "\n")
  return status or 1
end

--- main(core, arguments ...) -> exit status
function explain.main(core, ...)
  local given, words = options.parse("explain", OPTIONS, { ... })
  if not given then return 2 end
  if #words ~= 1 then return trouble("a file with a request is needed (see: tidegate explain --help)", 2) end
  local text, err = request_file.read(words[1])
  if not text then return trouble(err) end
  local requests = request_file.parse(text)
  if not requests[1] then return trouble(words[1] .. " has no request") end
  local cfg, server = inspection.load(core, given)
  if not cfg then return trouble(server) end
  local listen = inspection.listener(cfg, given.listen)
  if not listen then return trouble(("there is no listener %q"):format(given.listen)) end
  for i, request in ipairs(requests) do
    local said = inspection.explain(core, cfg, server, listen, request, given)
    if given.json then
      print(json.encode(said, { sorted = true }))
    else
      if i > 1 then print "" end
      tell(said)
    end
  end
  return 0
end

return explain
