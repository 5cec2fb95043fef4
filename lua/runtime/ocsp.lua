--- ocsp: responses that are stapled to certificates (RFC 6960), fetched from the responders that these name. One worker fetches, judges and
-- puts them into a dictionary of their own, which forgets each when it does not hold any more; all workers staple what they find there.
local abi = require "abi"
local call = require "tidegate.call"
local dict = require "tidegate.dict"
local log = require "tidegate.log"
local task = require "tidegate.task"
local url = require "tidegate.url"

local vm, random = abi.vm, math.random
local ocsp = {}

local DICT = "@ocsp" -- which no dictionary of a configuration can be named
local ROOM, ROOM_MAX = 4096, 64 * 2 ^ 20 -- bytes: for one response, for all
local LOADERS, TIME = 8, 10 -- fetches at once; seconds that one may take
local RETRY, RETRY_MAX, LOOK = 5, 600, 60 -- seconds: after a first failure, after many; between two looks at what is due
local LEAST = 1 -- second between two responses for one certificate
local POOL = { idle = 1, idle_timeout = 10, requests = 0 }
local entries = {} -- list of { id, chain, due, failures, busy }

-- Host, port, path and authority of a responder, or nil and what is wrong with its URL.
local function place_of(text)
  local parts, problem = url.parse(text)
  if not parts then return nil, ("its OCSP responder %q is no URL: %s"):format(text, tostring(problem)) end
  local host, port = parts.host or "", parts.port or 80
  if host == "" then return nil, ("its OCSP responder %q has no host"):format(text) end
  local name = host:find(":", 1, true) and "[" .. host .. "]" or host
  local path = (parts.path == "" and "/" or parts.path) .. (parts.query and "?" .. parts.query or "")
  return { host = host, port = port, path = path, authority = port == 80 and name or name .. ":" .. port }
end

--- check(chain) -> name for this certificate | nil, why its responses cannot be fetched
function ocsp.check(chain)
  local request, text, id = abi.ocsp_ask(chain)
  if not request then return nil, text end
  local place, problem = place_of(text)
  if not place then return nil, problem end
  return (id:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

--- dict_line(n) -> the line of the manifest that makes room for n responses | nil
function ocsp.dict_line(n)
  if n == 0 then return nil end
  local size = 256 * 1024 -- it keeps its size, and so what is in it, while certificates come and go
  while size < n * ROOM and size < ROOM_MAX do size = size * 2 end
  return ("dict %s %d"):format(DICT, size)
end

--- define(files): takes the certificates of the bundle that want it.
function ocsp.define(files)
  for name, chain in pairs(files) do
    if name:find "^ocsp:" then entries[#entries + 1] = { chain = chain, due = 0, failures = 0, busy = false } end
  end
end

local function ask(entry)
  local request, text = abi.ocsp_ask(entry.chain)
  local place = assert(place_of(text))
  local peer = abi.peer(place.host, place.port, 0, false, POOL)
  if peer < 0 then return nil, abi.code(peer) end
  local options = {
    body = request, timeout = TIME, max_body = 16384, -- TG_OCSP_RESPONSE_MAX
    headers = { ["Content-Type"] = "application/ocsp-request", Accept = "application/ocsp-response" },
  }
  local result, err = call.new("POST", place.path, place.authority, peer, options, { timeout = TIME, connect_timeout = TIME, scheme = "http" }):run()
  if not result then return nil, tostring(err) end
  if result.status ~= 200 then return nil, "status " .. result.status end
  return result.body
end

-- Fetches what is due. A response that is refused changes nothing: the one before is stapled until it does not hold any more.
local function renew(entry, kept)
  local response, why = ask(entry)
  local left, age, is_revoked
  if response then
    left, age, is_revoked = abi.ocsp_judge(entry.chain, response)
    why = age
  end
  if left then
    local half = (left + age) / 2 - age
    entry.due, entry.failures = vm.now + math.max(LEAST, half > 0 and half or left / 2), 0
    kept:set(entry.id .. "due", entry.due, left)
    kept:set(entry.id, response, left)
    return
  end
  if is_revoked then kept:delete(entry.id) end
  entry.due = vm.now + math.min(RETRY_MAX, RETRY * 2 ^ math.min(entry.failures, 16)) * (0.9 + 0.2 * random())
  entry.failures = entry.failures + 1
  log.warn("no OCSP response", { responder = select(2, abi.ocsp_ask(entry.chain)), reason = why })
end

-- The one that is due first, unless somebody works on it.
local function next_entry()
  local first
  for _, entry in ipairs(entries) do
    if not entry.busy and (not first or entry.due < first.due) then first = entry end
  end
  return first
end

-- Also after one that died, and beside a generation on trial, nobody is asked twice.
local function is_due(entry, kept)
  local known = kept:get(entry.id .. "due")
  if known and known > vm.now and kept:get(entry.id) then
    entry.due = known
    return false
  end
  return true
end

local function load(kept)
  while true do
    local entry = next_entry()
    if not entry or entry.due > vm.now then
      task.sleep(entry and math.min(LOOK, math.max(0.05, entry.due - vm.now)) or LOOK)
    elseif is_due(entry, kept) then
      entry.busy = true
      local ok, problem = pcall(renew, entry, kept)
      entry.busy = false
      if not ok then
        entry.due = vm.now + RETRY_MAX
        log.error("OCSP: " .. tostring(problem))
      end
    end
  end
end

--- start(): the generation is current.
function ocsp.start()
  if #entries == 0 or vm.worker ~= 0 then return end
  local kept = dict.open(DICT)
  for _, entry in ipairs(entries) do
    entry.id = select(3, abi.ocsp_ask(entry.chain))
  end
  for _ = 1, math.min(LOADERS, #entries) do task.start(abi.TASK_SERVICE, load, kept) end
end

return ocsp
