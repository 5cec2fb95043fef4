--- keys: what the keys of tg.crypto are to us: the core's handle, and what each is good for. Plugins hold objects that show neither, and
-- cannot reach this.
local abi = require "abi"
local failure = require "tidegate.failure"

local C = abi.C
local keys = {}

local handles = setmetatable({}, { __mode = "k" })
local facts = setmetatable({}, { __mode = "k" })
keys.handles, keys.facts = handles, facts

local algorithms = {
  RS256 = C.TG_SIGN_RS256, RS384 = C.TG_SIGN_RS384, RS512 = C.TG_SIGN_RS512, PS256 = C.TG_SIGN_PS256, PS384 = C.TG_SIGN_PS384,
  PS512 = C.TG_SIGN_PS512, ES256 = C.TG_SIGN_ES256, ES384 = C.TG_SIGN_ES384, ES512 = C.TG_SIGN_ES512, EdDSA = C.TG_SIGN_EDDSA,
  HS256 = C.TG_SIGN_HS256, HS384 = C.TG_SIGN_HS384, HS512 = C.TG_SIGN_HS512,
}

--- describe(key) -> what messages call it
function keys.describe(key)
  local fact = facts[key]
  local name = fact.kind == "OKP" and "Ed25519" or fact.curve and "EC " .. fact.curve or fact.kind .. " " .. fact.bits .. " bits"
  return ("key: %s, %s"):format(name, fact.private and "private" or "public")
end

local function refused(key, alg, message)
  return nil, failure.new("algorithm", ("%s %s %q"):format(keys.describe(key), message, alg), 401)
end

--- judge(key, alg, operation) -> number of the algorithm | nil, err: the key says itself that it is not for this
function keys.judge(key, alg, operation)
  local fact = facts[key]
  local number = algorithms[alg]
  if not number then return refused(key, alg, "knows no") end
  if (fact.alg and fact.alg ~= alg) or (fact.use and fact.use ~= "sig") or (fact.operations and not fact.operations[operation]) then
    return refused(key, alg, "is not meant to " .. operation .. " by")
  end
  return number
end

--- failed(key, alg, rc) -> nil, err
function keys.failed(key, alg, rc)
  if rc == abi.EINVAL then return refused(key, alg, "does not serve") end
  if rc == abi.ELIMIT then return refused(key, alg, "is too short (RFC 7518, section 3.2) for") end
  if rc == abi.ENONE then return nil, failure.new("key", keys.describe(key) .. ": a public key does not sign") end
  return nil, failure.new(abi.code(rc), keys.describe(key) .. ": OpenSSL has failed")
end

--- verify(key, alg, data, n, signature, signature_n) -> as key:verify, of bytes that need not be strings
function keys.verify(key, alg, data, n, signature, signature_n)
  local number, err = keys.judge(key, alg, "verify")
  if not number then return nil, err end
  local rc = C.tg_abi_key_verify(handles[key], number, data, n, signature, signature_n)
  if rc == 0 then return true end
  if rc == abi.EDENIED then return false end
  return keys.failed(key, alg, rc)
end

return keys
