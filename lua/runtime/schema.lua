--- schema: the types of configuration values: t.string, t.duration ... Validation, defaults and descriptions from one source.
local abi = require "abi"
local address = require "runtime.address"
local re = require "tidegate.re"
local report_of = require "runtime.report"
local secret = require "tidegate.secret"
local template = require "runtime.template"
local time = require "tidegate.time"
local url = require "tidegate.url"

local Type = {}
Type.__index = Type

local schema = {}
local t = {}
-- All plugins and the configuration share it: what one of them assigns there would be another's type.
schema.t = setmetatable({}, {
  __index = t, __metatable = false,
  __newindex = function(_, name) error("t." .. report_of.text_of(name) .. " cannot be assigned: types are frozen", 2) end,
})
local MAX_DEPTH = 16
local FAILED = {} -- what is judged and already reported

function schema.is_type(value)
  return type(value) == "table" and getmetatable(value) == Type
end

-- What a type may be told beside `default` and `doc`.
local range = { "min", "max" }
local settings = {
  string = { "match", "one_of", "len" }, integer = range, number = range, duration = range, size = range, list = range,
  any = { "raw" }, regex = { "flags" }, file = { "follow" }, template = { "roots", "escape" },
}

-- These three return what is wrong, which t.X then raises at the line of the plugin. A misspelt option would be a limit
-- that nobody keeps.
local function set_options(self, options)
  local known = { "default", "doc", unpack(settings[self.name] or {}) }
  local set = {}
  for _, key in ipairs(known) do set[key] = true end
  for key, value in pairs(options) do
    if not set[key] then
      local nearest = type(key) == "string" and report_of.nearest(key, known)
      return ("t.%s has no option %s%s"):format(self.name, report_of.text_of(key),
        nearest and ('; did you mean "%s"?'):format(nearest) or "")
    end
    self[key] = value
  end
  if self.match and not pcall(string.find, "", self.match) then return "t.string has a malformed pattern in `match`" end
  local problem = self.name == "template" and template.problem_of { roots = self.roots, escape = self.escape }
  return problem and "t.template: " .. problem or nil
end

local function need_type(name, value)
  if schema.is_type(value) then return nil end
  return ("t.%s needs a type: t.string() ..."):format(name)
end

-- The values of enum and the types of any_of stand in a list beside the options.
local function positional(self, options, field)
  if type(options) ~= "table" or options[1] == nil then return ("t.%s needs a list"):format(self.name) end
  local items, rest = {}, {}
  for key, value in pairs(options) do
    if type(key) == "number" then items[key] = value else rest[key] = value end
  end
  self[field] = items
  return set_options(self, rest)
end

-- A type: name, expected (text), parse(value, where) -> value | nil, problem. A nil problem means "not what is expected".
local function define(name, expected, parse, compound)
  t[name] = function(options, default)
    local self = setmetatable({ name = name, expected = expected, parse = parse, hides = name == "secret" }, Type)
    local problem
    if compound then
      problem = compound(self, options, default)
    elseif type(options) == "table" then
      problem = set_options(self, options)
    else
      self.default = options
    end
    if problem then error(problem, 2) end
    return self
  end
end

local function in_range(self, value)
  return not (self.min and value < self.min or self.max and value > self.max)
end

function Type:range()
  if self.min and self.max then return (" from %s to %s"):format(self.min, self.max) end
  if self.min then return " of at least " .. self.min end
  if self.max then return " of at most " .. self.max end
  return ""
end

local function is_number(value)
  return type(value) == "number" and value == value and value ~= math.huge and value ~= -math.huge
end

define("string", "a string", function(self, value)
  if type(value) ~= "string" then return nil end
  if self.len and #value > self.len then return nil, ("a string of at most %d bytes"):format(self.len) end
  if self.match then
    -- find notices some malformed patterns only when it gets that far.
    local ok, first = pcall(string.find, value, self.match)
    if not ok or not first then return nil, "a string that matches " .. self.match end
  end
  if self.one_of then
    for _, known in ipairs(self.one_of) do
      if known == value then return value end
    end
    return nil, 'one of "' .. table.concat(self.one_of, '", "') .. '"'
  end
  return value
end)

define("integer", "a whole number", function(self, value)
  if not is_number(value) or value % 1 ~= 0 or math.abs(value) > 2 ^ 53 or not in_range(self, value) then
    return nil, "a whole number" .. self:range()
  end
  return value
end)

