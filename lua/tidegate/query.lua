--- query: ordered names and values of a query string, a form or a Cookie field.
local url = require "tidegate.url"

local Values = {}
Values.__index = Values

local query = {}
local MAX_PAIRS = 1000

function Values:get(name)
  local list = self
  for i = 1, #list, 2 do
    if list[i] == name then return list[i + 1] end
  end
  return nil
end

function Values:all(name)
  local found = {}
  for i = 1, #self, 2 do
    if self[i] == name then found[#found + 1] = self[i + 1] end
  end
  return found
end

function Values:set(name, value)
  local kept, done = {}, value == nil
  for i = 1, #self, 2 do
    if self[i] ~= name then
      kept[#kept + 1], kept[#kept + 2] = self[i], self[i + 1]
    elseif not done then
      kept[#kept + 1], kept[#kept + 2] = name, tostring(value)
      done = true
    end
  end
  if not done then kept[#kept + 1], kept[#kept + 2] = name, tostring(value) end
  for i = 1, math.max(#self, #kept) do self[i] = kept[i] end
end

function Values:each()
  local i = -1
  return function()
    i = i + 2
    return self[i], self[i + 1]
  end
end

function Values:map()
  local map = {}
  for i = 1, #self, 2 do
    if map[self[i]] == nil then map[self[i]] = self[i + 1] end
  end
  return map
end

function Values:encode()
  local parts = {}
  for i = 1, #self, 2 do parts[#parts + 1] = url.encode(self[i]) .. "=" .. url.encode(self[i + 1]) end
  return table.concat(parts, "&")
end

function Values:encode_cookies()
  local parts = {}
  for i = 1, #self, 2 do parts[#parts + 1] = self[i] .. "=" .. self[i + 1] end
  return table.concat(parts, "; ")
end

--- parse(text) of application/x-www-form-urlencoded; at most 1000 pairs are read, more raise.
function query.parse(text)
  local values = setmetatable({}, Values)
  for pair in text:gmatch "[^&]+" do
    if #values >= 2 * MAX_PAIRS then error("more than " .. MAX_PAIRS .. " query parameters", 0) end
    local name, value = pair:match "^([^=]*)=?(.*)$"
    values[#values + 1] = url.decode((name:gsub("+", " ")))
    values[#values + 1] = url.decode((value:gsub("+", " ")))
  end
  return values
end

--- parse_cookies(text): of a Cookie field (RFC 6265, section 4.2.1)
function query.parse_cookies(text)
  local values = setmetatable({}, Values)
  for pair in text:gmatch "[^;]+" do
    local name, value = pair:match "^%s*([^=%s]+)%s*=%s*(.-)%s*$"
    if name then
      values[#values + 1] = name
      values[#values + 1] = value
    end
  end
  return values
end

return query
