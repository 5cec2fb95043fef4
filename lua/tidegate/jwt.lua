--- jwt: JSON Web Tokens (RFC 7519) in compact form (RFC 7515): tg.jwt.verify, sign, keys.
local abi = require "abi"
local cache = require "tidegate.cache"
local consumers = require "tidegate.consumers"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local key_facts = require "tidegate.keys"
local unread = require "tidegate.unread"

local C, vm, to_string = abi.C, abi.vm, abi.string
local type, ipairs, pairs, tostring, setmetatable = type, ipairs, pairs, tostring, setmetatable
local find = string.find

local jwt = {}
local MAX, KEYS_MAX, HEADERS_MAX = 16384, 100, 1000 -- bytes of a token; keys of a set; headers that are remembered
local SIDE = 3 -- slot of a message's fields
local JWKS_MAX, STALE = 1024 * 1024, 7 * 86400 -- bytes; seconds that a set goes on while its issuer is down

local families = { HS = "oct", RS = "RSA", PS = "RSA", ES = "EC", Ed = "OKP" }

-- What a token says of its own key is what its maker wants us to believe; what must be understood and is not ends it (RFC 7515, 4.1.11).
local refused = { "jku", "jwk", "x5u", "x5c", "crit", "b64", "zip" }

local function failed(code, message) return nil, failure.new(code, message, 401) end

-- ---------------------------------------------------------------- reading

local weak = { __mode = "k" }
local headers, header_count = {}, 0 -- text of a header -> what it says; few are distinct

local function read_header(text)
  local known = headers[text]
  if known then return known end
  local bytes = crypto.unbase64url(text)
  local header = bytes and bytes:byte(1) == 123 and json.decode(bytes)
  if type(header) ~= "table" then return failed("malformed", "the token's header is no JSON object in base64url") end
  for _, name in ipairs(refused) do
    if header[name] ~= nil then return failed("malformed", ("a token with %q in its header is refused"):format(name)) end
  end
  if type(header.alg) ~= "string" or header.kid ~= nil and type(header.kid) ~= "string" then
    return failed("malformed", "the token's header has no alg, or a kid that is no text")
  end
  if header_count >= HEADERS_MAX then headers, header_count = {}, 0 end
  known = { alg = header.alg, kid = header.kid, typ = header.typ, keys = setmetatable({}, weak) }
  headers[text], header_count = known, header_count + 1
  return known
end

-- ---------------------------------------------------------------- keys

