--- session: tg.session: what a browser brings back with each request: sealed into its cookies, or in Redis under a random name.
-- Sealed with AES-256-GCM under keys that HKDF makes of the secrets; whatever was changed, cut or has expired is no session.
local cookies = require "tidegate.cookie"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local task = require "tidegate.task"
local time = require "tidegate.time"

local session = {}
local SECRET_MIN, CHUNK, CHUNKS_MAX = 32, 3800, 4 -- bytes of a secret; bytes of a cookie, cookies: browsers keep 4 KiB of each
local CHUNKS = 2 -- by default: a listener takes fields of 8 KiB, and who came with more could not even log out
local TOUCHES = 20 -- a session in cookies is written again, for its idle time, that often within it
local LOCK, LOOK = 10, 0.02 -- seconds: somebody may be alone with a session, between two looks whether he still is

local Sessions = { __name = "sessions" }
Sessions.__index = Sessions

-- ---------------------------------------------------------------- keys

local Sealer = {}
Sealer.__index = Sealer

--- sealer(secrets, purpose) -> sealer: seal(text, bound) -> text for a cookie, open(text, bound) -> text, whether by an old secret | nil
function session.sealer(secrets, purpose)
  local keys = {}
  for i, secret in ipairs(secrets) do
    if #secret < SECRET_MIN then error(("the secret of a session has at least %d bytes, found %d"):format(SECRET_MIN, #secret), 2) end
    keys[i] = crypto.hkdf("sha256", secret, 32, "tidegate " .. purpose)
  end
  if #keys == 0 then error("a session needs a secret", 2) end
  return setmetatable({ keys = keys }, Sealer)
end

function Sealer:seal(text, bound) return crypto.base64url(crypto.encrypt(self.keys[1], text, bound)) end

function Sealer:open(text, bound)
  local sealed = crypto.unbase64url(text)
  if not sealed then return nil end
  for i, key in ipairs(self.keys) do
    local opened = crypto.decrypt(key, sealed, bound)
    if opened then return opened, i > 1 end
  end
  return nil
end

-- ---------------------------------------------------------------- where they are kept

-- In cookies: the first begins with their number. A wrong number or order does not open.
local in_cookies = {}

local function chunk_name(self, i) return i == 1 and self.cookie or self.cookie .. "-" .. i end

-- -> sealed text | nil
local function join(self, jar)
  local first = jar[self.cookie]
  local count, rest = (first or ""):match "^(%d)%.(.*)$"
  count = tonumber(count)
  if not count or count < 1 or count > CHUNKS_MAX then return nil end
  local parts = { rest }
  for i = 2, count do
    parts[i] = jar[chunk_name(self, i)]
    if not parts[i] or parts[i] == "" then return nil end
  end
  return table.concat(parts)
end

function in_cookies.read(self, req)
  local text = join(self, req.cookies)
  if not text then return nil end
  return self.sealer:open(text, self.cookie)
end

