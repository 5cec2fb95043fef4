--- limit_kinds: the algorithms of limits, on lists of a few numbers: what was, what comes of it, and what is told of it.
-- A record has `count` numbers in `was`, from 0 on; take and add put what is to be in their place into `next`, `next_count` and `ttl`. `now`
-- is a monotonic clock, `wall` that of the days, both in seconds. The scripts of limit_script.lua do the same in Redis.
local floor, ceil, max, min, abs, huge = math.floor, math.ceil, math.max, math.min, math.abs, math.huge

local kinds = {}
local NEARLY = 1e-9 -- what sums of fractions may be wrong by

local function put(r, ttl, a, b, c)
  local next = r.next
  next[0], next[1] = a, b
  if c then next[2] = c end
  r.next_count, r.ttl = c and 3 or 2, max(0.001, ttl)
end

-- ---------------------------------------------------------------- token bucket

-- What has not yet drained of a bucket: { level, when it was so }. The clock of another worker may be a little ahead.
-- Without branches, since all ways would be hot; where there is no record yet, both numbers are 0.
local function level_of(r, limit, now)
  local at = r.was[1]
  return max(0, r.was[0] - max(0, now - at) * limit.speed), (max(at, now))
end

-- The generic cell rate algorithm: `rate` in `per`, and `burst` at once.
local gcra = {}
kinds.gcra = gcra

function gcra.take(r, limit, cost, now)
  local level, at = level_of(r, limit, now)
  local burst, speed = limit.burst, limit.speed
  local after = level + cost
  if after <= burst + NEARLY then
    put(r, after / speed, after, at)
    return true, floor(burst - after + NEARLY), 0, after / speed, 0
  end
  local charged = min(after, 2 * burst)
  put(r, charged / speed, charged, at)
  return false, max(0, floor(burst - level + NEARLY)), cost <= burst and (after - burst) / speed or huge, level / speed, 0
end

function gcra.add(r, limit, amount, now)
  local level, at = level_of(r, limit, now)
  level = max(0, level + amount)
  put(r, level / limit.speed, level, at)
end

function gcra.used(r, limit, now)
  return (level_of(r, limit, now))
end

-- ---------------------------------------------------------------- leaky bucket

-- A queue that lets one through after the other; who would have to wait longer than `delay` is refused.
local leaky = { add = gcra.add, used = gcra.used }
kinds.leaky = leaky

function leaky.take(r, limit, cost, now)
  local level, at = level_of(r, limit, now)
  local speed = limit.speed
  local wait, after = level / speed, level + cost
  put(r, after / speed, after, at)
  if wait <= limit.delay + NEARLY then
    return true, max(0, floor((limit.delay - wait) * speed + NEARLY)), 0, after / speed, wait
  end
  return false, 0, wait - limit.delay, wait, 0
end

-- ---------------------------------------------------------------- windows

-- Number of the window, how much of it is over, and its distance from that of the record. `was[0]` is the number of the last one: the clock
-- of another worker may be a little ahead, but one that is far ahead was set back. Where there is no record, all numbers are 0.
local function window_of(r, limit, wall)
  local at = wall / limit.per
  local window, last = floor(at), r.was[0]
  if last == window + 1 then return last, 0, 0 end
  return window, at - window, window - last
end

-- 1 where two whole numbers are the same, otherwise 0: a factor in place of a branch, of which all ways would be hot as keys come and go.
local function same(a, b) return max(0, 1 - abs(a - b)) end

-- Counted from 0 in each window: up to twice the limit may pass around its border. { window, count }
local fixed = {}
kinds.fixed = fixed

local function count_of(r, age) return same(r.count, 2) * same(age, 0) * r.was[1] end

function fixed.take(r, limit, cost, _, wall)
  local window, part, age = window_of(r, limit, wall)
  local count = count_of(r, age)
  local left = (1 - part) * limit.per
  local after = count + cost
  put(r, left, window, after)
  if after <= limit.rate + NEARLY then return true, floor(limit.rate - after + NEARLY), 0, left, 0 end
  return false, max(0, floor(limit.rate - count + NEARLY)), cost <= limit.rate and left or huge, left, 0
end

function fixed.add(r, limit, amount, _, wall)
  local window, part, age = window_of(r, limit, wall)
  local count = count_of(r, age)
  put(r, (1 - part) * limit.per, window, max(0, count + amount))
end

function fixed.used(r, limit, _, wall)
  local _, _, age = window_of(r, limit, wall)
  return count_of(r, age)
