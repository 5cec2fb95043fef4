local kinds = require "tidegate.limit_kinds"

-- A record as the core has it, but of tables.
local function record() return { count = 0, was = { [0] = 0, 0, 0 }, next = {}, next_count = 0, ttl = 0 } end

local function swap(r)
  r.count, r.was, r.next = r.next_count, r.next, {}
end

local function limit_of(algorithm, rate, per, more)
  local one = { algorithm = algorithm, rate = rate, per = per, speed = rate / per, burst = algorithm == "gcra" and (more or rate) or nil }
  if algorithm == "leaky" then one.delay = more or 1 end
  return one
end

local function taker(one)
  local r, kind = record(), kinds[one.algorithm]
  return function(at, cost, charge)
    local ok, left, retry, reset, wait = kind.take(r, one, cost or 1, at, at)
    if (ok or charge) and cost ~= 0 then swap(r) end
    return ok, left, retry, reset, wait
  end, r
end

-- Requests at random moments: { time, cost }, always the same.
local function traffic(seed, n, pause)
  local list, at = {}, 1000.25
  for i = 1, n do
    seed = (seed * 16807) % 2147483647
    at = at + (seed % 1000) / 500 * pause
    list[i] = { at, seed % 7 == 0 and 3 or 1 }
  end
  return list
end

-- The most that passed in any window of `per` that begins with one of them.
local function most_in_any_window(passed, per)
  local most = 0
  for i = 1, #passed do
    local sum = 0
    for k = i, #passed do
      if passed[k][1] - passed[i][1] >= per then break end
      sum = sum + passed[k][2]
    end
    most = math.max(most, sum)
  end
  return most
end

