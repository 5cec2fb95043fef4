--- buckets: what a distribution says that is counted in buckets.
local buckets = {}

--- quantile(counts, bounds, q) -> where the share `q` of all lies, in the unit of the bounds; nil when there are none.
-- Inside of a bucket the counts are taken for evenly spread. The last bucket, which has no bound, is taken for its lower one.
function buckets.quantile(counts, bounds, q)
  local total = 0
  for _, n in ipairs(counts) do total = total + n end
  if total == 0 then return nil end
  local rank, below, from = q * total, 0, 0
  for i, to in ipairs(bounds) do
    local n = counts[i]
    if below + n >= rank and n > 0 then return from + (to - from) * (rank - below) / n end
    below, from = below + n, to
  end
  return from
end

return buckets
