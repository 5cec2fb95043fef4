--- address: the syntax of names and addresses of hosts, as configurations write them. Resolves nothing.
local address = {}

local MAX_NAME, MAX_LABEL = 253, 63

function address.is_ipv4(text)
  local a, b, c, d = text:match "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$"
  if not a then return false end
  for _, part in ipairs { a, b, c, d } do
    -- A leading zero is octal to some readers and decimal to others.
    if tonumber(part) > 255 or part:find "^0%d" then return false end
  end
  return true
end

-- The number of 16-bit groups that `text` writes; nil when it is malformed. An IPv4 tail counts as two.
local function groups_in(text)
  if text == "" then return 0 end
  local count = 0
  local head, tail = text:match "^(.*:)([^:]*%.[^:]*)$"
  if not head and text:find(".", 1, true) then head, tail = "", text end
  if head then
    if not address.is_ipv4(tail) then return nil end
    count, text = 2, head:gsub(":$", "")
    if text == "" then return head == "" and count or nil end
  end
  for group in (text .. ":"):gmatch "([^:]*):" do
    if not group:find "^%x%x?%x?%x?$" then return nil end
    count = count + 1
  end
  return count
end

function address.is_ipv6(text)
  if not text:find "^[%x:.]+$" or not text:find(":", 1, true) then return false end
  local first, last = text:find("::", 1, true)
  if not first then return groups_in(text) == 8 end
  local head, tail = text:sub(1, first - 1), text:sub(last + 1)
  local before, after = groups_in(head), groups_in(tail)
  return before ~= nil and after ~= nil and not head:find(".", 1, true) and before + after <= 7
end

--- is_name(text): a host name, with the underscore that container networks use; no address
function address.is_name(text)
  if #text > MAX_NAME or text:find("..", 1, true) then return false end
  local last
  for label in text:gmatch "[^.]+" do
    if #label > MAX_LABEL or not label:find "^[%w_][%w_%-]*$" or label:sub(-1) == "-" then return false end
    last = label
  end
  -- A last label of digits alone is an address, or the try of one (RFC 1123, section 2.1).
  return last ~= nil and text:sub(1, 1) ~= "." and text:sub(-1) ~= "." and not last:find "^%d+$"
end

--- parse_authority(text) -> host (without brackets), port | nil; or nil when it is malformed
function address.parse_authority(text)
  local inner, port = text:match "^%[([^%]]*)%]:(%d+)$"
  inner = inner or text:match "^%[([^%]]*)%]$"
  local host = inner
  if inner then
    if not address.is_ipv6(inner) then return nil end
  else
    host, port = text:match "^([^:]+):(%d+)$"
    host = host or text
    if not address.is_ipv4(host) and not address.is_name(host) then return nil end
  end
  if not port then return host, nil end
  port = #port <= 5 and tonumber(port) or 0
  if port < 1 or port > 65535 then return nil end
  return host, port
end

return address