function in_cookies.write(self, req, _, text)
  local sealed, list = self.sealer:seal(text, self.cookie), {}
  local count = math.ceil((#sealed + 2) / CHUNK)
  if count > self.chunks then
    return nil, failure.new("too_large", ("a session of %d bytes does not fit into cookies; keep it in Redis"):format(#sealed), 500)
  end
  sealed = count .. "." .. sealed
  for i = 1, count do
    list[i] = cookies.set(chunk_name(self, i), sealed:sub((i - 1) * CHUNK + 1, i * CHUNK), self.attributes)
  end
  for i = count + 1, CHUNKS_MAX do
    if req.cookies[chunk_name(self, i)] then list[#list + 1] = cookies.clear(chunk_name(self, i), self.attributes) end
  end
  return list
end

function in_cookies.delete() return true end

-- Nobody knows who else has these cookies.
function in_cookies.alone(_, _, one, f) return f(one) end

-- In Redis: the cookie is a name that nobody guesses, and part of the key, so that what is in Redis cannot be read without it.
local in_redis = {}

local function redis_key(self, id) return self.prefix .. ":" .. crypto.hex(crypto.sha256(id)) end

local function id_of(self, req)
  local id = req.cookies[self.cookie]
  return id and #id == 43 and not id:find "[^%w_-]" and id or nil
end

-- To be read keeps it from being idle: Redis forgets those that are.
function in_redis.read(self, req)
  local id = id_of(self, req)
  if not id then return nil end
  local key = redis_key(self, id)
  local got, err = self.db:pipeline(function(p)
    p:get(key)
    p:expire(key, math.max(1, math.ceil(self.idle)))
  end)
  local text = got and got[1]
  if got and type(text) ~= "string" and text ~= json.null then err = text end
  if err then return nil, false, err end
  if text == json.null then return nil end
  local opened, is_old = self.sealer:open(text, self.cookie .. id)
  return opened, is_old, nil, opened and id
end

function in_redis.write(self, _, one, text, seconds)
  local is_new = not one.id
  one.id = one.id or crypto.base64url(crypto.random(32))
  -- XX: one that was ended meanwhile stays so.
  local sealed = self.sealer:seal(text, self.cookie .. one.id)
  local done, err = self.db:set(redis_key(self, one.id), sealed, "EX", math.max(1, math.ceil(seconds)), is_new and "NX" or "XX")
  if err then return nil, err end
  if not done then return {} end
  return is_new and { cookies.set(self.cookie, one.id, self.attributes) } or {}
end

function in_redis.delete(self, req)
  local id = id_of(self, req)
  if not id then return true end
  local done, err = self.db:del(redis_key(self, id))
  return done and true, err
end

local RELEASE = [[if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0]]

function in_redis.alone(self, req, one, f)
  local lock, mine, till = redis_key(self, one.id) .. ":lock", crypto.base64url(crypto.random(12)), time.now.monotonic() + LOCK
  local got, err = self.db:set(lock, mine, "NX", "EX", LOCK)
  while not got and not err and time.now.monotonic() < till do
    task.sleep(LOOK)
    got, err = self.db:set(lock, mine, "NX", "EX", LOCK)
  end
  if err then return nil, err end
  if not got then return nil, failure.new("busy", "somebody else does not finish with this session") end
  local deferred = task.defer(function() self.release({ lock }, { mine }) end)
  local there, why = self:read(req)
  local ok, value, problem = true, nil, why
  if there then
    ok, value, problem = pcall(f, there)
  elseif not why then
    value = false
  end
  deferred.done = true
  deferred.f()
  if not ok then error(value, 0) end
  return value, problem
end

-- ---------------------------------------------------------------- sessions

--- sessions:read(req) -> session { data, created, is_due } | nil: there is none that is good | nil, err: the store gives no answer
function Sessions:read(req)
  local text, is_old, err, id = self.store.read(self, req)
  if err then return nil, err end
  local held = text and json.decode(text)
  if type(held) ~= "table" then return nil end
  local now = time.now()
  if now >= held.c + self.absolute or not id and now >= held.s + self.idle then return nil end
  return { data = held.d, created = held.c, id = id, is_due = is_old or not id and now >= held.s + self.idle / TOUCHES }
end

--- sessions:alone(req, session, f) -> what f returns, value or nil, err | false: it has ended | nil, err: the store gives no answer. f(session)
-- with the session as it is by now: one at a time among all gateways that share a Redis. It may call `save`. In cookies everybody has his own.
function Sessions:alone(req, one, f) return self.store.alone(self, req, one, f) end

--- sessions:start(data) -> a new session, to be saved
function Sessions:start(data) -- luacheck: no self
  return { data = data, created = time.now(), is_due = true }
end

--- sessions:save(req, session) -> list of values for Set-Cookie | nil, err. Without a change only those with `is_due` need it.
function Sessions:save(req, one)
  local now = time.now()
  one.is_due = false
  local text = json.encode { c = one.created, s = now, d = one.data }
  return self.store.write(self, req, one, text, math.min(self.idle, one.created + self.absolute - now))
end

--- sessions:drop(req) -> list of values for Set-Cookie that clear what the browser has | nil, err: it is still in the store
function Sessions:drop(req)
  local done, err = self.store.delete(self, req)
  if not done then return nil, err end
  local list = {}
  for i = 1, CHUNKS_MAX do
    if req.cookies[chunk_name(self, i)] then list[#list + 1] = cookies.clear(chunk_name(self, i), self.attributes) end
  end
  return list
end

--- sessions:is_shown(req) -> whether the browser brings one, good or not
function Sessions:is_shown(req) return req.cookies[self.cookie] ~= nil end

--- sessions:hide(req): the upstream does not see its cookies.
function Sessions:hide(req)
  for i = 1, CHUNKS_MAX do
    local name = chunk_name(self, i)
    if req.cookies[name] then req.cookies[name] = nil end
  end
end

--- open { name, secrets, idle, absolute, store = "cookie" | "redis", redis?, prefix?, secure = true, domain?, cookies = 2, about? } -> sessions:
-- read, start, save, drop, hide. The first secret seals, all of them open. Times in seconds. `about`: whose sessions they are; one about
-- something else is none here, whatever name and secret they share. To be made in `setup`.
function session.open(options)
  local is_redis = options.store == "redis"
  local attributes = { path = "/", secure = options.secure ~= false, domain = options.domain }
  local cookie = cookies.name(options.name, attributes)
  local db = is_redis and require("tidegate.redis").open(options.redis) or nil
  return setmetatable({
    cookie = cookie, attributes = attributes, store = is_redis and in_redis or in_cookies,
    sealer = session.sealer(options.secrets, options.about and "session of " .. options.about or "session"), idle = options.idle,
    absolute = options.absolute,
    db = db, release = db and db:script(RELEASE), prefix = options.prefix or "session",
    chunks = options.cookies or CHUNKS,
  }, Sessions)
end

return session
