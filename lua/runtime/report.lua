--- report: collects what is wrong with a configuration: where, what was found, what was expected.
local secret = require "tidegate.secret"

local Report = {}
Report.__index = Report

local report = {}

function report.new()
  return setmetatable({ lines = {}, errors = 0 }, Report)
end

local MAX_ERRORS = 50

-- A __tostring of the user's may raise or return anything, and a report must come out all the same.
local function safe_text(value)
  local ok, text = pcall(tostring, value)
  return ok and type(text) == "string" and text or "a " .. type(value)
end

-- A control byte in a name or a value must not begin a line of its own in a terminal or a log.
local function printable(text)
  return (text:gsub("%c", function(c) return c == "\n" and "\\n" or ("\\x%02X"):format(c:byte()) end))
end

local function show(value)
  local kind = type(value)
  if kind == "string" then return '"' .. printable(#value > 80 and value:sub(1, 77) .. "..." or value) .. '"' end
  if kind == "nil" then return "nothing" end
  if kind == "userdata" then return "null" end
  if secret.is(value) then return "a secret" end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  return "a " .. kind
end

local function add(self, at, path, ...)
  self.errors = self.errors + 1
  if self.errors > MAX_ERRORS then return end
  local parts = {}
  for i, part in ipairs(path or {}) do parts[i] = printable(safe_text(part)) end
  local head = (at or "?") .. (#parts > 0 and "  " .. table.concat(parts, " › ") or "")
  self.lines[#self.lines + 1] = head
  for _, line in ipairs { ... } do self.lines[#self.lines + 1] = "    " .. line end
end

--- A value that is not what it should be.
function Report:found(at, path, found, expected)
  add(self, at, path, "found     " .. show(found), "expected  " .. expected)
end

--- Something that is no single value.
function Report:problem(at, path, message)
  add(self, at, path, (safe_text(message):gsub("\n", "\n    ")))
end

-- Edit distance with swaps of neighbours; only asked whether it is small.
local function distance(a, b)
  local before, row = nil, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local new = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      new[j] = math.min(row[j] + 1, new[j - 1] + 1, row[j - 1] + cost)
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        new[j] = math.min(new[j], before[j - 2] + 1)
      end
    end
    before, row = row, new
  end
  return row[#b]
end

local MAX_WORD = 64 -- the distance costs the product of both lengths, and nobody misspells more

--- text_of(value) -> what tostring gives, also for values whose __tostring raises
report.text_of = safe_text

--- nearest(word, candidates) -> the candidate that was probably meant, or nil
function report.nearest(word, candidates)
  if #word > MAX_WORD then return nil end
  local best, best_distance
  for _, candidate in ipairs(candidates) do
    local d = distance(word, candidate)
    if d <= math.max(1, math.floor(#word / 3)) and (not best or d < best_distance) then best, best_distance = candidate, d end
  end
  return best
end

--- A field that does not exist.
function Report:unknown(at, path, key, candidates)
  table.sort(candidates)
  local nearest = type(key) == "string" and report.nearest(key, candidates)
  local full = {}
  for i, part in ipairs(path or {}) do full[i] = part end
  full[#full + 1] = type(key) == "number" and "[" .. key .. "]" or key
  if nearest then
    add(self, at, full, ('unknown field; did you mean "%s"?'):format(nearest))
  elseif #candidates == 0 then
    add(self, at, full, "unknown field; there are none here")
  else
    add(self, at, full, "unknown field; known are " .. table.concat(candidates, ", "))
  end
end

function Report:count() return self.errors end

function Report:text()
  local text = table.concat(self.lines, "\n")
  if self.errors > MAX_ERRORS then text = text .. ("\n... and %d more"):format(self.errors - MAX_ERRORS) end
  return text
end

return report
