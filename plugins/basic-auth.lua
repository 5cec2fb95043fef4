--- basic-auth: user names and passwords (RFC 7617), checked beside the loop.
local VERIFIED_MAX = 10000 -- passwords that are remembered as right, in this worker
local NOBODY = "$2b$10$abcdefghijklmnopqrstuuO7q2rCDgWY1Z9yFzHZZv4f0ZpOeZ1Pm" -- what an unknown user is checked against, to take as long

local function is_hash(text)
  return text:find "^%$" ~= nil or text:find "^{SHA}" ~= nil
end

local function user_of(consumer, credential, name)
  local fields = credential.fields
  local password, problem = tg.consumers.text_of(fields and fields.password or not fields and credential.value or nil)
  if not password then error(("consumer %s: its password is %s"):format(consumer.id, problem), 0) end
  if is_hash(password) then
    local ok, err = tg.crypto.password_check(password)
    if not ok then error(("consumer %s: %s"):format(consumer.id, err.message), 0) end
  end
  return {
    consumer = consumer, credential = { id = credential.id or name }, expires = credential.expires or math.huge,
    hash = is_hash(password) and password or nil, digest = not is_hash(password) and tg.crypto.sha256(password) or nil,
  }
end

-- Reads the credentials once: user name -> { consumer, credential, hash or text }.
local function users_of()
  local users, slow = {}, nil
  for consumer, credential in tg.consumers.each "basic" do
    local fields = credential.fields
    local name = fields and fields.username or consumer.username or consumer.id
    if type(name) ~= "string" or name:find "[:%c]" then error(("consumer %s: a user name without colon is needed"):format(consumer.id), 0) end
    if users[name] then error(("consumers %s and %s have the same user name"):format(users[name].consumer.id, consumer.id), 0) end
    users[name] = user_of(consumer, credential, name)
    slow = slow or users[name].hash
  end
  return users, slow or NOBODY
end

-- One that is declared, or in Redis.
local function find_user(state, name)
  local user = state.users[name]
  if not user then
    local consumer, entry = tg.consumers.lookup("basic", name)
    if not consumer then return nil end
    entry.user = entry.user or user_of(consumer, entry, name)
    user = entry.user
  end
  return tg.now() < user.expires and user or nil
end

local function parse(header)
  local encoded = header:match "^[Bb][Aa][Ss][Ii][Cc] +([%w+/=]+) *$"
  local text = encoded and #encoded <= 4096 and tg.crypto.unbase64(encoded)
  if not text then return nil end
  return text:match "^([^:%c]*):([^%c]*)$"
end

-- Whether the password is the user's. What was right a moment ago is not hashed again: a hash takes a tenth of a second.
local function is_right(state, conf, user, name, password)
  if user and user.digest then return tg.crypto.equal(tg.crypto.sha256(password), user.digest) end
  local key = tg.crypto.hmac("sha256", state.key, ("%s\0%s:%s"):format(user and user.hash or "", name, password))
  local till = state.verified[key]
  if user and till and till > tg.now() then return true end
  local ok, err = tg.crypto.password_verify(user and user.hash or state.slow, password)
  if ok == nil then error(err, 0) end -- busy: 503, not 401
  if not user or not ok then return false end
  if state.count >= VERIFIED_MAX then state.verified, state.count = {}, 0 end
  state.verified[key], state.count = tg.now() + conf.remember, state.count + 1
  return true
end

return {
  api = 1,
  doc = [[
Authenticate clients by user name and password (RFC 7617).
Users are the `basic` credentials of consumers: `{ username = "ann", password = "$2b$12$..." }`, or the password alone, for the consumer's
`username` or id. Passwords are hashes of Argon2, bcrypt, SHA-crypt or `{SHA}` (`argon2 -id` and `htpasswd -B` make them), or a text or secret.
Hashes are checked in threads beside the loop, so that a storm of logins holds up nobody else; too many at once get 503. What was right is
remembered for `remember`. After `attempts` failures of an address for one user, or ten times as many for any, the answer is 429 for a while,
right or wrong.]],

  schema = {
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
    hide_credentials = t.boolean { default = true, doc = "Take the password out of the request before it goes upstream." },
    remember = t.duration { default = "1m", min = 0, max = 3600, doc = "How long a right password is not hashed again." },
    attempts = t.integer { default = 10, min = 1, max = 1e6, doc = "Failures of an address for a user that are let pass in `per`." },
    per = t.duration { default = "1m", min = 1, max = 86400, doc = "Time in which failures are counted." },
  },

  example = [[
consumer "ann" { credentials = { basic = { username = "ann", password = "$2b$10$abcdefghijklmnopqrstuuO7q2rCDgWY1Z9yFzHZZv4f0ZpOeZ1Pm" } } }
route "orders" { path = "/orders/*", to = "orders", use = { "basic-auth" } }]],

  challenge = function(conf) return ('Basic realm="%s", charset="UTF-8"'):format(conf.realm) end,

  setup = function(conf)
    local users, slow = users_of()
    return {
      users = users, slow = slow, verified = {}, count = 0, key = tg.crypto.random(32),
      challenge = ('Basic realm="%s", charset="UTF-8"'):format(conf.realm),
      of_user = tg.limit.gcra { name = "basic-auth-user", rate = conf.attempts, per = conf.per, burst = conf.attempts },
      of_address = tg.limit.gcra { name = "basic-auth-address", rate = 10 * conf.attempts, per = conf.per, burst = 10 * conf.attempts },
    }
  end,

  authenticate = function(ctx, conf, state)
    local headers = ctx.req.headers
    local header = headers.authorization
    if not header or not header:find "^[Bb][Aa][Ss][Ii][Cc] " then return end
    local wrong = tg.problem(401, "wrong user name or password", nil, { ["WWW-Authenticate"] = state.challenge })
    local name, password = parse(header)
    if not name then return wrong end
    local address = ctx.req.client.network
    local pair = address .. " " .. tg.crypto.hex(tg.crypto.sha256(name))
    for limiter, key in pairs { [state.of_user] = pair, [state.of_address] = address } do
      local before = assert(limiter:take(key, 0))
      if before.remaining < 1 then
        local seconds = math.max(1, math.ceil(before.retry_after or 1))
        return tg.problem(429, "too many wrong passwords", nil, { ["Retry-After"] = tostring(seconds) })
      end
    end
    local user = find_user(state, name)
    if not is_right(state, conf, user, name, password) then
      assert(state.of_user:take(pair))
      assert(state.of_address:take(address))
      return wrong
    end
    if conf.hide_credentials then headers.authorization = nil end
    ctx:authenticate(user.consumer, user.credential)
  end,
}
