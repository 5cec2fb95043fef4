"""A whole generation in shadow: the current one answers, the new one says what it would have done, and nobody notices but who asks."""
import json
import re
import socket
import subprocess
import threading
import time

from gateway import Gateway, free_port
from test_canary import ask, until

HEAD = """
listen { name = "public", address = "127.0.0.1", port = @PORT@ }
listen { name = "origin", address = "127.0.0.1", port = @PORT3@ }
admin { port = @PORT2@, token = "0123456789abcdef0123", public_metrics = true }
log { rate = 5 }
consumer "acme" { credentials = { key = "k1" } }
upstream "a" { targets = { "http://127.0.0.1:@PORT3@" } }
upstream "b" { targets = { "http://127.0.0.1:1" } }
route "origin" { listen = { "origin" }, path = "/*", handler = function(ctx)
  return tg.respond(200, { path = ctx.req.raw_path, x = ctx.req.headers["X-Set"] }) end }
"""
WARNS = "admin: |in shadow"


def route(use="", to="a", more="", path="/x/*", name="x"):
    return f'route "{name}" {{ listen = {{ "public" }}, path = "{path}", to = "{to}", use = {{ {use} }}, {more} }}\n'


HANDLER = 'route "x" { listen = { "public" }, path = "/x/*", handler = function(ctx) return tg.respond(200, { path = ctx.req.raw_path }) end }\n'


def gateway(text, **more):
    port = str(free_port())
    gw = Gateway((HEAD + text).replace("@PORT3@", port), warns=WARNS, **more)
    gw.change = lambda new: gw.write("gateway.lua", (HEAD + new).replace("@PORT3@", port))
    return gw


def report(gw):
    return json.loads(gw.command("status", "--json").stdout)["shadow"]


def judged(gw, before, after, *paths, **headers):
    """What comes of these requests, of which the new generation must not change the answer."""
    gw.change(before)
    assert gw.command("reload").returncode == 0
    was = [gw.request(path, headers=headers) for path in paths]
    gw.change(after)
    done = gw.command("reload", "--shadow", "--detach")
    assert done.returncode == 0, done.stderr
    for path, old in zip(paths, was):
        now = gw.request(path, headers=headers)
        assert now.status == old.status and sorted(now.text) == sorted(old.text)  # members of an object have no order
    until(lambda: sum(report(gw)["counts"].values()) >= len(paths))
    found = report(gw)
    assert gw.command("canary", "abort").returncode == 0
    # the origin is a listener of this gateway, and judged as well: always the same
    return {kind: n for kind, n in found["counts"].items() if n > 0 and kind != "same"}, found["examples"]


def test_each_kind_of_difference_is_found_and_no_answer_changes():
    edit = 'function(ctx) ctx.req.headers["X-Set"] = "secret-value" end'
    cases = (
        ("route", route(), route(name="y"), 'route "x" now, route "y" in shadow'),
        ("route", route(), "", 'route "x" now, no route in shadow, which answers 404'),
        ("status", route(), route('"key-auth"'), "lets it pass now, answers 401 in shadow"),
        ("status", route('"key-auth"'), route(), "answers 401 now, lets it pass in shadow"),
        ("status", route('"key-auth"'), route('function() return tg.respond(403) end'), "answers 401 now, answers 403 in shadow"),
        ("route", route(), route(more='methods = { "POST" }'), "which answers 405"),
        ("upstream", route(), route(to="b"), "upstream b in shadow"),
        ("target", route(), route('function(ctx) ctx.req.path = "/other" end'), "/other in shadow"),
        ("target", route(), route(more="strip_path = true"), "path /x/1 now, /1 in shadow"),
        ("target", route(), route('function(ctx) ctx.req.query.a = "secret-value" end'), "another query"),
        ("headers", route(), route(edit), "header x-set differs"),
        ("headers", route(edit), route(), "header x-set differs"),
        ("raised", route(), route('function() error "oops" end'), "oops"),
        ("raised", route(), route("function() while true do end end"), "budget"),
        ("unjudged", route(), route("function() tg.sleep(5) end"), "waited"),
        ("upstream", route(), HANDLER, "goes to a peer now, to its handler in shadow"),
        ("upstream", HANDLER, route(), "answered by its handler now, upstream a in shadow"),
        ("status", route(), HANDLER.replace("handler", 'use = { "key-auth" }, handler'), "answers 401 in shadow"),
        ("status", route(), route('{ "key-auth", name = "k" }', more='auth = "required"'), "answers 401 in shadow"),
    )
    with gateway(route(), workers=1) as gw:
        for kind, before, after, said in cases:
            found, examples = judged(gw, before, after, "/x/1")
            assert found == {kind: 1}, (found, examples, after)
            assert said in examples[kind] and examples[kind].startswith("GET /x/1: "), examples
            assert "secret-value" not in json.dumps(examples) + gw.log()


