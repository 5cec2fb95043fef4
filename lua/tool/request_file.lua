--- request_file: requests as people keep them: HTTP/1.1 as text, as an editor or `curl -v` writes it, or a line of JSON each, as of an access log.
local json = require "tidegate.json"

local request_file = {}

-- Of what curl -v writes, the lines that it has sent.
local function sent_lines(text)
  if not text:find "^> " and not text:find "\n> " then return text end
  local lines = {}
  for line in text:gmatch "[^\n]+" do
    local sent = line:match "^>[ ]?(.*)$"
    if sent then lines[#lines + 1] = sent end
  end
  return table.concat(lines, "\n")
end

-- Lines of an editor's file before the request: blank ones and comments.
local function skip_comments(text)
  while true do
    local rest = text:match "^[ \t\r]*\n(.*)$" or text:match "^#[^\n]*\n(.*)$" or text:match "^//[^\n]*\n(.*)$"
    if not rest then return text end
    text = rest
  end
end

local function from_text(text)
  text = skip_comments(sent_lines(text))
  if text:match "^%s*$" then return nil end
  local head = (text .. "\n"):gsub("\r\n", "\n"):match "^(.-)\n\n" or text:gsub("\r", ""):gsub("\n*$", "")
  local line, fields = head:match "^([^\n]*)\n?(.*)$"
  local request = { protocol = line:find " HTTP/2%.?0?$" and "h2" or "http/1" }
  line = line:gsub(" HTTP/2%.?0?$", " HTTP/1.1")
  if not line:find " HTTP/%d" then line = line .. " HTTP/1.1" end
  local host = line:match "^%S+ https?://([^/%s?]+)"
  if host and not ("\n" .. fields):lower():find "\nhost:" then fields = "Host: " .. host .. "\n" .. fields end
  request.scheme = line:match "^%S+ (https?)://"
  request.head = (line .. "\n" .. fields):gsub("\n*$", ""):gsub("\n", "\r\n") .. "\r\n\r\n"
  return request
end

-- Bytes that are no part of a target go as %XX, since a log may have them decoded.
local function target_of(entry)
  local target = tostring(entry.path or entry.target or entry.uri or "/")
  if type(entry.query) == "string" and entry.query ~= "" and not target:find("?", 1, true) then target = target .. "?" .. entry.query end
  return (target:gsub("[^%w%-._~:/?#%[%]@!$&'()*+,;=%%]", function(c) return ("%%%02X"):format(c:byte()) end):gsub("#", "%%23"))
end

-- What the upstream, or a handler, has answered: `response`, or of the line of a log `status`; there what the gateway has answered is none.
local function response_of(entry)
  local given = type(entry.response) == "table" and entry.response or nil
  local status = tonumber(given and given.status or not given and entry.status)
  if not status or status % 1 ~= 0 or status < 200 or status > 599 then return nil end
  if not given and entry.source ~= nil and entry.source ~= "upstream" then return nil end
  local fields = {}
  for name, value in pairs(given and type(given.headers) == "table" and given.headers or {}) do
    local list = {}
    for i, item in ipairs(type(value) == "table" and value or { value }) do list[i] = tostring(item) end
    fields[tostring(name):lower()] = list
  end
  return { status = status, source = "upstream", fields = fields }
end

local function from_json(line)
  line = line:gsub("^data:%s*", "") -- of events: /tail of the admin interface
  local entry, err = json.decode_object(line)
  if type(entry) ~= "table" then return { problem = tostring(err or "no object") } end
  local lines = { ("%s %s HTTP/1.1"):format(tostring(entry.method or "GET"), target_of(entry)) }
  local headers = type(entry.headers) == "table" and entry.headers or {}
  local has_host = false
  for name, value in pairs(headers) do
    has_host = has_host or tostring(name):lower() == "host"
    lines[#lines + 1] = ("%s: %s"):format(tostring(name), tostring(value))
  end
  if not has_host then table.insert(lines, 2, "Host: " .. tostring(entry.host or "")) end
  for i, text in ipairs(lines) do lines[i] = text:gsub("[\r\n]", " ") end
  return { head = table.concat(lines, "\r\n") .. "\r\n\r\n", scheme = entry.scheme, protocol = entry.protocol == "h2" and "h2" or "http/1",
    client = type(entry.client) == "string" and entry.client or nil, response = response_of(entry) }
end

--- parse(text) -> list of { head, scheme?, protocol, client?, response? } or { problem }; `response`: as it was recorded, { status, source, fields =
-- lists of values by names in lower case }; requests of a text are divided by lines that begin with ###
function request_file.parse(text)
  local list = {}
  local first = text:match "^[^\n]*tail begins[^\n]*\n(.*)$" or text
  if first:find "^%s*{" or first:find "^%s*data:" then
    for line in first:gmatch "[^\r\n]+" do
      if line:find "%S" and line:sub(1, 1) ~= ":" then list[#list + 1] = from_json(line) end
    end
    return list
  end
  for part in ("\n" .. text .. "\n###\n"):gmatch "(.-)\n###[^\n]*" do
    list[#list + 1] = from_text(part:sub(2))
  end
  return list
end

--- read(path) -> text | nil, err; "-" is standard input
function request_file.read(path)
  if path == "-" then return io.read "*a" end
  local f, err = io.open(path, "rb")
  if not f then return nil, err end
  local text = f:read "*a"
  f:close()
  if not text then return nil, path .. ": is no file" end
  return text
end

return request_file
