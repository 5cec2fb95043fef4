--- time: tg.now, tg.time. Seconds, always.
local abi = require "abi"
local failure = require "tidegate.failure"

local vm = abi.vm
local floor, date = math.floor, os.date

local time = {}

local now = setmetatable({}, {
  __call = function() return vm.now end,
})

--- now() -> wall clock; now.monotonic() -> a clock that never jumps. Both read once a turn of the loop.
function now.monotonic()
  return vm.monotonic
end

time.now = now

--- http_date(seconds) -> "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, section 5.6.7)
function time.http_date(seconds)
  return date("!%a, %d %b %Y %H:%M:%S GMT", floor(seconds))
end

--- iso(seconds) -> "1994-11-06T08:49:37Z" (RFC 3339)
function time.iso(seconds)
  return date("!%Y-%m-%dT%H:%M:%SZ", floor(seconds))
end

-- ---------------------------------------------------------------- the calendar

local ERA, TO_1970 = 146097, 719468 -- days: of 400 years; from 0000-03-01 to 1970-01-01

--- days(year, month, day) -> days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years begin in March here, so that a leap
-- day is their last.
function time.days(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local of_era = year - era * 400
  local of_year = floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return era * ERA + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + of_year - TO_1970
end

--- day(days) -> year, month, day: the same back
function time.day(days)
  days = days + TO_1970
  local era = floor(days / ERA)
  local of_era = days - era * ERA
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  local day = of_year - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  return year + era * 400 + (month <= 2 and 1 or 0), month, day
end

-- ---------------------------------------------------------------- reading

local MONTH_DAYS = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- Seconds from 1970 to the begin of a day of the proleptic Gregorian calendar; nil when there is no such day.
local function seconds_of_day(year, month, day)
  local leap = (year % 4 == 0 and year % 100 ~= 0) or year % 400 == 0
  local days = MONTH_DAYS[month]
  if not days or day < 1 or day > days or (month == 2 and day == 29 and not leap) then return nil end
  return time.days(year, month, day) * 86400
end

--- date(text) -> seconds of the begin of "2031-01-31" in UTC, nil when it is none
function time.date(text)
  local year, month, day = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)$"
  return year and seconds_of_day(tonumber(year), tonumber(month), tonumber(day))
end

-- `offset`: seconds that the clock is ahead of UTC. A leap second (60) is only where one may be, and is the next minute's first.
local function seconds_of(year, month, day, clock, offset)
  local hour, minute, second = clock:match "^(%d%d):(%d%d):(%d%d)$"
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  local begin = hour and seconds_of_day(year, month, day)
  if not begin or hour > 23 or minute > 59 or second > 60 then return nil end
  local seconds = begin + hour * 3600 + minute * 60 + second - offset
  if second == 60 and seconds % 86400 ~= 0 then return nil end
  return seconds
end

local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }
local short_days = { Mon = true, Tue = true, Wed = true, Thu = true, Fri = true, Sat = true, Sun = true }
local long_days = {
  Monday = true, Tuesday = true, Wednesday = true, Thursday = true, Friday = true, Saturday = true, Sunday = true,
}
local YEARS_AHEAD = 50

-- "94" is the year that is not more than 50 years ahead.
local function whole_year(two_digits)
  local this = tonumber(date("!%Y"))
  local year = this - this % 100 + two_digits
  if year > this + YEARS_AHEAD then return year - 100 end
  if year <= this + YEARS_AHEAD - 100 then return year + 100 end
  return year
end

-- RFC 9110, section 5.6.7: the date of today, and two that old senders write. The name of the day is not checked against the date.
local function parse_http(text)
  local name, day, month, year, clock = text:match "^(%a%a%a), (%d%d) (%a%a%a) (%d%d%d%d) ([%d:]+) GMT$"
  if name then return short_days[name] and seconds_of(tonumber(year), months[month], tonumber(day), clock, 0) end
  name, day, month, year, clock = text:match "^(%a+), (%d%d)%-(%a%a%a)%-(%d%d) ([%d:]+) GMT$"
  if name then return long_days[name] and seconds_of(whole_year(tonumber(year)), months[month], tonumber(day), clock, 0) end
  name, month, day, clock, year = text:match "^(%a%a%a) (%a%a%a) ([ %d]%d) ([%d:]+) (%d%d%d%d)$"
  if name then return short_days[name] and seconds_of(tonumber(year), months[month], tonumber(day), clock, 0) end
end

-- RFC 3339, section 5.6.
local function parse_rfc3339(text)
  local year, month, day, clock, rest = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d:%d%d:%d%d)(.+)$"
  if not year then return nil end
  local fraction, zone = rest:match "^%.(%d+)(.+)$"
  zone = zone or rest
  local offset = 0
  if zone ~= "Z" and zone ~= "z" then
    local sign, hours, minutes = zone:match "^([+-])(%d%d):(%d%d)$"
    hours, minutes = tonumber(hours), tonumber(minutes)
    if not sign or hours > 23 or minutes > 59 then return nil end
    offset = (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60)
  end
  local seconds = seconds_of(tonumber(year), tonumber(month), tonumber(day), clock, offset)
  return seconds and seconds + (fraction and tonumber("0." .. fraction) or 0)
end

local MAX_LENGTH = 64

--- parse(text) -> seconds | nil, err: the three dates of HTTP ("Sun, 06 Nov 1994 08:49:37 GMT" and the obsolete two), and RFC 3339
-- ("1994-11-06T08:49:37.25+01:00").
function time.parse(text)
  if type(text) ~= "string" then error("time.parse needs a string, found a " .. type(text), 2) end
  local seconds = #text <= MAX_LENGTH and (parse_rfc3339(text) or parse_http(text))
  if seconds then return seconds end
  return nil, failure.new("decode", ("not a date: %q"):format(text:sub(1, MAX_LENGTH)), 400)
end

return time