def handler(code):
    return f'dict "d" {{ size = "1MiB" }}\nroute "x" {{ listen = {{ "public" }}, path = "/x/*", handler = function(ctx) {code} end }}\n'


FINE = 'return tg.respond(200, "fine", { ["X-Kind"] = "a" })'


def test_a_handler_that_only_computes_is_judged_and_nothing_leaves_it():
    cases = (
        ("response", FINE.replace("200", "404"), "status 200 now, 404 in shadow"),
        ("response", FINE.replace('"a"', '"secret-value"'), "header x-kind differs"),
        ("response", "return tg.problem(403)", "status 200 now, 403 in shadow"),
        ("response", "error(tg.respond(410))", "status 200 now, 410 in shadow"),
        ("raised", 'error "oops"', "oops"),
        ("raised", "return 5", "a handler must return a response"),
        ("raised", "while true do end", "budget"),
        ("response", 'if tg.dict("d"):incr("n") > 0 then return tg.respond(204) end', "status 200 now, 204 in shadow"),
    )
    # What it cannot do unnoticed: then the answer of the current one stands for its own, and nobody hears of it.
    unknown = ('tg.upstream("a"):get "/count"', "tg.sleep(0.001)", "tg.spawn(function() end)", 'tg.background("x", function() end)', "ctx.req:text()",
               'pcall(tg.sleep, 0.001)', 'pcall(function() tg.upstream("a"):post("/count") end)', 'ctx.res.headers["X-Kind"] = "b"',
               'tg.http.get "http://127.0.0.1:1/"', 'coroutine.wrap(function() tg.sleep(0.001) end)()')
    with gateway(handler(FINE), workers=1) as gw:
        for kind, after, said in cases:
            found, examples = judged(gw, handler(FINE), handler(after), "/x/1")
            assert found == {kind: 1}, (found, examples, after)
            assert said in examples[kind] and "secret-value" not in json.dumps(examples), examples
        for code in unknown:
            gw.change(handler(f'if not ctx.req.headers["X-Real"] then {code} end return tg.respond(404)'))
            assert gw.command("reload", "--shadow", "--detach").returncode == 0
            sent = gw.request("/x/1", "POST", b"whole body")
            assert sent.status == 200 and sent.headers["X-Kind"] == "a"
            until(lambda: sum(report(gw)["counts"].values()) > 0)
            assert report(gw)["counts"]["same"] == sum(report(gw)["counts"].values()) == 1, (code, report(gw))
            gw.request("/x/1", headers={"X-Real": "1"})  # the worker's state is as it was: this one is judged
            until(lambda: report(gw)["counts"]["response"] == 1)
            assert gw.command("canary", "abort").returncode == 0


def test_what_a_handler_writes_into_logs_and_dictionaries_is_not_written():
    log = """local sink
return { schema = { path = t.string() }, setup = function(conf) sink = tg.log.sink(conf.path) end,
  handler = function(ctx) sink:write "a line" tg.dict("d"):incr("n") return tg.respond(CODE, tostring(tg.dict("d"):get "n")) end }"""
    text = handler(FINE).split("route")[0] + 'route "x" { listen = { "public" }, path = "/x/*", handler = { "writes", path = "@DIR@/lines" } }\n'
    with gateway(text, workers=1, plugins={"writes": log.replace("CODE", "200")}) as gw:
        assert gw.request("/x/1").text == b"1"
        gw.write("plugins/writes.lua", log.replace("CODE", "201"))
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        assert [gw.request("/x/1").text for _ in range(3)] == [b"2", b"3", b"4"]
        until(lambda: report(gw)["counts"]["response"] == 3)
        assert gw.command("canary", "abort").returncode == 0
        until(lambda: (gw.folder / "lines").read_text() == "a line\n" * 4)


