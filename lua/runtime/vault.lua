--- vault: secrets that a vault keeps (the HTTP API of HashiCorp Vault and OpenBao, KV version 2).
-- The validating process reads them, and they go into the bundle like others; one worker renews the token and looks for newer versions.
local abi = require "abi"
local address = require "runtime.address"
local ask = require "admin.ask"
local dict = require "tidegate.dict"
local http = require "tidegate.http"
local json = require "tidegate.json"
local log = require "tidegate.log"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"
local timer = require "tidegate.timer"
local tls = require "tidegate.tls"

local t = schema.t
local vault = {}

local ANSWER_MAX, TRIES = 1024 * 1024, 3 -- bytes; reloads that are asked for because of one version, when they are refused
local POOL = { idle = 1, idle_timeout = 10, requests = 1000 }
local EXPECTED = 'vault { address = "https://127.0.0.1:8200", token = secret "env:VAULT_TOKEN" }'

local spec = {
  address = t.string { match = "^https?://[^%s/?#@]+/?$", len = 300 },
  token = t.optional(t.secret()), token_file = t.optional(t.string { len = 4096 }),
  namespace = t.optional(t.string { match = "^[%w_.%-/]+$", len = 255 }), ca = t.optional(t.string { len = 4 * 2 ^ 20 }),
  timeout = t.duration { default = "3s", min = 0.01, max = 8 }, every = t.duration { default = "60s", min = 0.1, max = 86400 },
  renew = t.boolean(true),
}

-- ---------------------------------------------------------------- the word of the configuration