end

-- The count of this window, and of the one before as much as is not yet over, as if it had come evenly: whole units of it, or a limit of 1
-- would be free only after two windows. { window, count, count before }
local sliding = {}
kinds.sliding = sliding

local function counts_of(r, age)
  local known, was = same(r.count, 3), r.was
  local this, last = known * same(age, 0), known * same(age, 1)
  return this * was[1], this * was[2] + last * was[1]
end

-- Seconds until there is room for `cost`: still in this window, or in the next one.
local function wait_of(limit, count, before, part, cost)
  local room = limit.rate - cost
  if room < 0 then return huge end
  if before > 0 and count <= room then return (max(0, 1 - (room - count + 1) / before - part) + NEARLY) * limit.per end
  return (1 - part + max(0, count > 0 and 1 - (room + 1) / count or 0) + NEARLY) * limit.per
end

function sliding.take(r, limit, cost, _, wall)
  local window, part, age = window_of(r, limit, wall)
  local count, before = counts_of(r, age)
  local used = floor(before * (1 - part)) + count
  put(r, (2 - part) * limit.per, window, count + cost, before)
  local left = (1 - part) * limit.per
  if used + cost <= limit.rate + NEARLY then return true, floor(limit.rate - used - cost + NEARLY), 0, left, 0 end
  return false, max(0, floor(limit.rate - used + NEARLY)), wait_of(limit, count, before, part, cost), left, 0
end

function sliding.add(r, limit, amount, _, wall)
  local window, part, age = window_of(r, limit, wall)
  local count, before = counts_of(r, age)
  put(r, (2 - part) * limit.per, window, max(0, count + amount), before)
end

function sliding.used(r, limit, _, wall)
  local _, part, age = window_of(r, limit, wall)
  local count, before = counts_of(r, age)
  return floor(before * (1 - part)) + count
end

-- ---------------------------------------------------------------- log

-- The moments of the last `rate` units, as a ring: exact in every window. { how many there ever were, moments ... }, 0 where none was.
local log = {}
kinds.log = log

-- Copies what was into what is to be; a limit that has changed keeps the newest of them.
local function copy_ring(r, n)
  local was, next = r.was, r.next
  r.next_count = n + 1
  if r.count == n + 1 then
    for i = 0, n do next[i] = was[i] end
    return
  end
  for i = 0, n do next[i] = 0 end
  local old = r.count - 1
  if old < 1 then return end
  local total = was[0]
  for i = 1, min(n, old, total) do next[1 + (total - i) % n] = was[1 + (total - i) % old] end
  next[0] = total
end

-- How many of the units are still in the window: they are in order, so halving finds the first of them.
local function count_in(next, n, since)
  local total = next[0]
  local low, high = max(0, total - n), total
  while low < high do
    local middle = floor((low + high) / 2)
    if next[1 + middle % n] > since then high = middle else low = middle + 1 end
  end
  return total - low
end

local function push(next, n, cost, now)
  local total = next[0]
  local last = total > 0 and next[1 + (total - 1) % n] or now
  now = max(now, last)
  for i = max(0, cost - n), cost - 1 do next[1 + (total + i) % n] = now end
  next[0] = total + cost
end

function log.take(r, limit, cost, now)
  local n, next = limit.rate, r.next
  cost = ceil(cost)
  copy_ring(r, n)
  local used = count_in(next, n, now - limit.per)
  r.ttl = limit.per
  local allowed = used + cost <= n
  local retry = 0
  if cost > n then
    retry = huge
  elseif not allowed then
    retry = next[1 + (next[0] + cost - 1) % n] + limit.per - now
  end
  local reset = used + cost > 0 and limit.per or 0
  if cost > 0 then push(next, n, cost, now) end
  return allowed, max(0, n - used - (allowed and cost or 0)), retry, reset, 0
end

function log.add(r, limit, amount, now)
  local n, next = limit.rate, r.next
  copy_ring(r, n)
  r.ttl = limit.per
  amount = ceil(amount)
  if amount > 0 then return push(next, n, amount, now) end
  -- The newest are taken back: their places become as empty as if they had been long ago.
  local total = next[0]
  local back = min(-amount, n, total)
  for i = 1, back do next[1 + (total - i) % n] = 0 end
  next[0] = total - back
end

function log.used(r, limit, now)
  copy_ring(r, limit.rate)
  return count_in(r.next, limit.rate, now - limit.per)
end

return kinds
