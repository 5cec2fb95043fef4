"""Plugins that raise, loop, wait or grow without end, in each phase: their own requests suffer, nobody else's."""
import resource
import time

import pytest
from faults import Client, Cut, wait_until
from gateway import RELEASE, Gateway

PHASES = ["rewrite", "authenticate", "access", "balance", "response", "log", "handler"]
# The phases before the request is answered: what goes wrong in them is the client's to see.
ANSWERING = [phase for phase in PHASES if phase != "log"]

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
route "origin" { listen = "back", path = "/*", handler = function(ctx) return tg.respond(200, "origin") end }
defaults { timeout = "500ms" }
use { "bad-rewrite" }
route "ok" { listen = "front", path = "/ok", handler = function(ctx) return tg.respond(200, "ok") end }
route "to" { listen = "front", path = "/to", to = "o" }
"""
ROUTE = 'route "%(phase)s" { listen = "front", path = "/%(phase)s", to = "o", use = { "bad-%(phase)s" } }\n'
HANDLER = 'route "handler" { listen = "front", path = "/handler", handler = { "bad-handler" } }\n'


def bad(phase, action):
    """A plugin with one phase that does `action`; a rewrite runs for all, so it looks first."""
    guard = 'if ctx.req.path == "/rewrite" then %s end' % action if phase == "rewrite" else action
    more = 'challenge = "Bad",' if phase == "authenticate" else ""
    return f'return {{ doc = "Is bad.", {more} {phase} = function(ctx) {guard} end }}'


def gateway(action, more="", no_defaults=False, **options):
    config = (CONFIG.replace('defaults { timeout = "500ms" }\n', "") if no_defaults else CONFIG) + more + "".join(ROUTE % {"phase": phase} for phase in PHASES if phase != "handler") + HANDLER
    return Gateway(config, plugins={f"bad-{phase}": bad(phase, action) for phase in PHASES}, **options)


def others_are_served(gw):
    for path, text in (("/ok", b"ok"), ("/to", b"origin")):
        answer = gw.request(path)
        assert (answer.status, answer.text) == (200, text), gw.log()


ERRORS = {
    "text": 'error "bad"',
    "nil": "error(nil)",
    "table": "error({ status = 200 })",
    "no-text": "error(setmetatable({}, { __tostring = function() error 'worse' end, __index = function() error 'worst' end }))",
    "long": 'error(("x"):rep(1000000))',
    "no-response": "return 7",
    "deep": "local function f() return 1 + f() end return f()",
    "pattern": 'return ("a"):rep(30000):find(("a?"):rep(30000))',
    "yield": "coroutine.yield()",
    "yield-values": "coroutine.yield(true)",
}


@pytest.mark.parametrize("action", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_in_a_phase_is_a_500_and_nobody_else_s(action):
    with gateway(action) as gw:
        worker = gw.workers()
        for phase in ANSWERING:
            answer = gw.request("/" + phase)
            assert answer.status == 500 and b"bad" not in answer.text, (phase, answer.status, answer.text)
            others_are_served(gw)
        answer = gw.request("/log")
        assert (answer.status, answer.text) == (200, b"origin"), "what is answered is answered"
        others_are_served(gw)
        assert gw.workers() == worker, gw.log()
        assert gw.log().count(" error [worker 0]") >= len(PHASES), gw.log()


def test_a_coroutine_that_yields_to_nobody_never_answers_for_another_request():
    with gateway('coroutine.yield() return tg.respond(200, "stolen")') as gw:
        for phase in PHASES * 2:
            gw.request("/" + phase)
            others_are_served(gw)


def test_a_call_in_a_coroutine_of_the_plugin_s_own_does_not_outlive_its_request():
    """The core frees the call with the request; the plugin keeps the coroutine, and goes on with it in the next one."""
    action = """
    kept = kept or coroutine.create(function() return tg.upstream("o"):get("/slow") end)
    coroutine.resume(kept)
    """
    in_a_task = "tg.spawn(function() " + action + " end) tg.sleep(0.001)"
    for way in (action, in_a_task):
        with gateway(way) as gw:
            worker = gw.workers()
            for phase in PHASES * 3:
                gw.request("/" + phase)
                others_are_served(gw)
            assert gw.workers() == worker, gw.log()


def nothing_is_left(gw):
    """An exchange that has not ended keeps its generation."""
    gw.write("gateway.lua", CONFIG.replace('use { "bad-rewrite" }', ""))
    done = gw.command("reload")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "in 1 generation\n" in gw.command("status").stdout, "the old generation is gone", 12)
    others_are_served(gw)


WAITS = {
    "sleep": "tg.sleep(1000)",
    "short-sleeps": "while true do tg.sleep(0) end",
    "a-cycle": "local a, b a = tg.spawn(function() tg.sleep(0.01) b:join() end) b = tg.spawn(function() a:join() end) a:join()",
    "wrapped": "coroutine.wrap(function() tg.sleep(1000) end)()",
}


@pytest.mark.parametrize("action", WAITS.values(), ids=WAITS.keys())
def test_a_phase_that_waits_for_ever_is_ended_by_the_route_s_time(action):
    with gateway(action) as gw:
        worker = gw.workers()
        clients = {phase: Client(gw.port) for phase in ANSWERING}
        for phase, client in clients.items():
            client.send(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % phase.encode())
        others_are_served(gw)
        # A rewrite has no route yet: its time is a minute, and its client does not wait for that.
        clients.pop("rewrite").reset()
        for phase, client in clients.items():
            with client:
                assert client.answer().status == 504, phase
        others_are_served(gw)
        assert gw.workers() == worker, gw.log()
        nothing_is_left(gw)


def test_a_log_phase_that_waits_for_ever_keeps_no_exchange_and_no_generation():
    with gateway("tg.sleep(1000)") as gw:
        for _ in range(50):
            assert gw.request("/log").status == 200
        nothing_is_left(gw)


SPAWNS = {
    "tasks": "while true do tg.spawn(function() tg.sleep(1000) end) end",
    "caught": "local ok repeat ok = pcall(tg.spawn, function() tg.sleep(1000) end) until not ok tg.sleep(1000)",
    "nested": "local function more() tg.spawn(more) tg.sleep(1000) end more()",
    "in-turn": "while true do tg.spawn(function() end):join() end",
    "branches": "tg.fetch_all(setmetatable({}, { __index = tg })) local all = {} "
                "for i = 1, 100000 do all[i] = function() tg.sleep(1000) end end return tg.fetch_all(all)",
}


@pytest.mark.parametrize("action", SPAWNS.values(), ids=SPAWNS.keys())
def test_tasks_without_end_are_bounded_by_the_request(action):
    """So many at once that together they would take every coroutine of the worker, were they not."""
    with gateway(action) as gw:
        worker = gw.workers()
        clients = [Client(gw.port) for _ in range(40)]
        for client in clients:
            client.send(b"GET /access HTTP/1.1\r\nHost: a\r\n\r\n")
        others_are_served(gw)
        for client in clients:
            with client:
                assert client.answer().status in (500, 503, 504)
        others_are_served(gw)
        assert gw.workers() == worker, gw.log()


GROWS = {
    "strings": 'local s = "x" while true do s = s .. s end',
    "repeated": 'local all = {} for i = 1, 1e9 do all[i] = ("x"):rep(1024 * 1024) .. i end',
    "tables": "local all = {} for i = 1, 1e9 do all[i] = { i } end",
    "coroutines": "local all = {} for i = 1, 1e9 do all[i] = coroutine.create(function() end) end",
}
MEMORY = 400 * 1024 * 1024  # addresses; about a third is in use before anything happens


def grow(gw, phase):
    """The answer's status, or None for a closed connection."""
    try:
        with Client(gw.port, 15) as client:
            client.send(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % phase.encode())
            return client.answer().status
    except Cut:
        return None


