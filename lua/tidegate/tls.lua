--- tls: how calls speak TLS: { verify = true, ca?, cert?, key?, name?, pins?, min_version = "1.2", ktls = false }. Texts are PEM, not names of files.
local abi = require "abi"
local secret = require "tidegate.secret"

local tls = {}

local PIN, PINS_MAX = 32, 16 -- TG_TLS_PIN, TG_TLS_PINS_MAX
local fields = {
  verify = "boolean", ca = "string", cert = "string", key = "string", name = "string", pins = "table", min_version = "string", http2 = "boolean",
  ktls = "boolean",
}

--- pin("sha256//BASE64") -> its 32 bytes | nil
function tls.pin(text)
  local base64 = type(text) == "string" and text:match "^sha256//([%w+/]+=?)$"
  if not base64 or abi.C.tg_abi_unbase64(base64, #base64, 0) ~= 0 then return nil end
  local bytes = abi.out()
  return #bytes == PIN and bytes or nil
end

local function text_of(value)
  if secret.is(value) then return value:reveal() end
  return value or ""
end

-- What is wrong with `options`, or nil.
local function misuse(options)
  if type(options) ~= "table" or secret.is(options) then return "tls is a table" end
  for name, value in pairs(options) do
    local kind = fields[name]
    if not kind then return ("tls has no field %q"):format(tostring(name)) end
    if type(value) ~= kind and not (name == "key" and secret.is(value)) then
      return ("tls.%s is a %s"):format(name, kind)
    end
  end
  if (options.cert == nil) ~= (options.key == nil) then return "tls.cert and tls.key belong together" end
  if options.min_version and options.min_version ~= "1.2" and options.min_version ~= "1.3" then return 'tls.min_version is "1.2" or "1.3"' end
  if #(options.pins or {}) > PINS_MAX then return ("tls.pins has at most %d"):format(PINS_MAX) end
  for _, pin in ipairs(options.pins or {}) do
    if not tls.pin(pin) then return "tls.pins holds \"sha256//\" with 32 bytes in Base64" end
  end
  return nil
end

local numbers = setmetatable({}, { __mode = "k" })
local usual

local function ask(options)
  local pins = {}
  for i, pin in ipairs(options.pins or {}) do pins[i] = tls.pin(pin) end
  return abi.tls_client({
    ca = options.ca or "", certificate = options.cert or "", key = text_of(options.key), name = options.name or "",
    pins = table.concat(pins), http2 = options.http2, verify = options.verify ~= false, tls12 = options.min_version ~= "1.3", ktls = options.ktls,
  })
end

--- number(options?) -> what a peer is interned with | nil, what is wrong. Asked for once a table: who changes it makes a new one.
function tls.number(options)
  if options == nil then
    usual = usual or ask {}
    return usual
  end
  local problem = misuse(options)
  if problem then return nil, problem end
  local number = numbers[options]
  if not number then
    number, problem = ask(options)
    if not number then return nil, problem end
    numbers[options] = number
  end
  return number
end

return tls