def test_a_handler_that_cannot_be_held_back_does_not_run():
    other = 'return { shadow = false, schema = { code = t.number() }, handler = function(_, conf) return tg.respond(conf.code) end }'
    text = 'route "x" { listen = { "public" }, path = "/x/*", handler = { "other", code = %d } }\n'
    with gateway(text % 200, workers=1, plugins={"other": other}) as gw:
        assert judged(gw, text % 200, text % 404, "/x/1")[0] == {}


def test_the_peer_that_it_would_ask_is_compared_where_that_is_no_chance():
    port = free_port()

    def to(balance, more="", use=""):
        return (f'upstream "two" {{ targets = {{ "http://127.0.0.1:@PORT3@", "http://127.0.0.1:{port}" }}, balance = {balance}, {more} }}\n'
                f'listen {{ name = "second", address = "127.0.0.1", port = {port} }}\n' + route(use, "two"))
    first = "function(ctx, peers) return peers[1] end"
    second = first.replace("[1]", "[2]")
    chooses = 'return { schema = { n = t.number() }, balance = function(ctx, conf) return ctx.peers[conf.n] end }'
    origin = 'route "second" { listen = { "second" }, path = "/*", handler = function() return tg.respond(200, { path = "/x/1" }) end }\n'
    with gateway(to(first) + origin, workers=1, plugins={"chooses": chooses}) as gw:
        found, examples = judged(gw, to(first) + origin, to(second) + origin, "/x/1")
        assert found == {"upstream": 1} and f":{port} in shadow" in examples["upstream"], (found, examples)
        assert judged(gw, to(first) + origin, to(first.replace("end", "end --[[x]]")) + origin, "/x/1")[0] == {}
        assert judged(gw, to('"maglev"', 'hash = "${path}"') + origin, to('"maglev"', 'hash = function(ctx) return ctx.req.path end') + origin, "/x/1")[0] == {}
        assert judged(gw, to(first) + origin, to('"round_robin"') + origin, "/x/1", "/x/1")[0] == {}
        assert judged(gw, to(first) + origin, to("function() end") + origin, "/x/1", "/x/1")[0] == {}
        found = judged(gw, to(first) + origin, to(first, use='{ "chooses", n = 2 }') + origin, "/x/1")
        assert found[0] == {"upstream": 1}, found
        assert judged(gw, to(first) + origin, to(second, use='{ "chooses", n = 1 }') + origin, "/x/1")[0] == {}
        found, examples = judged(gw, to(first) + origin, to('function() error "oops" end') + origin, "/x/1")
        assert found == {"raised": 1} and "oops" in examples["raised"], examples


def test_what_is_the_same_is_counted_as_the_same():
    both = route('"key-auth", { "rate-limit", limit = 1000, per = "1s" }, function(ctx) ctx.req.headers["X-Set"] = ctx.consumer.id end')
    other = both.replace("end }", "end --[[ another text ]] }")
    handler = 'route "h" { listen = { "public" }, path = "/h", handler = function(ctx) return tg.respond(404) end }\n'
    with gateway(both + handler, workers=2) as gw:
        assert judged(gw, both + handler, other + handler, "/x/1", "/h", "/nowhere", "/x/2", **{"X-Api-Key": "k1"})[0] == {}
        assert judged(gw, both + handler, other + handler, "/x/1")[0] == {}  # 401 on both sides
        slow = other.replace("function(ctx)", "function(ctx) tg.sleep(0.001)", 1)
        assert set(judged(gw, both + handler, slow + handler, "/x/1", **{"X-Api-Key": "k1"})[0]) <= {"unjudged"}


def test_its_limits_and_dictionaries_are_its_own():
    code = 'function(ctx) local d = tg.dict "d" local n = d:incr("n") if n > LAST then return tg.respond(403) end end'
    limit = '{ "rate-limit", name = "l", limit = RATE, per = "1h" }'
    text = 'dict "d" { size = "1MiB" }\n'
    with gateway(text + route(code.replace("LAST", "6") + "," + limit.replace("RATE", "8")), workers=2) as gw:
        gw.change(text + route(code.replace("LAST", "4") + "," + limit.replace("RATE", "2")))
        assert gw.request("/x/1").status == 200
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        # the dictionary goes on from what is there, the limit begins anew
        assert [gw.request("/x/1").status for _ in range(7)] == [200] * 5 + [403] * 2
        found = report(gw)
        assert found["counts"]["status"] == 3, found  # a second one above 2, and above 4 in all


