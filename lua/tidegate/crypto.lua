--- crypto: digests, random bytes, bytes as text, sealed text, keys that sign, and passwords; on OpenSSL, libcrypt and libargon2.
local abi = require "abi"
local failure = require "tidegate.failure"
local keys = require "tidegate.keys"
local task = require "tidegate.task"

local C = abi.C
local out = abi.out
local handles, facts, describe = keys.handles, keys.facts, keys.describe
local type, error = type, error

local crypto = {}

local MAX, RANDOM_MAX = 16 * 1024 * 1024, 1024 * 1024 -- bytes: of what is coded or sealed, of random bytes

-- To be called by what a plugin calls: the error names the plugin's line.
local function need_string(value, what)
  if type(value) ~= "string" then error(what .. " needs a string, found a " .. type(value), 3) end
end

local function need_bytes(value, what)
  if type(value) ~= "string" then error(what .. " needs a string, found a " .. type(value), 3) end
  if #value > MAX then error(what .. " takes at most 16 MiB", 3) end
end

-- ---------------------------------------------------------------- digests

local digests = {
  md5 = C.TG_DIGEST_MD5, sha1 = C.TG_DIGEST_SHA1, sha256 = C.TG_DIGEST_SHA256, sha384 = C.TG_DIGEST_SHA384, sha512 = C.TG_DIGEST_SHA512,
}

