"""What plugins run beside a request: around, tasks, timers, hooks, calls that stream; each against a real gateway."""
import json
import sys
import threading
import time

import pytest
from gateway import ROOT, Gateway, free_port

sys.path.append(str(ROOT / "tests/conformance"))
from client import Client  # noqa: E402

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
http { allow = { "127.0.0.1" } }
dict "seen" { size = "1MiB" }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
upstream "own" { targets = { "listener:back" } }
upstream "myself" { targets = { "listener:front" } }
upstream "dead" { targets = { "http://127.0.0.1:1" } }
upstream "shut" { targets = { "http://127.0.0.1:1" }, breaker = { scope = "upstream", consecutive = 1, open = "10m" }, retry = false }
route "flaky" { listen = "back", path = "/flaky", handler = function()
  if tg.dict("seen"):incr("flaky") % 3 ~= 0 then tg.sleep(5) end
  return tg.respond(200, "at last")
end }
route "slow" { listen = "back", path = "/slow", handler = function() return tg.respond(200, function(write)
  for i = 1, 5 do write("line " .. i .. "\\n") tg.sleep(0.03) end
end) end }
route "stall" { listen = "back", path = "/stall", handler = function() return tg.respond(200, function(write) write "begun" tg.sleep(2) end) end }
route "echo" { listen = "back", path = "/echo", body_limit = "10MiB", handler = function(ctx)
  return tg.respond(200, assert(ctx.req:text(10 * 1024 * 1024)))
end }
route "key" { listen = "back", path = "/key", handler = function(ctx) return tg.respond(200, ctx.req.headers["Idempotency-Key"] or "none") end }
route "redirect" { listen = "back", path = "/redirect/{n}", handler = function(ctx)
  local n = tonumber(ctx.req.params.n)
  return tg.redirect(n == 0 and "/ok" or "/redirect/" .. n - 1)
end }
route "doc" { listen = "back", path = "/doc/{name}", handler = function(ctx)
  local name = ctx.req.params.name
  if name == "bad" then return tg.respond(200, '{"a":\\n[1,}') end
  if name == "slow" then tg.sleep(2) end
  if name == "fails" then return tg.respond(503, { error = "down" }) end
  return tg.respond(200, '{"name":"' .. name .. '","id":1234567890123456789,"list":[]}')
end }
route "whoami" { listen = "back", path = "/whoami", handler = function(ctx) return tg.respond(200, ctx.req.client.ip) end }
route "count" { listen = "back", path = "/count/{name}", handler = function(ctx)
  local n = tg.dict("seen"):incr("count-" .. ctx.req.params.name)
  if ctx.req.params.name == "hedge" and n == 1 then tg.sleep(2) end
  return tg.respond(ctx.req.params.name == "fails" and 503 or 200, tostring(n))
end }
route "ok" { listen = "back", path = "/*", handler = function() return tg.respond(200, "ok") end }
"""


def route(name, body, more=""):
    return f'route "{name}" {{ listen = "front", path = "/{name}", {more} handler = function(ctx) {body} end }}\n'


def to(name, uses, upstream="o"):
    return f'route "{name}" {{ listen = "front", path = "/{name}/*", strip_path = true, to = "{upstream}", use = {{ {uses} }} }}\n'


AROUND = {
    "time": "return { doc = 'x', around = function(ctx) local before = tg.now() local res = ctx:next() "
            "res.headers['X-Seen'] = res.source .. ' ' .. res.status end }",
    "fallback": "return { doc = 'x', around = function(ctx) local res = ctx:next() if res.status >= 500 then return tg.respond(200, 'fallback') end end }",
    "short": "return { doc = 'x', around = function() return tg.respond(203, 'short') end }",
    "forgets": "return { doc = 'x', around = function() end }",
    "twice": "return { doc = 'x', around = function(ctx) ctx:next() ctx:next() end }",
    "raises": "return { doc = 'x', around = function(ctx) ctx:next() error 'after' end }",
    "throws": "return { doc = 'x', around = function(ctx) ctx:next() error(tg.respond(207, 'thrown')) end }",
    "denies": "return { doc = 'x', access = function() return tg.respond(403, 'no') end }",
    "marks": "return { doc = 'x', response = function(ctx) ctx.res:add_header('X-Order', 'marks') end }",
    "marks-too": "return { doc = 'x', response = function(ctx) ctx.res:add_header('X-Order', 'too') end }",
    "reads": "return { doc = 'x', around = function(ctx) local res = ctx:next() res:set_body(assert(res:text()):upper()) end }",
}
CACHED = """
local loads = 0
local values = tg.cache("values", { ttl = 0.3, stale = 5, negative = 0.3 }, function(key)
  tg.dict("seen"):incr("loads")
  tg.sleep(0.05)
  if key == "none" then return nil end
  if key == "bad" or tg.dict("seen"):get "broken" then return nil, "broken" end
  return { key = key, n = tg.dict("seen"):get "loads" }
end)
return { doc = "Caches.", handler = function(ctx)
  local key = ctx.req.query.key
  if ctx.req.query.delete then values:delete(key) end
  if ctx.req.query.broken then tg.dict("seen"):set("broken", ctx.req.query.broken == "1" or nil) end
  local value, err = values:get(key)
  return tg.respond(200, { value = value or tg.null, err = err and tostring(err) or tg.null, loads = tg.dict("seen"):get "loads" or 0 })
end }
"""
BATCHED = """
local items = tg.batch { name = "items", size = 5, every = 0.1, max_pending = 20, send = function(list)
  if tg.dict("seen"):get "down" then return nil, "down" end
  tg.dict("seen"):incr("portions")
  tg.dict("seen"):incr("items", #list)
  return true
end }
return { doc = "Batches.", handler = function(ctx)
  local added = 0
  for i = 1, tonumber(ctx.req.query.n) do if items:add(i) then added = added + 1 end end
  if ctx.req.query.down then tg.dict("seen"):set("down", ctx.req.query.down == "1" or nil) end
  return tg.respond(200, { added = added, items = tg.dict("seen"):get "items" or 0, portions = tg.dict("seen"):get "portions" or 0, dropped = items.dropped })
end }
"""
ROUTES = (to("timed", '"time"') + to("dead", '"time", "fallback"', "dead") + to("deadly", '"fallback", "time"', "dead") + to("short", '"time", "short"')
          + to("forgets", '"forgets"') + to("twice", '"twice"') + to("raises", '"raises"') + to("throws", '"time", "throws"') + to("denied", '"time", "denies"')
          + to("order", '"marks", "time", "marks-too"') + to("reads", '"reads"') + to("never", '{ "short", when = function() return false end }, "time"'))


@pytest.fixture(scope="module")
def around():
    with Gateway(CONFIG + ROUTES, plugins=AROUND) as gw:
        yield gw


@pytest.mark.parametrize("path, status, text, seen", [
    ("/timed/x", 200, b"ok", "upstream 200"), ("/timed/slow", 200, None, "upstream 200"), ("/dead/x", 200, b"fallback", "plugin 200"),
    ("/deadly/x", 200, b"fallback", None), ("/short/x", 203, b"short", "plugin 203"), ("/forgets/x", 500, None, None), ("/twice/x", 500, None, None),
    ("/raises/x", 500, None, None), ("/throws/x", 207, b"thrown", "plugin 207"), ("/denied/x", 403, b"no", "plugin 403"), ("/reads/x", 200, b"OK", None),
    ("/never/x", 200, b"ok", "upstream 200"),
])
def test_around_wraps_what_comes_after_it(around, path, status, text, seen):
    for _ in range(3):
        answer = around.request(path)
        assert (answer.status, answer.headers["X-Seen"]) == (status, seen), around.log()[-2000:]
        assert text is None or answer.text == text


def test_response_phases_run_from_the_inside_out(around):
    assert around.request("/order/x").headers.get_all("X-Order") == ["too", "marks"]


def test_around_holds_when_many_are_under_way(around):
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(around.request("/timed/slow").headers["X-Seen"])) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == ["upstream 200"] * 50
    assert around.command("reload").returncode == 0
    end = time.monotonic() + 8
    while "in 1 generation\n" not in around.command("status").stdout:
        assert time.monotonic() < end
        time.sleep(0.02)


BODIES = {
    "completed": """local out = {} for name, value, err in tg.as_completed({
      slow = function() tg.sleep(0.2) return "s" end, fast = function() return "f" end,
      late = { function() tg.sleep(5) end, timeout = 0.1, optional = true },
      bad = { function() error "x" end, optional = true } }) do out[#out + 1] = name .. "=" .. tostring(value or err.code) end
      return tg.respond(200, table.concat(out, " "))""",
    "limited": """local now, most, list = 0, 0, {} for i = 1, 12 do list[i] = function() now = now + 1 most = math.max(most, now) tg.sleep(0.01)
      now = now - 1 return i end end
      local data = tg.fetch_all(list, { limit = 3 }) return tg.respond(200, most .. " " .. #data .. " " .. data[12])""",
    "depends": """local data = assert(tg.fetch_all({ a = function(r) return r.b + r.c end, b = function(r) return r.c * 2 end, c = function() return 5 end },
      { limit = 1 })) return tg.respond(200, tostring(data.a))""",
    "first": """local v, name = tg.first { a = function() tg.sleep(1) return 1 end, b = function() tg.sleep(0.02) return 2 end, c = function() error "x" end }
      return tg.respond(200, name .. v)""",
    "staggered": """local begun = 0 local v = tg.first({ function() begun = begun + 1 tg.sleep(0.01) return "quick" end,
      function() begun = begun + 1 return "hedge" end }, { stagger = 0.2 }) return tg.respond(200, v .. begun)""",
    "hedged": """local v = tg.first({ function() tg.sleep(1) return "slow" end, function() return "hedge" end }, { stagger = 0.05 })
      return tg.respond(200, v)""",
    "none": "local v, err = tg.first { a = function() error 'x' end } return tg.respond(200, tostring(v) .. err.code)",
    "within": """local v, err = tg.within(0.05, function() tg.sleep(1) end) local a, b = tg.within(1, function(x) return x, 2 end, 1)
      return tg.respond(200, tostring(v) .. err.code .. a .. b)""",
    "nested": """local seen = tg.dict "seen" local v, err = tg.within(0.05, function() tg.defer(function() seen:incr("deferred") end)
      tg.spawn(function() tg.sleep(0.1) seen:incr("survived") end) tg.sleep(1) end) tg.sleep(0.2)
      return tg.respond(200, err.code .. " " .. tostring(seen:get "deferred") .. " " .. tostring(seen:get "survived"))""",
    "raising": "local ok, err = pcall(tg.within, 1, function() error 'inside' end) return tg.respond(200, tostring(ok) .. tostring(err))",
    "background": """tg.background("later", function() tg.sleep(0.05) tg.dict("seen"):incr("later") end)
      return tg.respond(200, tostring(tg.dict("seen"):get "later"))""",
    "streamed": "return tg.respond(200, assert(tg.upstream('o'):get('/slow', { stream = true })))",
    "lines": """local out = {} for line in assert(tg.upstream('o'):get('/slow', { stream = true })):lines() do out[#out + 1] = line end
      return tg.respond(200, table.concat(out, ","))""",
    "stalled": """local res = assert(tg.upstream('o'):get('/stall', { stream = true, timeout = 0.2 })) local out = {}
      local ok, err = pcall(function() for piece in res:chunks() do out[#out + 1] = piece end end)
      return tg.respond(200, out[1] .. " " .. tostring(err.code))""",
    "upload": """local res = assert(tg.upstream('o'):post('/echo', function(write) for i = 1, 3 do write("part" .. i) tg.sleep(0.01) end end))
      return tg.respond(200, res:text())""",
    "upload-raises": """local ok, err = pcall(function() return tg.upstream('o'):post('/echo', function(write) write "x" error "broken" end) end)
      return tg.respond(200, tostring(ok) .. tostring(err))""",
    "retried": "return tg.respond(200, assert(tg.upstream('o'):get('/flaky', { timeout = 0.1, retries = 2 })).body)",
    "keyed": "return tg.respond(200, assert(tg.upstream('o'):post('/key', 'x', { retries = 1, idempotency_key = 'abc' })).body)",
    "url": "return tg.respond(200, assert(tg.http.get('http://127.0.0.1:@PORT2@/redirect/3', { redirect = 5 })).body)",
    "too-many": "return tg.respond(200, tostring(assert(tg.http.get('http://127.0.0.1:@PORT2@/redirect/5', { redirect = 2 })).status))",
    "denied": """local out = {} for _, host in ipairs { "localhost", "[::1]", "0.0.0.0", "127.1.2.3", "[::ffff:127.0.0.1]", "169.254.169.254" } do
      local res, err = tg.http.get("http://" .. host .. ":@PORT2@/") out[#out + 1] = res and "open" or err.code end
      return tg.respond(200, table.concat(out, " "))""",
    "swap": """local d = tg.dict "seen" d:delete "swap" local out = {}
      out[1] = tostring(d:compare_set("swap", 1, 2)) out[2] = tostring(d:compare_set("swap", nil, "a")) out[3] = tostring(d:compare_set("swap", "b", "c"))
      out[4] = tostring(d:compare_set("swap", "a", { x = 1 })) out[5] = tostring(d:compare_set("swap", { x = 1 }, true))
      out[6] = tostring(d:compare_set("swap", true, nil)) out[7] = tostring(d:get "swap") return tg.respond(200, table.concat(out, " "))""",
    "locked": """local d, now, most = tg.dict "seen", 0, 0
      tg.fetch_all({ 1, 2, 3, 4, 5 } and { a = LOCK, b = LOCK, c = LOCK, d = LOCK }) return tg.respond(200, tostring(d:get "most"))""",
    "unlocked": """local d = tg.dict "seen" pcall(d.lock, d, "u", 1, function() error "x" end)
      local v, err = d:lock("u", 0.05, function() return d:lock("u", 0.02, function() end) end)
      return tg.respond(200, tostring(v) .. err.code .. tostring(d:lock("u", 0.05, function() return "free" end)))""",
    "places": """local s, now, most, list = tg.semaphore(2), 0, 0, {}
      for i = 1, 8 do list[i] = function() return s:run(5, function() now = now + 1 most = math.max(most, now) tg.sleep(0.01) now = now - 1 return i end) end end
      local data = tg.fetch_all(list)
      local _, err = tg.within(1, function() local t = tg.semaphore(1) return t:run(1, function() return t:run(0.02, function() end) end) end)
      return tg.respond(200, most .. " " .. #data .. " " .. err.code)""",
    "spliced": """local data = tg.fetch_all { a = { upstream = "o", path = "/doc/x", lazy = true }, b = { upstream = "o", path = "/doc/y", query = { q = "ä" } } }
      return tg.respond(200, tg.json.encode({ a = data.a, b = data.b, c = data.a:part "id", d = data.b.name }, { sorted = true }))""",
    "partial": """local data, errors = tg.fetch_all({
        bad = { upstream = "o", path = "/doc/bad", optional = true }, slow = { upstream = "o", path = "/doc/slow", timeout = 0.05, fallback = "late" },
        down = { upstream = "o", path = "/doc/fails", fallback = function(err) return err.answer end }, ok = { upstream = "o", path = "/doc/ok" },
        none = { upstream = "dead", path = "/", optional = true } }, { timeout = 1 })
      return tg.respond(200, ("%s %s %s %s %s %s %s"):format(errors.bad.message, errors.bad.status, data.slow, errors.slow.code, data.down,
        data.ok.name, errors.none.code))""",
    "few": """local out = {} local function b(path, o) o = o or {} o.upstream, o.path = o.upstream or "o", path return o end
      local function say(data, errors)
        local keys = {} for k, v in pairs(data or {}) do keys[#keys + 1] = k .. "=" .. tostring(type(v) == "table" and v.name or v) end
        for k, e in pairs(data and errors or { failed = errors }) do keys[#keys + 1] = k .. "!" .. e.code end
        table.sort(keys) out[#out + 1] = "{" .. table.concat(keys, ",") .. "}"
      end
      say(tg.fetch_all {})
      for _, n in ipairs { 1, 8, 9, 33 } do
        local many = {} for i = 1, n do many[i] = b("/doc/n" .. i) end
        local data = assert(tg.fetch_all(many)) out[#out + 1] = #data .. data[n].name
      end
      say(tg.fetch_all { a = b "/doc/a", s = b("/doc/s", { read = function(r) return r.status end }) })
      local dead = function(o) o.upstream = "dead" return b("/", o) end
      say(tg.fetch_all { a = b "/doc/a", x = dead { optional = true }, y = dead { fallback = "else" } })
      say(tg.fetch_all { a = b "/doc/a", x = dead {} })
      local shut = tg.upstream "shut"
      repeat local _, err = shut:get "/" tg.sleep(0.01) until err.code == "open"
      say(tg.fetch_all { a = b "/doc/a", x = b("/", { upstream = "shut", optional = true }), y = b("/", { upstream = "shut", fallback = 1 }) })
      say(tg.fetch_all { x = b("/", { upstream = "shut", optional = true }) })
      return tg.respond(200, table.concat(out, " "))""",
    "needed": """local before = tg.now.monotonic() local data, err = tg.fetch_all { a = { upstream = "o", path = "/doc/slow" }, b = { upstream = "o", path = "/doc/fails" } }
      return tg.respond(200, tostring(data) .. err.code .. tostring(tg.now.monotonic() - before < 1))""",
    "late": """local data, errors = tg.fetch_all({ a = { upstream = "o", path = "/doc/slow", optional = true }, b = { upstream = "o", path = "/doc/b" } }, { timeout = 0.1 })
      return tg.respond(200, tostring(data.a) .. errors.a.code .. data.b.name)""",
    "mixed": """local data = tg.fetch_all { user = { upstream = "o", path = "/doc/ann" }, twice = { upstream = "o", path = "/doc/t", retries = 1 },
        greeting = function(r) return "hello " .. r.user.name end }
      local many = {} for i = 1, 40 do many[i] = { upstream = "o", path = "/doc/n" .. i } end
      local all = tg.fetch_all(many, { limit = 3 })
      local only = tg.fetch_all({ late = { upstream = "o", path = "/doc/l" }, early = function(r) return r.late.name end }, { limit = 1 })
      return tg.respond(200, data.greeting .. " " .. data.twice.name .. " " .. #all .. all[40].name .. " " .. only.early)""",
    "cached-call": """local o, out = tg.upstream "o", {}
      for i = 1, 3 do out[i] = assert(o:get("/count/cache", { cache = 5 })).body end
      out[4] = assert(o:get("/count/cache")).body out[5] = tostring(o:get_json("/count/cache", { cache = 5 }))
      for i = 6, 7 do out[i] = tostring(assert(o:get("/count/fails", { cache = 5 })).status) end
      out[8] = tostring(tg.dict("seen"):get "count-fails") return tg.respond(200, table.concat(out, " "))""",
    "hedge": """local before = tg.now.monotonic() local res = assert(tg.upstream("o"):get("/count/hedge", { hedge = 0.05 }))
      return tg.respond(200, res.body .. tostring(tg.now.monotonic() - before < 1))""",
    "broken": """local dead, out = tg.upstream "dead", {} local o = { breaker = { failures = 2, open = 0.1 } }
      for i = 1, 4 do out[i] = select(2, dead:get("/", o)).code end tg.sleep(0.12) out[5] = select(2, dead:get("/", o)).code
      out[6] = select(2, dead:get("/", o)).code return tg.respond(200, table.concat(out, " "))""",
    "misuse": """local o, out = tg.upstream "o", {}
      for i, f in ipairs { function() o:get("no slash") end, function() o:get("/", { headers = { Host = "x" } }) end, function() o:get("/", { headers = { A = "a\\nb" } }) end,
        function() o:get("/", { expect = "good" }) end, function() o:get {} end, function() tg.fetch_all { a = 1 } end, function() tg.http.get(5) end,
        function() tg.fetch_all() end, function() tg.first(7) end, function() tg.as_completed "x" end, function() tg.fetch_all { a = { upstream = "none", path = "/" } } end,
        function() tg.fetch_all { a = { upstream = "o", path = 7 } } end, function() return tg.respond(200, { f = print }) end,
        function() tg.json.writer(print):value(print) end } do
        local ok, err = pcall(f) out[i] = tostring(err):match "gateway.lua:%d+: " and not ok and "here" or tostring(err) end
      return tg.respond(200, table.concat(out, " "))""",
    "own": """local res = assert(tg.upstream("own"):get("/whoami")) local many = {}
      for i = 1, 200 do many[i] = { upstream = "own", path = "/doc/n" .. i } end
      return tg.respond(200, res.body .. " " .. #tg.fetch_all(many))""",
    "myself": """local res, err = tg.upstream("myself"):get("/myself", { timeout = 20 })
      return tg.respond(200, res and res.body or err.code)""",
    "expects": """local o = tg.upstream "o" local a = assert(o:get("/doc/fails", { expect = 503 })) local b, err = o:get("/doc/x", { expect = "3xx" })
      return tg.respond(200, a.status .. err.code .. err.response.status)""",
    "waits": "tg.sleep(0.3) return tg.respond(200, 'never')",
}
EXPECTED = {
    "completed": b"fast=f late=timeout slow=s", "limited": b"3 12 12", "depends": b"15", "first": b"b2", "staggered": b"quick1", "hedged": b"hedge",
    "none": b"nilerror", "within": b"niltimeout12", "nested": b"timeout 1 nil", "streamed": b"".join(b"line %d\n" % n for n in range(1, 6)),
    "lines": b"line 1,line 2,line 3,line 4,line 5", "stalled": b"begun timeout", "upload": b"part1part2part3", "retried": b"at last", "keyed": b"abc",
    "url": b"ok", "too-many": b"302", "swap": b"false true false true true true nil", "locked": b"1", "unlocked": b"nilbusyfree", "places": b"2 8 busy", "denied": b"denied denied denied denied denied denied",
    "spliced": b'{"a":{"name":"x","id":1234567890123456789,"list":[]},"b":{"id":1234567890123456789,"list":[],"name":"y"},"c":1234567890123456789,"d":"y"}',
    "partial": b'malformed JSON: line 2, column 4: "}" is no value 502 late timeout 503 ok connect', "needed": b"nilstatustrue",
    "few": b"{} 1n1 8n8 9n9 33n33 {a=a,s=200} {a=a,x!connect,y!connect,y=else} {failed!connect} {a=a,x!open,y!open,y=1} {x!open}",
    "late": b"niltimeoutb",
    "mixed": b"hello ann t 40n40 l", "cached-call": b"1 1 1 2 1 503 503 2", "hedge": b"2true", "broken": b"connect connect open open connect open",
    "own": b":: 200", "myself": b"busy",
    "misuse": b" ".join([b"here"] * 14), "expects": b"503status200",
}
HOOKS = """
return { doc = "Has hooks.",
  start = function()
    tg.every(0.05, function() tg.dict("seen"):incr("ticks") error "does not end it" end)
    tg.after(0.05, function() tg.dict("seen"):incr("after") end)
    tg.every(0.05, function() tg.dict("seen"):incr("each") end, { on = "each" })
  end,
  stop = function(_, _, why) tg.sleep(0.02) tg.dict("seen"):incr("stop-" .. why) end,
  access = function() end,
}
"""
LOOK = """local seen, out = tg.dict "seen", {}
for _, key in ipairs { "ticks", "after", "each", "stop-reload", "later", "left" } do out[key] = seen:get(key) or 0 end
return tg.respond(200, out)"""


@pytest.fixture(scope="module")
def gw():
    lock = """function() local d = tg.dict "seen" return d:lock("one", 2, function() local n = d:incr "inside" tg.sleep(0.01)
      d:set("most", math.max(n, d:get "most" or 0)) d:incr("inside", -1) return n end) end"""
    text = CONFIG + 'use { "hooks" }\n' + "".join(route(name, body) for name, body in BODIES.items()).replace("LOCK", lock) + route("look", LOOK)
    text += 'route "own-proxied" { listen = "front", path = "/own-proxied/*", strip_path = true, to = "own", body_limit = "10MiB" }\n'
    text += """local orders, stock = tg.metrics.counter("orders_total", { help = "Orders.", labels = { "state" } }), tg.metrics.gauge "in_stock"
      local weight, many = tg.metrics.histogram("weight", { buckets = { 1, 5 } }), tg.metrics.counter("many_total", { labels = { "id" } })
      route "measured" { listen = "front", path = "/measured", handler = function()
        orders:inc(1, { state = 'new "x"\\n' }) stock:set(7) weight:observe(2.5) return tg.respond(200) end }
      route "metrics" { listen = "front", path = "/metrics", handler = function()
        for i = 1, 1200 do many:inc(1, { id = i }) end return tg.respond(200, tg.metrics.text()) end }
      route "wrong-metrics" { listen = "front", path = "/wrong-metrics", handler = function()
        local function fails(f, part) local ok, err = pcall(f) return tostring(not ok and tostring(err):find(part, 1, true) ~= nil) end
        return tg.respond(200, fails(function() orders:inc(-1) end, "at least 0") .. " " .. fails(function() orders:inc(1, { x = 1 }) end, 'no label "x"')
          .. " " .. fails(function() stock:observe(1) end, "only a histogram")) end }\n"""
    text += route("leaves", 'tg.defer(function() tg.dict("seen"):incr("left") end) tg.sleep(5) return tg.respond(200)')
    text += 'route "cached" { listen = "front", path = "/cached", handler = "cached" }\nroute "batched" { listen = "front", path = "/batched", handler = "batched" }\n'
    with Gateway(text, plugins={"hooks": HOOKS, "cached": CACHED, "batched": BATCHED}, workers=2) as running:
        yield running


@pytest.mark.parametrize("name", EXPECTED)
def test_the_library_does_what_it_says(gw, name):
    answer = gw.request("/" + name)
    found = answer.text.replace(b"bad=error ", b"") if name == "completed" else answer.text
    assert (answer.status, found) == (200, EXPECTED[name]), gw.log()[-3000:]


def test_a_listener_of_our_own_is_an_upstream_without_a_network(gw):
    """Proxied, with bodies of some size both ways; the connections are pairs of this process, and none goes over a port."""
    body = b"x" * 3000000
    for _ in range(3):
        assert gw.request("/own-proxied/echo", "POST", body).text == body


def test_metrics_are_counted_by_all_workers_and_read_by_prometheus(gw):
    for _ in range(40):
        assert gw.request("/measured").status == 200
    text = gw.request("/metrics").text.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['orders_total{state="new \\"x\\"\\n"}'] == "40" and lines["in_stock"] == "7"
    assert lines["weight_count"] == "40" and lines["weight_sum"] == "100" and lines['weight_bucket{le="+Inf"}'] == "40"
    assert lines['weight_bucket{le="1"}'] == "0" and lines['weight_bucket{le="5"}'] == "40"
    assert sum(line.startswith("many_total{") for line in text.splitlines()) == 1001 and lines['many_total{id="other"}'] == "200"
    assert "# TYPE orders_total counter\n# HELP" not in text and "# HELP orders_total Orders.\n# TYPE orders_total counter\n" in text
    assert gw.request("/wrong-metrics").text == b"true true true"


def test_what_a_function_raises_is_raised_where_it_was_asked_for(gw):
    assert b"inside" in gw.request("/raising").text and b"broken" in gw.request("/upload-raises").text


def look(gw):
    return json.loads(gw.request("/look").text)


def wait(gw, condition):
    end = time.monotonic() + 5
    while not condition(look(gw)):
        assert time.monotonic() < end, look(gw)
        time.sleep(0.02)


def test_background_goes_on_and_what_was_deferred_runs_when_the_client_has_gone(gw):
    gw.request("/background")
    wait(gw, lambda seen: seen["later"] >= 1)
    with Client(gw.port) as client:
        client.send(b"GET /leaves HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.05)
        client.socket.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER: a reset, since an end alone is no leaving
    wait(gw, lambda seen: seen["left"] == 1)


def ask(gw, path):
    return json.loads(gw.request(path).text)


def test_a_cache_loads_once_gives_stale_values_and_forgets_everywhere(gw):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(gw, "/cached?key=a"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer["value"]["n"] for answer in found} == {1}, "one load, in whichever worker"
    time.sleep(0.35)
    start = time.monotonic()
    assert ask(gw, "/cached?key=a")["value"]["n"] == 1 and time.monotonic() - start < 0.04, "stale at once"
    time.sleep(0.1)
    assert {ask(gw, "/cached?key=a")["value"]["n"] for _ in range(8)} == {2}, "loaded anew beside"
    assert ask(gw, "/cached?key=a&delete=1")["value"]["n"] == 3
    assert {ask(gw, "/cached?key=a")["value"]["n"] for _ in range(8)} == {3}
    time.sleep(0.35)
    ask(gw, "/cached?key=other&broken=1")
    time.sleep(0.1)
    assert ask(gw, "/cached?key=a")["value"]["n"] == 3, "stale is better than an error"
    ask(gw, "/cached?key=x&broken=0")
    before = ask(gw, "/cached?key=none")["loads"]
    assert {ask(gw, "/cached?key=none")["loads"] for _ in range(8)} == {before}, "that there is none is remembered"
    assert ask(gw, "/cached?key=bad")["err"] == "broken"


def test_a_loader_of_a_cache_that_raises_is_told_with_its_own_lines():
    plugin = """local function fetch(key)
  return key.missing.field
end
local values = tg.cache("v", { ttl = 1 }, function(key)
  local found = fetch(key)
  return found
end)
return { doc = "x", handler = function(ctx)
  if ctx.req.path == "/caught" then return tg.respond(200, tostring(select(2, pcall(values.get, values, "a")))) end
  return tg.respond(200, values:get "a")
end }
"""
    config = 'api = 1 listen { address = "127.0.0.1", port = @PORT@ } route "r" { path = "/*", handler = "loads" }'
    with Gateway(config, plugins={"loads": plugin}) as gw:
        assert gw.request("/").status == 500
        told = gw.log()
        assert told.index("loads.lua:2: ") < told.index("loads.lua:5: ") < told.index("raised again at"), told
        assert b"loads.lua:2: " in gw.request("/caught").text
        assert b"traceback" not in gw.request("/caught").text, "who catches it gets the message alone"


def test_a_batch_sends_portions_keeps_what_could_not_be_sent_and_is_bounded(gw):
    with Client(gw.port) as client:  # one connection, so one worker
        def add(n, more=""):
            client.send(b"GET /batched?n=%d%s HTTP/1.1\r\nHost: a\r\n\r\n" % (n, more.encode()))
            return json.loads(client.answer().body)
        assert add(12)["added"] == 12
        time.sleep(0.3)
        seen = add(0)
        assert (seen["items"], seen["portions"]) == (12, 3)
        add(0, "&down=1")
        assert add(30)["added"] == 20
        time.sleep(0.3)
        seen = add(0, "&down=0")
        assert (seen["items"], seen["dropped"]) == (12, 10)
        time.sleep(0.4)
        assert add(3)["items"] == 32
    assert gw.command("reload").returncode in (0, 1)
    gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + "-- flush\n")
    assert gw.command("reload").returncode == 0
    end = time.monotonic() + 5
    while ask(gw, "/batched?n=0")["items"] != 35:
        assert time.monotonic() < end, "the rest is sent at the end of the generation"
        time.sleep(0.05)


def test_timers_tick_once_a_gateway_and_end_with_their_generation(gw):
    end = time.monotonic() + 8
    while gw.command("status").stdout.count("in 1 generation\n") < 2:  # one that others have left behind has yet to run its hooks
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.15)  # of a generation that is younger the timers have yet to begin
    before = look(gw)
    time.sleep(0.5)
    after = look(gw)
    assert after["after"] == before["after"] >= 1 and 4 <= after["ticks"] - before["ticks"] <= 14 and after["each"] - before["each"] > after["ticks"] - before["ticks"]
    for n in range(3):
        gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + "-- again\n")
        assert gw.command("reload").returncode == 0
    stopped = before["stop-reload"]
    wait(gw, lambda seen: seen["stop-reload"] == stopped + 6)
    before = look(gw)
    time.sleep(0.5)
    assert 4 <= look(gw)["ticks"] - before["ticks"] <= 14, "the timers of the old generations are gone"


