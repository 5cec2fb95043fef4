--- xml: XML documents as values, and values as XML. Attributes are members "@name", text beside elements is "#text"; an element with text only is
-- a string, an empty one null; elements of one name in one place are a list.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"

local C = abi.C
local xml = {}
local DEPTH_MAX = 32

local function add(element, name, value)
  local members, before = element.members, element.members[name]
  if before == nil then
    members[name] = value
  elseif element.lists[name] then
    before[#before + 1] = value
  else
    members[name], element.lists[name] = { before, value }, true
  end
end

-- What an element has come to: its members, or its text alone.
local function finish(element)
  local text = table.concat(element.text)
  local members = element.members
  if next(members) == nil then return text ~= "" and text or json.null end
  if text:find "%S" then members["#text"] = text end
  return members
end

local function build(events)
  local stack, depth, attribute, root = { { members = {}, text = {}, lists = {} } }, 1, nil, nil
  for _, event in ipairs(events) do
    local kind, rest = event:sub(1, 1), event:sub(2)
    local top = stack[depth]
    if kind == "s" then
      depth = depth + 1
      stack[depth] = { name = rest, members = {}, text = {}, lists = {} }
    elseif kind == "a" then
      attribute = "@" .. rest
    elseif kind == "=" then
      top.members[attribute] = rest
    elseif kind == "t" then
      top.text[#top.text + 1] = rest
    else
      depth = depth - 1
      add(stack[depth], top.name, finish(top))
      root = root or stack[1].members
    end
  end
  return root
end

--- decode(text) -> { root = value } | nil, err. A document type, more than 32 levels and malformed documents are refused.
function xml.decode(text)
  if type(text) ~= "string" then error("xml.decode needs a string, found a " .. type(text), 2) end
  local rc = C.tg_abi_xml_to_json(text, #text)
  local out = abi.out()
  if rc == abi.ENOMEM then return nil, failure.new("memory", "there is no memory to read XML with") end
  if rc ~= 0 then
    local where = out ~= "" and "line " .. out:gsub(":", ", column ", 1) or "too large"
    return nil, failure.new("decode", "malformed XML: " .. where, 400)
  end
  local found = {}
  for _, event in json.lazy(out, 16 * 1024 * 1024):each() do found[#found + 1] = event:get() end
  return build(found)
end

local escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["\r"] = "&#13;" }

local function escape(value)
  local text = tostring(value)
  if text:find "[%z\1-\8\11\12\14-\31]" then error({ "a text with a control byte, which XML has no form for" }, 0) end
  return (text:gsub('[&<>"\r]', escapes))
end

local function check_name(name)
  if type(name) ~= "string" or not name:find "^[%a_][%w_%.%-]*:?[%w_%.%-]*$" then
    error({ ("the name %q, which XML has no form for"):format(tostring(name)) }, 0)
  end
  return name
end

local function is_scalar(value)
  local kind = type(value)
  return kind == "string" or kind == "number" or kind == "boolean" or json.is_integer(value)
end

local put

local function put_list(out, name, list, depth)
  for _, item in ipairs(list) do put(out, name, item, depth) end
end

local function put_members(out, value, depth)
  local names = {}
  for name in pairs(value) do
    if type(name) ~= "string" or (name ~= "#text" and name:sub(1, 1) ~= "@") then names[#names + 1] = name end
  end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  if value["#text"] ~= nil then out[#out + 1] = escape(value["#text"]) end
  for _, name in ipairs(names) do put(out, name, value[name], depth + 1) end
end

function put(out, name, value, depth)
  if depth > DEPTH_MAX then error({ "more than 32 levels" }, 0) end
  check_name(name)
  if type(value) == "table" and not is_scalar(value) and value[1] ~= nil then return put_list(out, name, value, depth) end
  out[#out + 1] = "<" .. name
  if is_scalar(value) then
    out[#out + 1] = ">" .. escape(value) .. "</" .. name .. ">"
  elseif type(value) == "table" and next(value) ~= nil then
    for key, item in pairs(value) do
      if type(key) == "string" and key:sub(1, 1) == "@" then
        if not is_scalar(item) then error({ ("the attribute %s, which is no text"):format(key) }, 0) end
        out[#out + 1] = (' %s="%s"'):format(check_name(key:sub(2)), escape(item))
      end
    end
    out[#out + 1] = ">"
    put_members(out, value, depth)
    out[#out + 1] = "</" .. name .. ">"
  else
    out[#out + 1] = "/>"
  end
end

--- encode(value, root = "root") -> text | nil, err. A table with one member is the root element; all else is put into one of that name.
function xml.encode(value, root)
  local out = { '<?xml version="1.0" encoding="UTF-8"?>\n' }
  local name, inner = root or "root", value
  if type(value) == "table" and not json.is_integer(value) then
    local first, only = next(value)
    if type(first) == "string" and next(value, first) == nil and (type(only) ~= "table" or only[1] == nil) then name, inner = first, only end
  end
  if type(inner) == "table" and inner[1] ~= nil then inner = { item = inner } end
  local ok, err = pcall(put, out, name, inner, 1)
  if ok then return table.concat(out) .. "\n" end
  if type(err) ~= "table" then error(err, 0) end
  return nil, failure.new("encode", "cannot be written as XML: " .. err[1], 422)
end

return xml
