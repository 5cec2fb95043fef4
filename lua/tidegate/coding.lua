--- coding: content codings of bodies, and which of them a message names. For the library; plugins do not see it.
local abi = require "abi"
local failure = require "tidegate.failure"

local coding = {}

local canonical = { gzip = "gzip", ["x-gzip"] = "gzip", deflate = "deflate", br = "br", zstd = "zstd" }
-- Of what a client likes as much: what makes a page smallest comes first.
local preferred = { "br", "zstd", "gzip" }
-- Each multiplies what a byte may become.
local MAX_CODINGS = 3
local DECODE_MAX = 10 * 1024 * 1024

local codes = { too_large = "too_large", memory = "memory", protocol = "decode" }
local messages = {
  too_large = "the %s body becomes too large: more than %d bytes, or more than 100 times its size",
  memory = "there is no memory for a %s body",
  decode = "the %s body is malformed or cut short",
}

local function open(name, decode, level, max)
  local known = type(name) == "string" and canonical[name:lower()]
  if not known then error("an unknown content coding: " .. tostring(name), 3) end
  local held = abi.coding(known, decode, level, max)
  if not held then error(failure.new("memory", messages.memory:format(known)), 0) end
  return known, held
end

--- reader(read, name, { max = 10 MiB, request = false }?) -> function() -> the next piece decoded, up to 64 KiB, nil at the
-- end. read() gives the next piece coded, nil at the end; a body of nothing is left as it is. Raises failures: "decode",
-- "too_large" (of a client's request 400 and 413, otherwise 502), "memory".
function coding.reader(read, name, options)
  local max = options and options.max or DECODE_MAX
  local request = options and options.request
  local known, held = open(name, true, 0, max)
  local piece, more, begun, ended = "", false, false, false

  local function close()
    abi.coding_free(held)
    held = nil
  end

  return function()
    while held do
      if not more then
        piece = read()
        ended = piece == nil
        if ended and not begun then return close() end
        piece, begun = piece or "", true
      end
      local rc, out = abi.coding_run(held, piece, ended and 1 or 0)
      if rc < 0 then
        close()
        local code = codes[abi.code(rc)] or "decode"
        local status = request and (code == "decode" and 400 or code == "too_large" and 413) or nil
        error(failure.new(code, messages[code]:format(known, max), status), 0)
      end
      more = rc == 0
      if ended and not more then close() end
      if out ~= "" then return out end
    end
    return nil
  end
end

--- readers(read, names, options?) -> `read` through a reader for each of `names`, the first one innermost.
function coding.readers(read, names, options)
  for _, name in ipairs(names) do read = coding.reader(read, name, options) end
  return read
end

--- decode(text, names, options?) -> text | nil, err
function coding.decode(text, names, options)
  local read = coding.readers(function()
    local piece = text
    text = nil
    return piece ~= "" and piece or nil
  end, names, options)
  local parts = {}
  local ok, err = pcall(function()
    for piece in read do parts[#parts + 1] = piece end
  end)
  if not ok then
    if failure.is(err) then return nil, err end
    error(err, 0)
  end
  return table.concat(parts)
end

--- encoder(name, level?) -> function(chunk, emit). To be called with each piece of a body, and with nil behind the last; calls
-- emit(piece) for what comes out, up to 64 KiB each, all that is known of a piece before the next. `emit` may wait.
function coding.encoder(name, level)
  local known, held = open(name, false, level or 0, 0)
  -- While `emit` runs nothing is held: one that raises, or that never comes back, leaves the state to the collector.
  return function(chunk, emit)
    local current = held
    if not current then error("the coding has ended, or is called from its own emit", 2) end
    held = nil
    local last, more = chunk == nil and 1 or 0, true
    while more do
      local rc, piece = abi.coding_run(current, chunk or "", last)
      if rc < 0 then
        abi.coding_free(current)
        error(failure.new("memory", messages.memory:format(known)), 0)
      end
      more = rc == 0
      if piece ~= "" then emit(piece) end
    end
    if last == 1 then abi.coding_free(current) else held = current end
  end
end

-- weight = "q=" qvalue (RFC 9110, section 12.4.2); what is none counts as a no.
local function weight(parameters)
  if parameters == "" then return 1 end
  local q = parameters:match "^[ \t]*;[ \t]*[qQ]=([01]%.?%d?%d?%d?)$"
  q = q and (#q == 1 or q:find(".", 2, true)) and tonumber(q) or 0
  return q <= 1 and q or 0
end

--- accepts(header) -> "br", "zstd" or "gzip": what an Accept-Encoding field prefers, nil for a body as it is.
-- Without the field nothing is coded: who does not ask may not be able to read it.
function coding.accepts(header)
  if not header then return nil end
  local weights = {}
  for item in header:gmatch "[^,]+" do
    local name, parameters = item:match "^[ \t]*([^ \t;]+)(.-)[ \t]*$"
    if name then
      name = name:lower()
      name = canonical[name] or name
      -- Named twice: the lesser one, which does no harm.
      weights[name] = math.min(weights[name] or 1, weight(parameters))
    end
  end
  local rest = weights["*"] or 0
  local best, best_weight = nil, 0
  for _, name in ipairs(preferred) do
    local q = weights[name] or rest
    if q > best_weight then best, best_weight = name, q end
  end
  -- As it is, when the client says that it likes that better.
  if weights.identity and weights.identity > best_weight then return nil end
  return best
end

--- known(header) -> codings of a Content-Encoding field in the order in which they are to be undone, empty for none; nil
-- when one is unknown, or when there are more than three.
function coding.known(header)
  local found = {}
  for item in (header or ""):gmatch "[^,]+" do
    local name = item:match "^[ \t]*(.-)[ \t]*$":lower()
    if name ~= "" and name ~= "identity" then
      if not canonical[name] or #found == MAX_CODINGS then return nil end
      table.insert(found, 1, canonical[name])
    end
  end
  return found
end

return coding
