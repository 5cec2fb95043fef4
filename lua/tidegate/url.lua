--- url: URIs taken apart and put together (RFC 3986), percent-encoding, queries.
-- Strict: what two readers could take differently is refused, so that a host that was checked is the host that is called.
local abi = require "abi"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local number = require "tidegate.number"

local C = abi.C
local url = {}

local function escape(c) return ("%%%02X"):format(c:byte()) end
local function unescape(hex) return string.char(tonumber(hex, 16)) end

--- encode(text) -> text in which only unreserved bytes stand as they are
function url.encode(text)
  if type(text) == "number" then
    text = number.text(text)
  elseif json.is_integer(text) then
    text = tostring(text)
  elseif type(text) ~= "string" then
    error("url.encode needs a string or a number, found a " .. type(text), 2)
  end
  return (text:gsub("[^%w%-%._~]", escape))
end

--- decode(text): each %XX to its byte
function url.decode(text)
  if type(text) ~= "string" then error("url.decode needs a string, found a " .. type(text), 2) end
  if not text:find("%", 1, true) then return text end
  return (text:gsub("%%(%x%x)", unescape))
end

-- ---------------------------------------------------------------- queries

-- The pairs of a name, or what is wrong with its value.
local function put_pairs(out, name, value)
  local is_list = type(value) == "table" and not json.is_integer(value)
  for _, item in ipairs(is_list and value or { value }) do
    local kind = type(item)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" and not json.is_integer(item) then
      return ("the value of %q is a string, a number, a boolean or a list of them, found a %s"):format(name, kind)
    end
    out[#out + 1] = url.encode(name) .. "=" .. url.encode(kind == "boolean" and tostring(item) or item)
  end
end

local function build_query(values)
  local names, out = {}, {}
  for name in pairs(values) do
    if type(name) ~= "string" then return nil, "a name is a string, found a " .. type(name) end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local problem = put_pairs(out, name, values[name])
    if problem then return nil, problem end
  end
  return table.concat(out, "&")
end

--- query(table) -> "a=1&b=2", by the alphabet; a list repeats its name. query(text) -> the first value of each name | nil, err.
function url.query(values)
  if type(values) == "table" then
    local text, problem = build_query(values)
    if not text then error("url.query: " .. problem, 2) end
    return text
  end
  if type(values) ~= "string" then error("url.query needs a table or a string, found a " .. type(values), 2) end
  local ok, found = pcall(require("tidegate.query").parse, values)
  if not ok then return nil, failure.new("too_large", tostring(found), 400) end
  return found:map()
end

-- ---------------------------------------------------------------- parts

local UNRESERVED, SUB_DELIMS = "%w%-%._~", "!$&'()*+,;="
-- What may stand in a part as it is, percent-encoded bytes beside it (RFC 3986, appendix A).
local allowed = {
  userinfo = "[^" .. UNRESERVED .. SUB_DELIMS .. ":%%]", path = "[^" .. UNRESERVED .. SUB_DELIMS .. ":@/%%]",
  query = "[^" .. UNRESERVED .. SUB_DELIMS .. ":@/?%%]",
}
allowed.fragment = allowed.query
-- No percent-encoding: some readers decode it before they resolve the name, and some do not.
local NO_NAME = "[^" .. UNRESERVED .. SUB_DELIMS .. "]"
local MAX_SHOWN = 60

local function shown(text)
  return (("%q"):format(#text > MAX_SHOWN and text:sub(1, MAX_SHOWN) .. "..." or text):gsub("\\\n", "\\n"))
end

-- What is wrong with a host (of IPv6 without its brackets), or nil.
local function host_problem(host)
  if host:find(":", 1, true) then
    local is_address = not host:find("/", 1, true) and C.tg_abi_valid_cidr(host, #host) == 0
    return not is_address and "not an IPv6 address: " .. shown(host) or nil
  end
  local at = host:find(NO_NAME)
  if at then return ("a host with %s, which may not stand there"):format(shown(host:sub(at, at))) end
end

local function port_problem(port)
  if port < 1 or port > 65535 or port % 1 ~= 0 then return ("not a port from 1 to 65535: %s"):format(port) end
end

local function part_problem(name, text)
  local at = text:find(allowed[name])
  if at then return ("%s has %s, which must be percent-encoded"):format(name, shown(text:sub(at, at))) end
  at = text:find("%", 1, true) and text:gsub("%%%x%x", "   "):find("%", 1, true)
  if at then return ("%s has the malformed percent encoding %s"):format(name, shown(text:sub(at, at + 2))) end
end

-- userinfo, host and port of an authority into `parts`; or what is wrong with it.
local function split_authority(parts, authority)
  local userinfo, rest = authority:match "^(.*)@(.*)$"
  parts.userinfo = userinfo
  rest = rest or authority
  local host, port = rest:match "^%[(.*)%]:?(%d*)$"
  if host then
    if not host:find(":", 1, true) or rest:find "%]%d" then return "not an IPv6 address: " .. shown(rest) end
  else
    host, port = rest:match "^([^:]*):?(%d*)$"
    if not host then return "not a host and port: " .. shown(rest) end
  end
  parts.host = host:lower()
  if port == "" then return nil end
  if #port > 5 then return "not a port from 1 to 65535: " .. shown(port) end
  parts.port = tonumber(port)
  return port_problem(parts.port)
end

-- A URI or a relative reference (RFC 3986, sections 4.1 and appendix B) -> parts; or nil, what is wrong.
local function split(text)
  local parts, rest = {}, text
  local scheme, behind = text:match "^(%a[%w+.-]*):(.*)$"
  if scheme then parts.scheme, rest = scheme:lower(), behind end
  local before, fragment = rest:match "^([^#]*)#(.*)$"
  rest, parts.fragment = before or rest, fragment
  local hierarchy, query = rest:match "^([^?]*)%?(.*)$"
  rest, parts.query = hierarchy or rest, query
  local authority, path = rest:match "^//([^/]*)(.*)$"
  parts.path = path or rest
  local problem = authority and split_authority(parts, authority)
  if not scheme and not authority and parts.path:find "^[^/]*:" then problem = "a scheme that is none, or a colon in the first segment" end
  problem = problem or parts.host and host_problem(parts.host)
  for _, name in ipairs { "userinfo", "path", "query", "fragment" } do
    problem = problem or parts[name] and part_problem(name, parts[name])
  end
  if problem then return nil, problem end
  return parts
end

-- RFC 9110, section 4.2: without a host these have no meaning.
local needs_host = { http = true, https = true, ws = true, wss = true }

local function scheme_problem(parts)
  if needs_host[parts.scheme] and (parts.host or "") == "" then return parts.scheme .. ":// needs a host" end
end

-- Without the URL itself: it may hold a password.
local function malformed(problem)
  return nil, failure.new("decode", "malformed URL: " .. problem, 400)
end

--- parse(text) -> { scheme, userinfo, host, port, path, query, fragment } | nil, err. What is not there is nil; only `path` always is.
-- Scheme and host come in lower case, IPv6 without brackets, `port` as a number; the others stay encoded. A relative reference has
-- no scheme, and no host unless it begins with "//".
function url.parse(text)
  if type(text) ~= "string" then error("url.parse needs a string, found a " .. type(text), 2) end
  local parts, problem = split(text)
  problem = problem or scheme_problem(parts)
  if problem then return malformed(problem) end
  return parts
end

-- RFC 3986, section 5.3; or nil, what is wrong: a path that would be read as something else.
local function compose(parts)
  local out, path = {}, parts.path
  if parts.scheme then out[1] = parts.scheme .. ":" end
  if parts.host then
    if path ~= "" and path:sub(1, 1) ~= "/" then return nil, "a path behind a host begins with a slash" end
    out[#out + 1] = "//" .. (parts.userinfo and parts.userinfo .. "@" or "")
    out[#out + 1] = parts.host:find(":", 1, true) and "[" .. parts.host .. "]" or parts.host
    if parts.port then out[#out + 1] = (":%d"):format(parts.port) end
  elseif path:sub(1, 2) == "//" then
    return nil, "a path that begins with // would be read as a host"
  elseif not parts.scheme and path:find "^[^/]*:" then
    return nil, "a path with a colon in its first segment would be read as a scheme"
  end
  out[#out + 1] = path
  if parts.query then out[#out + 1] = "?" .. parts.query end
  if parts.fragment then out[#out + 1] = "#" .. parts.fragment end
  return table.concat(out)
end

-- What may not stand in the part becomes %XX; what is encoded already stays.
local function encode_part(name, text)
  text = text:gsub(allowed[name], escape)
  if not text:find("%", 1, true) then return text end
  return (text:gsub("%%(%x?%x?)", function(hex) return #hex < 2 and "%25" .. hex or nil end))
end

local kinds = { scheme = "string", userinfo = "string", host = "string", port = "number", path = "string", query = "string", fragment = "string" }

local function check_parts(parts)
  if type(parts) ~= "table" then error("url.build needs a table, found a " .. type(parts), 3) end
  for name, value in pairs(parts) do
    local kind = kinds[name]
    if not kind then error(("url.build: unknown part %q"):format(tostring(name)), 3) end
    if type(value) ~= kind and not (name == "query" and type(value) == "table") then
      error(("url.build: %s is a %s, found a %s"):format(name, kind, type(value)), 3)
    end
  end
end

--- build({ scheme?, userinfo?, host?, port?, path?, query?, fragment? }) -> text | nil, err: the inverse of `parse`.
-- Bytes that may not stand in a part are encoded, what is encoded stays; `query` may be a table, as for `query`.
function url.build(parts)
  check_parts(parts)
  local made = { scheme = parts.scheme and parts.scheme:lower(), host = parts.host and parts.host:lower(), port = parts.port }
  for _, name in ipairs { "userinfo", "path", "query", "fragment" } do
    local value = parts[name]
    if type(value) == "table" then
      local text, problem = build_query(value)
      if not text then error("url.build: " .. problem, 2) end
      value = text
    end
    made[name] = value and encode_part(name, value)
  end
  made.path = made.path or ""
  local problem = made.scheme and not made.scheme:find "^%a[%w+.-]*$" and "not a scheme: " .. shown(made.scheme)
    or made.host and host_problem(made.host) or made.port and port_problem(made.port) or scheme_problem(made)
  if not problem and not made.host and (made.port or made.userinfo) then problem = "port and userinfo need a host" end
  local text
  if not problem then text, problem = compose(made) end
  if not text then return nil, failure.new("invalid", "no URL can be made: " .. problem, 400) end
  return text
end

-- ---------------------------------------------------------------- references

-- RFC 3986, section 5.2.4, a segment at a time.
local function remove_dots(path)
  local kept, start, last = {}, 1, nil
  while true do
    local behind = path:match("^%.%.?/()", start)
    if not behind then break end
    start = behind
  end
  local first = path:match("^[^/]*", start)
  if first ~= "." and first ~= ".." then kept[1] = first end
  for segment in path:sub(start + #first):gmatch "/([^/]*)" do
    last = segment
    if segment == ".." then
      kept[#kept] = nil
    elseif segment ~= "." then
      kept[#kept + 1] = "/" .. segment
    end
  end
  if last == "." or last == ".." then kept[#kept + 1] = "/" end
  return table.concat(kept)
end

local function merge(base, path)
  if base.host and base.path == "" then return "/" .. path end
  return (base.path:match "^(.*/)" or "") .. path
end

--- join(base, reference) -> URL | nil, err: what the reference means where `base` is read from (RFC 3986, section 5.2, strict)
function url.join(base, reference)
  if type(base) ~= "string" or type(reference) ~= "string" then error("url.join needs two strings", 2) end
  local from, problem = split(base)
  if from and not from.scheme then problem = "a base needs a scheme" end
  if problem then return malformed(problem) end
  local to
  to, problem = split(reference)
  if not to then return malformed(problem) end
  local made = { fragment = to.fragment }
  local whole = to.scheme or to.host
  local other = whole and to or from
  made.scheme, made.userinfo, made.host, made.port = to.scheme or from.scheme, other.userinfo, other.host, other.port
  if not whole and to.path == "" then
    made.path, made.query = from.path, to.query or from.query
  else
    made.path = remove_dots((whole or to.path:sub(1, 1) == "/") and to.path or merge(from, to.path))
    made.query = to.query
  end
  local text
  text, problem = compose(made)
  if not text then return malformed(problem) end
  return text
end

return url
