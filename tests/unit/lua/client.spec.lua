local client = require "tool.client"

describe("tool.client", function()
  it("shows nothing that a terminal would obey", function()
    expect(client.clean "a\27[2J\r\n\0b\127"):equals "a?[2J???b?"
    expect(client.clean "caf\195\169 \194\1552J"):equals "caf\195\169 ?2J"
  end)

  it("sets numbers to the right and counts characters", function()
    local lines = client.columns { { "NAME", "N" }, { "caf\195\169s", 7 }, { "b", 1234 } }
    expect(table.concat(lines, "\n")):equals "NAME      N\ncaf\195\169s     7\nb      1234"
  end)

  it("takes options in both forms", function()
    local kinds = { json = "flag", count = "number", route = "text" }
    local options = client.options("tail", kinds, "--json", "--count=3", "--route", "a=b", "--control", "/x")
    expect(options.json):equals(true)
    expect(options.count):equals(3)
    expect(options.route):equals "a=b"
    expect(options.control):equals "/x"
  end)
end)
