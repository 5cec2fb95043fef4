--- sticky: a signed cookie binds a client to the peer that answered it first.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local peers = require "runtime.peers"
local query = require "tidegate.query"

local C, vm, to_string = abi.C, abi.vm, abi.string
local sticky = {}

-- The name of a peer tells of the network behind us, so the cookie has a digest of it under the key.
local function token_of(secret, up, peer)
  return crypto.base64url(crypto.hmac("sha256", secret:reveal(), up.name .. "\0" .. peer.name)):sub(1, 32)
end

local function attributes(conf)
  local list = { "; Path=", conf.path, "; HttpOnly; SameSite=", conf.same_site }
  if conf.ttl then list[#list + 1] = ("; Max-Age=%d"):format(math.floor(conf.ttl)) end
  return table.concat(list)
end

--- prepare(up): the cookies of its peers, once.
function sticky.prepare(up)
  local conf = up.conf.sticky
  local self = { conf = conf, by_token = {}, tokens = {}, attributes = attributes(conf) }
  for _, peer in ipairs(up.list) do
    local token = token_of(conf.secret, up, peer)
    self.by_token[token], self.tokens[peer] = peer, token
  end
  up.sticky = self
end

local function cookie_of(self, x)
  if C.tg_abi_field_get(x, abi.REQUEST, "cookie", 6) ~= 0 then return nil end
  return query.parse_cookies(to_string(vm.out.p, vm.out.n)):get(self.conf.cookie)
end

--- peer(up, x) -> the peer that the client is bound to, if that gets requests | nil
function sticky.peer(up, x)
  local token = cookie_of(up.sticky, x)
  local peer = token and up.sticky.by_token[token]
  return peer and peers.out_until(peer, vm.monotonic, true) == 0 and peer or nil
end

--- bind(up, x, peer): tells the client, when it does not know yet.
function sticky.bind(up, x, peer)
  local self = up.sticky
  local token = self.tokens[peer]
  if not token or cookie_of(self, x) == token then return end
  local secure = self.conf.secure
  if secure == nil then secure = x.secure ~= 0 end
  local value = self.conf.cookie .. "=" .. token .. self.attributes .. (secure and "; Secure" or "")
  C.tg_abi_field_add(x, abi.RESPONSE, "Set-Cookie", 10, value, #value)
end

return sticky
