local consumers = {
  ann = { groups = { "gold", "staff" }, meta = { role = "admin", realm = { roles = { "a", "b" } } }, credentials = { key = "ann" } },
  bob = { groups = { "silver" }, credentials = { key = "bob" } },
}

local function statuses(rules, method)
  rules[1] = "acl"
  local gw = test.gateway { consumer = consumers, to = test.upstream(200), use = { "key-auth", rules } }
  local found = {}
  for _, name in ipairs { "ann", "bob" } do found[name] = gw:request(method or "GET", "/", { headers = { ["X-Api-Key"] = name } }).status end
  return found
end

describe("acl", function()
  it("allows and denies groups", function()
    expect(statuses { allow = { "gold", "bronze" } }):equals { ann = 200, bob = 403 }
    expect(statuses { deny = { "staff" } }):equals { ann = 403, bob = 200 }
    expect(statuses { allow = { "gold" }, deny = { "staff" } }):equals { ann = 403, bob = 403 }
    expect(statuses { consumers = { "bob" } }):equals { ann = 403, bob = 200 }
  end)

  it("looks at claims, also in lists", function()
    expect(statuses { claims = { role = { "admin" } } }):equals { ann = 200, bob = 403 }
    expect(statuses { claims = { ["realm.roles"] = { "b" } } }):equals { ann = 200, bob = 403 }
    expect(statuses { claims = { ["realm.roles"] = { "c" } } }):equals { ann = 403, bob = 403 }
  end)

  it("may be about some methods", function()
    expect(statuses({ allow = { "gold" }, methods = { "DELETE" } }, "GET")):equals { ann = 200, bob = 200 }
    expect(statuses({ allow = { "gold" }, methods = { "DELETE" } }, "DELETE")):equals { ann = 200, bob = 403 }
  end)

  it("needs somebody", function()
    local gw = test.gateway { consumer = consumers, to = test.upstream(200), use = { { "acl", allow = { "gold" } } } }
    expect(gw:get("/").status):equals(401)
    expect(function() test.gateway { to = test.upstream(200), use = { "acl" } } end):raises "needs one of"
  end)
end)
