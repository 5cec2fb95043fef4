--- structured: structured fields of HTTP (RFC 9651), as far as signatures need them: dictionaries of inner lists, and of bytes.
local crypto = require "tidegate.crypto"

local structured = {}
local MEMBERS, ITEMS, PARAMETERS, MAX = 16, 100, 32, 8192

local function fail(what) error({ what }, 0) end

-- Each reads at `i`, and returns what it has found and where it goes on.

local function read_string(text, i)
  local out, at = {}, i + 1
  while true do
    local c = text:sub(at, at)
    if c == '"' then return table.concat(out), at + 1 end
    if c == "\\" then
      at = at + 1
      c = text:sub(at, at)
      if c ~= '"' and c ~= "\\" then fail "a string with a wrong escape" end
    elseif c == "" or not c:find "^[ -~]$" then
      fail "a string that does not end, or has other bytes than ASCII's"
    end
    out[#out + 1], at = c, at + 1
  end
end

local function read_number(text, i)
  local number, after = text:match("^(-?%d+)()", i)
  if not number or #number > 16 or text:sub(after, after) == "." then fail "a number that is no integer" end
  return tonumber(number), after
end

local function read_bytes(text, i)
  local encoded, after = text:match("^:([%w+/=]*):()", i)
  local bytes = encoded and crypto.unbase64(encoded)
  if not bytes then fail "bytes that are not base64 between colons" end
  return { bytes = bytes }, after
end

-- A bare item: strings and tokens as text, integers as numbers, booleans, { bytes = ... }.
local function read_bare(text, i)
  local c = text:sub(i, i)
  if c == '"' then return read_string(text, i) end
  if c == ":" then return read_bytes(text, i) end
  if c == "?" then
    local flag = text:sub(i + 1, i + 1)
    if flag ~= "0" and flag ~= "1" then fail "a boolean that is neither ?0 nor ?1" end
    return flag == "1", i + 2
  end
  if c:find "^[%d-]$" then return read_number(text, i) end
  local token, after = text:match("^([%a*][%w!#$%%&'*+.^_`|~:/-]*)()", i)
  if not token then fail "an item that is none" end
  return token, after
end

local function read_parameters(text, i)
  local parameters, count = {}, 0
  while text:sub(i, i) == ";" do
    local name, after = text:match("^; *([%l*][%l%d_.*-]*)()", i)
    if not name or parameters[name] ~= nil then fail "a parameter without a name, or twice" end
    count, i = count + 1, after
    if count > PARAMETERS then fail "too many parameters" end
    if text:sub(i, i) == "=" then
      parameters[name], i = read_bare(text, i + 1)
    else
      parameters[name] = true
    end
  end
  return parameters, i
end

local function read_inner_list(text, i)
  local items, at = {}, i + 1
  while true do
    at = text:match("^ *()", at)
    if text:sub(at, at) == ")" then break end
    local from, item = at, {}
    item.value, at = read_bare(text, at)
    item.parameters, at = read_parameters(text, at)
    item.text = text:sub(from, at - 1)
    items[#items + 1] = item
    if #items > ITEMS or not text:find("^[ )]", at) then fail "an inner list that does not end, or is too long" end
  end
  local list = { items = items }
  list.parameters, at = read_parameters(text, at + 1)
  list.text = text:sub(i, at - 1)
  return list, at
end

local function read_member(text, i)
  if text:sub(i, i) == "(" then return read_inner_list(text, i) end
  local member = {}
  member.value, i = read_bare(text, i)
  member.parameters, i = read_parameters(text, i)
  return member, i
end

local function read_dictionary(text)
  local members, i, count = {}, text:match "^ *()", 0
  while i <= #text do
    local name, after = text:match("^([%l*][%l%d_.*-]*)=()", i)
    if not name or members[name] then fail "a member without a name or a value, or twice" end
    count = count + 1
    if count > MEMBERS then fail "too many members" end
    members[name], i = read_member(text, after)
    i = text:match("^[ \t]*()", i)
    if i > #text then break end
    i = text:match("^,[ \t]*()", i)
    if not i or i > #text then fail "something behind a member" end
  end
  return members
end

--- dictionary(text) -> { name = { items, parameters, text } (an inner list) or { value, parameters } } | nil, what is wrong with it. Texts of items
-- and lists are as they were sent.
function structured.dictionary(text)
  if type(text) ~= "string" or #text > MAX then return nil, "no text, or one that is too long" end
  local ok, result = pcall(read_dictionary, text)
  if ok then return result end
  if type(result) ~= "table" then error(result, 0) end
  return nil, result[1]
end

return structured
