--- http_signature: HTTP Message Signatures (RFC 9421): what of a request is signed, and by what it is verified.
local crypto = require "tidegate.crypto"
local structured = require "tidegate.structured"

local http_signature = {}

-- Algorithms of RFC 9421, section 3.3, by the names that keys know them by.
local algorithms = {
  ["hmac-sha256"] = "HS256", ["rsa-pss-sha512"] = "PS512", ["rsa-v1_5-sha256"] = "RS256", ["ecdsa-p256-sha256"] = "ES256",
  ["ecdsa-p384-sha384"] = "ES384", ed25519 = "EdDSA",
}

local derived = {
  ["@method"] = function(req) return req.method end,
  ["@authority"] = function(req) return req.authority end,
  ["@scheme"] = function(req) return req.scheme end,
  ["@target-uri"] = function(req) return req.scheme .. "://" .. req.authority .. req.target end,
  ["@request-target"] = function(req) return req.target end,
  ["@path"] = function(req) return req.path end,
  ["@query"] = function(req) return "?" .. (req.query or "") end,
}

-- RFC 9421, section 2.1: all values of a field, as one.
local function field(req, name)
  local values = req.field(name)
  if #values == 0 then return nil end
  for i, value in ipairs(values) do values[i] = value:match "^%s*(.-)%s*$" end
  return table.concat(values, ", ")
end

-- "name": value, or nil and why there is none.
local function line_of(req, item)
  local name = item.value
  if type(name) ~= "string" or name ~= name:lower() then return nil, "a component that is no name in lower case" end
  if next(item.parameters) ~= nil then return nil, ("the parameters of %s are not served"):format(item.text) end
  local value
  if name:sub(1, 1) == "@" then
    if not derived[name] then return nil, ("the component %s is not served"):format(name) end
    value = derived[name](req)
  else
    value = field(req, name)
  end
  if not value then return nil, ("the component %s is not in the request"):format(name) end
  return item.text .. ": " .. value
end

--- base(req, list) -> the text that is signed | nil, why there is none. req: { method, scheme, authority, target, path, query,
-- field(name) -> values }
function http_signature.base(req, list)
  local lines, seen = {}, {}
  for _, item in ipairs(list.items) do
    if seen[item.text] then return nil, "a component twice" end
    seen[item.text] = true
    local line, problem = line_of(req, item)
    if not line then return nil, problem end
    lines[#lines + 1] = line
  end
  lines[#lines + 1] = '"@signature-params": ' .. list.text
  return table.concat(lines, "\n")
end

--- read(input, signature) -> { { label, list, bytes } ... } by label | nil, why not: of the fields Signature-Input and Signature
function http_signature.read(input, signature)
  local inputs, problem = structured.dictionary(input)
  if not inputs then return nil, "Signature-Input: " .. problem end
  local signatures
  signatures, problem = structured.dictionary(signature)
  if not signatures then return nil, "Signature: " .. problem end
  local found = {}
  for label, list in pairs(inputs) do
    local made = signatures[label]
    if not list.items or not made or type(made.value) ~= "table" then return nil, "a signature without its input, or the other way round" end
    found[#found + 1] = { label = label, list = list, bytes = made.value.bytes }
  end
  if #found == 0 then return nil, "no signature" end
  table.sort(found, function(a, b) return a.label < b.label end)
  return found
end

--- verify(key, alg, text, bytes) -> boolean: by a key of tg.crypto. `alg`: what the signature names, or nil for what the key serves.
function http_signature.verify(key, alg, text, bytes)
  local names = alg and { alg } or { "hmac-sha256", "rsa-pss-sha512", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519" }
  for _, name in ipairs(names) do
    if algorithms[name] and key:verify(algorithms[name], text, bytes) == true then return true end
  end
  return false
end

--- digest_is_right(text, body) -> boolean | nil, why: Content-Digest (RFC 9530): all of its digests that are known are right, and there is one
function http_signature.digest_is_right(text, body)
  local digests, problem = structured.dictionary(text)
  if not digests then return nil, problem end
  local known = 0
  for name, f in pairs { ["sha-256"] = crypto.sha256, ["sha-512"] = crypto.sha512 } do
    local one = digests[name]
    if one then
      known = known + 1
      if type(one.value) ~= "table" or not crypto.equal(one.value.bytes, f(body)) then return false end
    end
  end
  return known > 0
end

return http_signature
