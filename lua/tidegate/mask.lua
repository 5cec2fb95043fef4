--- mask: values that no log and no trace shows: credentials in headers and in queries, by their names.
local mask = {}
local SHOWN = "***"

local function set(names)
  local found = {}
  for name in names:gmatch "%S+" do found[name] = true end
  return found
end

local headers = set [[authorization proxy-authorization cookie set-cookie x-api-key api-key apikey x-auth-token x-access-token x-csrf-token
  x-amz-security-token x-goog-api-key ocp-apim-subscription-key x-forwarded-client-cert dpop www-authenticate authentication-info]]
local names = set [[access_token refresh_token id_token token auth authorization api_key apikey api-key x-api-key key password passwd pwd pass
  secret client_secret client_assertion code code_verifier sig signature session sessionid session_id sid jwt assertion samlresponse
  x-amz-signature x-amz-credential x-amz-security-token x-goog-signature otp pin ssn]]

--- header(name), name(name) -> whether the value of a header, of a member of a query is a secret
function mask.header(name) return headers[name:lower()] ~= nil end
function mask.name(name) return names[name:lower()] ~= nil end

--- set_of(list) -> a set of names, in lower case
function mask.set_of(list)
  local found = {}
  for _, name in ipairs(list) do found[name:lower()] = true end
  return found
end

-- A name may be percent-encoded: who looks for it later decodes it.
local function plain(name)
  return (name:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end):lower())
end

--- query(text, more?, shown?) -> the same with the values of secrets as ***; sets of names that are secrets, too, and that are none
function mask.query(text, more, shown)
  if not text:find("=", 1, true) then return text end
  return (text:gsub("([^&;=]+)=([^&;]*)", function(name)
    local known = plain(name)
    if (names[known] or more and more[known]) and not (shown and shown[known]) then return name .. "=" .. SHOWN end
  end))
end

mask.SHOWN = SHOWN
return mask
