describe("cidr", function()
  it("holds the addresses of its networks and no other", function()
    for _, case in ipairs {
      { { "10.0.0.0/8", "::1" }, { "10.0.0.0", "10.255.255.255", "::1", "::ffff:10.1.2.3", "0:0::1" }, { "11.0.0.0", "::2", "9.255.255.255" } },
      { "192.0.2.1", { "192.0.2.1" }, { "192.0.2.0", "192.0.2.2", "::192.0.2.1" } },
      { { "2001:db8::/32", "2001:db8:1::/48" }, { "2001:DB8::", "2001:db8:ffff::1" }, { "2001:db9::", "2001:db7:ffff::" } },
      { { "0.0.0.0/0" }, { "1.2.3.4" }, { "::", "::1" } }, { { "::/0" }, { "::", "ffff::" }, { "0.0.0.0", "::ffff:1.2.3.4" } },
      { { "10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16" }, { "10.1.1.1", "10.200.0.0" }, { "11.1.1.1" } }, { {}, {}, { "10.0.0.1", "::" } },
    } do
      local set = tg.cidr(case[1])
      for _, ip in ipairs(case[2]) do expect(ip .. tostring(set:contains(ip))):equals(ip .. "true") end
      for _, ip in ipairs(case[3]) do expect(ip .. tostring(set:contains(ip))):equals(ip .. "false") end
    end
  end)

  it("holds nothing that is no address", function()
    local set = tg.cidr { "0.0.0.0/0", "::/0" }
    for _, text in ipairs { "", "x", "1.2.3", "1.2.3.4.5", "1.2.3.4 ", " 1.2.3.4", "01.2.3.4", "256.1.1.1", "1.2.3.4/32",
      "[::1]", "::1%lo", "1.2.3.4\0", "::g", ("1"):rep(100), "1.2.3.4:80" } do
      expect(set:contains(text)):equals(false)
    end
    for _, bad in ipairs { 5, {}, true } do
      expect(function() set:contains(bad) end):raises "needs an address as text"
    end
    expect(function() set:contains() end):raises "found a nil"
  end)

  it("names the entry that is none", function()
    for _, case in ipairs {
      { { "10.0.0.0/8", "10.0.0.1/8" }, '[2]: found "10.0.0.1/8" with bits behind the prefix, expected "10.0.0.0/8"' },
      { { "10.0.0.0/33" }, '[1]: found "10.0.0.0/33", expected a prefix of 0 to 32 bits' }, { { "localhost" }, '[1]: found "localhost"' },
      { { "" }, "[1]: found" }, { "10.0.0.0/", '[1]: found "10.0.0.0/"' }, { { "::/129" }, "0 to 128 bits" }, { { "10.0.0.0/8\0" }, "[1]: found" },
      { { 5 }, "[1]: found a number" }, { { "::1", nil, "::2" }, "[2]: found a nil" }, { { allow = "::1" }, 'the key "allow"' },
      { nil, "found a nil" },
      { { { "::1" } }, "[1]: found a table" },
    } do
      expect(function() tg.cidr(case[1]) end):raises(case[2])
    end
  end)

  it("takes what the schema gives", function()
    local schema, report = require "runtime.schema", require("runtime.report").new()
    local conf = schema.apply({ allow = t.list(t.cidr()) }, { allow = { "10.0.0.0/8", "::1" } }, { report = report, at = "x", path = {} })
    expect(tg.cidr(conf.allow):contains "10.9.9.9"):is_true()
  end)

  it("gives what one client is likely to have of the addresses", function()
    for ip, network in pairs {
      ["192.0.2.7"] = "192.0.2.7", ["::ffff:192.0.2.7"] = "192.0.2.7", ["2001:db8:1:2:3:4:5:6"] = "2001:db8:1:2::/64", ["::1"] = "0:0:0:0::/64",
      ["2001:db8::1"] = "2001:db8:0:0::/64", ["2001:0DB8:0:1::"] = "2001:db8:0:1::/64", ["nonsense"] = "nonsense", ["1:2:3"] = "1:2:3",
    } do
      expect(tg.network(ip)):equals(network)
    end
    expect(tg.network("2001:db8:1:2:3:4:5:6", 48)):equals "2001:db8:1::/48"
    expect(tg.network("2001:db8::6", 128)):equals "2001:db8:0:0:0:0:0:6/128"
    expect(function() tg.network("::1", 65) end):raises "bits"
  end)

  it("takes a hundred thousand networks in any order, and answers fast", function()
    local list, seed = {}, 1
    for i = 1, 100000 do
      seed = (seed * 16807) % 2147483647
      list[i] = ("%d.%d.%d.%d/31"):format(seed % 251, i % 256, math.floor(i / 256) % 256, seed % 128 * 2)
    end
    local began = os.clock()
    local set = tg.cidr(list)
    local built = os.clock() - began
    began = os.clock()
    local found = 0
    for i = 1, 100000 do
      if set:contains((list[i]:gsub("/31", ""))) then found = found + 1 end
    end
    expect(found):equals(100000)
    expect(set:contains "255.1.1.1"):equals(false)
    -- Generous: a list that was searched from its begin, or sorted anew for each, would take minutes.
    expect(built < 5):is_true()
    expect(os.clock() - began < 5):is_true()
  end)
end)
