--- number: numbers as text that reads back as the same number. tostring keeps 14 digits, which an identifier may exceed.
local number = {}

local MAX_EXACT = 2 ^ 53

--- text(n) -> whole numbers up to 2^53 in digits, others with as many as they need
function number.text(n)
  if n % 1 == 0 and n >= -MAX_EXACT and n <= MAX_EXACT then
    return n == 0 and "0" or ("%d"):format(n) -- -0 is 0; several times as fast as %.0f
  end
  for precision = 14, 17 do
    local text = ("%%.%dg"):format(precision):format(n)
    if tonumber(text) == n then return text end
  end
  return tostring(n) -- is none, or infinite
end

return number
