--- statuses: what an attempt may end with, as configurations write it: 503, "5xx", "connect", "grpc:unavailable".
local statuses = {}

local GRPC = 600 -- TG_GRPC_CODES: how the core counts the codes of gRPC among the statuses
local codes = {
  cancelled = 1, unknown = 2, ["invalid-argument"] = 3, ["deadline-exceeded"] = 4, ["not-found"] = 5, ["already-exists"] = 6,
  ["permission-denied"] = 7, ["resource-exhausted"] = 8, ["failed-precondition"] = 9, aborted = 10, ["out-of-range"] = 11,
  unimplemented = 12, internal = 13, unavailable = 14, ["data-loss"] = 15, unauthenticated = 16,
}
local events = { connect = true, reset = true, timeout = true }

local function add(set, one, with_events)
  local text = tostring(one)
  local class, code = text:match "^([1-5])xx$", text:match "^grpc:([%l-]+)$"
  if class then
    for status = class * 100, class * 100 + 99 do set[status] = true end
  elseif code and codes[code] then
    set[GRPC + codes[code]] = true
  elseif text:find "^[1-5]%d%d$" then
    set[tonumber(text)] = true
  elseif with_events and events[text] then
    set[text] = true
  else
    return false
  end
  return true
end

--- parse(list, with_events) -> set of statuses (and of "connect", "reset", "timeout") | nil, what is none.
function statuses.parse(list, with_events)
  local set = {}
  for _, one in ipairs(list) do
    if not add(set, one, with_events) then return nil, one end
  end
  return set
end

function statuses.expected(with_events)
  return '503, "5xx", "grpc:unavailable"' .. (with_events and ', "connect", "reset" or "timeout"' or "")
end

--- put(words, set): as bits of struct tg_abi_rules.
function statuses.put(words, set)
  for status in pairs(set) do
    if type(status) == "number" then
      local word = math.floor(status / 64)
      words[word] = bit.bor(words[word], bit.lshift(1ULL, status % 64))
    end
  end
end

return statuses
