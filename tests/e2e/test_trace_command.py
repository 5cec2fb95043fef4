"""tidegate trace: what happens to the next requests, told without an admin interface."""
import json
import signal
import subprocess
import time

import pytest

from backends import Backend
from gateway import BINARY, Gateway, kill

CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
upstream "app" { targets = { "http://BACKEND" } }
upstream "half" { targets = { "http://127.0.0.1:1", "http://BACKEND" }, retry = { attempts = 2 }, passive = false }
use { "correlation-id" }
route "app" { path = "/app/*", to = "app", use = { "hsts" } }
route "half" { path = "/half/*", to = "half" }
route "calls" { path = "/calls", handler = function()
  local found = tg.upstream("app"):get("/part?token=hidden")
  tg.sleep(0.05)
  return tg.respond(200, tostring(found and found.status))
end }
route "wrapped" { path = "/wrapped", to = "app", use = { "wrap" } }
route "raises" { path = "/raises", handler = function() error "not today" end }
"""


@pytest.fixture(scope="module")
def gw():
    plugins = {"wrap": 'return { doc = "Wraps.", schema = {}, around = function(ctx) tg.sleep(0.01) ctx:next() end }'}
    with Backend("a") as backend, Gateway(CONFIG.replace("BACKEND", backend.address), plugins=plugins, workers=2,
                                          warns="upstream|not today|signal") as running:
        yield running


def can_be_interrupted():
    """Also where the tests run in the background of a shell, which makes its jobs deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Trace:
    """One that has begun."""

    def __init__(self, gw, *words):
        command = [BINARY, "trace", "--control", str(gw.control), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=can_be_interrupted)
        time.sleep(0.6)

    def end(self):
        out, err = self.process.communicate(timeout=30)
        assert "Sanitizer" not in err, err
        return self.process.returncode, out, err


def traced(gw, *paths, words=()):
    trace = Trace(gw, "--json", "--seconds", "10", "--count", str(len(paths)), *words)
    for path in paths:
        gw.request(path)
    status, out, err = trace.end()
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_plugins_attempts_and_sizes_are_told_in_order(gw):
    (said,) = traced(gw, "/app/a?token=hidden")
    assert (said["route"], said["status"], said["source"], said["path"]) == ("app", 200, "upstream", "/app/a")
    events = [(e["kind"], e.get("plugin"), e.get("phase")) for e in said["events"]]
    assert events == [("plugin", "correlation-id", "rewrite"), ("attempt", None, None), ("plugin", "hsts", "response"),
                      ("plugin", "correlation-id", "response")], events
    times = [e["at"] for e in said["events"]]
    assert times == sorted(times) and all(0 <= e["took"] <= said["duration"] + 0.01 for e in said["events"])
    attempt = said["events"][1]
    assert attempt["upstream"] == "app" and attempt["status"] == 200 and 0 < attempt["first_byte"] <= attempt["took"] + 0.001
    assert said["bytes_out"] > 0 and "hidden" not in json.dumps(said)


def test_each_attempt_and_the_calls_of_plugins_are_told(gw):
    halves = traced(gw, "/half/1", "/half/2")
    failed = [e for said in halves for e in said["events"] if e["kind"] == "attempt" and e.get("error")]
    assert failed and all(e["error"] == "connect" and "connect" not in e for e in failed) and all(s["status"] == 200 for s in halves)
    (said,) = traced(gw, "/calls")
    fetch = next(e for e in said["events"] if e["kind"] == "fetch")
    handler = said["events"][fetch["within"] - 1]
    assert handler["plugin"] == "handler" and handler["waited"] and handler["verdict"] == 200 and handler["took"] >= 0.05
    assert fetch["status"] == 200 and fetch["url"].endswith("/part") and fetch["took"] < handler["took"]


def test_what_a_plugin_wraps_stands_within_it(gw):
    (said,) = traced(gw, "/wrapped")
    attempt = next(e for e in said["events"] if e["kind"] == "attempt")
    around = said["events"][attempt["within"] - 1]
    assert (around["plugin"], around["phase"], around["waited"]) == ("wrap", "around", True) and around["took"] >= 0.01
    assert attempt["status"] == 200 and attempt["first_byte"] > 0


def test_what_raises_and_what_no_route_matches_is_told(gw):
    raised, none = sorted(traced(gw, "/raises", "/nowhere"), key=lambda said: -said["status"])
    assert raised["status"] in (500, 503) and {e["phase"]: e["verdict"] for e in raised["events"]}["handler"] == "raised"
    assert none["status"] == 404 and "route" not in none


def test_filters_choose_and_all_workers_tell(gw):
    trace = Trace(gw, "--json", "--status", "404", "--count", "30")
    for _ in range(30):
        gw.request("/app/a")
        gw.request("/nowhere")
    status, out, _ = trace.end()
    said = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and {one["status"] for one in said} == {404} and len(said) == 30
    assert {one["worker"] for one in said} == {0, 1}
    trace = Trace(gw, "--path", "/half/")
    for path in ("/app/a", "/half/7", "/half/8"):
        gw.request(path)
    status, out, _ = trace.end()
    assert status == 0 and out.count("/half/") == 1 and "route half" in out and "attempt" in out and "bytes out" in out


def test_it_ends_when_nothing_comes_or_it_is_interrupted_and_nobody_else_asks_meanwhile(gw):
    status, out, err = Trace(gw, "--seconds", "1").end()
    assert status == 1 and out == "" and "0 of 1 have come in 1 s" in err
    first = Trace(gw, "--seconds", "60")
    status, _, err = Trace(gw).end()
    assert status == 1 and "other requests are being traced" in err
    first.process.send_signal(signal.SIGINT)
    first.process.wait(10)
    end = time.monotonic() + 20
    while True:  # its place is free a moment later
        status, _, err = Trace(gw, "--seconds", "1").end()
        if "0 of 1" in err:
            break
        assert time.monotonic() < end and "being traced" in err
    for words in (["--count", "none"], ["--seconds"], ["--what"]):
        assert Trace(gw, *words).end()[0] == 2


def test_a_reload_and_a_new_worker_are_traced_too(gw):
    trace = Trace(gw, "--json", "--route", "late", "--count", "2", "--seconds", "30")
    (gw.folder / "gateway.lua").write_text((gw.folder / "gateway.lua").read_text() + '\nroute "late" { path = "/late", to = "app" }\n')
    assert subprocess.run([BINARY, "reload", "--control", str(gw.control)], capture_output=True, timeout=30).returncode == 0
    gw.request("/late")
    before = gw.workers()
    for worker in before:
        kill(worker)
    end = time.monotonic() + 20
    while trace.process.poll() is None and time.monotonic() < end:
        try:
            gw.request("/late")
        except OSError:
            pass
        time.sleep(0.1)
    status, out, err = trace.end()
    assert status == 0, err
    assert [json.loads(line)["route"] for line in out.splitlines()] == ["late", "late"]