def test_bodies_are_not_judged():
    reads = 'function(ctx) if ctx.req:text() ~= "" then return tg.respond(403) end end'
    with gateway(route(), workers=1) as gw:
        gw.change(route(reads))
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        assert gw.request("/x/1", "POST", b"whole body").status == 200 and report(gw)["counts"]["unjudged"] == 1
        assert report(gw)["examples"]["unjudged"] == "POST /x/1: a plugin reads the body"
        assert gw.request("/x/1").status == 200 and report(gw)["counts"]["unjudged"] == 1  # it has none
        assert gw.request("/x/1", "POST", b"").status == 200 and report(gw)["counts"]["unjudged"] == 1
        assert gw.command("canary", "abort").returncode == 0


RESPONDS = {
    "sets": 'return { schema = { value = t.string "1" }, response = function(ctx, conf) ctx.res.headers["X-Now"] = conf.value end }',
    "hides": 'return { response = function(ctx) ctx.res.headers["Content-Type"] = nil end }',
    "turns": "return { response = function(ctx) if ctx.res.status == 200 then ctx.res.status = 203 end end }",
    "throws": 'return { response = function(ctx) error(tg.respond(503, "", { ["Retry-After"] = "7" })) end }',
    "raises": 'return { response = function() error "oops" end }',
    "reads": "return { response = function(ctx) ctx.res:json() end }",
    "sleeps": "return { response = function() tg.sleep(5) end }",
    "cookie": 'return { response = function(ctx) ctx.res:add_header("Set-Cookie", "sid=" .. tg.uuid.v4()) end }',
    "wraps": """return { around = function(ctx)
      if ctx.req.headers["X-Teapot"] then return tg.respond(418) end
      local res = ctx:next()
      res.headers["X-Wrapped"] = tostring(res.status)
      if res.status == 401 then return tg.respond(404, "") end
    end }""",
    "twice": "return { around = function(ctx) ctx:next() ctx:next() end }",
}


DENIES = "function() return tg.respond(401) end"


def test_what_the_client_would_get_is_compared_by_the_response_that_really_came():
    cases = (
        ("response", route(), route('"sets"'), "header x-now differs"),
        ("response", route('"sets"'), route(), "header x-now differs"),
        ("response", route('"sets"'), route('{ "sets", value = "secret-value" }'), "header x-now differs"),
        ("response", route(), route('"hides"'), "header content-type differs"),
        ("response", route(), route('"turns"'), "status 200 now, 203 in shadow"),
        ("response", route('"turns"'), route(), "status 203 now, 200 in shadow"),
        ("response", route(), route('"throws"'), "status 200 now, 503 in shadow"),
        ("raised", route(), route('"raises"'), "oops"),
        ("response", route('"raises"'), route(), "status 500 now, 200 in shadow"),
        ("unjudged", route(), route('"reads"'), "reads the response's body"),
        ("response", route(), route('{ "turns", call_time = "20s" }'), "status 200 now, 203 in shadow"),
        ("response", route(), route('{ "throws", call_time = "20s" }'), "status 200 now, 503 in shadow"),
        ("unjudged", route(), route('{ "reads", call_time = "20s" }'), "reads the response's body"),
        ("unjudged", route(), route('"sleeps"'), "response have waited"),
        ("response", route(), route('"cookie"'), "header set-cookie differs"),
        ("response", route(), route('"wraps"'), "header x-wrapped differs"),
        ("response", route(DENIES), route(f'"wraps", {DENIES}'), "status 401 now, 404 in shadow"),
        ("raised", route(), route('"twice"'), "can be called once"),
        ("status", route(), route('"wraps", function() return tg.respond(403) end'), "answers 403 in shadow"),
        ("response", HANDLER, HANDLER.replace("handler", 'use = { "sets" }, handler'), "header x-now differs"),
        ("response", route('"key-auth"'), route('"sets", "key-auth"'), "header x-now differs"),
        ("response", route('"key-auth"'), route('function() return tg.respond(401, "") end'), "header"),
        ("response", route(more='methods = { "POST" }'), route(more='methods = { "PUT" }'), "header allow differs"),
    )
    with gateway(route(), workers=1, plugins=RESPONDS) as gw:
        for kind, before, after, said in cases:
            found, examples = judged(gw, before, after, "/x/1")
            assert found == {kind: 1}, (found, examples, after)
            assert said in examples[kind], examples
            assert "secret-value" not in json.dumps(examples) + gw.log()
        assert judged(gw, route(), route('"wraps"'), "/x/1", **{"X-Teapot": "1"})[0] == {"status": 1}


