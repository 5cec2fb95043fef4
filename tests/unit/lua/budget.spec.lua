local budget = require "runtime.budget"

local function count(text)
  local counting = budget.instrument(text)
  if not counting then return 0 end
  local _, n = counting:gsub("__poll%(%)", "")
  return n
end

local function run(text)
  local turns = 0
  local function poll()
    turns = turns + 1
    if turns > 3 then error "over" end
    return 10
  end
  local env = setmetatable({ __poll = poll }, { __index = _G })
  return pcall(assert(load(assert(budget.instrument(text)), "x", "t", env)))
end

describe("the budget of a plugin", function()
  it("counts the turns of every kind of loop", function()
    for _, loop in ipairs {
      "while true do end", "repeat until false", "for i = 1, math.huge do end", "for _ in function() return 1 end do end",
      "::again:: goto again", "while (function() for i = 1, 2 do end return true end)() do end", "repeat local x = 1 until x == 2",
      "while true do pcall(function() while true do end end) end",
    } do
      local ok, err = run(loop)
      expect(ok):equals(false)
      expect(tostring(err)):matches "over"
    end
  end)

  it("leaves everything else as it is, line by line", function()
    expect(count "local x = { ['do'] = 1 } x.repeat_ = 2 return x"):equals(0)
    expect(count "-- while true do\n--[[ repeat ]] return 'for do', \"while do \\\" do\", [==[ repeat ]] ]==]"):equals(0)
    expect(count "do local a = 1 end if x then else end"):equals(0)
    expect(count "t.repeat_ = 1 local dofile, ended = 1, 2"):equals(0)
    expect(count "for i = 1, 2 do do local x end end"):equals(1)
    local text = "local n = 0\nfor i = 1, 3 do\n  n = n + i\nend\nerror 'here'\n"
    local _, err = pcall(assert(load(budget.instrument(text), "@x.lua")))
    expect(err):equals "x.lua:5: here"
  end)

  it("does not harm a program that is at the limits of the language", function()
    local names = {}
    for i = 1, 196 do names[i] = "local v" .. i .. " = 1" end
    local f = budget.load(table.concat(names, "\n") .. "\nfor i = 1, 2 do end return 5", "x")
    expect(f()):equals(5)
  end)

  it("leaves a file alone that says so before its first line of code, and no other text", function()
    local loop = "for i = 1, 5000 do end return 5"
    local function polls(text, guarded)
      local ok, err = pcall(budget.load(text, "x", guarded)) -- there is no __poll here, so that asking it raises
      if not ok then expect(tostring(err)):matches "__poll" end
      return not ok
    end
    expect(polls("--- a plugin\n\n--  guard=false\n" .. loop)):equals(false)
    expect(polls("#!/usr/bin/env x\n-- guard = false\n" .. loop)):equals(false)
    expect(polls("-- guard = false\n" .. loop, true)):equals(true)
    expect(polls("-- guard = falsehood\n" .. loop)):equals(true)
    expect(polls("local x = 1\n-- guard = false\n" .. loop)):equals(true)
    expect(polls("local x = [[\n-- guard = false\n]]\n" .. loop)):equals(true)
  end)
end)
