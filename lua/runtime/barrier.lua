--- barrier: what LuaJIT cannot compile in a plugin must not keep it from compiling the runtime around the plugin.
-- A trace that runs into such an instruction is given up with all that leads to it, and after some tries the functions on the way are never
-- tried again: one handler that makes a closure would slow down all routes of its worker. At a barrier the trace ends and another one begins
-- behind it, so that only that one is given up.
local util = require "jit.util"
local band, type, pairs = bit.band, type, pairs

local barrier = {}
local DEPTH_MAX = 4 -- functions that are upvalues of functions

local function operation(f, at) return band(util.funcbc(f, at), 0xff) end

-- Their numbers differ from version to version of LuaJIT: a closure is made, and one of a loop is let go of.
local FNEW = operation(function() return function() end end, 1)
local UCLO
do
  local f = function(n)
    for i = 1, n do n = function() i = i + 1 end end
    return n
  end
  for at = 1, util.funcinfo(f).bytecodes - 1 do
    if operation(f, at) == FNEW then UCLO = operation(f, at + 1) end
  end
end

local known = setmetatable({}, { __mode = "k" })

local function uncompiled(f, depth)
  local info = util.funcinfo(f)
  if not info.bytecodes then return false end -- of C
  for at = 1, info.bytecodes - 1 do
    local op = operation(f, at)
    if op == FNEW or op == UCLO then return true end
  end
  if depth == DEPTH_MAX then return false end
  for i = 1, info.upvalues do
    local _, value = debug.getupvalue(f, i)
    if type(value) == "function" and value ~= f and uncompiled(value, depth + 1) then return true end
  end
  return false
end

--- needed(f) -> whether f, or a function that it refers to by an upvalue, has instructions that are not compiled
function barrier.needed(f)
  if known[f] == nil then known[f] = uncompiled(f, 1) end
  return known[f]
end

--- forget(): nobody asks any more.
function barrier.forget()
  for f in pairs(known) do known[f] = nil end
end

--- pass(): the barrier. Any function of C that LuaJIT does not know does; this one does nearly nothing.
barrier.pass = debug.getregistry

return barrier