define("number", "a number", function(self, value)
  if not is_number(value) or not in_range(self, value) then return nil, "a number" .. self:range() end
  return value
end)

define("boolean", "true or false", function(_, value)
  if type(value) ~= "boolean" then return nil end
  return value
end)

local units = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }
local MAX_SECONDS = 2 ^ 43 -- in milliseconds it still is an exact number

define("duration", 'a duration: "250ms", "30s", "1m", "2h"', function(self, value)
  local seconds = value
  if type(value) == "string" then
    local number, unit = value:match "^(%d+%.?%d*)(%a+)$"
    seconds = number and units[unit] and tonumber(number) * units[unit]
  end
  if not is_number(seconds) or seconds < 0 or seconds > MAX_SECONDS then return nil end
  if not in_range(self, seconds) then return nil, "a duration" .. self:range() .. " seconds" end
  return seconds
end)

local sizes = { B = 1, KiB = 1024, MiB = 1024 ^ 2, GiB = 1024 ^ 3, KB = 1000, MB = 1e6, GB = 1e9 }

define("size", 'a size: "512B", "64KiB", "10MiB", "1GiB"', function(self, value)
  local bytes = value
  if type(value) == "string" then
    local number, unit = value:match "^(%d+%.?%d*)(%a+)$"
    bytes = number and sizes[unit] and tonumber(number) * sizes[unit]
  end
  if not is_number(bytes) or bytes < 0 or bytes > 2 ^ 53 then return nil end
  if not in_range(self, bytes) then return nil, "a size" .. self:range() .. " bytes" end
  return math.floor(bytes)
end)

define("date", 'a date: "2031-01-31"', function(_, value)
  if type(value) ~= "string" then return nil end
  return time.date(value)
end)

define("status", "a status from 200 to 599", function(_, value)
  if not is_number(value) or value % 1 ~= 0 or value < 200 or value > 599 then return nil end
  return value
end)

define("header", 'a header name: "X-Api-Key"', function(_, value)
  if type(value) ~= "string" or not value:find "^[%w!#$%%&'*+.^_`|~-]+$" then return nil end
  return value
end)

define("url", 'a URL: "http://host:port/path"', function(_, value, where)
  local parts, err
  if type(value) == "string" then parts, err = url.parse(value) end
  if not parts then return nil, err and 'a URL: "http://host:port/path" (' .. err.message .. ")" end
  if parts.scheme ~= "http" and parts.scheme ~= "https" then return nil end
  if parts.userinfo then
    where.report:problem(where.at, where.path, "found     a URL with a user or a password\nexpected  one without, since it is shown in logs")
    return FAILED
  end
  if not (address.is_ipv4(parts.host) or address.is_ipv6(parts.host) or address.is_name(parts.host)) then return nil end
  return url.build(parts)
end)

