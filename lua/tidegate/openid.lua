--- openid: tg.openid: an OpenID provider or OAuth 2.0 server as a client sees it: what it publishes, its token endpoint, its ID tokens.
local cache = require "tidegate.cache"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local http = require "tidegate.http"
local json = require "tidegate.json"
local jwt = require "tidegate.jwt"
local time = require "tidegate.time"
local url = require "tidegate.url"

local type, ipairs, pairs, tostring = type, ipairs, pairs, tostring

local openid = {}
local METADATA_MAX, TOKENS_MAX = 256 * 1024, 256 * 1024 -- bytes
local ASSERTION = 60 -- seconds that what we sign to show who we are is good
local STALE = 86400 -- seconds that what was published goes on while the provider is down

local Provider = { __name = "provider" }
Provider.__index = Provider

local function away(message)
  local err = failure.new("open", message, 503)
  err.retryable = true
  return nil, err
end

-- ---------------------------------------------------------------- what it publishes

local needed = { "authorization_endpoint", "token_endpoint", "jwks_uri" }
local used = {
  "authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint", "revocation_endpoint",
  "pushed_authorization_request_endpoint",
}

-- What is wrong with what was published, or nil. Another issuer's word is not taken (OpenID Connect Discovery, section 4.3).
local function problem_of(found, issuer, wanted)
  if type(found) ~= "table" then return "no JSON object" end
  if found.issuer ~= issuer then return ("it is of the issuer %q"):format(tostring(found.issuer)) end
  for _, name in ipairs(wanted) do
    if found[name] == nil then return "it has no " .. name end
  end
  local scheme = issuer:match "^https:" and "^https://[^%s#]+$" or "^https?://[^%s#]+$"
  for _, name in ipairs(used) do
    local value = found[name]
    if value ~= nil and (type(value) ~= "string" or not value:find(scheme)) then return name .. " is no URL like the issuer's" end
  end
end

local function discover(self)
  local place = self.issuer:gsub("/$", "") .. "/.well-known/openid-configuration"
  local result, err = http.get(place, { timeout = self.timeout, expect = 200, max_body = METADATA_MAX, tls = self.tls })
  if not result then return nil, err end
  local found
  found, err = result:json()
  local problem = err and err.message or problem_of(found, self.issuer, self.needed)
  if problem then return nil, failure.new("metadata", ("%s: %s"):format(place, problem), 503) end
  local kept = { iss_parameter = found.authorization_response_iss_parameter_supported == true }
  for _, name in ipairs(used) do kept[name] = found[name] end
  return kept
end

--- provider:metadata() -> { authorization_endpoint, token_endpoint, ... } | nil, err (503): it could never be asked
function Provider:metadata()
  local found, err = self.published:get(self.key)
  if found then return found end
  return away(("the provider %s cannot be asked: %s"):format(self.issuer, tostring(err or "unknown")))
end

--- provider:keys() -> its keys, for jwt.verify | nil, err (503)
function Provider:keys()
  local found, err = self:metadata()
  if not found then return nil, err end
  if self.key_place ~= found.jwks_uri then
    self.key_place = found.jwks_uri
    self.key_set = jwt.keys(found.jwks_uri, { refresh = self.refresh, timeout = self.timeout, tls = self.tls })
  end
  return self.key_set
end

-- ---------------------------------------------------------------- its endpoints

local algorithms = { RSA = "RS256", OKP = "EdDSA", ["P-256"] = "ES256", ["P-384"] = "ES384", ["P-521"] = "ES512" }

-- RFC 7523, section 3: signed by a key that only we have, for one time.
local function assertion_of(self)
  local now = math.floor(time.now())
  return assert(jwt.sign({ iss = self.client_id, sub = self.client_id, aud = self.issuer, jti = crypto.base64url(crypto.random(16)), iat = now,
    exp = now + ASSERTION }, { key = self.client_key, alg = self.client_alg }))
end