local function read_ca(value)
  local text, problem = value, nil
  if not value:find("-----BEGIN", 1, true) then text, problem = secret.source:read(value) end
  if not text then return nil, "cannot be read: " .. problem end
  if abi.C.tg_abi_certificate_check(text, #text, nil, 0) ~= 0 then return nil, abi.out() end
  return text
end

--- declare(source, item, report): from here on secrets may name it.
function vault.declare(source, item, report)
  local function say(field, message) report:problem(item.at, { "vault", field }, message) end
  if source.vault then return say(nil, "there is one already at " .. source.vault.at) end
  if type(item.value) ~= "table" or secret.is(item.value) then return report:found(item.at, { "vault" }, item.value, "a table") end
  local conf = schema.unfrozen(spec, item.value, { report = report, at = item.at, path = { "vault" } })
  if not conf then return end
  conf.at = item.at
  conf.scheme, conf.authority = conf.address:match "^(https?)://([^/]+)"
  conf.host, conf.port = address.parse_authority(conf.authority)
  conf.port = conf.port or conf.scheme == "https" and 443 or 80
  if not conf.host then report:found(item.at, { "vault", "address" }, conf.address, 'a URL without a path: "https://vault.internal:8200"') end
  if (conf.token ~= nil) == (conf.token_file ~= nil) then
    say(nil, "found     both or neither of `token` and `token_file`\nexpected  " .. EXPECTED)
  end
  local problem
  if conf.token_file then
    conf.token, problem = secret.resolve("file:" .. conf.token_file)
    if problem then say("token_file", problem) end
    if source.follow_secret then source:follow_secret(conf.token_file) end
  end
  if conf.token and conf.token:reveal():find "[%c%s]" then say("token", "found     a text with blanks or control bytes\nexpected  a token") end
  if conf.ca then
    conf.ca, problem = read_ca(conf.ca)
    if problem then say("ca", problem) end
  end
  if report:count() == 0 then source.vault = conf end
end

local function headers_of(conf)
  return { ["X-Vault-Token"] = conf.token:reveal(), ["X-Vault-Request"] = "true", ["X-Vault-Namespace"] = conf.namespace }
end

-- ---------------------------------------------------------------- in the validating process

-- "mount/path" -> "mount", "path" | nil
local function split(place)
  local mount, path = place:match "^([%w_.~%-]+)/([%w_.~%-/]+)$"
  if not mount or ("/" .. place .. "/"):find "/%.?%.?/" then return nil end
  return mount, path
end

-- What a refusal says of its reason; it is shown, so it is kept short.
local function reason_of(body)
  local said = json.decode(body)
  local text = type(said) == "table" and type(said.errors) == "table" and said.errors[1]
  return type(text) == "string" and (" (%s)"):format(text:gsub("%c", " "):sub(1, 200)) or ""
end

-- { values, version } | nil, what is wrong
local function fetch(core, conf, mount, path)
  local lines = { ("GET /v1/%s/data/%s HTTP/1.1"):format(mount, path), "Host: " .. conf.authority }
  for name, value in pairs(headers_of(conf)) do lines[#lines + 1] = name .. ": " .. value end
  lines[#lines + 1] = "Connection: close\r\n\r\n"
  local authorities = conf.scheme == "https" and (conf.ca or "")
  local status, body = core.fetch(conf.host, tostring(conf.port), authorities, table.concat(lines, "\r\n"), conf.timeout)
  local who = "the vault at " .. conf.address
  if not status then
    conf.away = ("cannot be read: %s: %s"):format(who, body) -- and is not asked again in this process
    return nil, conf.away
  end
  if status == 404 then return nil, "is not there: " .. who .. " answers 404" end
  if status ~= 200 then return nil, ("cannot be read: %s answers %d%s"):format(who, status, reason_of(body)) end
  local answer = json.decode(body)
  local data = type(answer) == "table" and type(answer.data) == "table" and answer.data or {}
  local version = type(data.metadata) == "table" and data.metadata.version
  if type(data.data) ~= "table" or type(version) ~= "number" then
    return nil, ("cannot be read: %s gives no secret of KV version 2 for it"):format(who)
  end
  return { values = data.data, version = ("%d"):format(version) }
end

--- read(source, name) -> value | nil, what is wrong. `name` is "mount/path#key". Each path is read once.
function vault.read(source, name)
  local conf, place, key = source.vault, name:match "^([^#]+)#(.+)$"
  local mount, path = split(place or "")
  if not mount then return nil, 'is no place in a vault: expected "vault:mount/path#key"' end
  if not conf then return nil, "cannot be read: there is no vault before it\nexpected  " .. EXPECTED .. " above" end
  if conf.away then return nil, conf.away end
  conf.found = conf.found or {}
  local found = conf.found[place]
  if not found then
    local problem
    found, problem = fetch(source.core, conf, mount, path)
    if not found then return nil, problem end
    conf.found[place] = found
  end
  source.files["vault:" .. place] = found.version
  local value = found.values[key]
  if value == nil then return nil, ("is not there: version %s has no key %q"):format(found.version, key) end
  if type(value) ~= "string" then return nil, "is no text" end
  return value
end

-- ---------------------------------------------------------------- in a worker

local watched, current = {}, nil -- "mount/path" -> version that this generation has; the vault of it
local tried = {} -- "mount/path version" -> how often a reload was asked for

local function call(method, path)
  local number = current.scheme == "https" and tls.number { ca = current.ca } or 0
  current.peer = current.peer or abi.peer(current.host, current.port, number, false, POOL)
  if current.peer < 0 then return nil, abi.code(current.peer) end
  local options = { headers = headers_of(current), timeout = current.timeout, max_body = ANSWER_MAX, body = method == "POST" and "{}" or nil }
  local defaults = { connect_timeout = current.timeout, scheme = current.scheme }
  local result, err = http.send(method, path, current.authority, current.peer, options, defaults)
  if not result then return nil, tostring(err) end
  if result.status ~= 200 then return nil, "it answers " .. result.status .. reason_of(result.body) end
  local value = result:json()
  if type(value) ~= "table" then return nil, "its answer is no JSON object" end
  return value
end

-- The newest version of what is at `place`; a token need not be allowed to read more than the secret.
local function version_of(place)
  local mount, path = split(place)
  local answer = call("GET", ("/v1/%s/metadata/%s"):format(mount, path))
  local version = answer and type(answer.data) == "table" and answer.data.current_version
  if type(version) ~= "number" then
    local problem
    answer, problem = call("GET", ("/v1/%s/data/%s"):format(mount, path))
    if not answer then return nil, problem end
    local data = type(answer.data) == "table" and answer.data.metadata
    version = type(data) == "table" and data.version
  end
  return type(version) == "number" and ("%d"):format(version) or nil, "it gives no version"
end

-- Versions for which the gateway was loaded anew are remembered by all generations, so that a rollback lasts.
local function look()
  local asked, changed = dict.open "cache", nil
  for place, version in pairs(watched) do
    local newest, problem = version_of(place)
    local key, try = "vault\1" .. place, place .. " " .. tostring(newest)
    if not newest then
      log.warn(("vault: %s cannot be looked at, and stays as it is: %s"):format(place, problem))
    elseif newest ~= version and asked:get(key) ~= newest and (tried[try] or 0) < TRIES then
      changed = changed or {}
      changed[key], tried[try] = newest, (tried[try] or 0) + 1
    end
  end
  if not changed then return end
  for key, newest in pairs(changed) do asked:set(key, newest) end
  local said, err = ask.text("vault", "reload")
  if said then return end
  for key in pairs(changed) do asked:delete(key) end
  log.error("vault: the reload with what is new there is refused: " .. tostring(err))
end

-- Half of the time that is left; the next look is the next try.
local function renew()
  local answer, problem = call("POST", "/v1/auth/token/renew-self")
  local auth = answer and type(answer.auth) == "table" and answer.auth or {}
  local left = type(auth.lease_duration) == "number" and auth.lease_duration or 0
  if not answer then
    log.error("vault: the token cannot be renewed: " .. problem)
    timer.after(current.every, renew)
  elseif auth.renewable == true and left > 0 then
    timer.after(math.max(left / 2, 0.1), renew)
  end
end

--- keep(conf, files): what start() needs of a bundle.
function vault.keep(conf, files)
  current = conf
  for name, data in pairs(files) do
    local place = name:match "^vault:(.+)$"
    if place then watched[place] = data end
  end
end

--- start(): the generation is current.
function vault.start()
  if not current then return end
  timer.every(current.every, look, { jitter = 0.1 })
  if current.renew then timer.after(0.1, renew) end
end

return vault
