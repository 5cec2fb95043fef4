--- spec: describe, it, expect: the words of a spec and what runs them.
local spec = {}
local Spec = {}
Spec.__index = Spec

local Expect = {}
Expect.__index = Expect

local function show(value, depth)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or (depth or 0) > 4 then return tostring(value) end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do parts[#parts + 1] = tostring(key) .. " = " .. show(value[key], (depth or 0) + 1) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function fail(found, expected)
  error({ failed = true, found = found, expected = expected, where = debug.traceback("", 3) }, 0)
end

function Expect:equals(wanted)
  if not same(self.value, wanted) then fail(show(self.value), show(wanted)) end
end

function Expect:matches(part)
  if not tostring(self.value):find(part, 1, true) then fail(show(self.value), "something with " .. show(part)) end
end

function Expect:is_nil()
  if self.value ~= nil then fail(show(self.value), "nil") end
end

function Expect:is_true()
  if self.value ~= true then fail(show(self.value), "true") end
end

function Expect:raises(part)
  local ok, err = pcall(self.value)
  if ok then fail("no error", "an error with " .. show(part)) end
  if not tostring(err):find(part, 1, true) then fail(tostring(err), "an error with " .. show(part)) end
end

--- new(cleanup) -> object with the words; `cleanup()` runs after each case and may raise
function spec.new(cleanup)
  local self = setmetatable({ path = {}, passed = 0, failed = 0, cleanup = cleanup or function() end }, Spec)
  function self.describe(name, body)
    self.path[#self.path + 1] = name
    body()
    self.path[#self.path] = nil
  end
  function self.it(claim, body) self:case(claim, body) end
  function self.expect(value) return setmetatable({ value = value }, Expect) end
  return self
end

local function describe_error(err)
  if type(err) == "table" and err.failed then
    local line = err.where:match "([^\n\t]*%.spec%.lua:%d+)" or ""
    return ("  %s\n    found     %s\n    expected  %s"):format(line, err.found, err.expected)
  end
  return "  " .. tostring(err)
end

function Spec:case(claim, body)
  local name = table.concat(self.path, " ") .. " " .. claim
  local ok, err = xpcall(body, function(e) return type(e) == "table" and e or debug.traceback(tostring(e), 2) end)
  local clean, problem = pcall(self.cleanup, ok)
  if ok and not clean then ok, err = false, problem end
  if ok then
    self.passed = self.passed + 1
  else
    self.failed = self.failed + 1
    print("FAILED " .. name .. "\n" .. describe_error(err))
  end
end

return spec
