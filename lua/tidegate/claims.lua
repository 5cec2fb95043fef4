--- claims: what the claims of a token mean to a gateway: who it is, what he may, what the upstream is told of him.
local abi = require "abi"
local consumers = require "tidegate.consumers"
local jwt = require "tidegate.jwt"
local response = require "tidegate.response"

local C, to_string = abi.C, abi.string
local type, pairs, ipairs, tostring, find = type, pairs, ipairs, tostring, string.find

local claims_of = {}
local NONE = {}
local PLAIN = setmetatable({}, { __newindex = function() error("a credential cannot be changed", 2) end }) -- one without an id

--- behind(value, scheme) -> what stands behind this scheme, whose case is free, in the value of an Authorization field | nil: there is no value,
-- or it is of another one. "": nothing, or that of a second line: it is no credential, and not none either, which an anonymous would do with.
function claims_of.behind(value, scheme)
  if not value or C.tg_abi_authorization(value, #value, scheme, #scheme) ~= 0 then return nil end
  return to_string(abi.vm.out.p, abi.vm.out.n)
end

--- bearer(value) -> the token in the value of an Authorization field (RFC 6750), "" when it is none | nil: there is none of this scheme
function claims_of.bearer(value)
  local token = claims_of.behind(value, "Bearer")
  return token and (find(token, "^[%w._~+/=-]+$") and token or "")
end

--- challenge(conf) -> what a client without a token is told of, in the realm conf.realm (RFC 6750, section 3)
function claims_of.challenge(conf) return ('Bearer realm="%s"'):format(conf.realm) end

--- refuse(conf, status, code, text) -> the answer to a token that is not enough: `code` is one of RFC 6750, section 3.1
function claims_of.refuse(conf, status, code, text)
  local more = (', error="%s", error_description="%s"'):format(code, (text:gsub('["\\]', "'")))
  return response.problem(status, text, nil, { ["WWW-Authenticate"] = claims_of.challenge(conf) .. more })
end

local function includes(have, wanted)
  for _, one in ipairs(wanted) do
    if not have[one] then return false end
  end
  return true
end

local function any_of(have, wanted)
  for _, one in ipairs(wanted) do
    if have[one] then return true end
  end
  return false
end

-- What of a list can be told: texts, and none that would be told as two.
local function texts_of(list)
  local texts = {}
  for _, text in ipairs(list) do
    if type(text) == "string" and not find(text, ",", 1, true) then texts[#texts + 1] = text end
  end
  return texts[1] and table.concat(texts, ",") or nil
end

-- What the upstream is told of a claim; nil: it cannot stand in a field.
local function text_of(value)
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  if type(value) == "table" then value = texts_of(value) end
  return type(value) == "string" and C.tg_abi_valid_value(value, #value) == 0 and value or nil
end

--- teller(map from claim to header) -> f(headers, claims) | nil: the map is empty. Each header after the other; without a loop, which would
-- not be compiled with the rest of the request.
function claims_of.teller(claims_to_headers)
  local tell
  for claim, header in pairs(claims_to_headers) do
    local next_one = tell
    tell = function(headers, claims)
      local value = jwt.claim(claims, claim)
      if value ~= nil then headers[header] = text_of(value) end
      if next_one then next_one(headers, claims) end
    end
  end
  return tell
end

--- consumer(claims, { consumer_claim, groups_claim, declared }) -> the consumer that they are of, a declared one or one made of them | nil
function claims_of.consumer(claims, conf)
  local id = jwt.claim(claims, conf.consumer_claim)
  if type(id) ~= "string" or id == "" then return nil end
  if conf.declared then return consumers.find(id) end
  local claimed, groups = jwt.claim(claims, conf.groups_claim), nil
  if claimed ~= nil then
    groups = {}
    for group in pairs(jwt.words(claimed)) do groups[#groups + 1] = group end
    table.sort(groups)
  end
  local plan = jwt.claim(claims, "plan")
  return {
    id = id, groups = groups or NONE, groups_text = groups and consumers.text_of_groups(groups) or false, meta = claims,
    plan = type(plan) == "string" and plan or nil,
  }
end

--- entry(claims, conf, scope?) -> { claims, consumer?, credential, forbidden }: all that the options `scopes`, `roles`, their claims and those
-- of `consumer` say of them. `scope`: instead of the claim.
function claims_of.entry(claims, conf, scope)
  local forbidden = #conf.scopes > 0 and not includes(jwt.words(scope or jwt.claim(claims, conf.scope_claim)), conf.scopes)
    or #conf.roles > 0 and not any_of(jwt.words(jwt.claim(claims, conf.roles_claim)), conf.roles)
  local jti = jwt.claim(claims, "jti")
  return {
    claims = claims, consumer = claims_of.consumer(claims, conf), forbidden = forbidden, credential = type(jti) == "string" and { id = jti } or PLAIN,
  }
end

return claims_of
