"""A use that raises or computes too long too often is put out for a while, to what it has declared: refused, or skipped."""
import subprocess
import time

from gateway import BINARY, Gateway, free_port

FLAKY = '''local ran = tg.metrics.counter("ran", { labels = { "phase" } })
return {
  schema = { phase = t.string "access" },
  access = function(ctx, conf)
    if conf.phase == "access" then ran:inc(1, { phase = "access" }) end
    local what = ctx.req.headers["X-What"]
    if what == "raise" and conf.phase == "access" then error "flaky" end
    if what == "large" then local all = {} for i = 1, 50000 do all[i] = { i } end end
    if what == "deny" then return tg.respond(403) end
    if what == "slow" then
      local from = os.clock()
      while os.clock() - from < 0.02 do end
    end
  end,
  response = function(ctx, conf)
    if ctx.req.headers["X-What"] == "raise" and conf.phase == "response" then error "flaky" end
    ctx.res.headers["X-Flaky"] = "ran"
  end,
}
'''
WHO = '''return { authenticate = function(ctx)
  if ctx.req.headers["X-What"] == "raise" then error "flaky" end
  ctx:authenticate { id = "someone" }
end }
'''
RULES = 'quarantine = { errors = 3, window = "60s", pause = "1500ms" }'


def gateway(uses, more="", admin=None):
    text = f'api = 1\nlisten {{ address = "127.0.0.1", port = @PORT@ }}\nadmin {{ port = {admin or free_port()}, public_metrics = true }}\n{more}\n'
    for name, use in uses.items():
        text += f'route "{name}" {{ path = "/{name}", use = {{ {use} }}, handler = function() return tg.respond(200, "whole") end }}\n'
    return Gateway(text, plugins={"flaky": FLAKY, "who": WHO})


def ask(gw, path, what="", count=1):
    return [gw.request(path, headers={"X-What": what}).status for _ in range(count)]


def until(gw, path, status, seconds=20):
    end = time.monotonic() + seconds
    while ask(gw, path) != [status]:
        assert time.monotonic() < end, gw.log()
        time.sleep(0.05)


def test_what_raises_too_often_is_refused_until_a_call_has_worked():
    admin = free_port()
    with gateway({"closed": f'{{ "flaky", {RULES} }}'}, admin=admin) as gw:
        assert ask(gw, "/closed", "raise", 3) == [500] * 3
        answer = gw.request("/closed")
        assert answer.status == 503 and answer.headers["Retry-After"] in ("1", "2") and b"out of order" in answer.text
        assert "plugin flaky is out for 1.5 s: it has raised or been too slow 3 times in 60 s; meanwhile its exchanges are answered 503" in gw.log()
        ran = [line for line in gw.request("/metrics", port=admin).text.decode().splitlines() if line.startswith("ran{")]
        assert ran == ['ran{phase="access"} 3'], "it does not run meanwhile"
        time.sleep(1.6)
        assert ask(gw, "/closed", "raise", 2) == [500, 503], "one call tries, and it is out again"
        until(gw, "/closed", 200)
        assert "plugin flaky is back" in gw.log()
        assert ask(gw, "/closed", "deny", 5) == [403] * 5, "an answer is no error"
        assert ask(gw, "/closed", "raise", 2) == [500, 503], "the next error puts it out again"
        text = gw.request("/metrics", port=admin).text.decode()
        assert 'tidegate_quarantine_total{plugin="flaky",event="out"} 3' in text and 'tidegate_quarantine_total{plugin="flaky",event="back"} 1' in text


def test_what_has_declared_so_is_skipped_and_the_rest_goes_on():
    uses = {"open": f'{{ "flaky", fail = "open", {RULES} }}, {{ "flaky", name = "other" }}', "skip": f'{{ "flaky", on_error = "skip", {RULES} }}',
            "response": f'{{ "flaky", phase = "response", {RULES} }}', "never": '{ "flaky", quarantine = false }'}
    with gateway(uses, 'defaults { quarantine = { errors = 1000 } }') as gw:
        assert ask(gw, "/open", "raise", 3) == [500] * 3
        answer = gw.request("/open", headers={"X-What": "fine"})
        assert answer.status == 200 and answer.headers["X-Flaky"] == "ran" and "exchanges go on without it" in gw.log()
        assert ask(gw, "/skip", "raise", 5) == [200] * 5 and gw.request("/skip").headers["X-Flaky"] is None
        assert ask(gw, "/response", "raise", 3) == [500] * 3 and ask(gw, "/response") == [503]
        assert ask(gw, "/never", "raise", 5) == [500] * 5


def test_who_cannot_be_asked_who_he_is_is_not_let_in():
    with gateway({"who": f'{{ "who", {RULES} }}', "both": f'{{ "who", {RULES} }}, {{ "key-auth" }}'}, 'consumer "a" { credentials = { key = "k" } }') as gw:
        for path in ("/who", "/both"):
            assert ask(gw, path) == [200] and ask(gw, path, "raise", 3) == [500] * 3 and ask(gw, path) == [503]
            until(gw, path, 200)


def test_what_computes_too_long_is_put_out():
    with gateway({"slow": f'{{ "flaky", fail = "open", {RULES} }}'}, 'defaults { budget = "5ms" }') as gw:
        assert set(ask(gw, "/slow", "slow", 3)) <= {200, 500}
        gw.wait_for("plugin flaky is out")
        assert gw.request("/slow").headers["X-Flaky"] is None


