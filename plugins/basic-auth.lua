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
  -- Where passwords are texts, an unknown user must not take longer than a known one.
  return users, slow or tg.consumers.are_stored() and NOBODY
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

local function parse(encoded)
  local text = #encoded <= 4096 and tg.crypto.unbase64(encoded)
  if not text then return nil end
  return text:match "^([^:%c]*):([^%c]*)$"
end

local function remember(state, key, till)
  if state.count >= VERIFIED_MAX then state.verified, state.count = {}, 0 end
  state.verified[key], state.count = till, state.count + 1
end

local function verify(state, hash, password)
  local ok, err = tg.crypto.password_verify(hash or state.slow, password)
  if ok == nil then error(err, 0) end -- busy: 503, not 401
  return hash ~= nil and ok
end

-- Checks a hash. It counts as a failure until it is known for none: otherwise many could be tried at once while none has failed yet. Who comes
-- with the same meanwhile waits for the answer, so that a client with many connections does not fail by their number.
-- -> whether it is right | nil: too many failures
local function try(state, user, key, password, count)
  local flight = state.flights[key]
  if flight then
    while flight.right == nil and not flight.done do tg.sleep(0.005) end
    if flight.right ~= nil then return flight.right end
  end
  local give_back = count()
  if not give_back then return nil end
  flight = { done = false }
  state.flights[key] = flight
  local function land()
    flight.done = true
    if state.flights[key] == flight then state.flights[key] = nil end
  end
  local landing = tg.defer(land)
  local ok, right = pcall(verify, state, user and user.hash, password)
  if ok then flight.right = right end
  landing.done = true
  land()
  if not ok or right then give_back() end
  if not ok then error(right, 0) end
  return right
end

-- Whether the password is the user's | nil: too many failures. What was right a moment ago is not hashed again: a hash takes a tenth of a second.
local function is_right(state, conf, user, name, password, count)
  local digest = user and user.digest or not user and not state.slow and state.nobody
  if digest then
    if tg.crypto.equal(tg.crypto.sha256(password), digest) then return true end
    return count() and false
  end
  local key = tg.crypto.hmac("sha256", state.key, ("%s\0%s:%s"):format(user and user.hash or "", name, password))
  local till = state.verified[key]
  if user and till and till > tg.now() then return true end
  local right = try(state, user, key, password, count)
  if right then remember(state, key, tg.now() + conf.remember) end
  return right
end

-- Counts a failure against all limits -> function that takes it back | nil: there is no room
local function counter(limits)
  return function()
    local taken = {}
    local function give_back()
      for i, decision in ipairs(taken) do limits[i][1]:settle(decision, 0) end
    end
    for i, limit in ipairs(limits) do
      taken[i] = assert(limit[1]:take(limit[2]))
      if not taken[i].allowed then
        give_back()
        return nil
      end
    end
    return give_back
  end
end

local function too_many(limits)
  local seconds = 1
  for _, limit in ipairs(limits) do seconds = math.max(seconds, math.ceil(assert(limit[1]:take(limit[2], 0)).retry_after or 1)) end
  return tg.problem(429, "too many wrong passwords", nil, { ["Retry-After"] = tostring(seconds) })
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
      users = users, slow = slow, nobody = tg.crypto.random(32), verified = {}, count = 0, flights = {}, key = tg.crypto.random(32),
      challenge = ('Basic realm="%s", charset="UTF-8"'):format(conf.realm),
      of_user = tg.limit.gcra { name = "basic-auth-user", rate = conf.attempts, per = conf.per, burst = conf.attempts },
      of_address = tg.limit.gcra { name = "basic-auth-address", rate = 10 * conf.attempts, per = conf.per, burst = 10 * conf.attempts },
    }
  end,

  authenticate = function(ctx, conf, state)
    local headers = ctx.req.headers
    local encoded = tg.claims.behind(headers.authorization, "Basic")
    if not encoded then return end
    local wrong = tg.problem(401, "wrong user name or password", nil, { ["WWW-Authenticate"] = state.challenge })
    local name, password = parse(encoded)
    if not name then return wrong end
    local address = ctx.req.client.network
    local limits = { { state.of_user, address .. " " .. tg.crypto.hex(tg.crypto.sha256(name)) }, { state.of_address, address } }
    for _, limit in ipairs(limits) do
      if assert(limit[1]:take(limit[2], 0)).remaining < 1 then return too_many(limits) end
    end
    local user = find_user(state, name)
    local right = is_right(state, conf, user, name, password, counter(limits))
    if right == nil then return too_many(limits) end
    if not right then return wrong end
    if conf.hide_credentials then headers.authorization = nil end
    ctx:authenticate(user.consumer, user.credential)
  end,
}
