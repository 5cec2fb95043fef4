local consumer_list = require "tidegate.consumer_list"

local NOTHING = {}

local function like(more)
  local consumer = { groups = {}, labels = NOTHING, meta = NOTHING }
  for name, value in pairs(more or {}) do consumer[name] = value end
  return consumer
end

describe("consumer_list", function()
  it("gives what was added, of many and of few", function()
    local list, places = consumer_list.new(), {}
    for i = 1, 5000 do
      local more = i % 7 == 0 and { username = "user " .. i, plan = "large", meta = { i = i } } or nil
      local consumer = like(more)
      consumer.groups = { "g" .. i % 3, "all" }
      places[i] = list:add("c" .. i, consumer)
    end
    for _ = 1, 2 do
      for i = 5000, 1, -1 do
        local found = list.at(places[i])
        expect(list:place("c" .. i)):equals(places[i])
        expect(found.id):equals("c" .. i)
        expect(found.groups):equals { "g" .. i % 3, "all" }
        expect(found.username):equals(i % 7 == 0 and "user " .. i or nil)
        expect(found.meta.i):equals(i % 7 == 0 and i or nil)
      end
    end
    expect(list:place "c0"):is_nil()
    local count = 0
    for consumer in list:each() do
      count = count + 1
      expect(consumer.id):equals("c" .. count)
    end
    expect(count):equals(5000)
  end)

  it("keeps the same groups once, and of few consumers each object", function()
    local list = consumer_list.new()
    local a, b = list:add("a", like { groups = { "x", "y" } }), list:add("b", like { groups = { "x", "y" }, plan = "small" })
    expect(list.at(a).groups == list.at(b).groups):is_true()
    expect(list.at(a) == list.at(a)):is_true()
    expect(list.at(b) == list.at(b)):is_true()
    expect(list.at(b).plan):equals "small"
    expect(list.at(a).plan):is_nil()
    expect(function() list.at(a).meta.x = 1 end):raises "read-only"
  end)

  it("has each id once, and knows the file that it is in", function()
    local list = consumer_list.new()
    expect(list:add("a", like(), "one.json") ~= nil):is_true()
    expect(list:add("b", like(), "two.json") ~= nil):is_true()
    expect(list:add("c", like()) ~= nil):is_true()
    expect(list:add("a", like { plan = "large" }, "two.json")):is_nil()
    expect(list.at(list:place "a").plan):is_nil()
    expect(list:file_of "a"):equals "one.json"
    expect(list:file_of "b"):equals "two.json"
    expect(list:file_of "c"):is_nil()
    expect(list:file_of "d"):is_nil()
  end)
end)
