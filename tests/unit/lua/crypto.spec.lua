-- Digests, texts of bytes, sealed text and passwords: published vectors, what is refused, and where misuse is reported.
local c = tg.crypto

-- What is raised names the line of the plugin, here of this file.
local function raises_here(f, part)
  local ok, err = pcall(f)
  expect(ok):equals(false)
  expect(err):matches "crypto.spec.lua:"
  expect(err):matches(part)
end

local function fails(code, value, err)
  expect(value):is_nil()
  expect(err and err.code):equals(code)
end

describe("crypto digests", function()
  it("agree with FIPS 180-4 and RFC 1321", function()
    expect(c.hex(c.md5 "abc")):equals "900150983cd24fb0d6963f7d28e17f72"
    expect(c.hex(c.sha1 "abc")):equals "a9993e364706816aba3e25717850c26c9cd0d89d"
    expect(c.hex(c.sha256 "abc")):equals "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    expect(c.hex(c.sha256 "")):equals "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    expect(c.hex(c.sha384 "abc")):equals("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
      .. "8086072ba1e7cc2358baeca134c825a7")
    expect(c.hex(c.sha512 "abc")):equals("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f")
    expect(c.hex(c.sha256(("a"):rep(1000000)))):equals "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
  end)

  it("make the HMACs of RFC 4231, with keys of any length", function()
    expect(c.hex(c.hmac("sha256", ("\11"):rep(20), "Hi There"))):equals "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    expect(c.hex(c.hmac("sha256", "Jefe", "what do ya want for nothing?"))):equals(
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    expect(c.hex(c.hmac("sha256", ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First"))):equals(
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    -- With an empty key, after another one was used.
    expect(c.hex(c.hmac("sha256", "", ""))):equals "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"
    expect(c.hex(c.hmac("md5", "key", "The quick brown fox jumps over the lazy dog"))):equals "80070713463e7749b90c2dc24911e275"
    expect(c.hex(c.hmac("sha1", "key", "The quick brown fox jumps over the lazy dog"))):equals "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"
  end)

  it("derive the keys of RFC 5869", function()
    local salt, info = c.unhex "000102030405060708090a0b0c", c.unhex "f0f1f2f3f4f5f6f7f8f9"
    expect(c.hex(c.hkdf("sha256", ("\11"):rep(22), 42, info, salt))):equals(
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    expect(c.hex(c.hkdf("sha256", ("\11"):rep(22), 42, ""))):equals(
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
    expect(c.hex(c.hkdf("sha1", ("\12"):rep(22), 42, ""))):equals(
      "2c91117204d745f3500d636a62f64f0ab3bae548aa53d423b0d1f27ebba6f5e5673a081d70cce7acfc48")
    expect(#c.hkdf("sha512", "secret", 255 * 64, "")):equals(255 * 64)
    raises_here(function() c.hkdf("sha512", "secret", 255 * 64 + 1, "") end, "1 to 255 digests")
    raises_here(function() c.hkdf("sha3", "secret", 32, "") end, "name of a digest")
    raises_here(function() c.hkdf("sha256", "secret", 32) end, "hkdf needs a string")
  end)

  it("take strings only, and say so at the plugin's line", function()
    for _, name in ipairs {
      "md5", "sha1", "sha256", "sha384", "sha512", "hash32", "hex", "unhex", "base64", "unbase64", "base64url", "unbase64url",
    } do
      raises_here(function() c[name](42) end, name)
      raises_here(function() c[name]() end, name)
      raises_here(function() c[name] {} end, name)
    end
    raises_here(function() c.hmac("sha3", "k", "s") end, "name of a digest")
    raises_here(function() c.hmac("sha256", nil, "s") end, "hmac needs a string")
    raises_here(function() c.hmac("sha256", "k", 1) end, "hmac needs a string")
    raises_here(function() c.equal("a") end, "equal needs a string")
    raises_here(function() c.hex(("x"):rep(16 * 1024 * 1024) .. "x") end, "16 MiB")
  end)

  it("compare whole strings", function()
    expect(c.equal("", "")):is_true()
    expect(c.equal("abc", "abc")):is_true()
    expect(c.equal("abc", "abd")):equals(false)
    expect(c.equal("abc", "abcd")):equals(false)
    expect(c.equal("a\0b", "a\0c")):equals(false)
  end)

  it("hash to the numbers of xxHash32", function()
    expect(c.hash32 ""):equals(0x02CC5D05)
    expect(c.hash32 "abc"):equals(0x32D153FF)
    expect(c.hash32 "Nobody inspects the spammish repetition"):equals(0xE2293B2F)
    local bytes = {}
    for i = 0, 99 do bytes[i + 1] = string.char((i * 7 + 3) % 256) end
    local text, sum = table.concat(bytes), 0
    for n = 0, 100 do sum = (sum * 31 + c.hash32(text:sub(1, n))) % 2 ^ 32 end
    expect(sum):equals(0xDBDA4742) -- by the authors' own library
  end)
end)

describe("crypto random", function()
  it("gives as many bytes as were asked for, and never the same", function()
    for _, n in ipairs { 1, 16, 257, 16384, 16385, 1024 * 1024 } do expect(#c.random(n)):equals(n) end
    expect(c.random(16) == c.random(16)):equals(false)
    local seen, text = {}, c.random(65536)
    for i = 1, #text do seen[text:byte(i)] = true end
    for i = 0, 255 do expect(seen[i]):is_true() end
  end)

  it("refuses what is no number of bytes", function()
    for _, n in ipairs { 0, -1, 1.5, 1024 * 1024 + 1, 0 / 0, 1 / 0, "16", {} } do raises_here(function() c.random(n) end, "random needs") end
  end)
end)

describe("crypto texts", function()
  it("agree with RFC 4648, section 10", function()
    local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }
    for bytes, text in pairs(vectors) do
      expect(c.base64(bytes)):equals(text)
      expect(c.unbase64(text)):equals(bytes)
      expect(c.base64url(bytes)):equals((text:gsub("=", "")))
      expect(c.unbase64url((text:gsub("=", "")))):equals(bytes)
      expect(c.unbase64url(text)):equals(bytes)
    end
    expect(c.base64 "\251\255\191"):equals "+/+/"
    expect(c.base64url "\251\255\191"):equals "-_-_"
    expect(c.hex "foobar\0\255"):equals "666f6f62617200ff"
    expect(c.unhex "666F6f62617200fF"):equals "foobar\0\255"
  end)

  it("come back as they went, whatever their length", function()
    for _, n in ipairs { 0, 1, 2, 3, 4, 63, 64, 65, 8191, 8192, 12288, 16384, 100000 } do
      local bytes = n > 0 and c.random(n) or ""
      expect(c.unhex(c.hex(bytes)) == bytes):is_true()
      expect(c.unbase64(c.base64(bytes)) == bytes):is_true()
      expect(c.unbase64url(c.base64url(bytes)) == bytes):is_true()
    end
  end)

  it("are refused when they could be written otherwise", function()
    for _, text in ipairs {
      "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "=", "==", "====", "A===", "Zg==Zg==", "Zm 9v", "Zm9v\n", "Zm-_", "Z\0==", "Zm9v\255",
    } do
      fails("decode", c.unbase64(text))
    end
    for _, text in ipairs { "Z", "Zh", "Zm9vZ", "Zm9", "Zg=", "Zm+/", "Zg===", "Zm9v ", "=" } do fails("decode", c.unbase64url(text)) end
    local long = ("A"):rep(16 * 1024 * 1024) .. "AAAA"
    for _, name in ipairs { "unhex", "unbase64", "unbase64url" } do fails("too_large", c[name](long)) end
    fails("too_large", c.decrypt(("k"):rep(32), long))
    fails("too_large", c.decrypt(("k"):rep(32), "", long))
    for _, text in ipairs { "a", "0g", "0x", "zz", "1 ", " 1", "\255\255", "a\0" } do fails("decode", c.unhex(text)) end
  end)
end)

describe("crypto encrypt", function()
  local key = ("0123456789abcdef"):rep(2)

  it("opens what it has sealed, with the same key and the same bound text only", function()
    for _, k in ipairs { key, key:sub(1, 16) } do
      for _, n in ipairs { 0, 1, 15, 16, 17, 1000, 40000 } do
        local text = n > 0 and c.random(n) or ""
        local sealed = c.encrypt(k, text)
        expect(#sealed):equals(n + 28)
        expect(c.decrypt(k, sealed) == text):is_true()
        fails("auth", c.decrypt(k, sealed, "bound"))
        local bound = c.encrypt(k, text, "user 7")
        expect(c.decrypt(k, bound, "user 7") == text):is_true()
        fails("auth", c.decrypt(k, bound))
        fails("auth", c.decrypt(k, bound, "user 8"))
      end
    end
    expect(c.encrypt(key, "text") == c.encrypt(key, "text")):equals(false)
    fails("auth", c.decrypt(("x"):rep(32), c.encrypt(key, "text")))
    fails("auth", c.decrypt(key:sub(1, 16), c.encrypt(key, "text")))
  end)

  it("sees each changed bit and each cut", function()
    local sealed = c.encrypt(key, "text", "bound")
    for i = 1, #sealed do
      local changed = sealed:sub(1, i - 1) .. string.char(bit.bxor(sealed:byte(i), 1)) .. sealed:sub(i + 1)
      fails("auth", c.decrypt(key, changed, "bound"))
      fails("auth", c.decrypt(key, sealed:sub(1, i - 1), "bound"))
    end
    fails("auth", c.decrypt(key, sealed .. "x", "bound"))
  end)

  it("opens a vector of NIST (AES-256)", function()
    local sealed = c.unhex("cafebabefacedbaddecaf888522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48"
      .. "590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b")
    local text = c.decrypt(c.unhex(("feffe9928665731c6d6a8f9467308308"):rep(2)), sealed, c.unhex "feedfacedeadbeeffeedfacedeadbeefabaddad2")
    expect(c.hex(text)):equals("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
      .. "b16aedf5aa0de657ba637b39")
  end)

  it("needs a key of 16 or 32 bytes", function()
    for _, bad in ipairs { "", "short", ("x"):rep(24), ("x"):rep(33), 16, {} } do
      raises_here(function() c.encrypt(bad, "text") end, "16 or 32 bytes")
      raises_here(function() c.decrypt(bad, "text") end, "16 or 32 bytes")
    end
    raises_here(function() c.encrypt(key, nil) end, "encrypt needs a string")
    raises_here(function() c.decrypt(key, 1) end, "decrypt needs a string")
    raises_here(function() c.encrypt(key, "text", {}) end, "encrypt needs a string")
  end)
end)

describe("crypto passwords", function()
  it("match the hashes of other programs", function()
    local vectors = {
      { "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U" },
      { "$2b$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", "\163" },
      { "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\255\255\163" },
      { "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!" },
      { "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!" },
      { "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!" },
      { "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        "Hello world!" },
      { "$apr1$rOioh4Wh$hXoBuL3MJyr0L1TXSH8VY1", "hamburger" },
      { "$apr1$12345678$sHuPAw7VA9xjRbJz7zKV7/", "" },
      { "$apr1$ab$fJbkU2xnhI6N1bBb8S9kI1", ("x"):rep(100) },
      { "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password" },
    }
    for _, vector in ipairs(vectors) do
      expect(c.password_verify(vector[1], vector[2])):is_true()
      expect(c.password_verify(vector[1], vector[2] .. "x")):equals(false)
      expect(c.password_verify(vector[1], vector[2] .. "\0x")):equals(false)
      expect(c.password_verify(vector[1], vector[2] .. "\0")):equals(false)
    end
  end)

  it("are hashed with a salt of their own, and match then", function()
    for _, options in ipairs { { cost = 4 }, { scheme = "sha256", cost = 1000 }, { scheme = "sha512", cost = 1000 } } do
      local hash = c.password_hash("secret", options)
      expect(c.password_verify(hash, "secret")):is_true()
      expect(c.password_verify(hash, "Secret")):equals(false)
      expect(c.password_hash("secret", options) == hash):equals(false)
    end
    expect(c.password_hash "secret"):matches "$2b$12$"
  end)

  it("beyond the 72 bytes that bcrypt sees never match, rather than by their beginning", function()
    local hash = c.password_hash(("x"):rep(72), { cost = 4 })
    expect(c.password_verify(hash, ("x"):rep(72))):is_true()
    expect(c.password_verify(hash, ("x"):rep(73))):equals(false)
    fails("hash", c.password_hash(("x"):rep(73), { cost = 4 }))
    fails("hash", c.password_hash("nul\0nul", { cost = 4 }))
    expect(c.password_verify("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", ("x"):rep(512))):equals(false)
  end)

  it("are refused with a hash of another kind, a broken one, or one that costs too much", function()
    local whole = "$2b$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"
    for _, hash in ipairs {
      "", "secret", "$", "$2b$", "$2b$05$", "*0", "rOioh4Wh2uqlA", whole:sub(1, 59), whole .. "x",
      "$2x$05" .. whole:sub(7), "$2b$xx" .. whole:sub(7), "$2b$03" .. whole:sub(7), "$2b$16" .. whole:sub(7), "$2b$31" .. whole:sub(7),
      whole:sub(1, 30) .. "\0" .. whole:sub(32), whole:sub(1, 28) .. "!" .. whole:sub(30), ("$2b$"):rep(200),
      "$1$salt$qJH7.N4xYta3aEG/dfqo/0", "$5$", "$5$salt$", "$5$rounds=$salt$" .. ("x"):rep(43), "$5$rounds=1000001$salt$" .. ("x"):rep(43),
      "$6$salt$x", "{SHA}", "{SHA}x", "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "$apr1$x",
      "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
    } do
      fails("hash", c.password_verify(hash, "secret"))
    end
  end)

  it("need strings and known options", function()
    raises_here(function() c.password_verify(nil, "x") end, "password_verify needs a string")
    raises_here(function() c.password_verify("x") end, "password_verify needs a string")
    raises_here(function() c.password_hash(1) end, "password_hash needs a string")
    raises_here(function() c.password_hash("x", "bcrypt") end, "table of options")
    raises_here(function() c.password_hash("x", { scheme = "md5" }) end, "found md5")
    raises_here(function() c.password_hash("x", { cost = "4" }) end, "whole number")
    for _, cost in ipairs { 3, 16, -1, 4.5 } do raises_here(function() c.password_hash("x", { cost = cost }) end, "cost") end
    raises_here(function() c.password_hash("x", { scheme = "sha512", cost = 999 }) end, "cost")
  end)
end)
