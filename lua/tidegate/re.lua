--- re: regular expressions (PCRE2): tg.re. Compiled once, matched within limits; one that is reached raises, for a policy must not fail open.
local abi = require "abi"
local failure = require "tidegate.failure"

local C, misuse, sub = abi.C, failure.misuse, string.sub
local type, tonumber, setmetatable, error = type, tonumber, setmetatable, error

local re = {}
local CACHE_MAX, SUBJECT_MAX = 1000, 64 * 1024
local PARTIAL, NOT_EMPTY = 1, 2 -- enum tg_regex_option

local Regex = { __name = "regex" }
Regex.__index = Regex

local compiled, compiled_count = {}, 0 -- flags -> pattern -> regex

local function build(pattern, flags)
  local handle, groups, empty = abi.regex(pattern, flags)
  if not handle then return nil, groups end
  local names = {}
  for i = 1, groups do
    if C.tg_abi_regex_name(handle, i) == 0 then names[i] = abi.out() end
  end
  return setmetatable({
    handle = handle, pattern = pattern, groups = groups, names = names, named = next(names) ~= nil, empty = empty,
    lookbehind = C.tg_abi_regex_lookbehind(handle), utf = flags:find("u", 1, true) ~= nil,
  }, Regex)
end

-- As many as plugins write down are kept; patterns that are made of what clients send push each other out.
local function find_compiled(pattern, flags)
  local family = compiled[flags]
  local regex = family and family[pattern]
  if regex then return regex end
  local err
  regex, err = build(pattern, flags)
  if not regex then return nil, err end
  if compiled_count >= CACHE_MAX then
    compiled, compiled_count = {}, 0
    collectgarbage() -- machine code that the collector does not see
  end
  compiled[flags] = compiled[flags] or {}
  compiled[flags][pattern] = regex
  compiled_count = compiled_count + 1
  return regex
end

--- try(pattern, flags) -> regex | nil, what is wrong with it
function re.try(pattern, flags)
  return find_compiled(pattern, flags or "")
end

--- compile(pattern, flags?) -> regex with test, match, find, gmatch, gsub and split, which take no pattern. Flags: i (case), m (lines), s (.
-- takes line ends), x (blanks and comments), u (UTF-8), a (at the start only). A malformed pattern raises.
function re.compile(pattern, flags)
  if type(pattern) ~= "string" then misuse("a pattern is a string, found a " .. type(pattern)) end
  if flags ~= nil and type(flags) ~= "string" then misuse("flags are a string, found a " .. type(flags)) end
  local regex, err = find_compiled(pattern, flags or "")
  if not regex then misuse(("the pattern %q: %s"):format(pattern, err)) end
  return regex
end

local function regex_of(pattern, flags)
  return type(pattern) == "table" and pattern.handle and pattern or re.compile(pattern, flags)
end

local function limit(self, rc)
  if rc == abi.ELIMIT then error(failure.new("limit", ("the pattern %q takes too long on this text"):format(self.pattern), 500), 0) end
  if rc == abi.EINVAL then misuse "a position within a character, or behind the end" end
  error(failure.new("memory", "there is no memory to match with"), 0)
end