def test_an_object_that_was_not_looked_into_is_a_table_in_a_configuration_too():
    """Its functions are no plugin's: what they know of the language is the configuration's."""
    config = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
route "back" { listen = "back", path = "/*", handler = function() return tg.respond(200, '{"b":[2],"a":1}') end }
route "front" { listen = "front", path = "/*", handler = function()
  local function fresh() return assert(tg.upstream("o"):get_json "/") end
  local meta, set = setmetatable(fresh(), { __index = { c = 3 } }), fresh()
  rawset(set, "a", 5)
  local n = 0
  for _ in pairs(fresh()) do n = n + 1 end
  return tg.respond(200, tg.json.array { meta.a + meta.c, rawget(fresh(), "a"), set.a, #set.b, n, getmetatable(fresh()) == nil, fresh() })
end }
"""
    with Gateway(config) as gw:
        assert gw.request("/").text == b'[4,1,5,1,2,true,{"b":[2],"a":1}]'


def test_a_listener_of_our_own_is_found_by_its_name_when_the_order_of_listeners_changes():
    ports = {name: free_port() for name in "abc"}

    def config(*names):
        listens = "".join(f'listen {{ name = "{name}", address = "127.0.0.1", port = {ports[name]} }}\n' for name in names)
        routes = "".join(f'route "{name}" {{ listen = "{name}", path = "/who", handler = function() return tg.respond(200, "{name}") end }}\n'
                         for name in names)
        return "api = 1\n" + listens + 'upstream "own" { targets = { "listener:b" } }\n' + routes \
            + 'route "call" { listen = "a", path = "/call", handler = function() return tg.respond(200, assert(tg.upstream("own"):get("/who")).body) end }\n'

    with Gateway(config(*"abc")) as gw:
        assert gw.request("/call", port=ports["a"]).text == b"b"
        for order in ("cba", "ba", "acb"):
            gw.write("gateway.lua", config(*order))
            assert gw.command("reload").returncode == 0, gw.log()
            for _ in range(3):
                assert gw.request("/call", port=ports["a"]).text == b"b"