def test_answers_that_are_the_same_are_counted_as_the_same():
    limit = '{ "rate-limit", limit = 1000, per = "1h" }'
    uses = ('{ "sets", call_time = "20s" }', '"sets"', '"turns"', '"wraps"', '"wraps", "sets", "turns"', '"cookie"', limit, '"sets", "wraps", "key-auth"', '"throws"', '"raises"', '"correlation-id", { "cors", origins = { "https://a.test" } }')
    with gateway(route(), workers=1, plugins=RESPONDS) as gw:
        gw.request("/x/1")
        for use in uses:
            assert judged(gw, route(use), route(use + ", function() end"), "/x/1", "/x/2")[0] == {}, use
        assert judged(gw, HANDLER.replace("handler", 'use = { "wraps" }, handler'), HANDLER.replace("handler", 'use = { "wraps", function() end }, handler'), "/x/1")[0] == {}


def test_who_goes_away_while_a_plugin_waits_for_the_response_leaves_nothing_behind():
    slow = 'route "slow" { listen = { "origin" }, path = "/x/slow", priority = 1, handler = function() tg.sleep(2) return tg.respond(200) end }\n'
    with gateway(route() + slow, workers=1, plugins=RESPONDS) as gw:
        gw.change(route('"wraps"') + slow)
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gw.port)) as client:
                client.sendall(b"GET /x/slow HTTP/1.1\r\nHost: a\r\n\r\n")
                time.sleep(0.01)
        assert gw.request("/x/1").status == 200
        until(lambda: report(gw)["counts"]["response"] == 1)
        assert gw.command("canary", "abort").returncode == 0
        until(lambda: "in 1 generation\n" in gw.command("status").stdout)


def test_peers_metrics_and_ids_are_left_alone():
    text = 'function(ctx) local up = tg.upstream "a" up:mark(up:peers()[1], "down") end, "counts"'
    counts = """local n = tg.metrics.counter("mine_total") return { access = function(ctx) n:inc() local _ = ctx.id end }"""
    with gateway(route('"counts"'), workers=1, plugins={"counts": counts}) as gw:
        assert gw.request("/x/1").status == 200
        gw.change(route(text))
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        assert [gw.request("/x/1").status for _ in range(3)] == [200] * 3
        assert "mine_total 4" in gw.request("/metrics", port=gw.port2).text.decode()
        assert report(gw)["counts"]["same"] >= 3


def test_its_time_ends_it_and_the_report_is_kept():
    with gateway(route(), workers=2) as gw:
        gw.change(route('"key-auth"'))
        trial = subprocess.Popen([gw.binary, "reload", "--control", str(gw.control), "--shadow", "100%", "--watch", "1s"], stdout=subprocess.PIPE, text=True)
        until(lambda: "in shadow" in gw.command("status").stdout)
        for _ in range(20):
            assert gw.request("/x/1").status == 200
        out, _ = trial.communicate(timeout=10)
        assert trial.returncode == 0 and "20 status" in out and "its time is over" in out and "answers 401 in shadow" in out
        assert "in shadow" not in gw.command("status").stdout and gw.request("/x/1").status == 200
        assert "20 status" in gw.command("history").stdout
        past = json.loads(gw.command("history", "--json").stdout)[-1]["shadow"]
        assert past["counts"]["status"] == 20 and past["end"] == "its time is over"
        assert ask(gw, "/generations")[1]["shadows"] == [past] and len(ask(gw, "/generations")[1]["generations"]) == 1
        text = gw.request("/metrics", port=gw.port2).text.decode()
        assert 'tidegate_generation_shadow_total{verdict="status"} 20' in text and 'tidegate_reloads_total{outcome="shadowed"} 1' in text
        assert len(re.findall(r"info .*status: GET /x/1", gw.log())) <= 10  # 5 in each worker


