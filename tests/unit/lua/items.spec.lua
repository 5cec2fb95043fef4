local stream = require "tidegate.stream"

local function items(text, size, path)
  local at = 1
  local input = stream.input(function()
    if at > #text then return nil end
    local piece = text:sub(at, at + size - 1)
    at = at + size
    return piece
  end)
  local found = {}
  for item in input:items(path) do found[#found + 1] = item end
  return found
end

describe("items", function()
  it("come one by one, however the text is cut", function()
    local cases = {
      { "[1, \"a,]\\\"\" ,[2,[3]],{\"a\":[4]} , null]", nil, { 1, "a,]\"", { 2, { 3 } }, { a = { 4 } }, tg.null } },
      { '{"x":[9],"data":{"no":[8],"items":[{"id":1},{"id":2}],"more":[7]},"items":[6]}', "data.items", { { id = 1 }, { id = 2 } } },
      { '{"items":"[1]","data":{"items":5},"deep":{"items":[1]},"items2":[2]}', "deep.items", { 1 } },
      { '{"a":{"a":{"b":[1]},"b":[2]},"b":[3]}', "a.b", { 2 } },
      { '{"a":["a",["b"]],"b":[3]}', "b", { 3 } },
      { "[]", nil, {} }, { " [ ] ", nil, {} }, { '{"a":[ ]}', "a", {} }, { "[[]]", nil, { {} } }, { '[ "x" ]', nil, { "x" } }, { "[1]", nil, { 1 } },
    }
    for _, case in ipairs(cases) do
      for size = 1, #case[1] do expect(items(case[1], size, case[2])):equals(case[3]) end
    end
  end)

  it("raise for what is no such array", function()
    for text, part in pairs {
      ['{"a":1}'] = "before its array", [""] = "before its array", ["[1,2"] = "within its array", ["[1}"] = "brackets that do not fit",
      ["[01]"] = "is no number", ["[1,,2]"] = "brackets that do not fit", [("["):rep(70)] = "too many of them",
    } do
      for size = 1, #text + 1 do expect(function() items(text, size) end):raises(part) end
    end
  end)
end)