@pytest.mark.parametrize("action", GROWS.values(), ids=GROWS.keys())
def test_a_plugin_that_grows_without_end_loses_its_request_alone(action):
    with gateway(action, more='limits { lua_memory = "32MiB" }\n', binary=RELEASE, options=("--watchdog", "5")) as gw:
        worker = gw.workers()
        for phase in PHASES:
            assert grow(gw, phase) == (200 if phase == "log" else 500), (phase, gw.log())
            others_are_served(gw)
        assert gw.workers() == worker, gw.log()


TAKES = {
    "tables": "local all = {} for i = 1, 1e6 do all[i] = { i } end",
    "repeated": 'local all = {} for i = 1, 300 do all[i] = ("x"):rep(1024 * 1024) .. i end',
    "joined": 'local s = ("x"):rep(2 ^ 24) local all = { s, s, s, s } all[5] = table.concat(all)',
    "doubled": 'local s = ("x"):rep(2 ^ 20) s = s .. s s = s .. s s = s .. s s = s .. s s = s .. s s = s .. s kept = s',
    "waits": 'local s = ("x"):rep(2 ^ 24) local all = { s, s, s, s } all[5] = table.concat(all) tg.sleep(0.01) error(all[5])',
    "task": "local _, err = tg.spawn(function() local all = {} for i = 1, 1e6 do all[i] = { i } end return 1 end):join() if err then error(err.message) end",
    "caught": "local all = {} pcall(function() for i = 1, 1e6 do all[i] = { i } end end)",
}


@pytest.mark.parametrize("action", TAKES.values(), ids=TAKES.keys())
def test_a_call_that_takes_more_memory_than_it_may_is_ended_long_before_the_worker_has_none(action):
    more = 'defaults { timeout = "5s", budget = "1s", call_memory = "16MiB" }\nlimits { lua_memory = "1GiB" }\n'
    with gateway(action, more=more, no_defaults=True) as gw:
        worker = gw.workers()
        for phase in PHASES:
            assert grow(gw, phase) == (200 if phase == "log" else 500), (phase, gw.log())
            others_are_served(gw)
        assert gw.workers() == worker and gw.log().count("of memory without a pause, and may take 16.0 MiB") >= len(PHASES), gw.log()


