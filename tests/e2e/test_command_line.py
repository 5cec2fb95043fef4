"""What the command line tells of a gateway that has no admin interface: routes, failures, tail, top, profile."""
import json
import os
import pty
import re
import subprocess
import threading
import time

import pytest

from backends import Backend
from gateway import BINARY, Gateway, kill

CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
upstream "app" { targets = { "http://BACKEND" } }
upstream "dead" { targets = { "http://127.0.0.1:1" }, passive = false, breaker = { consecutive = 100000 } }
use { "correlation-id" }
route "app" { path = { "/app/*", "/apps/{name}" }, methods = { "GET" }, host = "*.example.com", to = "app", use = { "hsts" } }
route "dead" { path = "/dead", to = "dead" }
local function burn() local sum = 0 for i = 1, 20000 do sum = sum + math.sin(i) end return sum end
route "busy" { path = "/busy", handler = function() return tg.respond(200, tostring(burn())) end }
local text = tg.json.encode { list = (function() local list = {} for i = 1, 500 do list[i] = "entry " .. i end return list end)() }
local function decode(times) local n = 0 for _ = 1, times do n = n + #tg.json.decode(text).list end return n end
route "reads" { path = "/reads", handler = function() return tg.respond(200, tostring(decode(20))) end }
route "here" { path = "/here", handler = function() return tg.respond(200, "here") end }
"""
HOST = {"Host": "a.example.com"}


def run(gw, *words, seconds=30):
    done = subprocess.run([BINARY, words[0], "--control", str(gw.control), *words[1:]], capture_output=True, text=True, timeout=seconds)
    assert "Sanitizer" not in done.stderr, done.stderr
    return done


def read(gw, *words):
    done = run(gw, *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Traffic:
    """Requests in the background, until the end of the block."""

    def __init__(self, gw, *paths):
        self.gw, self.paths, self.done = gw, paths, False
        self.thread = threading.Thread(target=self.send)

    def send(self):
        while not self.done:
            for path in self.paths:
                self.gw.request(path, headers=HOST)
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.done = True
        self.thread.join()


@pytest.fixture(scope="module")
def gw():
    with Backend("a") as backend, Gateway(CONFIG.replace("BACKEND", backend.address), workers=2, warns="upstream|breaker|signal") as running:
        running.backend = backend.address
        yield running


def test_routes_are_listed_with_what_was_counted(gw):
    for _ in range(4):
        assert gw.request("/app/x", headers=HOST).status == 200
        assert gw.request("/dead").status == 502
    answer = read(gw, "routes", "--json")[0]
    assert [route["name"] for route in answer["routes"]] == ["app", "dead", "busy", "reads", "here"]
    app = answer["routes"][0]
    assert app["path"] == ["/app/*", "/apps/{name}"] and app["host"] == ["*.example.com"] and app["methods"] == ["GET"]
    assert app["to"] == "app" and app["use"] == ["hsts"] and app["at"].startswith("gateway.lua:")
    assert app["counts"]["requests"]["2xx"] >= 4 and app["counts"]["p50"] > 0
    lines = run(gw, "routes").stdout.splitlines()
    assert lines[0].split()[:5] == ["ROUTE", "METHODS", "HOST", "PATH", "TO"] and len(lines) >= 4
    assert re.match(r"app +GET +\*\.example\.com +/app/\* /apps/\{name\} +app +hsts +\d+ +0 +[\d.]+ (us|ms|s) ", lines[1]), lines


def test_upstreams_are_told_to_programs(gw):
    assert gw.request("/app/x", headers=HOST).status == 200 and gw.request("/dead").status == 502
    upstreams = {one["name"]: one for one in read(gw, "upstream", "--json")[0]["upstreams"]}
    assert set(upstreams) == {"app", "dead"} and upstreams["app"]["breaker"] == "closed"
    peer = upstreams["app"]["peers"][0]
    assert peer["name"] == gw.backend and peer["state"] == "up" and peer["requests"] >= 1 and peer["failures"] == 0
    assert upstreams["dead"]["peers"][0]["failures"] >= 1
    assert run(gw, "upstream", "app", "down", gw.backend).returncode == 0
    found = read(gw, "upstream", "app", "--json")[0]["upstreams"]
    assert [one["name"] for one in found] == ["app"] and found[0]["peers"][0]["state"] == "down"
    assert run(gw, "upstream", "app", "up", gw.backend).returncode == 0
    gone = run(gw, "upstream", "gone", "--json")
    assert gone.returncode == 1 and "no such upstream" in gone.stderr


def test_failures_are_told_newest_first_and_without_the_query(gw):
    assert gw.request("/dead?key=secret-value").status == 502
    gw.request("/here")
    failures = read(gw, "failures", "--json", "--route", "dead")[0]["failures"]
    assert failures[0]["route"] == "dead" and failures[0]["status"] == 502 and failures[0]["error"] == "connect"
    assert failures[0]["peer"] == "127.0.0.1:1" and failures[0]["attempts"] >= 1 and failures[0]["reason"] == "failed"
    ends = [one["at"] + one["duration"] for one in failures]
    assert ends == sorted(ends, reverse=True)
    done = run(gw, "failures", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2 and "127.0.0.1:1" in done.stdout and "secret-value" not in done.stdout


def test_the_tail_shows_each_request_once(gw):
    with Traffic(gw, "/here", "/dead", "/nowhere"):
        seen = read(gw, "tail", "--json", "--count", "30", "--route", "here")
        failed = read(gw, "tail", "--json", "--count", "5", "--status", "5")
        found = read(gw, "tail", "--json", "--count", "5", "--path", "where")
        text = run(gw, "tail", "--count", "5").stdout
    assert len(seen) == 30 and {one["route"] for one in seen} == {"here"} and len({one["id"] for one in seen}) == 30
    assert {one["status"] for one in failed} == {502} and {one["path"] for one in found} == {"/nowhere"}
    assert len(text.splitlines()) == 5 and re.match(r"\d\d:\d\d:\d\d\.\d{3}  \d{3}  GET     ", text)


def test_top_shows_rates_of_now_once_where_there_is_no_terminal(gw):
    gw.request("/app/a", headers=HOST)
    with Traffic(gw, "/here", "/dead"):
        found = read(gw, "top", "--json", "--interval", "1")
        text = run(gw, "top", "--interval", "0.5").stdout
    assert len(found) == 1
    routes = {route["name"]: route for route in found[0]["routes"]}
    assert routes["here"]["requests"] > 0 and routes["here"]["5xx"] == 0 and routes["here"]["p95"] > 0
    assert routes["dead"]["5xx"] > 0 and found[0]["all"]["requests"] >= routes["here"]["requests"] + routes["dead"]["requests"]
    assert len(found[0]["workers"]) == 2 and found[0]["workers"][0]["lua_bytes"] > 0
    plugins = {(one["plugin"], one["phase"]) for one in found[0]["plugins"]}
    assert ("hsts", "response") in plugins and ("correlation-id", "rewrite") not in plugins, "what the core does is no call"
    for head in ("WORKER", "ROUTE", "PLUGIN", "requests/s", "LUA"):
        assert head in text
    assert "\x1b" not in text


def test_top_refreshes_a_terminal_and_goes_on_over_a_reload(gw):
    ours, theirs = pty.openpty()
    top = subprocess.Popen([BINARY, "top", "--control", str(gw.control), "--interval", "0.2"], stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    out = b""

    def read_looks(count):
        nonlocal out
        wanted = out.count(b"\x1b[H") + count
        while out.count(b"\x1b[H") < wanted:
            out += os.read(ours, 65536)
    try:
        read_looks(2)
        assert b"here" in out
        gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + '\nroute "later" { path = "/later", to = "app" }\n')
        assert run(gw, "reload").returncode == 0
        generation = re.search(r"generation +(\w+)", run(gw, "status").stdout)[1]
        assert gw.request("/here").status == 200
        while generation.encode() not in out:
            read_looks(1)
    finally:
        top.kill()
        top.wait()
        os.close(ours)


def start_profile(gw, *words):
    """One that has begun. The question of which worker comes behind the question whether there is one already."""
    taken = subprocess.Popen([BINARY, "profile", "--control", str(gw.control), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 20
    while "another profile is being taken" not in run(gw, "profile", "--worker", "99").stderr:
        assert time.monotonic() < end and taken.poll() is None
    return taken


def stacks_of(text):
    return {stack: int(samples) for stack, samples in (line.rsplit(" ", 1) for line in text.splitlines())}


def test_a_profile_shows_what_takes_the_time_of_a_worker(gw):
    with Traffic(gw, "/busy"):
        taken = [run(gw, "profile", "--seconds", "1", "--worker", worker) for worker in ("0", "1")]
    stacks = {}
    for one in taken:
        assert one.returncode == 0, one.stderr
        stacks.update(stacks_of(one.stdout))
    assert any("gateway.lua:burn" in stack.split(";") and ";gateway.lua:handler;" in stack for stack in stacks), stacks
    assert any(stack.startswith("(core);") for stack in stacks) and gw.request("/busy").status == 200
    counts = list(stacks_of(taken[0].stdout).values())
    assert counts == sorted(counts, reverse=True)


def test_a_profile_shows_functions_of_c_under_those_of_lua_and_on_their_own(gw):
    with Traffic(gw, "/reads"):
        taken = [run(gw, "profile", "--seconds", "2", "--worker", worker) for worker in ("0", "1")]
    lines = [line.rsplit(" ", 1)[0] for one in taken for line in one.stdout.splitlines()]
    stacks = [line.split(";") for line in lines]
    # What a function of Lua has called stands behind it.
    called = [s for s in stacks if "gateway.lua:handler" in s and any(name.startswith("tg_abi_json_") for name in s)]
    assert all(s.index("gateway.lua:handler") < next(i for i, name in enumerate(s) if name.startswith("tg_abi_json_")) for s in called) and called, lines
    # The core's own: with static functions of ours, and what was called of libevent by its exported name.
    core = [s for s in stacks if s[0] == "(core)"]
    assert any(["command_run", "event_base_loop", "tg_machine_drive"] == [n for n in s if n in ("command_run", "event_base_loop", "tg_machine_drive")] for s in core), lines
    assert not [s for s in core if any(".lua:" in name for name in s)] and len(lines) > 3
    assert all(len(one.stdout.splitlines()) == len({line.rsplit(" ", 1)[0] for line in one.stdout.splitlines()}) for one in taken)
    assert all(re.fullmatch(r"[^\x00-\x1f ]+(?: [^\x00-\x1f]+)?", line) for line in lines), lines


def test_one_profile_at_a_time_and_only_of_a_worker_that_is_there(gw):
    first = start_profile(gw, "--seconds", "50")
    assert run(gw, "profile").returncode == 1
    # It ends with the generation that it was taken of.
    gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + '\nroute "last" { path = "/last", to = "app" }\n')
    assert run(gw, "reload").returncode == 0
    assert first.wait(20) == 0
    # And with its worker.
    second = start_profile(gw, "--seconds", "50", "--worker", "1")
    kill(gw.workers()[1])
    assert second.wait(20) == 1 and "the worker has ended" in second.stderr.read()
    assert "no such worker" in run(gw, "profile", "--worker", "99").stderr
    assert "expected 1 to 50 seconds" in run(gw, "profile", "--seconds", "51").stderr
    assert gw.request("/here").status == 200


@pytest.mark.parametrize("words, expected", [
    (("tail", "--nothing"), "there is no option --nothing"),
    (("tail", "--count", "0"), 'found "0", expected a number above 0'),
    (("tail", "--count"), "--count needs a value"),
    (("top", "--once=yes"), "--once takes no value"),
    (("failures", "word"), "there is no option word"),
    (("routes", "--limit", "3"), "there is no option --limit"),
])
def test_wrong_usage_is_told(words, expected):
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and expected in done.stderr and f"try: tidegate {words[0]} --help" in done.stderr


def test_where_nobody_answers_the_exit_status_is_3(tmp_path):
    for name in ("routes", "failures", "tail", "top", "profile"):
        done = subprocess.run([BINARY, name, "--control", str(tmp_path / "none")], capture_output=True, text=True, timeout=20)
        assert done.returncode == 3 and "no gateway answers" in done.stderr
