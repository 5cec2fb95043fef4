local abi = require "abi"
local coding = require "tidegate.coding"
local failure = require "tidegate.failure"

local NAMES = { "gzip", "deflate", "br", "zstd" }
local TEXT = ('{"id":1,"name":"order"}\n'):rep(5)

-- What comes out when `pieces` go in, then the end: all of it, and how many pieces it was.
local function run(code, pieces)
  local out = {}
  local function emit(piece) out[#out + 1] = piece end
  for _, piece in ipairs(pieces) do code(piece, emit) end
  code(nil, emit)
  return table.concat(out), #out
end

-- The same for a reader: what it makes of `pieces`.
local function decode(name, pieces, options)
  local i, out = 0, {}
  for piece in coding.reader(function() i = i + 1 return pieces[i] end, name, options) do out[#out + 1] = piece end
  return table.concat(out), #out
end

local function encode(name, text)
  return (run(coding.encoder(name), { text }))
end

local function fails(...)
  local ok, err = pcall(decode, ...)
  expect(ok):equals(false)
  expect(failure.is(err)):is_true()
  return { err.code, err.status }
end

describe("coding", function()
  it("gives back what went in, in any pieces", function()
    for _, name in ipairs(NAMES) do
      local pieces = {}
      local coded = run(coding.encoder(name, 9), { TEXT, "", TEXT })
      for i = 1, #coded do pieces[i] = coded:sub(i, i) end
      expect((decode(name, pieces))):equals(TEXT .. TEXT)
      expect((decode(name, { coded }))):equals(TEXT .. TEXT)
      expect((decode(name, { encode(name, "") }))):equals("")
      expect((decode(name, {}))):equals("")
    end
  end)

  it("gives away an event before the next one", function()
    for _, name in ipairs(NAMES) do
      local encoder, coded = coding.encoder(name), {}
      local read = coding.reader(function() return table.remove(coded, 1) end, name)
      for i = 1, 20 do
        encoder("event " .. i .. "\n", function(piece) coded[#coded + 1] = piece end)
        expect(read()):equals("event " .. i .. "\n")
      end
    end
  end)

  it("gives away much in pieces of 64 KiB", function()
    local text = {}
    for i = 1, 40000 do text[i] = ("%d is a number\n"):format(i * 7919 % 100003) end
    text = table.concat(text)
    for _, name in ipairs(NAMES) do
      local sizes = {}
      local found, count = decode(name, { encode(name, text) })
      expect(found == text):is_true()
      expect(count >= #text / 65536):is_true()
      local coded = encode(name, text)
      local read = coding.reader(function() local piece = coded coded = nil return piece end, name)
      for piece in read do sizes[#sizes + 1] = #piece end
      expect(math.max(unpack(sizes)) <= 65536):is_true()
    end
  end)

  it("says whose fault a body is", function()
    for _, name in ipairs(NAMES) do
      local coded = encode(name, TEXT)
      local bad = { { coded:sub(1, -2) }, { coded .. "x" }, { coded, "x" }, { "\255\255\255\255\255\255\255\255" } }
      for _, pieces in ipairs(bad) do
        expect(fails(name, pieces)):equals { "decode", 502 }
        expect(fails(name, pieces, { request = true })):equals { "decode", 400 }
      end
    end
  end)

  it("stops a bomb", function()
    local blanks = (" "):rep(2 * 1024 * 1024)
    for _, name in ipairs(NAMES) do
      local bomb = encode(name, blanks)
      expect(#bomb < 8192):is_true()
      expect(fails(name, { bomb })):equals { "too_large", 502 }
      expect(fails(name, { bomb }, { request = true })):equals { "too_large", 413 }
      expect((decode(name, { encode(name, TEXT) }, { max = #TEXT }))):equals(TEXT)
      expect(fails(name, { encode(name, TEXT) }, { max = #TEXT - 1 })):equals { "too_large", 502 }
    end
  end)

  it("takes nothing behind its end, nor from its own emit, nor after one that raised", function()
    local encoder = coding.encoder "gzip"
    run(encoder, { TEXT })
    expect(pcall(encoder, TEXT, print)):equals(false)
    local read = coding.reader(function() return "x" end, "gzip")
    expect(pcall(read)):equals(false)
    expect(read()):is_nil()
    encoder = coding.encoder "gzip"
    expect(select(2, pcall(encoder, TEXT, function() encoder(TEXT, print) end))):matches "its own emit"
    expect(select(2, pcall(encoder, TEXT, print))):matches "has ended"
    expect(select(2, pcall(coding.reader, print, "compress"))):matches "unknown content coding: compress"
    expect(select(2, pcall(coding.encoder, nil))):matches "unknown content coding: nil"
  end)

  it("may wait in emit, while another body uses the same room", function()
    local bytes = {}
    for i = 1, 320000 do bytes[i] = string.char(math.random(0, 255)) end
    local text = table.concat(bytes)
    local found, others = {}, 0
    local waiting = coroutine.wrap(function()
      local encoder, recoded = coding.encoder "gzip", {}
      encoder(text, function(piece)
        recoded[#recoded + 1] = piece
        coroutine.yield(true)
      end)
      encoder(nil, function(piece) recoded[#recoded + 1] = piece end)
      found[1] = decode("gzip", recoded)
    end)
    while waiting() do
      others = others + 1
      expect((decode("br", { encode("br", TEXT) }))):equals(TEXT)
    end
    expect(table.concat(found) == text):is_true()
    expect(others >= 4):is_true()
  end)

  it("gives memory back at the end and at an error, and has what was given up collected", function()
    local function held() return tonumber(abi.C.tg_abi_coding_memory()) end
    local before = held()
    run(coding.encoder "br", { TEXT })
    pcall(decode, "zstd", { "x" })
    expect(held() <= before):is_true()
    local most, sum = 0, 0
    for _ = 1, 300 do
      local last = held()
      coding.encoder "zstd"(TEXT, function() end)
      sum = sum + math.max(0, held() - last)
      most = math.max(most, held())
    end
    expect(sum > 192 * 1024 * 1024):is_true()
    expect(most < 96 * 1024 * 1024):is_true()
  end)

  it("chooses what a client likes best", function()
    local table_ = {
      ["gzip"] = "gzip", ["x-gzip"] = "gzip", ["GZIP"] = "gzip", ["deflate"] = false, [""] = false, ["identity"] = false,
      ["gzip, deflate, br, zstd"] = "br", ["gzip, deflate, zstd"] = "zstd", ["gzip;q=1.0, br;q=0.9"] = "gzip",
      ["gzip;q=0.5 , br ; q=0.5"] = "br", ["br;q=0, gzip;q=0.001"] = "gzip", ["gzip;Q=1"] = "gzip", ["gzip;q=0"] = false,
      ["*"] = "br", ["*;q=0.1, br;q=0"] = "zstd", ["*;q=0"] = false, ["*;q=0, gzip"] = "gzip", ["gzip;q=0.2, *;q=0.1"] = "gzip",
      ["identity;q=0"] = false, ["identity;q=0, *"] = "br", ["identity, gzip;q=0.5"] = false, ["identity;q=0.5, gzip;q=0.5"] = "gzip",
      ["identity;q=0.5, gzip"] = "gzip", [" , gzip,,"] = "gzip", ["\tgzip\t;\tq=0.5\t"] = "gzip",
      -- What is no weight is a no.
      ["gzip;q=2"] = false, ["gzip;q=1.001"] = false, ["gzip;q=0.1234"] = false, ["gzip;q=-1"] = false, ["gzip;q=x"] = false,
      ["gzip;q=01"] = false, ["gzip;q="] = false, ["gzip;level=9"] = false, ["gzip;q=1, gzip;q=0"] = false, ["gzip;q=1."] = "gzip",
      ["br;q=0.9, br;q=0.1, gzip;q=0.5"] = "gzip", ["gzipx"] = false, ["gz ip"] = false,
    }
    for header, best in pairs(table_) do
      expect(header .. ": " .. tostring(coding.accepts(header) or false)):equals(header .. ": " .. tostring(best))
    end
    expect(coding.accepts(nil)):is_nil()
  end)

  it("knows what was done to a body, last first", function()
    expect(coding.known(nil)):equals {}
    expect(coding.known ""):equals {}
    expect(coding.known "identity"):equals {}
    expect(coding.known "gzip"):equals { "gzip" }
    expect(coding.known " X-Gzip ,\tBR,, identity, deflate"):equals { "deflate", "br", "gzip" }
    for _, header in ipairs { "compress", "gzip, x", "gzip;q=1", "gz ip", "gzip br", "gzip, gzip, gzip, gzip" } do
      expect(coding.known(header)):is_nil()
    end
  end)
end)
