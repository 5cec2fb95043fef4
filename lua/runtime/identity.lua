--- identity: the headers that plugins alone may state, taken from what clients send before any plugin sees it.
local abi = require "abi"
local consumers = require "tidegate.consumers"
local pace = require "runtime.pace"

local C = abi.C
local identity = { names = {} } -- set of these, in lower case
local STRIPPED_MAX, STRIPPED_NAME = 128, 128 -- names in a generation; bytes of one

-- One that the core does not take would be believed when a client sends it.
local function strip_field(name, names)
  local lower = name:lower()
  if identity.names[lower] then return end
  identity.names[lower] = true
  names[#names + 1] = lower
  if #names > STRIPPED_MAX then error(("more than %d names of headers that plugins alone may state"):format(STRIPPED_MAX), 0) end
  if #name > STRIPPED_NAME then
    error(("the name of a header that a plugin alone may state has at most %d bytes: %s"):format(STRIPPED_NAME, name), 0)
  end
  if abi.validating then return end
  local rc = C.tg_abi_strip_field(lower, #lower)
  lower = lower:gsub("-", "_") -- some upstreams take both for one
  if rc == 0 then rc = C.tg_abi_strip_field(lower, #lower) end
  if rc ~= 0 then error(("clients cannot be kept from sending %s: %s"):format(name, abi.code(rc)), 0) end
end

--- strip(uses): who a client is, he does not say himself.
function identity.strip(uses)
  local authenticates, names = false, {}
  for _, use in ipairs(uses) do
    pace.breathe()
    authenticates = authenticates or (use.plugin.authenticate or use.plugin.authenticate_shadow) ~= nil
    local fields = use.plugin.identity_headers
    if type(fields) == "function" then fields = fields(use.conf) end
    for _, name in ipairs(fields or {}) do strip_field(name, names) end
  end
  for _, name in ipairs(authenticates and consumers.identity_headers or {}) do strip_field(name, names) end
end

return identity
