local histogram = require "tidegate.histogram"

describe("histogram", function()
  it("says nothing while little is known", function()
    local h = histogram.new()
    for _ = 1, 19 do h:add(0.1) end
    expect(h:quantile(0.5)):is_nil()
  end)

  it("gives quantiles within a fifth", function()
    local h = histogram.new()
    for i = 1, 100 do h:add(i / 100) end
    for _, q in ipairs { 0.5, 0.9, 0.95 } do
      local value = h:quantile(q)
      expect(value >= q * 0.99 and value <= q * 1.21):is_true()
    end
  end)

  it("forgets", function()
    local h = histogram.new()
    for _ = 1, 900 do h:add(5) end
    for _ = 1, 8000 do h:add(0.01) end
    expect(h:quantile(0.95) < 0.02):is_true()
    h:add(1e9)
    h:add(0)
  end)
end)
