--- secret: values that are shown to nobody: tg.secret "env:NAME", "file:PATH" or "vault:MOUNT/PATH#KEY".
-- A secret is an object without anything in it: its value is kept beside it, so that no message, log or encoder meets it by accident.
local secret = { source = nil } -- source:secret(kind, name) -> value | nil, why: set by the runtime while a generation is made

local KINDS = '"env:NAME", "file:PATH" or "vault:MOUNT/PATH#KEY"'
local MAX = 65536 -- bytes; whoever names a larger file means another one
local values = setmetatable({}, { __mode = "k" })
local kept -- set of values, for tools
local SHORT = 4 -- bytes; what is shorter stands in too many texts by accident
local methods = {}
local Secret = { __index = methods, __metatable = false }

function Secret.__tostring() return "***" end
function Secret.__newindex() error("a secret cannot be changed", 2) end
function Secret.__concat() error("a secret becomes text by its reveal()", 2) end

--- s:reveal() -> the value
function methods:reveal()
  local value = values[self]
  if not value then error("reveal is a method of a secret: s:reveal()", 2) end
  return value
end

--- is(value) -> whether it is a secret
function secret.is(value)
  return value ~= nil and values[value] ~= nil
end

--- new(text) -> secret
function secret.new(text)
  local object = setmetatable({}, Secret)
  values[object] = text
  if kept and #text >= SHORT then kept[text] = true end
  return object
end

--- keep(): from now on `hide` knows all values, also of secrets that were let go because their text was put elsewhere.
function secret.keep() kept = {} end

--- hide(text) -> it with *** wherever the value of a secret stands in it: for tools that show what becomes of a request, and have called keep
function secret.hide(text)
  for value in pairs(kept or {}) do
    local from, to = text:find(value, 1, true)
    while from do
      text = text:sub(1, from - 1) .. "***" .. text:sub(to + 1)
      from, to = text:find(value, from + 3, true)
    end
  end
  return text
end

--- looks_like(text) -> whether somebody has left out the word `secret`
function secret.looks_like(text)
  return text:find "^env:" ~= nil or text:find "^file:" ~= nil or text:find "^vault:" ~= nil
end

local LF, CR = 10, 13

-- Editors and `echo` end a file with a newline, which is not meant.
local function without_newlines(value)
  local last = #value
  while value:byte(last) == LF or value:byte(last) == CR do last = last - 1 end
  return value:sub(1, last)
end

--- resolve(spec) -> secret | nil, what is wrong. It says nothing of what it has found, and of `spec` only where that is a name.
function secret.resolve(spec)
  local kind, name = spec:match "^(%l+):(.+)$"
  if kind ~= "env" and kind ~= "file" and kind ~= "vault" or name:find "%c" then return nil, "secret needs " .. KINDS end
  if not secret.source then return nil, "secrets are resolved while a generation is made: at the top of the file, or in setup" end
  local value, problem = secret.source:secret(kind, name)
  if value and #value > MAX then problem = ("has more than %d bytes"):format(MAX) end
  if value and kind == "file" then value = without_newlines(value) end
  if value == "" then problem = "is empty" end
  if problem then return nil, ('the secret "%s" %s'):format(spec, problem) end
  return secret.new(value)
end

--- open(spec) -> secret. One that is not there, or empty, raises: the generation is not made.
function secret.open(spec)
  if type(spec) ~= "string" then error(("secret needs %s, found a %s"):format(KINDS, type(spec)), 2) end
  local found, problem = secret.resolve(spec)
  if not found then error(problem, 2) end
  return found
end

--- word() -> `secret` as configurations and plugins have it: secret "env:NAME", or secret.env "NAME".
function secret.word()
  local word = setmetatable({}, { __call = function(_, spec) return secret.open(spec) end, __metatable = false })
  for _, kind in ipairs { "env", "file", "vault" } do
    word[kind] = function(name)
      if type(name) ~= "string" then error(("secret.%s needs a text, found a %s"):format(kind, type(name)), 2) end
      return secret.open(kind .. ":" .. name)
    end
  end
  return word
end

return secret