-- Whether it matches from byte `start` (0: the first) on.
local function search(self, text, start, options)
  local rc = C.tg_abi_regex_match(self.handle, text, #text, start, options)
  if rc == 0 then return true end
  if rc ~= abi.ENONE then limit(self, rc) end
  return false
end

local function check(text)
  if type(text) ~= "string" then misuse("needs a string to look into, found a " .. type(text)) end
  if #text > SUBJECT_MAX then error(failure.new("too_large", "a text of more than 64 KiB cannot be matched", 500), 0) end
end

-- [0] the match, [1] ... groups, by name, too; false: a group that took no part.
local function captures_of(self, text)
  local at = C.tg_abi_regex_offsets()
  local captures = { [0] = sub(text, tonumber(at[0]) + 1, tonumber(at[1])) }
  for i = 1, self.groups do
    local from, to = at[2 * i], at[2 * i + 1]
    captures[i] = to <= #text and sub(text, tonumber(from) + 1, tonumber(to))
  end
  if self.named then
    for i, name in pairs(self.names) do captures[name] = captures[i] end
  end
  return captures
end

--- regex:test(text) -> boolean
function Regex:test(text)
  check(text)
  return search(self, text, 0, 0)
end

--- regex:match(text) -> captures | nil
function Regex:match(text)
  check(text)
  return search(self, text, 0, 0) and captures_of(self, text) or nil
end

--- regex:find(text, from = 1) -> first, last, captures | nil
function Regex:find(text, from)
  check(text)
  if not search(self, text, (from or 1) - 1, 0) then return nil end
  local at = C.tg_abi_regex_offsets()
  local first, last = tonumber(at[0]) + 1, tonumber(at[1])
  return first, last, captures_of(self, text)
end

-- Behind the character at byte `at` (0: the first).
local function step(self, text, at)
  at = at + 1
  while self.utf and at < #text do
    local byte = text:byte(at + 1)
    if byte < 0x80 or byte >= 0xc0 then break end
    at = at + 1
  end
  return at
end

-- all(text) -> iterator over first, last (0: the first byte; last is behind it), captures of matches that do not overlap.
local function all(self, text)
  local at, options = 0, 0
  return function()
    while at <= #text do
      if search(self, text, at, options) then
        local offsets = C.tg_abi_regex_offsets()
        local first, last = tonumber(offsets[0]), tonumber(offsets[1])
        options = last == first and NOT_EMPTY or 0
        at = last
        return first, last, captures_of(self, text)
      end
      if options == 0 then return nil end
      at, options = step(self, text, at), 0
    end
    return nil
  end
end

--- regex:gmatch(text) -> iterator over captures
function Regex:gmatch(text)
  check(text)
  local following = all(self, text)
  return function()
    local _, _, captures = following()
    return captures
  end
end

-- "$1", "${name}", "$0" and "$$" as parts: a string, or { number or name }.
local function parse_replacement(self, replacement)
  local parts, position, known = {}, 1, {}
  for _, name in pairs(self.names) do known[name] = true end
  while true do
    local first = replacement:find("$", position, true)
    parts[#parts + 1] = sub(replacement, position, (first or 0) - 1)
    if not first then return parts end
    local name, last = replacement:match("^(%d%d?)()", first + 1)
    if not name then name, last = replacement:match("^{([%w_]+)}()", first + 1) end
    if replacement:sub(first + 1, first + 1) == "$" then
      parts[#parts + 1], last = "$", first + 2
    elseif not name or (tonumber(name) or 0) > self.groups or not tonumber(name) and not known[name] then
      misuse(("the replacement %q: a $ without a group of the pattern; $$ is a dollar"):format(replacement))
    else
      parts[#parts + 1] = { tonumber(name) or name }
    end
    position = last
  end
end

local function expand(parts, captures)
  local out = {}
  for i, part in ipairs(parts) do out[i] = type(part) == "string" and part or captures[part[1]] or "" end
  return table.concat(out)
end

--- regex:replacer(replacement) -> function(captures) -> text: what gsub and others do with a replacement. It raises for a wrong one.
function Regex:replacer(replacement)
  local kind = type(replacement)
  if kind == "function" then return replacement end
  if kind == "table" then return function(captures) return replacement[captures[1] or captures[0]] end end
  if kind ~= "string" then misuse("a replacement is a string, a table or a function, found a " .. kind) end
  local parts = parse_replacement(self, replacement)
  return function(captures) return expand(parts, captures) end
end

--- regex:gsub(text, replacement, max?) -> text, how many. The replacement is a string with $0, $1, ${name} and $$, a table by the first
-- group, or function(captures), which may wait; nil and false leave what was there.
function Regex:gsub(text, replacement, max)
  check(text)
  local replace, out, from, count = self:replacer(replacement), {}, 0, 0
  for first, last, captures in all(self, text) do
    if max and count >= max then break end
    count = count + 1
    out[#out + 1] = sub(text, from + 1, first)
    out[#out + 1] = replace(captures) or captures[0]
    from = last
  end
  if count == 0 then return text, 0 end
  out[#out + 1] = sub(text, from + 1)
  return table.concat(out), count
end

--- regex:split(text, max?) -> list of what is between the matches, at most `max` of them
function Regex:split(text, max)
  check(text)
  local list, from = {}, 0
  for first, last in all(self, text) do
    if max and #list + 1 >= max then break end
    if last > first or (first > from and first < #text) then
      list[#list + 1] = sub(text, from + 1, first)
      from = last
    end
  end
  list[#list + 1] = sub(text, from + 1)
  return list
end

--- test(text, pattern, flags?) -> boolean
function re.test(text, pattern, flags) return regex_of(pattern, flags):test(text) end
--- match(text, pattern, flags?) -> captures: [0], [1] ..., by name; false for a group that took no part | nil
function re.match(text, pattern, flags) return regex_of(pattern, flags):match(text) end
--- find(text, pattern, from?, flags?) -> first, last, captures | nil
function re.find(text, pattern, from, flags) return regex_of(pattern, flags):find(text, from) end
--- gmatch(text, pattern, flags?) -> iterator over captures
function re.gmatch(text, pattern, flags) return regex_of(pattern, flags):gmatch(text) end
--- gsub(text, pattern, replacement, flags?, max?) -> text, how many
function re.gsub(text, pattern, replacement, flags, max) return regex_of(pattern, flags):gsub(text, replacement, max) end
--- split(text, pattern, flags?, max?) -> list
function re.split(text, pattern, flags, max) return regex_of(pattern, flags):split(text, max) end

-- ---------------------------------------------------------------- in a stream

local WINDOW = 64 * 1024 -- bytes that a match may have: it is looked for no further

-- Where a match may begin to be sought again in what is kept: what stands before is for looking behind, and says that here is no start.
local function trim(state, regex)
  local behind = math.max(1, regex.lookbehind * (regex.utf and 4 or 1))
  local cut = math.min(state.given, state.at) - behind
  if cut <= 0 then return end
  state.text = sub(state.text, cut + 1)
  state.given, state.at = state.given - cut, state.at - cut
end

-- Half a character at the end of a piece waits for its other half.
local function append(state, regex, piece)
  state.wants, state.ended = false, piece == nil
  state.text = state.text .. state.half .. (piece or "")
  state.half = ""
  if piece == nil or not regex.utf then return end
  local from, lead = state.text:match "()([\194-\244])[\128-\191]*$"
  if not from then return end
  local byte = lead:byte()
  local needed = byte < 0xe0 and 2 or byte < 0xf0 and 3 or 4
  if #state.text - from + 1 < needed and from > state.at then
    state.half, state.text = sub(state.text, from), sub(state.text, 1, from - 1)
  end
end

-- What stands between what was given already and `to`.
local function give(state, to)
  local text = sub(state.text, state.given + 1, to)
  state.given = math.max(state.given, to)
  return text
end

-- One look: text, captures | text | nil for "more is needed".
local function look(state, regex)
  local text = state.text
  local rc = C.tg_abi_regex_match(regex.handle, text, #text, state.at, state.ended and 0 or PARTIAL)
  if rc ~= 0 and rc ~= abi.ENONE and rc ~= abi.AGAIN then limit(regex, rc) end
  if rc == abi.ENONE then
    state.at = #text
    return give(state, #text), nil
  end
  local at = C.tg_abi_regex_offsets()
  local first, last = tonumber(at[0]), tonumber(at[1])
  if rc == 0 then
    local captures = captures_of(regex, text)
    local before = give(state, first)
    state.given, state.at = last, last
    return before, captures
  end
  if #text - first > WINDOW then first = step(regex, text, first) end
  state.at = first
  return give(state, first), nil
end

--- matches(read, pattern, flags?) -> iterator over text, captures: all that read() gives, in order; captures of the match behind that text,
-- nil when there is none yet. Matches are found across the borders of pieces, up to 64 KiB long.
function re.matches(read, pattern, flags)
  local regex = regex_of(pattern, flags)
  if regex.empty then misuse(("the pattern %q matches nothing at all, which is everywhere"):format(regex.pattern)) end
  local state = { text = "", half = "", given = 0, at = 0, ended = false, wants = true }
  return function()
    while true do
      if state.wants then
        if state.ended then return nil end
        local piece = read()
        trim(state, regex)
        append(state, regex, piece)
      end
      local text, captures = look(state, regex)
      -- Nothing more can be said of what is there; or a match was given up, and the next place is looked at.
      state.wants = not captures and #state.text - state.at <= WINDOW
      if text ~= "" or captures then return text, captures end
    end
  end
end

return re
