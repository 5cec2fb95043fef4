local failure = require "tidegate.failure"

local function both(text) return text .. "  " .. tostring((tg.time.parse(text))) end

describe("time.parse", function()
  it("reads the three dates of HTTP", function()
    for text, seconds in pairs {
      ["Sun, 06 Nov 1994 08:49:37 GMT"] = 784111777, ["Sunday, 06-Nov-94 08:49:37 GMT"] = 784111777, ["Sun Nov  6 08:49:37 1994"] = 784111777,
      ["Thu, 01 Jan 1970 00:00:00 GMT"] = 0, ["Wed, 31 Dec 1969 23:59:59 GMT"] = -1, ["Tue, 29 Feb 2000 00:00:00 GMT"] = 951782400,
      ["Sat, 31 Dec 2016 23:59:60 GMT"] = 1483228800, ["Fri, 31 Dec 9999 23:59:59 GMT"] = 253402300799, ["Wed Nov 16 08:49:37 1994"] = 784975777,
      ["Thu, 01 Jan 1970 00:00:00 GMT "] = "nil",
    } do
      expect(both(text)):equals(text .. "  " .. tostring(seconds))
    end
  end)

  it("reads RFC 3339 with offset and fraction", function()
    for text, seconds in pairs {
      ["1994-11-06T08:49:37Z"] = 784111777, ["1994-11-06t08:49:37z"] = 784111777, ["1994-11-06T09:49:37+01:00"] = 784111777,
      ["1994-11-06T03:19:37-05:30"] = 784111777, ["1994-11-06T08:49:37-00:00"] = 784111777, ["1970-01-01T00:00:00.25Z"] = 0.25,
      ["1970-01-01T00:00:00.000000000001+00:00"] = 1e-12, ["1969-12-31T23:59:59.5Z"] = -0.5, ["0000-01-01T00:00:00Z"] = -62167219200,
      ["2016-12-31T23:59:60Z"] = 1483228800, ["2017-01-01T00:59:60+01:00"] = 1483228800, ["2024-02-29T12:00:00Z"] = 1709208000,
      ["1900-03-01T00:00:00Z"] = -2203891200, ["2000-03-01T00:00:00+23:59"] = 951868800 - 86340,
    } do
      expect(both(text)):equals(text .. "  " .. tostring(seconds))
    end
  end)

  it("takes a year of two digits for the one that is at most 50 years ahead", function()
    local this = tonumber(os.date "!%Y")
    for _, ahead in ipairs { -49, -1, 0, 1, 49, 50 } do
      local year = this + ahead
      local text = ("Sunday, 06-Nov-%02d 08:49:37 GMT"):format(year % 100)
      expect(os.date("!%Y", tg.time.parse(text))):equals(tostring(year))
    end
  end)

  it("is the inverse of http_date and iso", function()
    for i = 0, 400 do
      local seconds = i * 86400 * 37 + i * 7919 - 86400 * 5000
      expect(tg.time.parse(tg.time.http_date(seconds))):equals(seconds)
      expect(tg.time.parse(tg.time.iso(seconds))):equals(seconds)
      expect(tg.time.parse(os.date("!%a %b %e %H:%M:%S %Y", seconds))):equals(seconds)
    end
  end)

  it("refuses what is none", function()
    for _, text in ipairs {
      "", "now", "0", "784111777", "1994-11-06", "1994-11-06T08:49:37", "1994-11-06 08:49:37Z", "1994-11-06T08:49Z", "1994-11-06T08:49:37.Z",
      "1994-11-06T08:49:37+0100", "1994-11-06T08:49:37+24:00", "1994-11-06T08:49:37+01:60", "1994-11-06T08:49:37Z ", " 1994-11-06T08:49:37Z",
      "1994-11-06T24:00:00Z", "1994-11-06T08:60:00Z", "1994-11-06T08:49:61Z", "1994-11-06T08:49:60Z", "1994-13-06T08:49:37Z", "1994-00-06T08:49:37Z",
      "1994-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "1994-11-31T00:00:00Z", "1994-11-00T00:00:00Z", "94-11-06T08:49:37Z", "1994-11-06T8:49:37Z",
      "1994-11-06T08:49:37,5Z", "-994-11-06T08:49:37Z", "1994-11-06T08:49:37.1e5Z", "1994-11-06T08:49:37Z\0",
      "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 06 Nov 94 08:49:37 GMT",
      "sun, 06 nov 1994 08:49:37 gmt", "Xxx, 06 Nov 1994 08:49:37 GMT", "Sunday, 06 Nov 1994 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT",
      "Sun, 06 Xov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
      "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37:11 GMT", "Sun, 06 Nov 1994 08:49:37",
      "Sun Nov 6 08:49:37 1994", "Sun Nov  0 08:49:37 1994",
      "Sun, 06 Nov 1994 08:49:37 GMT" .. (" "):rep(100), ("1"):rep(100000),
    } do
      local seconds, err = tg.time.parse(text)
      expect(text:sub(1, 50) .. tostring(seconds)):equals(text:sub(1, 50) .. "nil")
      expect(failure.is(err) and { err.code, err.status }):equals { "decode", 400 }
      expect(#tostring(err) < 100):is_true()
    end
    for _, bad in ipairs { 5, {}, true } do
      expect(function() tg.time.parse(bad) end):raises "needs a string"
    end
    expect(function() tg.time.parse() end):raises "found a nil"
  end)
end)

describe("time.days and time.day", function()
  it("are each other's reverse over a thousand years, and go by one", function()
    local before = tg.time.days(1600, 1, 1)
    expect(before):equals(-135140)
    for days = before, before + 365243, 7 do
      local year, month, day = tg.time.day(days)
      if tg.time.days(year, month, day) ~= days then error(("%d is not %d-%d-%d"):format(days, year, month, day)) end
    end
    local year, month, day = tg.time.day(11016)
    expect(("%d-%d-%d"):format(year, month, day)):equals "2000-2-29"
  end)
end)