-- RFC 6749, section 2.3.1: each part is encoded as in a form.
local function sign_in(self, form, headers)
  if self.client_auth == "none" then
    form.client_id = self.client_id
  elseif self.client_auth == "key" then
    form.client_id, form.client_assertion = self.client_id, assertion_of(self)
    form.client_assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
  elseif self.client_auth == "post" then
    form.client_id, form.client_secret = self.client_id, self.client_secret:reveal()
  else
    headers.Authorization = "Basic " .. crypto.base64(url.encode(self.client_id) .. ":" .. url.encode(self.client_secret:reveal()))
  end
end

-- What the provider says when it refuses: RFC 6749, section 5.2.
local function refusal_of(answer)
  local said = answer.status >= 400 and answer.status < 500 and json.decode(answer:text() or "")
  local code = type(said) == "table" and type(said.error) == "string" and said.error:match "^[%w_.-]+$"
  if not code then return nil end
  local err = failure.new("refused", "the provider refuses: " .. code, 502)
  err.error = code
  return err
end

--- provider:post(place, form) -> result | nil, err: "refused" with the provider's `error`; otherwise it gave no answer (503, retryable). As
-- this client, and once: a code or a refresh token is good for one time.
function Provider:post(place, form)
  local headers, sent = { Accept = "application/json" }, {}
  for name, value in pairs(form) do sent[name] = value end
  sign_in(self, sent, headers)
  local result, err = http.post(place, nil, {
    form = sent, headers = headers, timeout = self.timeout, expect = "2xx", max_body = TOKENS_MAX, retries = 0, tls = self.tls,
  })
  if result then return result end
  local refusal = err.response and refusal_of(err.response)
  if refusal then return nil, refusal end
  return away(("the provider %s gives no answer: %s"):format(self.issuer, tostring(err)))
end

--- provider:tokens(form) -> { access_token, expires_in?, refresh_token?, id_token?, scope? } | nil, err, as provider:post
function Provider:tokens(form)
  local place = self.token_endpoint
  if not place then
    local found, why = self:metadata()
    if not found then return nil, why end
    place = found.token_endpoint
  end
  local result, err = self:post(place, form)
  if not result then return nil, err end
  local got = result:json()
  local is_bearer = type(got) == "table" and type(got.token_type) == "string" and got.token_type:lower() == "bearer"
  if not is_bearer or type(got.access_token) ~= "string" or not got.access_token:find "^[%w._~+/=-]+$" then
    return away(("the provider %s gives no bearer token"):format(self.issuer))
  end
  local seconds = tonumber(got.expires_in)
  local function text(value) return type(value) == "string" and value ~= "" and value or nil end
  return {
    access_token = got.access_token, expires_in = seconds and seconds >= 0 and seconds or nil, refresh_token = text(got.refresh_token),
    id_token = text(got.id_token), scope = text(got.scope),
  }
end

--- provider:push(params) -> { client_id, request_uri }: what stands for these parameters of a login (RFC 9126) | nil, err, as provider:post
function Provider:push(params)
  local found, err = self:metadata()
  if not found then return nil, err end
  local place = found.pushed_authorization_request_endpoint
  if not place then return away "the provider has no pushed_authorization_request_endpoint" end
  local result
  result, err = self:post(place, params)
  if not result then return nil, err end
  local got = result:json()
  if type(got) ~= "table" or type(got.request_uri) ~= "string" then return away "the provider gives no request_uri" end
  return { client_id = self.client_id, request_uri = got.request_uri }
end

--- provider:userinfo(access_token, sub) -> claims | nil, err. Those of another `sub` are refused (OpenID Connect Core, section 5.3.2).
function Provider:userinfo(access_token, sub)
  local found, err = self:metadata()
  if not found then return nil, err end
  if not found.userinfo_endpoint then return away "the provider has no userinfo_endpoint" end
  local result
  result, err = http.get(found.userinfo_endpoint, { headers = { Authorization = "Bearer " .. access_token, Accept = "application/json" },
    timeout = self.timeout, expect = 200, max_body = TOKENS_MAX, tls = self.tls })
  if not result then return away(("the provider %s gives no answer: %s"):format(self.issuer, tostring(err))) end
  local claims = result:json()
  if type(claims) ~= "table" or claims.sub ~= sub then return nil, failure.new("claim", "the provider speaks of another one", 403) end
  return claims
end

-- ---------------------------------------------------------------- ID tokens