def test_what_writes_a_body_is_named_and_ended_when_it_takes_more_memory_than_it_may():
    writes = "function(write) local all = {} for i = 1, 1e6 do all[i] = { i } if i % 1e5 == 0 then write 'x' end end end"
    once = 'function(write) write "x" local s = ("x"):rep(2 ^ 24) local all = { s, s, s } write(table.concat(all)) end'
    more = 'defaults { budget = "1s", call_memory = "16MiB" }\n'
    for body in (writes, once):
        with gateway(f"return tg.respond(200, {body})", more=more, no_defaults=True) as gw:
            assert grow(gw, "access") in (200, 500, None)
            gw.wait_for("and may take 16.0 MiB [plugin bad-access, route access")
            others_are_served(gw)


def test_garbage_and_what_others_keep_is_on_no_call_s_account():
    """What a phase makes and drops is more than it may keep; and a heap that is large already is no reason to end anybody."""
    garbage = "for i = 1, 2e6 do local t = { i } end"
    keeps = "kept = kept or {} local more = {} for i = 1, 20000 do more[i] = { i } end kept[#kept + 1] = more"
    more = 'defaults { timeout = "5s", budget = "1s", call_memory = "4MiB" }\n'
    for action, times in ((garbage, 3), (keeps, 40)):
        with gateway(action, more=more, no_defaults=True) as gw:
            for _ in range(times):
                assert gw.request("/access").text == b"origin", gw.log()
            assert "of memory" not in gw.log()


def test_a_worker_to_which_the_kernel_gives_no_memory_is_replaced():
    keeps = "local all = {} pcall(function() for i = 1, 1e9 do all[i] = { i } end end) kept = all error(kept)"
    with gateway(keeps, binary=RELEASE, options=("--watchdog", "5")) as gw:
        first = gw.workers()
        for _ in range(3):
            worker, = gw.workers()
            resource.prlimit(worker, resource.RLIMIT_AS, (MEMORY, MEMORY))
            assert grow(gw, "access") in (None, 500, 503)
            wait_until(lambda: served(gw), "all is well", 30)
        assert gw.workers() != first, gw.log()


def served(gw):
    try:
        return gw.request("/to").text == b"origin"
    except OSError:
        return False


LOOPS = {
    "while": "while true do end",
    "for": "for i = 1, 1e18 do end",
    "goto": "::again:: goto again",
    "caught": "while true do pcall(function() while true do end end) end",
    "work": "local n = 0 repeat n = n + #tostring(n) until n < 0",
    "own": "coroutine.wrap(function() while true do end end)()",
}


@pytest.mark.parametrize("action", LOOPS.values(), ids=LOOPS.keys())
def test_a_phase_that_loops_is_ended_when_its_budget_is_used_up(action):
    with gateway(action, more='defaults { timeout = "5s", budget = "10ms" }\n', no_defaults=True) as gw:
        worker = gw.workers()
        for phase in ANSWERING:
            start = time.monotonic()
            assert gw.request("/" + phase).status == 500 and time.monotonic() - start < 2, (phase, gw.log())
            others_are_served(gw)
        assert gw.request("/log").status == 200
        others_are_served(gw)
        assert gw.workers() == worker and gw.log().count("more than its budget") == len(PHASES), gw.log()


def test_a_phase_that_no_counter_reaches_is_ended_with_its_worker_and_named():
    """A call of the C library that takes for ever: the process is the unit of rescue."""
    with gateway('local text = ("a"):rep(200) text:find(("a-"):rep(100) .. "b")', workers=3, options=("--watchdog", "1")) as gw:
        for count, phase in enumerate(PHASES, 1):
            with Client(gw.port) as client:
                client.send(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % phase.encode())
                gw.wait_for("was ended by signal 9", count=count)
            plugin = gw.log().rpartition(": plugin ")[2].split(",")[0]
            assert plugin == f"bad-{phase}", gw.log()
            wait_until(lambda: served(gw), "all is well", 10)


def test_a_plugin_that_loops_or_grows_while_it_is_set_up_is_refused_and_the_old_generation_serves(tmp_path):
    with gateway("return nil") as gw:
        for body in ("while true do end", "error(nil)", "coroutine.yield()", "tg.sleep(1)", "tg.spawn(function() end)"):
            gw.write("plugins/bad-access.lua", 'return { doc = "Is bad.", setup = function() %s end, access = function() end }' % body)
            assert gw.command("reload").returncode == 1, body
            others_are_served(gw)


def test_a_start_hook_that_raises_or_waits_for_ever_holds_nobody_up():
    for body in ('error "bad"', "tg.sleep(1000)", "coroutine.yield()", 'tg.upstream("o"):get("/slow") error(nil)'):
        with gateway("return nil") as gw:
            gw.write("plugins/bad-access.lua", 'return { doc = "Is bad.", start = function() %s end, access = function() end }' % body)
            assert gw.command("reload").returncode == 0, body
            others_are_served(gw)
