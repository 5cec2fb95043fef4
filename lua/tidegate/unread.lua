--- unread: objects of JSON as tables that are filled when somebody looks into them. Who only passes one on has its text, and pays for
-- neither tables nor numbers nor strings.
-- Lua 5.1 asks no metatable in `next` and `pairs`: those that all code of a generation sees are ours.
local getmetatable, setmetatable, rawget, rawset = getmetatable, setmetatable, rawget, rawset
local next_of, type, error, find = next, type, error, string.find

-- fill(table, text): puts the members of a checked object into the table; set by json. next_of: the language's own `next`, for who knows
-- that a table is settled.
local unread = { fill = nil, next_of = next_of }

local TEXT = {} -- the key of the text in a table that is not filled yet
local Unread = {}

--- settle(value): a table that was unread is filled, and is a table like any other from now on.
local function settle(value)
  if getmetatable(value) ~= Unread then return end
  local text = rawget(value, TEXT)
  setmetatable(value, nil)
  rawset(value, TEXT, nil)
  unread.fill(value, text)
end
unread.settle = settle

function Unread.__index(self, key)
  settle(self)
  return self[key]
end

function Unread.__newindex(self, key, value)
  settle(self)
  self[key] = value
end

--- new(text) -> table; the text is a checked object without blanks before it.
function unread.new(text)
  return (setmetatable({ [TEXT] = text }, Unread))
end

--- is(value) -> whether nobody has looked into it
function unread.is(value)
  return getmetatable(value) == Unread
end

--- text(value) -> the text that stands for an unread table | nil: it has to be looked into, since something was put into it by another
-- way than an assignment (table.insert), or since its text is of several lines, where encode makes one.
function unread.text(value)
  local text = rawget(value, TEXT)
  if next_of(value, TEXT) ~= nil or next_of(value) ~= TEXT or find(text, "\n", 1, true) or find(text, "\r", 1, true) then return nil end
  return text
end

local function check(name, t)
  if type(t) ~= "table" then error(("bad argument #1 to '%s' (table expected, got %s)"):format(name, type(t)), 3) end
end

--- Takes the place of `next`.
function unread.next(t, key)
  if key == nil then check("next", t) end
  settle(t)
  local name, value = next_of(t, key)
  return name, value
end

--- Takes the place of `pairs`.
function unread.pairs(t)
  check("pairs", t)
  settle(t)
  return next_of, t, nil
end

--- Those of the environments of plugins and configurations, where the language's own could show or lose what is not filled yet.
function unread.getmetatable(value)
  settle(value)
  return getmetatable(value)
end

function unread.setmetatable(t, meta)
  settle(t)
  return setmetatable(t, meta)
end

function unread.rawget(t, key)
  settle(t)
  return rawget(t, key)
end

function unread.rawset(t, key, value)
  settle(t)
  return rawset(t, key, value)
end

rawset(_G, "next", unread.next)
rawset(_G, "pairs", unread.pairs)

return unread
