"""The wall clock jumps, a process stands still: no timeout storm, no request lost, limits and dictionaries go on."""
import email.utils
import os
import re
import signal
import threading
import time

import pytest
from faults import CONFIG, JUDGE, RIGHT, Client, Faulty, ask, ask_all, must_be_right, wait_until

HOUR = 3600
MORE = """
dict "kept" { size = "1MiB" }
route "put" { path = "/put", handler = function() tg.dict("kept"):set("k", "v", 1.5) return tg.respond(200) end }
route "look" { path = "/look", handler = function() return tg.respond(200, tg.dict("kept"):get("k") or "gone") end }
route "limited" { path = "/limited", use = { { "rate-limit", limit = 3, per = "1h", key = "all" } }, handler = function() return tg.respond(200) end }
route "now" { path = "/now", handler = function() return tg.respond(200, tostring(math.floor(tg.now()))) end }
"""


@pytest.fixture
def gw(shim, origin, tmp_path):
    with Faulty(CONFIG % {"origin": origin.port} + MORE, shim, tmp_path, plugins={"judge": JUDGE}) as running:
        must_be_right(running.port)
        yield running


def test_the_wall_clock_jumps_and_only_dates_follow(gw):
    worker = gw.workers()
    for jump in (HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 0):
        slow = {}
        kinds = [threading.Thread(target=lambda kind=kind: slow.update({kind: ask(gw.port, kind)})) for kind in ("sleep", "big", "upload", "both")]
        for each in kinds:
            each.start()
        gw.plan.jump(jump)
        for each in kinds:
            each.join(10)
        assert set(slow.values()) == {RIGHT}, slow
        must_be_right(gw.port)
        wait_until(lambda: abs(int(gw.request("/now").text) - time.time() - jump) < 3, "the new time is told")
        date = gw.request("/local").headers["Date"]
        assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time() - jump) < 3, date
    assert gw.workers() == worker


def test_a_wait_takes_as_long_as_it_was_to(gw):
    """The deadline of a slow head, of a time to live and of a kept connection are no wall clock times."""
    assert gw.request("/put").status == 200
    with Client(gw.port, 5) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        start = time.monotonic()
        gw.plan.jump(-HOUR)
        assert client.answer().status == 408 and 0.7 < time.monotonic() - start < 2
    with Client(gw.port, 5) as client:
        client.send(b"GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 200
        gw.plan.jump(HOUR)
        time.sleep(0.3)  # a time in which a confused gateway would close it
        client.send(b"GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 200


def test_a_dictionary_forgets_when_the_time_to_live_is_over_and_not_before(gw):
    assert gw.request("/put").status == 200
    gw.plan.jump(HOUR)
    assert gw.request("/look").text == b"v"
    gw.plan.jump(-HOUR)
    wait_until(lambda: gw.request("/look").text == b"gone", "the time to live is over", 4)


def test_a_limit_is_neither_lifted_for_long_nor_stuck(gw):
    statuses = [gw.request("/limited").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    gw.plan.jump(2 * HOUR)
    wait_until(lambda: gw.request("/limited").status == 200, "another window has begun")
    gw.plan.jump(0)
    assert gw.request("/limited").status in (200, 429)


def test_a_process_that_stood_still_goes_on(gw):
    worker, = gw.workers()
    with Client(gw.port, 10) as kept:
        kept.send(b"GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.answer().status == 200
        os.kill(worker, signal.SIGSTOP)
        asked = []
        clients = [threading.Thread(target=lambda: asked.append(ask(gw.port, "local"))) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(1.2)  # longer than any of its deadlines, shorter than the watchdog's
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            client.join(10)
        assert asked == [RIGHT] * 8, asked
        kept.send(b"GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.answer().status == 200
    must_be_right(gw.port)
    assert gw.workers() == [worker]


def test_a_master_that_stood_still_reloads_afterwards(gw):
    os.kill(gw.process.pid, signal.SIGSTOP)
    assert all(outcome == [RIGHT] for outcome in ask_all(gw.port).values())
    os.kill(gw.process.pid, signal.SIGCONT)
    gw.write("gateway.lua", open(gw.folder / "gateway.lua").read() + 'route "new" { path = "/new", handler = function() return tg.respond(200, "new") end }\n')
    done = gw.command("reload")
    assert done.returncode == 0, done.stderr
    assert gw.request("/new").text == b"new"
    assert len(re.findall(r"^worker", gw.command("status").stdout, re.M)) == 1
