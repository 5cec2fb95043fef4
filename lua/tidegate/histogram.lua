--- histogram: times of late, in steps of a fifth, for quantiles; in this worker. Old times fade: after each thousand all counts are halved.
local floor, log, max, min = math.floor, math.log, math.max, math.min

local histogram = {}
local Histogram = {}
Histogram.__index = Histogram

local LEAST, STEP, BUCKETS = 0.0001, log(1.2), 80 -- seconds; up to 200 s
local FADE, ENOUGH = 1000, 20 -- times until the old ones are halved; until a quantile says anything

function histogram.new()
  local self = setmetatable({ total = 0 }, Histogram)
  for i = 1, BUCKETS do self[i] = 0 end
  return self
end

--- histogram:add(seconds)
function Histogram:add(seconds)
  local i = min(BUCKETS, max(1, floor(log(max(seconds, LEAST) / LEAST) / STEP) + 1))
  self[i], self.total = self[i] + 1, self.total + 1
  if self.total < FADE then return end
  self.total = 0
  for k = 1, BUCKETS do
    self[k] = floor(self[k] / 2)
    self.total = self.total + self[k]
  end
end

--- histogram:quantile(share) -> seconds, at most a fifth too many | nil while too few are known
function Histogram:quantile(share)
  if self.total < ENOUGH then return nil end
  local left = share * self.total
  for i = 1, BUCKETS do
    left = left - self[i]
    if left <= 0 then return LEAST * math.exp(i * STEP) end
  end
end

return histogram