local digests = { ["256"] = "sha256", ["384"] = "sha384", ["512"] = "sha512", SA = "sha512" } -- EdDSA, with Ed25519

local function is_hash_of(claimed, text, alg)
  local digest = digests[alg:sub(3)] or digests[alg:sub(-2)]
  if type(claimed) ~= "string" or not digest then return false end
  local bytes = crypto[digest](text)
  return crypto.equal(crypto.base64url(bytes:sub(1, #bytes / 2)), claimed)
end

local function bad(message) return nil, failure.new("claim", message, 403) end

--- provider:check_id_token(token, { nonce?, access_token?, sub? }) -> claims | nil, err (OpenID Connect Core, sections 3.1.3.7, 3.1.3.8, 12.2).
-- `retryable`: the keys are not there. `nonce` must be the token's; `sub`: who it was until now.
function Provider:check_id_token(token, expected)
  local keys, err = self:keys()
  if not keys then return nil, err end
  local claims, header = jwt.verify(token, {
    keys = keys, alg = self.alg, iss = self.issuer, aud = self.client_id, leeway = self.leeway, require = { "exp", "iat", "sub" },
  })
  if not claims then return nil, header end
  if type(claims.aud) == "table" and #claims.aud > 1 and claims.azp == nil then return bad "the ID token has several audiences, and no azp" end
  if claims.azp ~= nil and claims.azp ~= self.client_id then return bad "the ID token is for another party" end
  if type(claims.sub) ~= "string" or claims.sub == "" then return bad "the ID token is of nobody" end
  if expected.sub and claims.sub ~= expected.sub then return bad "the ID token is of another one than before" end
  local nonce = expected.nonce
  if nonce and (type(claims.nonce) ~= "string" or not crypto.equal(claims.nonce, nonce)) then return bad "the ID token has another nonce" end
  if claims.at_hash ~= nil and expected.access_token and not is_hash_of(claims.at_hash, expected.access_token, header.alg) then
    return bad "the ID token belongs to another access token"
  end
  return claims
end

--- claims_in(token) -> the claims of a token that was verified when it was put away
function openid.claims_in(token)
  local payload = token:match "^[^.]*%.([^.]*)%."
  return json.decode(crypto.unbase64url(payload))
end

--- pkce() -> verifier, challenge (RFC 7636, S256)
function openid.pkce()
  local verifier = crypto.base64url(crypto.random(32))
  return verifier, crypto.base64url(crypto.sha256(verifier))
end

local function key_of(text)
  local key = assert(crypto.key(text:find "^%s*{" and assert(json.decode(text)) or text))
  local alg = key.alg or algorithms[key.curve or key.kind] or algorithms[key.kind]
  if not alg or not key.private then error("client_key is a private key: RSA, EC or Ed25519", 3) end
  return key, alg
end

--- provider { issuer, client_id, client_secret? or client_key?, client_auth = "basic" | "post" | "none", alg, leeway = 30, timeout = 5,
-- refresh = 600, ca?, token_endpoint?, only_keys? } -> provider. What it publishes is fetched once for all workers, refreshed ahead, and kept
-- for a day while it is down. `only_keys`: no more than its keys is needed. `ca`: PEM of who certifies it. To be made in `setup`.
function openid.provider(options)
  local auth = options.client_key and "key" or options.client_auth or (options.client_secret and "basic" or "none")
  if (auth == "basic" or auth == "post") and not options.client_secret then error("client_auth = " .. auth .. " needs client_secret", 2) end
  local self = setmetatable({
    issuer = options.issuer, client_id = options.client_id, client_secret = options.client_secret, client_auth = auth, alg = options.alg,
    leeway = options.leeway or 30, timeout = options.timeout or 5, refresh = options.refresh or 600,
    tls = options.ca and { ca = options.ca } or nil, token_endpoint = options.token_endpoint,
    needed = options.only_keys and { "jwks_uri" } or needed, key = (options.only_keys and "keys " or "all ") .. options.issuer,
  }, Provider)
  if options.client_key then self.client_key, self.client_alg = key_of(options.client_key:reveal()) end
  self.published = cache.open("openid", { ttl = self.refresh, stale = STALE }, function() return discover(self) end)
  return self
end

return openid