def test_it_is_promoted_with_its_listeners_and_begins_as_any_other():
    with gateway(route(), workers=2) as gw:
        port = free_port()
        gw.change(route('"key-auth"') + f'listen {{ name = "more", address = "127.0.0.1", port = {port} }}\n' + 'route "m" { listen = { "more" }, path = "/*", to = "a" }\n')
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        assert gw.request("/x/1").status == 200
        assert gw.command("reload").returncode == 1  # one thing after another
        done = gw.command("canary", "promote")
        assert done.returncode == 0 and "is live" in done.stdout
        assert gw.request("/x/1").status == 401 and gw.request("/y", port=port).status == 200
        assert "promoted by" in gw.command("history").stdout
        assert gw.command("rollback").returncode == 0 and gw.request("/x/1").status == 200


def test_it_is_left_by_a_rollback_and_survives_the_death_of_a_worker():
    with gateway(route(), workers=2) as gw:
        gw.change(route('"key-auth"'))
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        pid = gw.workers()[0]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until(lambda: gw.workers()[0] not in (0, pid))

        def all_judge():
            before = report(gw)["counts"]["status"]
            for _ in range(10):
                assert gw.request("/x/1").status == 200
            return report(gw)["counts"]["status"] == before + 10
        until(all_judge)
        assert gw.command("rollback").returncode == 0 and "in shadow" not in gw.command("status").stdout
        assert gw.request("/x/1").status == 200


def test_a_plugin_that_computes_for_ever_slows_down_three_requests_and_no_more():
    with gateway(route(), workers=1) as gw:
        gw.change(route("function() while true do end end"))
        assert gw.command("reload", "--shadow", "--detach").returncode == 0
        started = time.monotonic()
        for _ in range(100):
            assert gw.request("/x/1").status == 200
        assert time.monotonic() - started < 10
        found = report(gw)
        assert found["counts"]["raised"] == 3 and found["counts"]["unjudged"] >= 97 and "budget" in found["examples"]["unjudged"]


def test_a_share_of_them_is_judged_and_the_configuration_may_say_so():
    by = {"X-User": "u1"}
    with gateway(route(), workers=2) as gw:
        gw.change(route('"key-auth"') + 'canary { shadow = true, share = 0.4, header = "X-User" }\n')
        waits = threading.Thread(target=gw.command, args=("reload",))
        waits.start()
        until(lambda: "in shadow" in gw.command("status").stdout)
        assert report(gw)["share"] == 0.4
        for i in range(100):
            assert gw.request("/x/1", headers={"X-User": f"u{i}"}).status == 200
        assert 15 < report(gw)["counts"]["status"] < 65
        first = report(gw)["counts"]["status"]
        gw.request("/x/1", headers=by)
        second = report(gw)["counts"]["status"]
        for _ in range(5):
            gw.request("/x/1", headers=by)
        assert report(gw)["counts"]["status"] - second == 5 * (second - first)
        assert ask(gw, "/canary", "PUT", {"state": "aborted"})[0] == 200
        waits.join(10)
        assert not waits.is_alive()
        assert ask(gw, "/reload", "POST", {"shadow": "100%", "watch": "60s"})[0] == 200 and report(gw)["share"] == 1
        assert ask(gw, "/canary", "PUT", {"state": "aborted"})[0] == 200
        assert ask(gw, "/reload", "POST", {"shadow": "moon"})[0] == 409


def test_what_is_wrong_with_the_words_is_told():
    with gateway(route()) as gw:
        for words in (("--shadow=5",), ("--shadow", "moon"), ("--shadow=0%",)):
            done = gw.command("reload", *words)
            assert done.returncode == 1 and "known are" in done.stderr, done
        done = gw.command("reload", "--shadow", "--canary", "5%")
        assert done.returncode == 1 and "not both" in done.stderr
        gw.change(route() + "nonsense {")
        assert gw.command("reload", "--shadow").returncode == 1
