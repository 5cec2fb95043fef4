--- url: percent-encoding (RFC 3986).
local url = {}

local function escape(c) return ("%%%02X"):format(c:byte()) end
local function unescape(hex) return string.char(tonumber(hex, 16)) end

--- encode(text) -> text in which only unreserved bytes stand as they are
function url.encode(text)
  return (tostring(text):gsub("[^%w%-%._~]", escape))
end

--- decode(text): each %XX to its byte
function url.decode(text)
  if not text:find("%", 1, true) then return text end
  return (text:gsub("%%(%x%x)", unescape))
end

return url