-- The keys of a list that may have made the signature: of the kind that the algorithm needs, and of the kid when both have one.
local function candidates(list, header)
  local kind, found = families[header.alg:sub(1, 2)], {}
  for _, key in ipairs(list) do
    if not key_facts.handles[key] then error("verify needs keys of tg.crypto", 0) end
    if key.kind == kind and (not header.kid or not key.kid or key.kid == header.kid) then found[#found + 1] = key end
  end
  return found
end

-- Keys of what the caller gave: a key, a list of them, or a set with find(header). Those of a list are looked for once a header.
local function keys_for(given, header)
  if given.find then return given:find(header) end
  local known = candidates(given.verify and { given } or given, header)
  header.keys[given] = known
  return known
end

local function is_signed(keys, header, token)
  local signed, signature = token.is_signed, token.signature
  -- A loop would keep the path of the request from being compiled as a whole; so below, too.
  if #keys == 1 then return key_facts.verify(keys[1], header.alg, signed.p, signed.n, signature.p, signature.n) end
  local err
  for _, key in ipairs(keys) do
    local ok, why = key_facts.verify(key, header.alg, signed.p, signed.n, signature.p, signature.n)
    if ok then return true end
    err = err or why
  end
  return false, err
end

-- ---------------------------------------------------------------- claims

local STRING, NUMBER, TRUE, FALSE, NULL = 6, 7, 9, 10, 11 -- enum tg_json_token
local open = abi.jws -- the token that is looked at
local current, number -- the claims that were read last, and what the core knows them by, while it has not read others for another generation

-- A member of the claims. Most of them are never asked for, so they are not made a table before somebody wants more than this.
local function peek(claims, name)
  if claims ~= current or not unread.is(claims) then return claims[name] end
  local token = C.tg_abi_jws_claim(number, name, #name)
  if token == 0 then return nil end
  if token == STRING then return to_string(vm.out.p, vm.out.n) end
  if token == NUMBER then return vm.number end
  if token == TRUE then return true end
  if token == FALSE then return false end
  if token == NULL then return json.null end
  return claims[name]
end

local function is_among(value, wanted)
  if type(wanted) ~= "table" then return value == wanted end
  if value == wanted[1] then return true end
  if not wanted[2] then return false end
  for _, one in ipairs(wanted) do
    if value == one then return true end
  end
  return false
end

local function has_audience(aud, wanted)
  if type(aud) ~= "table" then return is_among(aud, wanted) end
  for _, one in ipairs(aud) do
    if is_among(one, wanted) then return true end
  end
  return false
end

local function is_time(value) return value == nil or type(value) == "number" and value == value end

local function check_claims(claims, options, now)
  local leeway = options.leeway or 0
  local exp, nbf, iat = peek(claims, "exp"), peek(claims, "nbf"), peek(claims, "iat")
  if not is_time(exp) or not is_time(nbf) or not is_time(iat) then return failed("claim", "exp, nbf and iat are numbers") end
  if exp and now >= exp + leeway then return failed("expired", "the token has expired") end
  if nbf and now + leeway < nbf then return failed("claim", "the token is not valid yet") end
  if iat and now + leeway < iat then return failed("claim", "the token comes from the future") end
  if options.iss and not is_among(peek(claims, "iss"), options.iss) then return failed("claim", "the token is of another issuer") end
  if options.aud and not has_audience(peek(claims, "aud"), options.aud) then return failed("claim", "the token is for another audience") end
  local require = options.require
  if not require then return claims end
  if require[1] and peek(claims, require[1]) == nil then return failed("claim", "the token has no " .. require[1]) end
  if not require[2] then return claims end
  for _, name in ipairs(require) do
    if peek(claims, name) == nil then return failed("claim", "the token has no " .. name) end
  end
  return claims
end

local allowed_sets = setmetatable({}, { __mode = "k" })

local function allowed_by(list)
  local set = list and allowed_sets[list]
  if not set then
    if type(list) ~= "table" or #list == 0 then error("verify needs alg: the list of algorithms that are allowed", 3) end
    set = {}
    for _, name in ipairs(list) do
      if not families[tostring(name):sub(1, 2)] then error(("not an algorithm that tokens are verified by: %s"):format(tostring(name)), 3) end
      set[name] = true
    end
    allowed_sets[list] = set
  end
  return set
end

local held -- luacheck: no unused (kept from the collector: the parts of `open` point into it)

-- The token, or that of a field, which never becomes a string of Lua -> rc
local function open_token(token, fields, name, max)
  held = token
  if token then return C.tg_abi_jws_open(token, #token, max, open) end
  return C.tg_abi_jws_open_field(consumers.exchange_of(fields), fields[SIDE], name, #name, max, open)
end

local function verify_open(rc, options, allowed, token, fields, name)
  if rc == abi.ELIMIT then return failed("malformed", "no token, or one that is too long") end
  if rc ~= 0 then return failed("malformed", "not a signed token in compact form") end
  local header, err = read_header(to_string(open.header.p, open.header.n))
  if not header then return nil, err end
  if not allowed[header.alg] then return failed("alg", ("the algorithm %q is not allowed"):format(header.alg)) end
  local keys = header.keys[options.keys]
  if not keys then
    keys, err = keys_for(options.keys, header)
    if not keys then return nil, err end
    -- They may have been waited for, and other tokens have been looked at meanwhile.
    if open_token(token, fields, name, options.max or MAX) ~= 0 then return failed("malformed", "the token has changed") end
  end
  if #keys == 0 then return failed("key", "there is no key for this token") end
  if open.signature.p == nil then return failed("malformed", "the token's signature is not base64url, or too long") end
  local ok
  ok, err = is_signed(keys, header, open)
  if not ok then return failed("signature", err and err.message or "the token's signature is wrong") end
  if C.tg_abi_jws_read(open) ~= 0 then return failed("malformed", "the token's payload is no JSON object in base64url") end
  current, number = unread.new(to_string(vm.out.p, vm.out.n)), vm.number
  local claims
  claims, err = check_claims(current, options, vm.now)
  if not claims then return nil, err end
  return claims, header
end

--- verify(token, { keys, alg = { ... }, iss?, aud?, leeway = 0, require?, max = 16384 }) -> claims, header | nil, err ("malformed", "alg",
-- "signature", "key", "expired", "claim"). `keys`: a key of tg.crypto, a list of them, or what jwt.keys gives; `iss`, `aud`: a text or a list;
-- `require`: names of claims. `alg` has no default: a key that serves two algorithms would let a client choose.
function jwt.verify(token, options)
  if type(options) ~= "table" or type(options.keys) ~= "table" then error("verify needs { keys = ..., alg = { ... } }", 2) end
  local allowed = allowed_by(options.alg)
  if type(token) ~= "string" then return failed("malformed", "no token, or one that is too long") end
  return verify_open(open_token(token, nil, nil, options.max or MAX), options, allowed, token)
end

--- verify_in(fields, name, options) -> as verify, for the token in a field, in Authorization behind `Bearer`; nothing: there is none
function jwt.verify_in(fields, name, options)
  if type(options) ~= "table" or type(options.keys) ~= "table" then error("verify_in needs { keys = ..., alg = { ... } }", 2) end
  local allowed = allowed_by(options.alg)
  local rc = open_token(nil, fields, name, options.max or MAX)
  if rc == abi.ENONE then return nil end
  return verify_open(rc, options, allowed, nil, fields, name)
end

--- sign(claims, { key, alg, kid?, typ = "JWT" }) -> token | nil, err
function jwt.sign(claims, options)
  if type(claims) ~= "table" or type(options) ~= "table" or not options.key or not options.alg then
    error("sign needs claims and { key = ..., alg = ... }", 2)
  end
  local header = { alg = options.alg, typ = options.typ or "JWT", kid = options.kid or options.key.kid }
  local text = crypto.base64url(json.encode(header, { sorted = true })) .. "." .. crypto.base64url(json.encode(claims, { sorted = true }))
  local signature, err = options.key:sign(options.alg, text)
  if not signature then return nil, err end
  return text .. "." .. crypto.base64url(signature)
end

-- ---------------------------------------------------------------- sets of keys

--- keys_of(set) -> list of the keys in a JWK set as a table (RFC 7517) that verify signatures and are served; shared secrets only with `secrets`
function jwt.keys_of(set, secrets)
  local list = {}
  if type(set) ~= "table" or type(set.keys) ~= "table" then return nil, failure.new("key", "not a set of keys: it has no `keys`", 502) end
  for _, jwk in ipairs(set.keys) do
    if type(jwk) == "table" and (jwk.use == nil or jwk.use == "sig") and (jwk.kty ~= "oct" or secrets) and #list < KEYS_MAX then
      list[#list + 1] = crypto.key(jwk) -- kinds that are not served are left out
    end
  end
  return list
end

local Set = {}
Set.__index = Set

local function read_set(text)
  local set, err = json.decode(text)
  if not set then return nil, err end
  return jwt.keys_of(set)
end

-- The text of the set, from where it is published. What is no set never replaces one.
local function fetch(self)
  local http = require "tidegate.http"
  local result, err = http.get(self.url, { timeout = self.timeout, expect = 200, max_body = JWKS_MAX, tls = self.tls })
  if not result then return nil, err end
  local text = result:text()
  local list = text and read_set(text)
  if not list or #list == 0 then return nil, failure.new("key", self.url .. ": no keys that are served", 503) end
  return text
end

local function list_of(self, text)
  if text ~= self.text then self.text, self.list = text, read_set(text) end
  return self.list
end

-- A kid that nobody knows may be that of a new key: asked for at once, but not for each token that a stranger makes up.
local function ask_again(self)
  if vm.now - self.asked < self.floor then return end
  self.asked = vm.now
  local text = fetch(self)
  if text then self.cache:set(self.url, text) end
end

--- set:find(header) -> list of keys | nil, err (`retryable`: they could never be fetched)
function Set:find(header)
  local text, err = self.cache:get(self.url)
  if not text then
    err = failure.new("key", ("the keys of %s are not there: %s"):format(self.url, tostring(err or "unknown")), 503)
    err.retryable = true
    return nil, err
  end
  local found = candidates(list_of(self, text), header)
  if #found > 0 or not header.kid then return found end
  ask_again(self)
  return candidates(list_of(self, self.cache:get(self.url) or text), header)
end

--- keys(url, { refresh = 600, floor = 30, timeout = 5, tls? }?) -> set of keys: fetched once for all workers, refreshed ahead, kept for a week
-- while the issuer is down; an unknown kid asks again, every `floor` seconds at most. To be made in `setup`.
function jwt.keys(url, options)
  if type(url) ~= "string" or not url:find "^https?://" then error("jwt.keys needs an http:// or https:// URL", 2) end
  options = options or {}
  local self = setmetatable({ url = url, floor = options.floor or 30, timeout = options.timeout or 5, tls = options.tls, asked = -math.huge }, Set)
  self.cache = cache.open("jwks", { ttl = options.refresh or 600, stale = STALE }, function() return fetch(self) end)
  return self
end

-- ---------------------------------------------------------------- remembered tokens

local Verified = {}
Verified.__index = Verified

local function new_half() return { map = abi.map(), entries = {} } end

--- verified(max = 10000) -> memory of tokens that were right, of this worker: get(token) -> value | nil, put(token, value, exp). Texts are kept
-- outside of Lua: a long one costs more as a string than all else of the request.
function jwt.verified(max)
  return setmetatable({ max = max or 10000, count = 0, young = new_half(), old = new_half() }, Verified)
end

local function fresh(half, i)
  local entry = half.entries[i]
  return entry and vm.now < entry[2] and entry[1] or nil
end

function Verified:get(token)
  return fresh(self.young, C.tg_abi_map_find(self.young.map, token, #token)) or fresh(self.old, C.tg_abi_map_find(self.old.map, token, #token))
end

--- verified:get_in(fields, name) -> as get(fields[name]), for what was put with the whole value of that field
function Verified:get_in(fields, name)
  local young, old = self.young, self.old
  local i = consumers.find_field(young.map, fields, name)
  if i < 0 then return nil end
  return fresh(young, i) or fresh(old, consumers.find_field(old.map, fields, name))
end

--- verified:put(token, value, till): the older half goes when there are too many.
function Verified:put(token, value, till)
  if self.count >= self.max / 2 then self.old, self.young, self.count = self.young, new_half(), 0 end
  local i = C.tg_abi_map_find(self.young.map, token, #token)
  if i == 0 then
    i = self.count + 1
    if C.tg_abi_map_add(self.young.map, token, #token, i) ~= 0 then return end -- memory is short
    self.count = i
  end
  self.young.entries[i] = { value, till }
end

--- claim(claims, path) -> the value there: "realm_access.roles"
function jwt.claim(claims, path)
  local value = peek(claims, path)
  if value ~= nil or not find(path, ".", 1, true) then return value end
  value = claims
  for key in path:gmatch "[^.]+" do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  return value
end

--- words(value) -> set of what a claim has: a text of words ("a b"), or a list
function jwt.words(value)
  local set = {}
  if type(value) == "string" then
    for word in value:gmatch "%S+" do set[word] = true end
  elseif type(value) == "table" then
    for _, word in pairs(value) do
      if type(word) == "string" then set[word] = true end
    end
  end
  return set
end

return jwt
