describe("uuid", function()
  it("has the form of its version", function()
    for version, make in pairs { ["4"] = tg.uuid.v4, ["7"] = tg.uuid.v7 } do
      local seen = {}
      for _ = 1, 2000 do
        local text = make()
        expect(text:match "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-(%x)%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"):equals(version)
        expect(text):equals(text:lower())
        expect(seen[text]):is_nil()
        seen[text] = true
      end
    end
  end)

  it("of version 7 begins with the milliseconds since 1970", function()
    local before = os.time()
    local seconds = tonumber((tg.uuid.v7():gsub("-", ""):sub(1, 12)), 16) / 1000
    expect(seconds >= before - 1 and seconds <= os.time() + 2):is_true()
  end)

  it("of version 7 is always greater than the one before, and cannot be guessed from it", function()
    local last, tails, random = "", {}, 0
    for _ = 1, 50000 do
      local text = tg.uuid.v7()
      expect(text > last):is_true()
      local tail = text:sub(-8)
      if not tails[tail] then random = random + 1 end
      last, tails[tail] = text, true
    end
    expect(random > 49900):is_true()
  end)
end)
