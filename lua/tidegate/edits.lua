--- edits: changes of headers, judged and prepared once a generation: those that are always the same become one call of the core.
-- What is left for Lua is put down as one straight line: a loop with a few turns keeps LuaJIT from compiling the functions around it.
local abi = require "abi"

local type, error, tostring = type, error, tostring
local SET, ADD, REMOVE, RENAME, SET_ID = abi.EDIT.set, abi.EDIT.add, abi.EDIT.remove, abi.EDIT.rename, abi.EDIT.set_id
local edits = {}

local Edits = {}
Edits.__index = Edits

local function check_name(name)
  if type(name) ~= "string" then error("tg.edits: the name of a header is a text, found a " .. type(name), 4) end
end

-- All changes in their order: { kind, name, value }.
local function list_of(changes)
  local list = {}
  local function each(map, kind)
    local names = {}
    for name in pairs(map or {}) do
      check_name(name)
      names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do list[#list + 1] = { kind, name, map[name] } end
  end
  for _, name in ipairs(changes.remove or {}) do
    check_name(name)
    list[#list + 1] = { REMOVE, name }
  end
  each(changes.rename, RENAME)
  each(changes.set, SET)
  each(changes.add, ADD)
  return list
end

-- The same by what any message can do: of an exchange that is looked at, and not changed.
local function applied_one_by_one(list)
  local function one(message, edit)
    local headers, kind, name = message.headers, edit[1], edit[2]
    if kind == SET then
      headers[name] = edit[3]
    elseif kind == SET_ID then
      local x = abi.vm.exchange
      if x ~= nil and x.id.n > 0 then headers[name] = abi.string(x.id.p, x.id.n) end
    elseif kind == ADD then
      message:add_header(name, edit[3])
    else
      local value = kind == RENAME and headers[name]
      if value or kind == REMOVE then headers[name] = nil end
      if value then headers[edit[3]] = value end
    end
  end
  return function(message)
    for _, edit in ipairs(list) do one(message, edit) end
  end
end

local words = { [SET] = "set", [ADD] = "added", [REMOVE] = "removed", [RENAME] = "renamed", [SET_ID] = "set" }

local function prepare(list)
  local prepared, edit, rc = abi.edits(list)
  if not prepared and rc == abi.EINVAL then
    error(("header %q cannot be %s%s: hop-by-hop and framing fields are the gateway's own, a name is a token, and a value has no control bytes")
      :format(edit[2], words[edit[1]], edit[1] == RENAME and (" to %q"):format(edit[3]) or ""), 0)
  elseif not prepared then
    error("tg.edits: " .. abi.code(rc), 0)
  end
  return { prepared = prepared, apply = applied_one_by_one(list) }
end

local closed = false -- the generation is built, and its requests borrow from what was made
local made = {} -- text of a program -> its function: those that are alike are one to the JIT compiler

-- The steps as text, with the places of its values left open, and these.
local function compile(list)
  local steps, constant = {}, nil
  local function close()
    if not constant then return end
    steps[#steps + 1] = { text = "  message:edit(v%d)\n", values = { prepare(constant) } }
    constant = nil
  end
  for _, edit in ipairs(list) do
    if type(edit[3]) == "function" then
      close()
      prepare { { edit[1], edit[2], "" } } -- its name is judged now
      local put = edit[1] == SET and "message.headers[v%d] = value" or "message:add_header(v%d, value)"
      steps[#steps + 1] = { text = "  value = v%d(ctx)\n  if value then " .. put .. " end\n", values = { edit[3], edit[2] } }
    else
      constant = constant or {}
      constant[#constant + 1] = edit
    end
  end
  close()
  return steps
end

local PART = 25 -- steps in one function: each takes up to two upvalues of the sixty that LuaJIT allows

-- All steps as one function, of parts each of which goes on with the next one.
local function link(steps)
  local run
  for first = math.floor((#steps - 1) / PART) * PART + 1, 1, -PART do
    local lines, names, values = {}, {}, {}
    for i = first, math.min(first + PART - 1, #steps) do
      lines[#lines + 1] = steps[i].text:format(#values + 1, #values + 2)
      for _, value in ipairs(steps[i].values) do
        values[#values + 1] = value
        names[#names + 1] = "v" .. #values
      end
    end
    local text = ("local rest, %s = ...\nreturn function(ctx, message)\n  local value\n%s%send\n"):format(table.concat(names, ", "),
      table.concat(lines), run and "  return rest(ctx, message)\n" or "")
    made[text] = made[text] or assert(loadstring(text, "=edits"))
    run = made[text](run, unpack(values))
  end
  return run
end

local function nothing() end

local known = { remove = true, rename = true, set = true, add = true }

--- new { remove?, rename?, set?, add? } -> edits
function edits.new(changes)
  if closed then error("tg.edits is made in set-up, once, and not for a request", 3) end
  if type(changes) ~= "table" then error("tg.edits needs a table, found a " .. type(changes), 3) end
  for key, map in pairs(changes) do
    if not known[key] then error(("tg.edits: unknown %q; known are remove, rename, set and add"):format(tostring(key)), 3) end
    if type(map) ~= "table" then error(("tg.edits: %s is a table, found a %s"):format(key, type(map)), 3) end
  end
  local list, text_of = list_of(changes), require("runtime.template").text_of
  for _, edit in ipairs(list) do
    edit[3] = type(edit[3]) == "function" and text_of(edit[3]) or edit[3]
    if edit[1] ~= REMOVE and type(edit[3]) ~= "string" and type(edit[3]) ~= "function" then
      error(("tg.edits: header %q needs a text, found a %s"):format(edit[2], type(edit[3])), 3)
    end
  end
  local constant = true
  for _, edit in ipairs(list) do constant = constant and type(edit[3]) ~= "function" end
  return setmetatable({ run = link(compile(list)) or nothing, idle = #list == 0, constant = constant and list or nil }, Edits)
end

--- close(): the generation is built. What was made later would not live as long as the requests that borrow from it.
function edits.close() closed, made = true, {} end

--- is(value) -> whether it was made by new
function edits.is(value) return getmetatable(value) == Edits end

--- join(list of edits that are constant) -> what the core does of all, one after the other
function edits.join(list)
  local all = {}
  for _, one in ipairs(list) do
    for _, edit in ipairs(one.constant) do all[#all + 1] = edit end
  end
  return prepare(all).prepared
end

--- id(name) -> edits: this header is set to the id of the exchange
function edits.id(name)
  local list = { { SET_ID, name } }
  return setmetatable({ run = link(compile(list)), idle = false, constant = list }, Edits)
end

--- told() -> edits: what was told of the exchange (tg_abi_tell) is set at this place
function edits.told()
  return setmetatable({ run = nothing, idle = false, constant = { { abi.EDIT.tell, "" } } }, Edits)
end

--- apply(ctx, message): all changes, in ctx.req or ctx.res.
function Edits:apply(ctx, message) self.run(ctx, message) end

return edits
