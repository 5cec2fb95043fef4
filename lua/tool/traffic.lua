--- traffic: tidegate diff --traffic. What two configurations would do differently with requests that were recorded, without sending one.
-- Each is judged by `tidegate explain --run` in a process of its own.
local abi = require "abi"
local json = require "tidegate.json"
local request_file = require "tool.request_file"

local traffic = {}
local GROUPS_MAX = 100 -- kinds of difference that are told
local TROUBLE = 2

local function trouble(text)
  io.stderr:write("tidegate diff: ", text, "\n")
  return TROUBLE
end

local function write_file(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

-- What `tidegate explain` says of all requests by the configuration `name` -> lines | nil, err
local function judge(core, folder, name, given, salt)
  local log = folder .. "/said"
  local is_file = io.open(name, "rb")
  if is_file then is_file:close() end
  local words = { "explain", "--json", "--brief", "--run", "--salt=" .. salt, is_file and "--config" or "--generation", name }
  for _, option in ipairs { "listen", "plugins", "control" } do
    if given[option] then words[#words + 1] = ("--%s=%s"):format(option, given[option]) end
  end
  words[#words + 1] = folder .. "/requests"
  local status = core.wait(core.spawn(log, "/proc/self/exe", unpack(words)))
  local text = request_file.read(log)
  os.remove(log)
  if status ~= 0 then return nil, ("%s: %s"):format(name, (text:gsub("%s+$", ""))) end
  local lines = {}
  for line in text:gmatch "[^\n]+" do
    if line:sub(1, 1) == "{" then lines[#lines + 1] = line end -- what a configuration logs is none
  end
  return lines
end

-- ---------------------------------------------------------------- differences

local function texts(list, f)
  local parts = {}
  for i, entry in ipairs(list or {}) do parts[i] = f(entry) end
  return table.concat(parts, ", ")
end

local function use_text(use)
  return ("%s %s%s%s"):format(use.phase, use.name, use.when and " (condition)" or "", use.shadow and " (shadow)" or "")
end

-- What is compared, in the order in which it is told.
local parts = {
  { "answer", function(said) return said.status and ("%d %s"):format(said.status, said.why) or "by the route" end },
  { "route", function(said) return said.route and said.route.name .. (said.route.shadow and " (shadow)" or "") or "none" end },
  { "uses", function(said) return texts(said.uses, use_text) end },
  { "limits", function(said)
    return texts(said.limits, function(limit) return ("%s %s in %s s"):format(limit.name, tostring(limit.limit), tostring(limit.per)) end)
  end },
  { "bounds", function(said) return said.bounds and json.encode(said.bounds, { sorted = true }) or "none" end },
  { "handler", function(said) return said.handler or "none" end },
  { "upstream", function(said) return said.upstream and said.upstream.name or "none" end },
  { "targets", function(said)
    return texts(said.upstream and said.upstream.targets, function(target) return ("%s weight %g"):format(target.name, target.weight) end)
  end },
}

-- What comes of its plugins, in the order in which it is told. nil: there is nothing to compare with.
local run_parts = {
  { "plugins", function(run, said)
    if not said.route then return nil end
    if run.unknown then return "unknown: " .. run.unknown end
    if run.raised then return "raise: " .. run.raised end
    return run.answers and ("answer %d"):format(run.answers) or "let it pass"
  end },
  { "goes to", function(run) return run.upstream or run.handler and "its handler" or nil end },
  { "method", function(run) return run.request and run.request.method end },
  { "path", function(run) return run.request and run.request.path end },
  { "query", function(run) return run.request and run.request.query end },
  { "status", function(run) return run.response and tostring(run.response.status) end },
}
local EACH = { path = true, query = true } -- each request has its own, so that they make no group

-- A digest is for comparing alone. `absent`: there is no such value, or no change of one.
local function shown(value, absent)
  if value == nil then return absent end
  if not value then return "removed" end
  return value:find "^%*%*%*" and "***" or value
end

local function add_headers(list, what, before, after)
  local names = {}
  for name in pairs(before) do names[#names + 1] = name end
  for name in pairs(after) do
    if before[name] == nil then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    if before[name] ~= after[name] then
      local absent = what == "request" and "as it came" or "none"
      list[#list + 1] = { what = what, header = name, before = shown(before[name], absent), after = shown(after[name], absent) }
    end
  end
end

local function changes_of(before, after)
  local list = {}
  local function compare(all, a_of, b_of)
    for _, part in ipairs(all) do
      local a, b = part[2](a_of, before), part[2](b_of, after)
      if a and b and a ~= b then list[#list + 1] = { what = part[1], before = a, after = b } end
    end
  end
  compare(parts, before, after)
  local a, b = before.run, after.run
  if not a or not b then return list end -- a request that no configuration would read
  compare(run_parts, a, b)
  if a.request and b.request then add_headers(list, "request", a.request.headers, b.request.headers) end
  if a.response and b.response then add_headers(list, "response", a.response.headers, b.response.headers) end
  return list
end

local function example_of(said)
  return said.method and ("%s %s%s"):format(said.method, said.host, said.path) or "a request that is refused"
end

-- What of a change makes a group.
local function key_of(change)
  if EACH[change.what] then return change.what end
  if change.header then return change.what .. "\1" .. change.header end
  return ("%s\1%s\1%s"):format(change.what, change.before, change.after)
end

-- Requests with the same differences are one group: of headers, paths and queries the values do not matter.
local function compare(before, after)
  local groups, by_key, differ = {}, {}, 0
  for i, line in ipairs(before) do
    local changes = line ~= after[i] and changes_of(json.decode_object(line), json.decode_object(after[i])) or {}
    if changes[1] then
      differ = differ + 1
      local key = {}
      for k, change in ipairs(changes) do
        key[k] = key_of(change)
      end
      key = table.concat(key, "\2")
      local group = by_key[key]
      if not group then
        group = { count = 0, example = example_of(json.decode_object(line)), changes = changes }
        by_key[key], groups[#groups + 1] = group, group
      end
      group.count = group.count + 1
    end
  end
  table.sort(groups, function(a, b) return a.count ~= b.count and a.count > b.count or a.count == b.count and a.example < b.example end)
  return groups, differ
end

-- Why of some requests it is not known what plugins do, or what the client gets, by the newer configuration.
local function gaps_of(lines)
  local gaps, list = {}, {}
  for _, line in ipairs(lines) do
    local run = json.decode_object(line).run
    local why = run and (run.unknown or run.unclear)
    if why then gaps[why] = (gaps[why] or 0) + 1 end
  end
  for why, count in pairs(gaps) do list[#list + 1] = { why = why, count = count } end
  table.sort(list, function(a, b) return a.count ~= b.count and a.count > b.count or a.count == b.count and a.why < b.why end)
  return list
end

local function tell(groups, differ, total, gaps)
  print(("%d of %d requests differ"):format(differ, total))
  for i = 1, math.min(#groups, GROUPS_MAX) do
    local group = groups[i]
    print(("\n%d, such as %s"):format(group.count, group.example))
    for _, change in ipairs(group.changes) do
      if change.header then print(("  %-9s %s"):format(change.what, change.header)) end
      print(("  %-9s - %s\n            + %s"):format(change.header and "" or change.what, change.before, change.after))
    end
  end
  if #groups > GROUPS_MAX then print(("\n... and %d kinds more"):format(#groups - GROUPS_MAX)) end
  print "\ncompared: routes, uses by name, limits, upstreams, what the gateway and its plugins answer, what upstreams would get of it,"
  print "and what clients get where a response was recorded; nothing was sent, and nobody's limits are used up"
  for _, gap in ipairs(gaps) do print(("not known of %d: %s"):format(gap.count, gap.why)) end
end

-- ---------------------------------------------------------------- main

local function run(core, folder, names, given)
  local before, after, err
  abi.C.tg_abi_uuid()
  local salt = abi.out()
  before, err = judge(core, folder, names[1], given, salt)
  if not before then return trouble(err) end
  after, err = judge(core, folder, names[2], given, salt)
  if not after then return trouble(err) end
  local groups, differ = compare(before, after)
  if given.json then
    print(json.encode({ requests = #before, differ = differ, groups = json.array(groups), unknown = json.array(gaps_of(after)) }, { sorted = true }))
  else
    tell(groups, differ, #before, gaps_of(after))
  end
  return differ == 0 and 0 or 1
end

--- diff(core, options of the command, names of the two) -> exit status
function traffic.diff(core, given, names)
  local text, err = request_file.read(given.traffic)
  if not text then return trouble(err) end
  local folder = core.folder()
  write_file(folder .. "/requests", text)
  local ok, status = pcall(run, core, folder, names, given)
  os.remove(folder .. "/requests")
  os.remove(folder .. "/said")
  core.remove_folder(folder)
  if not ok then error(status, 0) end
  return status
end

return traffic