define("cidr", 'a network or an address: "10.0.0.0/8", "::1"', function(_, value)
  if type(value) ~= "string" then return nil end
  if abi.C.tg_abi_valid_cidr(value, #value) ~= 0 then
    return nil, abi.out():match "expected (.+)$" and 'a network: ' .. abi.out():match "expected (.+)$" or nil
  end
  return value
end)

define("ip", 'an address: "0.0.0.0", "::1"', function(_, value)
  if type(value) ~= "string" or not (address.is_ipv4(value) or address.is_ipv6(value)) then return nil end
  return value
end)

-- `{ secret = "env:NAME" }`, the only form that YAML and JSON have for it -> "env:NAME" | nil
local function reference_of(value)
  if type(value) ~= "table" or getmetatable(value) ~= nil then return nil end
  local spec = value.secret
  return type(spec) == "string" and next(value, next(value)) == nil and spec or nil
end

-- A secret where one may stand beside other values; nil when there is none.
local function take_secret(value, where)
  if secret.is(value) then return value end
  local spec = reference_of(value)
  if not spec then return nil end
  local found, problem = secret.resolve(spec)
  if found then return found end
  where.report:problem(where.at, where.path, problem)
  return FAILED
end

local SECRET = 'secret "env:NAME", "file:PATH" or "vault:MOUNT/PATH#KEY" (in YAML and JSON { "secret": "env:NAME" }), or a text'
define("secret", SECRET, function(_, value, where)
  local found = take_secret(value, where)
  if found then return found end
  if type(value) ~= "string" or value == "" then return nil end
  if secret.looks_like(value) then
    where.report:problem(where.at, where.path, 'found     the name of a secret as a text\nexpected  secret "env:NAME" in Lua, '
      .. '{ "secret": "env:NAME" } in YAML and JSON')
    return FAILED
  end
  return secret.new(value)
end)

define("template", 'a text with variables: "${client.ip}"', function(self, value, where)
  local found = take_secret(value, where)
  if found == FAILED then return FAILED end
  if found then return template.constant(found:reveal(), self) end
  if type(value) ~= "string" then return nil end
  local f, err = template.compile(value, self)
  if not f then return nil, "a template: " .. err end
  return f
end)

define("regex", "a regular expression", function(self, value)
  if type(value) ~= "string" then return nil end
  local regex, err = re.try(value, self.flags)
  if not regex then return nil, "a regular expression: " .. err end
  return regex
end)

local FILE_MAX = 16 * 1024 * 1024

-- Its bytes: they go with the configuration to every worker, and a change of the file is one of the configuration; `follow`: also without --watch.
define("file", 'the path of a file, from the folder of the configuration: "api.pb"', function(self, value)
  if type(value) ~= "string" or value == "" or value:find "%z" or not secret.source then return nil end
  local follows = self.follow and abi.validating -- later it may be read for several uses
  local bytes, err = secret.source[follows and "follow" or "read"](secret.source, value)
  if not bytes then return nil, "the path of a file that can be read: " .. err:match "[^:]*$":gsub("^ ", "") end
  if #bytes > FILE_MAX then return nil, "a file of at most 16 MiB" end
  return bytes
end)

local function reference(kind)
  define(kind, "the name of a" .. (kind == "upstream" and "n " or " ") .. kind, function(_, value, where)
    if type(value) ~= "string" then return nil end
    local known = where.names and where.names[kind]
    if known and not known[value] then
      local names = {}
      for name in pairs(known) do names[#names + 1] = name end
      table.sort(names)
      local nearest = report_of.nearest(value, names)
      return nil, ("the name of a declared %s%s"):format(kind, nearest and ('; did you mean "' .. nearest .. '"?') or "")
    end
    return value
  end)
end
reference "upstream"
reference "dict"
reference "redis"

define("func", "a function", function(_, value)
  if type(value) ~= "function" then return nil end
  return value
end)

define("enum", "one of a few", function(self, value)
  for _, known in ipairs(self.values) do
    if known == value then return value end
  end
  return nil, 'one of "' .. table.concat(self.values, '", "') .. '"'
end, function(self, options)
  local problem = positional(self, options, "values")
  for _, value in ipairs(self.values or {}) do
    if type(value) ~= "string" then problem = problem or "t.enum needs a list of strings" end
  end
  return problem
end)

-- The path is put together when it is asked for: there are as many places as values, and few of them are wrong.
local Where = {
  __index = function(self, field)
    if field ~= "path" then return nil end
    local path = {}
    for i, part in ipairs(self.parent.path or {}) do path[i] = part end
    path[#path + 1] = tostring(self.key)
    self.path = path
    return path
  end,
}

local function below(where, key)
  return setmetatable({ report = where.report, at = where.at, names = where.names, parent = where, key = key, depth = (where.depth or 0) + 1 }, Where)
end

-- A guard against accidents: a new field raises. A proxy would catch an overwritten one, too, but pairs, ipairs and # of
-- Lua 5.1 do not look through proxies.
local frozen = {
  __newindex = function() error("the configuration is read-only", 2) end,
  __metatable = false,
}
local function freeze(value)
  return setmetatable(value, frozen)
end

--- sequence(value) -> its length | nil, the first key that does not belong there. A list with a hole, which `#` and ipairs
-- would cut short, is none: the tail of a list of plugins must not get lost.
function schema.sequence(value)
  local count, last = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key % 1 ~= 0 or key < 1 then return nil, key end
    count, last = count + 1, math.max(last, key)
  end
  if count == last then return count end
  for i = 1, last do
    if value[i] == nil then return nil, i end
  end
end

-- A deep copy that is frozen. Objects (what has a metatable) stay what they are.
local function copy_of(value, depth, where)
  if type(value) ~= "table" or getmetatable(value) ~= nil then return value end
  if depth > MAX_DEPTH then return nil end
  local spec = reference_of(value)
  if spec and secret.looks_like(spec) then return take_secret(value, where) end
  local copy = {}
  for key, item in pairs(value) do
    copy[key] = copy_of(item, depth + 1, where)
    if copy[key] == nil or copy[key] == FAILED then return copy[key] end
  end
  return freeze(copy)
end

define("any", "a value of at most 16 levels", function(self, value, where)
  if self.raw then return value end
  return copy_of(value, 1, where)
end)

-- Where a secret may stand, nothing of what stands there is shown: it may be one that is written wrongly.
local function hidden(value)
  if value == nil then return "nothing" end
  return value == "" and "an empty text" or type(value) == "string" and "a text" or "a " .. type(value)
end

-- Judges one value; FAILED when it was reported.
local function judge(self, value, where)
  if (where.depth or 0) > MAX_DEPTH then
    where.report:problem(where.at, where.path, "nested too deep")
    return FAILED
  end
  local result, problem = self.parse(self, value, where)
  if result == FAILED then return FAILED end
  if result == nil and self.hides then
    where.report:problem(where.at, where.path, ("found     %s\nexpected  %s"):format(hidden(value), problem or self.expected))
    return FAILED
  elseif result == nil then
    where.report:found(where.at, where.path, value, problem or self.expected)
    return FAILED
  end
  return result
end

-- The second argument of list and map is a default or a table of options.
local function with_options(self, inner, options)
  self.inner = inner
  if type(options) == "table" and (options.default ~= nil or options.doc or options.min or options.max) then
    return need_type(self.name, inner) or set_options(self, options)
  end
  self.default = options
  return need_type(self.name, inner)
end

define("list", "a list", function(self, value, where)
  if type(value) ~= "table" or secret.is(value) or reference_of(value) then
    value = { value } -- one value may stand for a list of one
  end
  local length, wrong = schema.sequence(value)
  if not length then
    return nil, type(wrong) == "number" and ("a list without holes: [%s] is wrong"):format(wrong) or "a list"
  end
  local result, failed = {}, false
  for i, item in ipairs(value) do
    result[i] = judge(self.inner, item, below(where, "[" .. i .. "]"))
    failed = failed or result[i] == FAILED
  end
  if failed then return FAILED end
  if self.min and #result < self.min then return nil, ("a list of at least %d"):format(self.min) end
  if self.max and #result > self.max then return nil, ("a list of at most %d"):format(self.max) end
  return freeze(result)
end, with_options)

define("map", "a table of names and values", function(self, value, where)
  if type(value) ~= "table" or secret.is(value) then return nil end
  local result, failed = {}, false
  for key, item in pairs(value) do
    if type(key) ~= "string" then return nil end
    result[key] = judge(self.inner, item, below(where, key))
    failed = failed or result[key] == FAILED
  end
  if failed then return FAILED end
  return freeze(result)
end, with_options)

define("any_of", "one of several types", function(self, value, where)
  local silent = { found = function() end, unknown = function() end, problem = function() end }
  local expected = {}
  for _, inner in ipairs(self.types) do
    local result = judge(inner, value, setmetatable({ report = silent }, { __index = where }))
    if result ~= FAILED then return result end
    expected[#expected + 1] = inner.expected
  end
  return nil, table.concat(expected, ", or ")
end, function(self, options)
  local problem = positional(self, options, "types")
  for _, inner in ipairs(self.types or {}) do
    problem = problem or need_type(self.name, inner)
    self.hides = self.hides or inner.hides
  end
  return problem
end)

-- In a fixed order, so that the same mistake gives the same text every time.
local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) < type(b) end
    if type(a) == "string" or type(a) == "number" then return a < b end
    return false
  end)
  return keys
end

local fields_of = setmetatable({}, { __mode = "k" }) -- spec -> its fields, in their order

local function report_unknown(spec, fields, value, where)
  for _, key in ipairs(sorted_keys(value)) do
    if spec[key] == nil then where.report:unknown(where.at, where.path, key, { unpack(fields) }) end
  end
end

local function has_unknown(spec, value)
  for key in pairs(value) do
    if spec[key] == nil then return true end
  end
  return false
end

local keeps_nothing = { list = true, map = true, any = true }

local function is_empty(value) return type(value) == "table" and getmetatable(value) == nil and next(value) == nil end

local function apply_fields(spec, value, where)
  local result, failed = {}, has_unknown(spec, value)
  local fields = fields_of[spec] or sorted_keys(spec)
  fields_of[spec] = fields
  if failed then report_unknown(spec, fields, value, where) end
  for _, key in ipairs(fields) do
    local kind, given = spec[key], value[key]
    if given == nil then given = kind.default end
    if given == false and kind.name == "boolean" then
      result[key] = false
    elseif kind.nothing and is_empty(given) then
      result[key] = kind.nothing -- one for all: there may be a hundred thousand
    elseif given ~= nil then
      result[key] = judge(kind, given, below(where, key))
      failed = failed or result[key] == FAILED
      if keeps_nothing[kind.name] and not kind.raw and result[key] ~= FAILED and is_empty(given) then kind.nothing = result[key] end
    elseif not kind.is_optional then
      where.report:found(where.at, below(where, key).path, nil, kind.expected)
      failed = true
    end
  end
  if failed then return FAILED end
  return result
end

define("record", "a table", function(self, value, where)
  if type(value) ~= "table" or secret.is(value) then return nil end
  local result = apply_fields(self.fields, value, where)
  return result == FAILED and FAILED or freeze(result)
end, function(self, fields, options)
  if type(fields) ~= "table" then return "t.record needs a table of types" end
  for _, kind in pairs(fields) do
    if not schema.is_type(kind) then return need_type(self.name, kind) end
  end
  self.fields = fields
  return type(options) == "table" and set_options(self, options) or nil
end)

--- optional(T): the field may be left out.
function t.optional(inner)
  if not schema.is_type(inner) then error("t.optional needs a type: t.string() ...", 2) end
  local copy = setmetatable({}, Type)
  for key, value in pairs(inner) do copy[key] = value end
  copy.is_optional = true
  return copy
end

--- check_defaults(spec, where): judges the defaults themselves, so that a wrong one is its author's error, not the user's
function schema.check_defaults(spec, where)
  for _, key in ipairs(sorted_keys(spec)) do
    local kind, inside = spec[key], below(where, key)
    if kind.default ~= nil then
      judge(kind, kind.default, inside)
    elseif kind.fields and inside.depth <= MAX_DEPTH then
      schema.check_defaults(kind.fields, inside)
    end
  end
end

--- apply(spec, value, where) -> frozen value | nil when something was reported
function schema.apply(spec, value, where)
  local result = apply_fields(spec, value, where)
  if result == FAILED then return nil end
  return freeze(result)
end

--- unfrozen(spec, value, where): as apply, for the runtime's own use
function schema.unfrozen(spec, value, where)
  local result = apply_fields(spec, value, where)
  if result == FAILED then return nil end
  return result
end

local function show_default(value)
  if type(value) == "table" then
    local parts = {}
    for i, item in ipairs(value) do parts[i] = show_default(item) end
    return "{" .. table.concat(parts, ", ") .. "}"
  end
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end

-- Behind a record, those of its own fields, as `record.field`.
local function with_members(spec, list)
  local all = {}
  for _, field in ipairs(list) do
    all[#all + 1] = field
    local fields = spec[field.name].fields
    for _, member in ipairs(fields and schema.describe(fields) or {}) do
      member.name = field.name .. "." .. member.name
      all[#all + 1] = member
    end
  end
  return all
end

--- describe(spec) -> list of { name, type, default, required, doc }: required ones first, then by name; those of records behind them
function schema.describe(spec)
  local list = {}
  for name, kind in pairs(spec) do
    list[#list + 1] = {
      name = name, type = kind.inner and kind.name .. " of " .. kind.inner.name or kind.name, doc = kind.doc or "",
      expected = kind.values and 'one of "' .. table.concat(kind.values, '", "') .. '"' or kind.expected,
      required = kind.default == nil and not kind.is_optional,
      default = kind.default ~= nil and (kind.hides and "***" or show_default(kind.default)) or nil,
    }
  end
  table.sort(list, function(a, b)
    if a.required ~= b.required then return a.required end
    return a.name < b.name
  end)
  return with_members(spec, list)
end

return schema
