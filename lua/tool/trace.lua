--- trace: tidegate trace. What happens to the next requests, as a tree in the order of time.
local client = require "tool.client"
local json = require "tidegate.json"

local trace = {}
local EVERY, SECONDS = 0.1, 60 -- seconds between two looks; to wait
local PATIENCE = 1 -- seconds that workers have to tell of the last ones

local function depth_of(events, event)
  local depth = 0
  while event.within and depth < 16 do
    event, depth = events[event.within], depth + 1
  end
  return depth
end

local describe = {}

function describe.plugin(event)
  local verdict = event.verdict or "not over"
  return ("%s  %s"):format(event.phase, event.plugin), (type(verdict) == "number" and "answered %d" or "%s"):format(verdict)
    .. (event.waited and ", waited" or "")
end

local function outcome(event) return event.status and "status " .. event.status or event.error or "not over" end

function describe.attempt(event)
  local parts = { event.connect == 0 and "connection reused" or event.connect and "connect " .. client.seconds(event.connect) or "not connected" }
  if event.first_byte then parts[#parts + 1] = "first byte " .. client.seconds(event.first_byte) end
  parts[#parts + 1] = outcome(event)
  if event.status and event.error then parts[#parts + 1] = event.error end
  return ("attempt  %s %s"):format(event.upstream, event.peer), table.concat(parts, ", ")
end

function describe.fetch(event)
  return ("fetch  %s %s"):format(event.name, event.url or event.upstream or ""), outcome(event) .. (event.again and ", again" or "")
end

function describe.redis(event)
  return ("redis  %s %s"):format(event.redis, event.name), event.error or event.took and "ok" or "not over"
end

local function print_tree(said)
  local function line(text) io.write(client.clean(text), "\n") end
  local what = said.error or said.aborted and "cut" or said.source
  line(("%s %s%s  %d%s  route %s  %s"):format(said.method or "-", said.host or "", said.path or "", said.status, what and " " .. what or "",
    said.route or "none", client.seconds(said.duration)))
  line(("  worker %d, generation %s%s%s%s"):format(said.worker, said.generation, said.id and ", request " .. said.id or "",
    said.trace and ", trace " .. said.trace or "", said.consumer and ", consumer " .. said.consumer or ""))
  local rows = { { "  AT", "TOOK", "WHAT", "OUTCOME" } }
  for _, event in ipairs(said.events) do
    local name, text = describe[event.kind](event)
    rows[#rows + 1] = { "  " .. client.seconds(event.at), client.seconds(event.took), ("  "):rep(depth_of(said.events, event)) .. name, text }
  end
  rows[#rows + 1] = { "  " .. client.seconds(said.duration), "", "end", ("%d bytes in, %d bytes out"):format(said.bytes_in, said.bytes_out) }
  client.print_columns(rows)
  if said.left_out then line(("  (%d more have happened)"):format(said.left_out)) end
  io.write "\n"
end

-- Lines from the gateway until so many are there or the time is over -> how many are missing | nil, exit status
local function follow(core, options, number, left, seconds)
  local patience = seconds + PATIENCE
  while left > 0 and patience > 0 do
    core.sleep(EVERY)
    patience = patience - EVERY
    local text, failure = client.text(core, options, "trace next " .. number)
    if not text then return nil, failure end
    for entry in text:gmatch "[^\n]+" do
      if left > 0 then
        if options.json then io.write(entry, "\n") else print_tree(json.decode(entry)) end
        left = left - 1
      end
    end
    io.flush()
  end
  return left
end

--- main(core, options ...) -> exit status
function trace.main(core, ...)
  local kinds = { json = "flag", route = "text", status = "text", path = "text", count = "number", seconds = "number" }
  local options, failure = client.options("trace", kinds, ...)
  if not options then return failure end
  local count, seconds = math.ceil(options.count or 1), math.ceil(options.seconds or SECONDS)
  local question = json.encode { route = options.route, status = options.status, path = options.path, count = count }
  local number
  number, failure = client.text(core, options, "trace begin " .. seconds, question)
  if not number then return failure end
  number = number:match "%d+"
  local left
  left, failure = follow(core, options, number, count, seconds)
  if not left then return failure end
  core.ask(options.control or core.control, "trace end " .. number)
  if left == 0 then return 0 end
  io.stderr:write(("(%d of %d have come in %d s)\n"):format(count - left, count, seconds))
  return 1
end

return trace
