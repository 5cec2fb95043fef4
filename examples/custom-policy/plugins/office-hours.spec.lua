describe("office-hours", function()
  it("lets pass while the office is open, and refuses else", function()
    local desk = test.upstream(200)
    local gw = test.gateway { route = {
      open = { path = "/open", to = desk, use = { { "office-hours", from = 0, to = 24 } } },
      closed = { path = "/closed", to = desk, use = { { "office-hours", from = 0, to = 0 } } },
    } }
    expect(gw:get("/open").status):equals(200)
    expect(gw:get("/closed").status):equals(503)
    expect(desk.requests):equals(1)
  end)
end)
