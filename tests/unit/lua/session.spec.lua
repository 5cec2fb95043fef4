-- Sessions in cookies, of a request that is no more than its cookies; those in Redis are in tests/e2e/test_oidc.py.
local session, cookie = tg.session, tg.cookie
local OLD, NEW = ("o"):rep(32), ("n"):rep(32)

local function open(options)
  local all = { name = "s", secrets = { OLD }, idle = 100, absolute = 1000 }
  for name, value in pairs(options or {}) do all[name] = value end
  return session.open(all)
end

-- What a browser has after these values of Set-Cookie.
local function jar_of(list, jar)
  jar = jar or {}
  for _, text in ipairs(list) do
    local name, value = text:match "^([^=]*)=([^;]*);"
    jar[name] = not text:find "Max%-Age=0" and value or nil
  end
  return jar
end

local function with(jar) return { cookies = jar } end

describe("sessions in cookies", function()
  it("come back as they were", function()
    local sessions = open()
    local list = assert(sessions:save(with {}, sessions:start { a = 1, list = { "x" } }))
    expect(#list):equals(1)
    expect(list[1]):matches "; Path=/; HttpOnly; SameSite=Lax; Secure"
    local jar = jar_of(list)
    expect(jar["__Host-s"] ~= nil):is_true()
    local one = sessions:read(with(jar))
    expect(one.data):equals { a = 1, list = { "x" } }
    expect(one.is_due):equals(false)
    expect(sessions:is_shown(with(jar))):is_true()
    expect(next(jar_of(sessions:drop(with(jar)), jar))):equals(nil)
    expect(sessions:read(with(jar))):equals(nil)
  end)

  it("are no sessions when any byte is another one", function()
    local sessions = open()
    local name, text = next(jar_of(sessions:save(with {}, sessions:start { a = 1 })))
    for i = 1, #text do
      for _, c in ipairs { "A", "B", "1", "2", "=", "." } do
        if c ~= text:sub(i, i) then
          local found = sessions:read(with { [name] = text:sub(1, i - 1) .. c .. text:sub(i + 1) })
          expect(i .. c .. tostring(found)):equals(i .. c .. "nil")
        end
      end
    end
    for i = 0, #text - 1 do expect(sessions:read(with { [name] = text:sub(1, i) })):equals(nil) end
    -- Nor under another name, with another secret, or for another purpose.
    expect(open { name = "z" }:read(with { ["__Host-z"] = text })):equals(nil)
    expect(open { secrets = { NEW } }:read(with { [name] = text })):equals(nil)
    expect(session.sealer({ OLD }, "login"):open(text:sub(3), name)):equals(nil)
    expect(session.sealer({ OLD }, "session"):open(text:sub(3), name) ~= nil):is_true()
  end)

  it("take several cookies when they are large, and no more than they may", function()
    local sessions = open { cookies = 3 }
    local data = { text = ("x"):rep(7000) }
    local jar = jar_of(assert(sessions:save(with {}, sessions:start(data))))
    expect(jar["__Host-s-3"] ~= nil and jar["__Host-s-4"] == nil):is_true()
    expect(sessions:read(with(jar)).data):equals(data)
    for _, name in ipairs { "__Host-s", "__Host-s-2", "__Host-s-3" } do
      local rest = {}
      for key, value in pairs(jar) do rest[key] = key ~= name and value or nil end
      expect(sessions:read(with(rest))):equals(nil)
    end
    expect(sessions:read(with { ["__Host-s"] = jar["__Host-s"], ["__Host-s-2"] = jar["__Host-s-3"], ["__Host-s-3"] = jar["__Host-s-2"] })):equals(nil)
    jar_of(assert(sessions:save(with(jar), sessions:start {})), jar)
    expect(jar["__Host-s-2"]):equals(nil)
    local _, err = open():save(with {}, sessions:start(data))
    expect(err.code):equals "too_large"
  end)

  it("are opened by an old secret, and sealed anew", function()
    local jar = jar_of(open():save(with {}, open():start { a = 1 }))
    local one = open { secrets = { NEW, OLD } }:read(with(jar))
    expect(one.data):equals { a = 1 }
    expect(one.is_due):is_true()
    expect(function() open { secrets = { "short" } } end):raises "at least 32 bytes"
    expect(function() open { secrets = {} } end):raises "needs a secret"
  end)

  it("end by idleness and by age", function()
    local jar = jar_of(open():save(with {}, open():start {}))
    expect(open { idle = 0 }:read(with(jar))):equals(nil)
    expect(open { absolute = 0 }:read(with(jar))):equals(nil)
  end)
end)

describe("tg.cookie", function()
  it("binds a name to how it is set", function()
    expect(cookie.name("a", { path = "/", secure = true })):equals "__Host-a"
    expect(cookie.name("a", { path = "/", secure = true, domain = "x.com" })):equals "__Secure-a"
    expect(cookie.name("a", { path = "/b", secure = true })):equals "__Secure-a"
    expect(cookie.name("a", { path = "/" })):equals "a"
    expect(cookie.set("a", "b", { path = "/", domain = "x.com" }, 5)):equals "a=b; Path=/; Domain=x.com; Max-Age=5; HttpOnly; SameSite=Lax"
    expect(cookie.clear("a", { path = "/", secure = true })):equals "a=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
  end)
end)