local function run(one, list)
  local take, passed = taker(one), {}
  for _, request in ipairs(list) do
    if take(request[1], request[2]) then passed[#passed + 1] = request end
  end
  return passed
end

describe("limit", function()
  it("gcra lets `burst` through at once and `rate` in the long run, to the unit", function()
    local take = taker(limit_of("gcra", 100, 1, 20))
    for i = 1, 20 do
      local ok, left, _, reset = take(5)
      expect(ok):is_true()
      expect(left):equals(20 - i)
      expect(math.abs(reset - i / 100) < 1e-9):is_true()
    end
    local ok, left, retry = take(5)
    expect(ok):equals(false)
    expect(left):equals(0)
    expect(math.abs(retry - 0.01) < 1e-9):is_true()
    local passed = 0
    for i = 1, 100000 do
      if take(5 + i / 1000) then passed = passed + 1 end
    end
    expect(passed):equals(10000)
  end)

  it("gcra never lets more than burst and rate through in any time", function()
    local list = traffic(7, 4000, 0.005)
    for _, per in ipairs { 0.1, 0.5, 1, 3 } do
      local passed = run(limit_of("gcra", 60, 1, 15), list)
      expect(most_in_any_window(passed, per) <= 15 + 60 * per + 1e-6):is_true()
      expect(#passed > 500):is_true()
    end
  end)

  it("log is exact in every window", function()
    local list = traffic(11, 4000, 0.005)
    local passed, naive, model = run(limit_of("log", 50, 1), list), {}, 0
    for _, request in ipairs(list) do
      local used = 0
      for i = #naive, 1, -1 do
        if naive[i][1] <= request[1] - 1 then break end
        used = used + naive[i][2]
      end
      if used + request[2] <= 50 then
        naive[#naive + 1], model = request, model + 1
      end
    end
    expect(#passed):equals(model)
    for i = 1, #passed do expect(passed[i]):equals(naive[i]) end
    expect(most_in_any_window(passed, 1) <= 50):is_true()
  end)

  it("fixed never lets more than the limit through in a window, sliding neither", function()
    local list = traffic(13, 6000, 0.004)
    for _, algorithm in ipairs { "fixed", "sliding" } do
      local sums = {}
      for _, request in ipairs(run(limit_of(algorithm, 40, 1), list)) do
        local window = math.floor(request[1])
        sums[window] = (sums[window] or 0) + request[2]
      end
      for _, sum in pairs(sums) do expect(sum <= 40):is_true() end
    end
  end)

  it("sliding lets nothing through around the border that fixed would", function()
    local function around_the_border(algorithm)
      local take, passed = taker(limit_of(algorithm, 100, 10)), 0
      for i = 1, 400 do
        if take(19 + i / 200) then passed = passed + 1 end
      end
      return passed
    end
    expect(around_the_border "fixed"):equals(200)
    local passed = around_the_border "sliding"
    expect(passed >= 110 and passed <= 111):is_true()
  end)

  it("each says how long to wait, not a moment too short nor too long", function()
    for _, one in ipairs {
      limit_of("gcra", 30, 1, 10), limit_of("fixed", 30, 1), limit_of("sliding", 30, 1), limit_of("log", 30, 1), limit_of("leaky", 30, 1, 0.2),
    } do
      local take, r = taker(one)
      local refused = 0
      for _, request in ipairs(traffic(17, 3000, 0.007)) do
        local at, cost = request[1], request[2]
        local ok, _, retry = take(at, cost)
        if not ok then
          local function would_pass(moment) return (kinds[one.algorithm].take(r, one, cost, moment, moment)) end
          refused = refused + 1
          expect(retry > 0 and retry <= 2):is_true()
          expect(would_pass(at + retry * 0.98 - 1e-6)):equals(false)
          expect(would_pass(at + retry + 1e-6)):is_true()
        end
      end
      expect(refused > 100):is_true()
    end
  end)

  it("leaky makes those wait that come too early, one after the other", function()
    local take = taker(limit_of("leaky", 10, 1, 0.35))
    for i = 0, 3 do
      local ok, _, _, _, wait = take(7)
      expect(ok):is_true()
      expect(math.abs(wait - i * 0.1) < 1e-9):is_true()
    end
    local ok, _, retry = take(7)
    expect(ok):equals(false)
    expect(math.abs(retry - 0.05) < 1e-9):is_true()
  end)

  it("costs more than one, and only looks for 0", function()
    for _, algorithm in ipairs { "gcra", "fixed", "sliding", "log" } do
      local take = taker(limit_of(algorithm, 10, 1))
      expect((take(3, 6))):is_true()
      expect(select(2, take(3, 0))):equals(4)
      expect((take(3, 5))):equals(false)
      expect((take(3, 4))):is_true()
      expect(select(2, take(3, 0))):equals(0)
      expect((select(3, take(3, 11)))):equals(math.huge)
    end
  end)

  it("charges what is refused when asked to, and becomes free again", function()
    for _, algorithm in ipairs { "gcra", "fixed", "sliding", "log" } do
      local take = taker(limit_of(algorithm, 10, 1))
      expect((take(3, 10, true))):is_true()
      for _ = 1, 100 do expect((take(3, 1, true))):equals(false) end
      expect((take(3 + 12, 10, true))):is_true()
    end
  end)

  it("is charged more or given back afterwards", function()
    for _, algorithm in ipairs { "gcra", "fixed", "sliding", "log" } do
      local one = limit_of(algorithm, 10, 1)
      local take, r = taker(one)
      take(3, 6)
      kinds[algorithm].add(r, one, -4, 3, 3)
      swap(r)
      expect(select(2, take(3, 0))):equals(8)
      kinds[algorithm].add(r, one, 20, 3, 3)
      swap(r)
      expect((take(3, 1))):equals(false)
      kinds[algorithm].add(r, one, -100, 3, 3)
      swap(r)
      expect((take(3, 10))):is_true()
      expect(kinds[algorithm].used(r, one, 3, 3)):equals(10)
    end
  end)

  it("goes on with what was counted when the rate changes", function()
    for _, algorithm in ipairs { "gcra", "fixed", "sliding", "log" } do
      local take, r = taker(limit_of(algorithm, 10, 10))
      take(3, 8)
      local small, large = limit_of(algorithm, 5, 10), limit_of(algorithm, 20, 10)
      expect((kinds[algorithm].take(r, small, 1, 3, 3))):equals(false)
      expect((kinds[algorithm].take(r, large, 12, 3, 3))):is_true()
      expect((kinds[algorithm].take(r, large, 13, 3, 3))):equals(false)
    end
  end)

  it("copes with a clock that is a little ahead, and with one that was set back", function()
    for _, algorithm in ipairs { "fixed", "sliding" } do
      local take = taker(limit_of(algorithm, 10, 10))
      take(1000.001, 10) -- this worker's clock is in the next window already
      expect((take(999.999))):equals(false)
      expect((take(500))):is_true()
    end
    local take = taker(limit_of("gcra", 10, 10))
    take(1000.5, 10)
    expect((take(1000.4))):equals(false)
  end)
end)