local function digest_of(name)
  local digest = digests[name]
  return function(s)
    need_string(s, name)
    if C.tg_abi_digest(digest, s, #s) ~= 0 then error(name .. " is not served by this OpenSSL", 2) end
    return out()
  end
end

--- sha256(s) -> 32 bytes; also sha1, sha384, sha512, md5. What is secret needs more than a digest: hmac, or password_hash.
crypto.sha256 = digest_of "sha256"
crypto.sha1 = digest_of "sha1"
crypto.sha384 = digest_of "sha384"
crypto.sha512 = digest_of "sha512"
crypto.md5 = digest_of "md5"

--- hmac(digest, key, s) -> bytes (RFC 2104); digest: "sha256", "sha1", "sha384", "sha512" or "md5"
function crypto.hmac(name, key, s)
  local digest = digests[name]
  if not digest then error("hmac needs the name of a digest, found " .. tostring(name), 2) end
  need_string(key, "hmac")
  need_string(s, "hmac")
  if C.tg_abi_hmac(digest, key, #key, s, #s) ~= 0 then error(name .. " is not served by this OpenSSL", 2) end
  return out()
end

--- hkdf(digest, secret, n, info, salt = "") -> n bytes (RFC 5869): keys of one secret that have nothing to do with each other. `info` says
-- what for. The secret must be hard to guess: of passwords password_hash makes something.
function crypto.hkdf(name, secret, n, info, salt)
  need_string(info, "hkdf")
  local size = digests[name] and name ~= "md5" and #crypto.hmac(name, "", "")
  if not size then error("hkdf needs the name of a digest, found " .. tostring(name), 2) end
  need_string(secret, "hkdf")
  if type(n) ~= "number" or n % 1 ~= 0 or n < 1 or n > 255 * size then error("hkdf makes 1 to 255 digests, found " .. tostring(n), 2) end
  local key = crypto.hmac(name, salt or "", secret)
  local block, parts = "", {}
  for i = 1, math.ceil(n / size) do
    block = crypto.hmac(name, key, block .. info .. string.char(i))
    parts[i] = block
  end
  return table.concat(parts):sub(1, n)
end

--- equal(a, b) -> whether they are the same, in a time that tells no more than their lengths
function crypto.equal(a, b)
  need_string(a, "equal")
  need_string(b, "equal")
  return #a == #b and C.tg_abi_equal(a, b, #a) == 0
end

--- hash32(s) -> 0 to 2^32 - 1: xxHash32 with seed 0, the same on every machine and in every version. For shares of the
-- traffic, not for secrets: whoever may choose s can make it collide.
function crypto.hash32(s)
  need_string(s, "hash32")
  return C.tg_abi_hash32(s, #s)
end

--- random(n) -> n random bytes of the kernel, 1 to 1 MiB
function crypto.random(n)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 1 or n > RANDOM_MAX then
    error("random needs a number of bytes from 1 to 1048576, found " .. tostring(n), 2)
  end
  if C.tg_abi_random(n) ~= 0 then error(failure.new("memory", "memory is short"), 0) end
  local bytes = out()
  C.tg_abi_forget()
  return bytes
end

-- ---------------------------------------------------------------- bytes as text

-- What comes from outside is not a mistake of the plugin's, however long it is.
local function too_long(text)
  if #text > MAX then return failure.new("too_large", "more than 16 MiB are not decoded", 413) end
  return nil
end

local function result(rc, what)
  if rc == 0 then return out() end
  if rc == abi.EINVAL then return nil, failure.new("decode", what, 400) end
  return nil, failure.new("memory", "memory is short")
end

local function made(rc)
  if rc ~= 0 then error(failure.new("memory", "memory is short"), 0) end
  return out()
end

--- hex(s) -> lower-case digits
function crypto.hex(s)
  need_bytes(s, "hex")
  return made(C.tg_abi_hex(s, #s))
end

--- unhex(text) -> bytes | nil, err ("decode", "too_large"): pairs of digits, of either case
function crypto.unhex(text)
  need_string(text, "unhex")
  local err = too_long(text)
  if err then return nil, err end
  return result(C.tg_abi_unhex(text, #text), "malformed hexadecimal digits")
end

--- base64(s) -> padded (RFC 4648, section 4)
function crypto.base64(s)
  need_bytes(s, "base64")
  return made(C.tg_abi_base64(s, #s, 0))
end

--- unbase64(text) -> bytes | nil, err ("decode"). Strict: padding, no blanks, unused bits are zero.
function crypto.unbase64(text)
  need_string(text, "unbase64")
  local err = too_long(text)
  if err then return nil, err end
  return result(C.tg_abi_unbase64(text, #text, 0), "malformed Base64")
end

--- base64url(s) -> without padding (RFC 4648, section 5; RFC 7515, section 2)
function crypto.base64url(s)
  need_bytes(s, "base64url")
  return made(C.tg_abi_base64(s, #s, 1))
end

--- unbase64url(text) -> bytes | nil, err ("decode"); with padding or without, otherwise as strict as unbase64
function crypto.unbase64url(text)
  need_string(text, "unbase64url")
  local err = too_long(text)
  if err then return nil, err end
  return result(C.tg_abi_unbase64(text, #text, 1), "malformed base64url")
end

-- ---------------------------------------------------------------- sealed text

local function need_key(key, what)
  if type(key) ~= "string" or (#key ~= 16 and #key ~= 32) then error(what .. " needs a key of 16 or 32 bytes", 3) end
end

--- encrypt(key, text, bound?) -> sealed: AES-GCM, AES-256 with a key of 32 bytes, AES-128 with one of 16. Sealed is nonce (12
-- random bytes), ciphertext, tag (16 bytes). `bound` goes not in, but must be the same again. A key is good for 2^32 texts.
function crypto.encrypt(key, text, bound)
  need_key(key, "encrypt")
  need_bytes(text, "encrypt")
  if bound ~= nil then need_bytes(bound, "encrypt") end
  bound = bound or ""
  local rc = C.tg_abi_seal(key, #key, text, #text, bound, #bound)
  if rc ~= 0 then error(failure.new(abi.code(rc), "the text could not be sealed"), 0) end
  return out()
end

--- decrypt(key, sealed, bound?) -> text | nil, err ("auth"): it was sealed with another key or `bound`, or was changed
function crypto.decrypt(key, sealed, bound)
  need_key(key, "decrypt")
  need_string(sealed, "decrypt")
  if bound ~= nil then need_string(bound, "decrypt") end
  bound = bound or ""
  local err = too_long(sealed) or too_long(bound)
  if err then return nil, err end
  local rc = C.tg_abi_unseal(key, #key, sealed, #sealed, bound, #bound)
  if rc == abi.EDENIED then return nil, failure.new("auth", "it was sealed with another key, or has been changed", 401) end
  if rc ~= 0 then return nil, failure.new(abi.code(rc), "the text could not be opened") end
  local text = out()
  C.tg_abi_forget()
  return text
end

-- ---------------------------------------------------------------- keys

local kinds = { [tonumber(C.TG_KEY_RSA)] = "RSA", [tonumber(C.TG_KEY_EC)] = "EC", [tonumber(C.TG_KEY_OKP)] = "OKP", [tonumber(C.TG_KEY_OCT)] = "oct" }
local curves = { ["P-256"] = 256, ["P-384"] = 384, ["P-521"] = 521 }
local curve_names = { [256] = "P-256", [384] = "P-384", [521] = "P-521" }
-- kty -> kind for the core, and which member of a JWK is which part (RFC 7518, section 6; RFC 8037, section 2).
local members = {
  RSA = { kind = C.TG_KEY_RSA, n = C.TG_KEY_N, e = C.TG_KEY_E, d = C.TG_KEY_D, p = C.TG_KEY_P, q = C.TG_KEY_Q, dp = C.TG_KEY_DP, dq = C.TG_KEY_DQ,
    qi = C.TG_KEY_QI },
  EC = { kind = C.TG_KEY_EC, x = C.TG_KEY_X, y = C.TG_KEY_Y, d = C.TG_KEY_D },
  OKP = { kind = C.TG_KEY_OKP, x = C.TG_KEY_X, d = C.TG_KEY_D },
  oct = { kind = C.TG_KEY_OCT, k = C.TG_KEY_N },
}

local Key = {}
local shown = { kind = true, bits = true, curve = true, private = true, alg = true, kid = true, use = true }

local Object = {
  __name = "key", __metatable = false, __tostring = describe,
  __index = function(key, name)
    if shown[name] then return facts[key][name] end
    return Key[name]
  end,
  __newindex = function() error("a key cannot be changed", 2) end,
}

local function wrap(handle, more)
  local key = setmetatable({}, Object)
  local kind = kinds[tonumber(handle.kind)]
  handles[key] = handle
  facts[key] = {
    kind = kind, bits = handle.bits, private = handle.secret == 1, alg = more.alg, kid = more.kid, use = more.use, operations = more.operations,
    curve = kind == "OKP" and "Ed25519" or kind == "EC" and curve_names[handle.bits] or nil,
  }
  return key
end

local function bad_key(message)
  return nil, failure.new("key", message)
end

local function optional_string(jwk, name)
  local value = jwk[name]
  return (value == nil or type(value) == "string"), value
end

-- The parameters that say what a key is for (RFC 7517, section 4). What is not understood must not be passed over.
local function read_purpose(jwk)
  local more = {}
  for _, name in ipairs { "alg", "kid", "use" } do
    local ok, value = optional_string(jwk, name)
    if not ok then return bad_key(("JWK: %s is no string"):format(name)) end
    more[name] = value
  end
  if jwk.key_ops ~= nil then
    if type(jwk.key_ops) ~= "table" then return bad_key "JWK: key_ops is no list" end
    more.operations = {}
    for _, name in ipairs(jwk.key_ops) do more.operations[name] = true end
  end
  return more
end

local function key_from_jwk(jwk, options)
  local kty = jwk.kty
  local known = type(kty) == "string" and members[kty]
  if not known then return bad_key("JWK: kty is not RSA, EC, OKP or oct") end
  if jwk.oth ~= nil then return bad_key "JWK: an RSA key with more than two primes is not served" end
  local bits = 0
  if kty == "EC" then
    bits = curves[jwk.crv]
    if not bits then return bad_key "JWK: crv is not P-256, P-384 or P-521" end
  elseif kty == "OKP" and jwk.crv ~= "Ed25519" then
    return bad_key "JWK: crv is not Ed25519"
  end
  local numbers = {}
  for name, part in pairs(known) do
    local text = jwk[name]
    if name ~= "kind" and text ~= nil then
      local bytes = type(text) == "string" and #text <= MAX and not text:find("=", 1, true) and crypto.unbase64url(text)
      if not bytes or bytes == "" then return bad_key(("JWK: %s is not base64url"):format(name)) end
      numbers[tonumber(part)] = bytes
    end
  end
  local more, err = read_purpose(jwk)
  if not more then return nil, err end
  local handle, why = abi.key_make(known.kind, bits, numbers)
  if not handle then return bad_key("JWK: " .. why) end
  if options.short then handle.short_allowed = 1 end
  return wrap(handle, more)
end

--- key(source, { password?, short? }?) -> key | nil, err ("key"). Source: PEM or DER (PKCS #1, PKCS #8, SEC 1, SubjectPublicKeyInfo), or
-- a JWK as a table (RFC 7517): RSA of 2048 to 8192 bits, EC (P-256, P-384, P-521), Ed25519, and as a JWK also a shared
-- secret (oct). `short`: a secret may be shorter than its digest. Has kind, bits, curve, private, alg, kid, use.
function crypto.key(source, options)
  options = options or {}
  if type(options) ~= "table" then error("key needs a table of options, found a " .. type(options), 2) end
  if type(source) == "table" then return key_from_jwk(source, options) end
  if type(source) ~= "string" then error("key needs PEM, DER or a JWK, found a " .. type(source), 2) end
  local password = options.password or ""
  if type(password) ~= "string" then error("key needs its password as a string, found a " .. type(password), 2) end
  local handle, why = abi.key_read(source, password)
  if not handle then return bad_key("the key is not served: " .. why) end
  return wrap(handle, {})
end

local function need_handle(key, what)
  local handle = handles[key]
  if not handle then error(what .. " is a method: key:" .. what .. "(...)", 3) end
  return handle
end

--- key:verify(alg, data, signature) -> boolean | nil, err ("algorithm"): the key does not serve it, whatever the signature.
-- alg is a name of JOSE: RS256 PS256 ES256 HS256, also with 384 and 512, EdDSA; signatures are as in a token, before base64url.
function Key.verify(key, alg, data, signature)
  need_handle(key, "verify")
  need_string(alg, "verify")
  need_string(data, "verify")
  need_string(signature, "verify")
  return keys.verify(key, alg, data, #data, signature, #signature)
end

--- key:sign(alg, data) -> signature | nil, err ("algorithm", "key")
function Key.sign(key, alg, data)
  local handle = need_handle(key, "sign")
  need_string(alg, "sign")
  need_string(data, "sign")
  local number, err = keys.judge(key, alg, "sign")
  if not number then return nil, err end
  local rc = C.tg_abi_key_sign(handle, number, data, #data)
  if rc ~= 0 then return keys.failed(key, alg, rc) end
  return out()
end

local public = { RSA = { "e", "n" }, EC = { "x", "y" }, OKP = { "x" }, oct = { "k" } }

local function part_of(key, name)
  C.tg_abi_key_part(handles[key], members[facts[key].kind][name])
  local text = crypto.base64url(out())
  C.tg_abi_forget()
  return text
end

--- key:jwk() -> the public key as a JWK; nil of a shared secret
function Key.jwk(key)
  need_handle(key, "jwk")
  local fact = facts[key]
  if fact.kind == "oct" then return nil end
  local jwk = { kty = fact.kind, crv = fact.curve, alg = fact.alg, kid = fact.kid, use = fact.use }
  for _, name in ipairs(public[fact.kind]) do jwk[name] = part_of(key, name) end
  return jwk
end

--- key:thumbprint() -> base64url of the SHA-256 of what defines it (RFC 7638)
function Key.thumbprint(key)
  need_handle(key, "thumbprint")
  local fact = facts[key]
  local values = { kty = fact.kind, crv = fact.curve }
  for _, name in ipairs(public[fact.kind]) do values[name] = part_of(key, name) end
  local fields = {}
  for _, name in ipairs { "crv", "e", "k", "kty", "n", "x", "y" } do
    if values[name] then fields[#fields + 1] = ('"%s":"%s"'):format(name, values[name]) end
  end
  return crypto.base64url(crypto.sha256("{" .. table.concat(fields, ",") .. "}"))
end

-- ---------------------------------------------------------------- passwords

local schemes = { bcrypt = C.TG_PASSWORD_BCRYPT, sha256 = C.TG_PASSWORD_SHA256, sha512 = C.TG_PASSWORD_SHA512 }

-- Another thread works; while the coroutine waits, the loop goes on.
local function wait_for(rc)
  while rc == abi.AGAIN do
    task.wait()
    rc = C.tg_abi_password_result()
  end
  return rc
end

local function password_failure(rc, message)
  if rc == abi.EBUSY then return nil, failure.new("busy", "too many passwords wait to be hashed") end
  if rc == abi.EINVAL or rc == abi.ELIMIT then return nil, failure.new("hash", message) end
  return nil, failure.new(abi.code(rc), "the password could not be hashed: " .. abi.code(rc))
end

local function hash_problem(rc)
  return rc == abi.ELIMIT and "the password hash costs too much" or "the password hash is malformed, or of an unknown kind"
end

--- password_check(hash) -> true | nil, err ("hash"): whether passwords can be compared with it; for set-up.
function crypto.password_check(hash)
  need_string(hash, "password_check")
  local rc = C.tg_abi_password_judge(hash, #hash)
  if rc == 0 then return true end
  return password_failure(rc, hash_problem(rc))
end

--- password_verify(hash, password) -> boolean | nil, err ("hash", "busy"). Hashes of bcrypt ($2a$, $2b$, $2y$; cost up to 15), SHA-crypt ($5$,
-- $6$; up to 1,000,000 rounds), Argon2id and Argon2i (64 MiB, 512 MiB filled in all passes, 16 lanes), htpasswd's $apr1$ and {SHA}. It waits
-- for one of two threads, 50 to 300 ms of their time. A password with a NUL, or above what the hash sees (72 bytes for bcrypt), never matches.
function crypto.password_verify(hash, password)
  need_string(hash, "password_verify")
  need_string(password, "password_verify")
  local rc = wait_for(C.tg_abi_password_check(hash, #hash, password, #password))
  if rc == 0 then return true end
  if rc == abi.EDENIED then return false end
  return password_failure(rc, hash_problem(rc))
end

--- password_hash(password, { scheme = "bcrypt" | "sha512" | "sha256", cost = 12 | rounds }?) -> hash | nil, err ("hash", "busy")
function crypto.password_hash(password, options)
  need_string(password, "password_hash")
  options = options or {}
  if type(options) ~= "table" then error("password_hash needs a table of options, found a " .. type(options), 2) end
  local scheme, cost = schemes[options.scheme or "bcrypt"], options.cost or 0
  if not scheme then error("password_hash knows bcrypt, sha512 and sha256, found " .. tostring(options.scheme), 2) end
  if type(cost) ~= "number" or cost % 1 ~= 0 or cost < 0 or cost > 2 ^ 31 then error("password_hash needs a whole number as cost", 2) end
  local rc = wait_for(C.tg_abi_password_make(scheme, cost, password, #password))
  if rc == abi.ELIMIT then error("password_hash: the cost of bcrypt is 4 to 15, of the others 1000 to 1000000 rounds", 2) end
  if rc ~= 0 then return password_failure(rc, "no hash can be made of this password: it is too long, or has a NUL in it") end
  return out()
end

return crypto