def test_what_takes_too_much_memory_is_put_out():
    with gateway({"slow": f'{{ "flaky", fail = "open", {RULES} }}'}, 'defaults { call_memory = "1MiB" }') as gw:
        assert ask(gw, "/slow", "large", 3) == [500] * 3 and "and may take 1.0 MiB" in gw.log()
        gw.wait_for("plugin flaky is out")
        answer = gw.request("/slow", headers={"X-What": "large"})
        assert answer.status == 200 and answer.headers["X-Flaky"] is None


WAITS = """local ended = tg.metrics.counter("ended", { labels = { "what" } })
return { schema = { phase = t.string "access" },
  access = function(ctx, conf)
    local what = ctx.req.headers["X-What"]
    if conf.phase ~= "access" then return end
    tg.defer(function() ended:inc(1, { what = "exchange" }) end)
    ctx.vars.seen = ctx.req:text()
    if what == "wait" then
      tg.spawn(function() tg.defer(function() ended:inc(1, { what = "child" }) end) tg.sleep(30) end)
      tg.sleep(30)
    end
    if what == "raise" then error "flaky" end
    if what == "deny" then return tg.respond(403) end
    if what == "throw" then tg.sleep(0.001) error(tg.respond(418)) end
    if what == "twice" then return nil, { code = "timeout" } end
    tg.sleep(0.01)
  end,
  response = function(ctx, conf)
    if conf.phase == "response" and ctx.req.headers["X-What"] == "wait" then tg.sleep(30) end
    ctx.res.headers["X-Seen"] = ctx.vars.seen
  end,
  log = function(ctx, conf) if conf.phase == "log" then tg.sleep(30) end end,
  handler = function(ctx) tg.sleep(0.01) if ctx.req.headers["X-What"] == "wait" then tg.sleep(30) end return tg.respond(200, "handled") end,
}"""


def test_what_waits_for_longer_than_a_call_may_is_ended_with_all_that_it_began():
    text = f"""listen {{ address = "127.0.0.1", port = @PORT@ }}
admin {{ port = @PORT2@, public_metrics = true }}
route "a" {{ path = "/a", use = {{ {{ "waits", call_time = "1s", {RULES} }} }}, handler = function() return tg.respond(200, "whole") end }}
route "r" {{ path = "/r", use = {{ {{ "waits", phase = "response", call_time = "1s" }} }}, handler = function() return tg.respond(200) end }}
route "s" {{ path = "/s", use = {{ {{ "waits", call_time = "1s", on_error = "skip" }} }}, handler = function() return tg.respond(200) end }}
route "l" {{ path = "/l", use = {{ {{ "waits", phase = "log", call_time = "1s" }} }}, handler = function() return tg.respond(200) end }}
route "h" {{ path = "/h", handler = {{ "waits", call_time = "1s" }} }}
"""
    with Gateway(text, plugins={"waits": WAITS}, warns="waits") as gw:
        def metrics():
            return {line for line in gw.request("/metrics", port=gw.port2).text.decode().splitlines() if line.startswith("ended{")}
        answer = gw.request("/a", "POST", b"a body")
        assert answer.status == 200 and answer.headers["X-Seen"] == "a body" and metrics() == {'ended{what="exchange"} 1'}
        assert [ask(gw, "/a", what) for what in ("deny", "throw", "twice", "raise")] == [[403], [418], [200], [500]]
        for path, status in (("/a", 500), ("/r", 500), ("/s", 200), ("/h", 500), ("/l", 200)):
            begin = time.monotonic()
            assert ask(gw, path, "wait") == [status] and time.monotonic() - begin < 10, path
        assert ask(gw, "/h") == [200]
        gw.wait_for("it has taken longer than its call_time of 1 s", count=5)
        assert '{what="child"} 2' in "".join(metrics()), "what it had begun has ended with it"
        assert ask(gw, "/a", "wait") == [500] and ask(gw, "/a") == [503], "and it is put out"


def test_what_no_call_time_can_limit_is_refused(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/wraps.lua").write_text("return { around = function(ctx) ctx:next() end }")
    for use, why in (('{ "wraps", call_time = "1s" }', "limits none of its phases"), ('{ "cors", call_time = "soon" }', "call_time"),
                     ('{ "cors", call_time = 0 }', "call_time"), ('{ "cors", call_time = true }', "call_time")):
        (tmp_path / "gateway.lua").write_text(f'listen {{ port = 1 }}\nroute "r" {{ path = "/", handler = function() end, use = {{ {use} }} }}\n')
        done = subprocess.run([BINARY, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and why in done.stderr and "gateway.lua:2" in done.stderr, done.stderr


def test_what_cannot_be_in_quarantine_is_refused(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/who.lua").write_text(WHO)
    for use, why in ((f'{{ "who", fail = "open", {RULES} }}', 'fail = "open" is refused for a plugin that authenticates'),
                     ('{ "cors", fail = "open" }', "`quarantine` is not set"), ('{ "cors", fail = "ajar", quarantine = {} }', '"closed" or "open" as `fail`'),
                     ('{ "cors", quarantine = { errors = 0 } }', "errors"), ('{ "cors", quarantine = true }', "a table or false")):
        (tmp_path / "gateway.lua").write_text(f'api = 1\nlisten {{ port = 1 }}\nroute "r" {{ path = "/", handler = function() end, use = {{ {use} }} }}\n')
        done = subprocess.run([BINARY, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and why in done.stderr and "gateway.lua:3" in done.stderr, done.stderr
