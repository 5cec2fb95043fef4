"""A reload that is tried on a share of the requests first: who gets it, what ends it, and that nobody loses a request."""
import contextlib
import json
import re
import subprocess
import threading
import time

from gateway import Gateway

TOKEN = "0123456789abcdef0123"
CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
admin { port = @PORT2@, token = "0123456789abcdef0123" }
MORE
route "x" { path = "/x", handler = function(ctx) BODY end }
"""
OLD, NEW = 'return tg.respond(200, "old")', 'return tg.respond(200, "new")'
BY = ("--by", "header:X-User")
WARNS = "admin: |signal"


def config(body, more=""):
    return CONFIG.replace("BODY", body).replace("MORE", more)


@contextlib.contextmanager
def load(gw, users=60):
    """Requests of many users; yields what each of them has got: {user: [(status, text)]}."""
    seen, stop, failures = {}, threading.Event(), []

    def send(first):
        n = 0
        try:
            while not stop.is_set():
                user = f"u{(first * 17 + n) % users}"
                answer = gw.request("/x", headers={"X-User": user})
                seen.setdefault(user, []).append((answer.status, answer.text[:8]))
                n += 1
        except OSError as error:
            failures.append(repr(error))
    threads = [threading.Thread(target=send, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    seen["failures"] = failures


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def ask(gw, path, method="GET", body=None):
    answer = gw.request(path, method, json.dumps(body) if body is not None else None, {"Authorization": f"Bearer {TOKEN}"}, port=gw.port2)
    return answer.status, (json.loads(answer.text) if answer.text[:1] in (b"{", b"[") else answer.text.decode())


def test_a_good_one_becomes_live_and_each_user_stays_on_one_side():
    with Gateway(config(OLD), workers=2, warns=WARNS) as gw:
        gw.write("gateway.lua", config(NEW))
        with load(gw) as seen:
            time.sleep(0.2)
            seen.clear()
            trial = subprocess.Popen([gw.binary, "reload", "--control", str(gw.control), "--canary", "30%", "--watch", "2s", *BY],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            until(lambda: ask(gw, "/status")[1].get("canary"))
            seen.clear()
            time.sleep(1)
            canary = ask(gw, "/status")[1]["canary"]
            during = {user: set(answers) for user, answers in list(seen.items())}
            out, _ = trial.communicate(timeout=20)
            assert trial.returncode == 0 and "is live" in out
            time.sleep(0.1)
            seen.clear()
            time.sleep(0.2)
        failures = seen.pop("failures")
        assert failures == [] and {text for answers in seen.values() for _, text in answers} == {b"new"}
        on_trial = [user for user, answers in during.items() if answers == {(200, b"new")}]
        assert all(len(answers) == 1 for answers in during.values()), during
        assert 5 <= len(on_trial) <= 35, on_trial
        assert canary["share"] == 0.3 and canary["canary"]["requests"] > 0 and canary["current"]["requests"] > 0
        assert gw.command("history").stdout.splitlines()[0].endswith("(live)") and "on trial" in gw.log()
        assert 'tidegate_reloads_total{outcome="tried"} 1' in ask(gw, "/metrics")[1]


def test_one_that_fails_is_rolled_back_within_its_watch_and_harms_less_than_its_share():
    with Gateway(config(OLD), workers=2, warns=WARNS) as gw:
        gw.write("gateway.lua", config('error "broken"'))
        with load(gw) as seen:
            started = time.monotonic()
            done = gw.command("reload", "--canary", "20%", "--watch", "20s", *BY)
            took = time.monotonic() - started
            time.sleep(0.3)
        failures = seen.pop("failures")
        answers = [answer for user in seen.values() for answer in user]
        failed = sum(status == 500 for status, _ in answers)
        assert done.returncode == 1 and "have failed" in done.stderr and "goes on" in done.stderr and took < 10
        assert failures == [] and 0 < failed < 0.3 * len(answers)
        assert gw.request("/x").text == b"old" and "on trial" not in gw.command("status").stdout
        assert 'tidegate_reloads_total{outcome="rolled_back"} 1' in ask(gw, "/metrics")[1]


def test_one_that_is_slow_is_rolled_back():
    with Gateway(config(OLD), workers=2, warns=WARNS) as gw:
        gw.write("gateway.lua", config("tg.sleep(0.06) " + NEW))
        with load(gw):
            done = gw.command("reload", "--canary", "50%", "--watch", "30s", *BY)
        assert done.returncode == 1 and "95 %" in done.stderr


def test_it_survives_the_death_of_a_worker():
    with Gateway(config(OLD), workers=2, warns=WARNS) as gw:
        gw.write("gateway.lua", config(NEW))
        assert gw.command("reload", "--canary", "100%", "--watch", "60s", "--detach").returncode == 0
        assert {gw.request("/x").text for _ in range(20)} == {b"new"}
        pid = gw.workers()[0]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until(lambda: gw.workers()[0] not in (0, pid))
        until(lambda: {gw.request("/x").text for _ in range(20)} == {b"new"})
        assert gw.command("reload").returncode == 1  # one thing after another
        assert gw.command("canary", "promote").returncode == 0
        assert {gw.request("/x").text for _ in range(20)} == {b"new"} and gw.command("canary", "abort").returncode == 1
        assert gw.command("rollback").returncode == 0 and gw.request("/x").text == b"old"


HANGS = """-- guard = false
return { access = function(ctx) while ctx.req.headers["X-User"] == "bad" do end end }
"""


def test_one_in_which_a_worker_dies_is_rolled_back_and_told_by_its_name():
    """What it takes along is not its own share alone, so nobody waits for a second one."""
    for options in (("--canary", "100%"), ("--shadow", "100%")):
        with Gateway(config(OLD), workers=2, warns=WARNS, plugins={"hangs": HANGS}, options=("--watchdog", "1")) as gw:
            gw.write("gateway.lua", config(NEW).replace('path = "/x"', 'path = "/x", use = { "hangs" }'))
            trial = subprocess.Popen([gw.binary, "reload", "--control", str(gw.control), *options, "--watch", "60s"], stderr=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
            until(lambda: "is on trial" in gw.log() or "is in shadow" in gw.log())
            assert gw.request("/x", headers={"X-User": "good"}).status == 200
            try:
                gw.request("/x", headers={"X-User": "bad"})
            except OSError:
                pass
            out, err = trial.communicate(timeout=15)
            assert "has died in it: plugin hangs" in out + err, (out, err)
            assert trial.returncode == (1 if options[0] == "--canary" else 0)
            assert "is stuck since" in gw.log() and "plugin hangs, route " in gw.log()
            assert {gw.request("/x", headers={"X-User": "bad"}).text for _ in range(5)} == {b"old"}


def test_a_worker_that_is_replaced_knows_the_name_of_what_is_on_trial():
    log = 'use { { "access-log", path = "-" } }'
    with Gateway(config(OLD), workers=1, warns=WARNS) as gw:
        gw.write("gateway.lua", config(NEW, log))
        assert gw.command("reload", "--canary", "100%", "--watch", "60s", "--detach").returncode == 0
        pid = gw.workers()[0]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until(lambda: gw.workers()[0] not in (0, pid))
        until(lambda: gw.request("/x").text == b"new")
        trial = json.loads(gw.command("status", "--json").stdout)["canary"]["id"]
        gw.wait_for(f'"generation":"{trial}"')
        assert '"generation":""' not in gw.log()


def test_it_is_aborted_by_hand_and_by_a_rollback():
    with Gateway(config(OLD), workers=1, warns=WARNS) as gw:
        for words in (("canary", "abort"), ("rollback",)):
            gw.write("gateway.lua", config(NEW))
            assert gw.command("reload", "--canary", "100%", "--detach").returncode == 0
            assert gw.request("/x").text == b"new"
            assert gw.command(*words).returncode == 0 and gw.request("/x").text == b"old"


def test_too_few_requests_are_no_proof_when_some_are_asked_for():
    with Gateway(config(OLD), warns=WARNS) as gw:
        gw.write("gateway.lua", config(NEW))
        done = gw.command("reload", "--canary", "1%", "--watch", "1s", "--least", "50")
        assert done.returncode == 1 and "only 0 requests" in done.stderr
        for wrong in ("--canary=5", "--watch=never", "--by=moon", "--max-latency=50%"):
            done = gw.command("reload", *([] if "canary" in wrong else ["--canary", "5%"]), wrong)
            assert done.returncode == 1 and "known are" in done.stderr, done


def test_the_configuration_says_how_it_is_tried():
    with Gateway(config(OLD), warns=WARNS) as gw:
        gw.write("gateway.lua", config(NEW, 'canary { share = 1, watch = "1s" }'))
        assert gw.command("reload").returncode == 0
        assert re.search(r"on trial with 100.00 % of the requests for 1 s", gw.log())
        gw.write("gateway.lua", config(OLD, 'canary { share = 2 }'))
        done = gw.command("reload")
        assert done.returncode == 1 and "share" in done.stderr and "gateway.lua:4" in done.stderr


def test_listeners_of_a_trial_may_stand_in_another_order():
    with Gateway(config(OLD), warns=WARNS) as gw:
        listen = 'listen { address = "127.0.0.1", port = @PORT@ }\n'
        gw.write("gateway.lua", config(NEW).replace(listen, "") + listen)
        assert gw.command("reload", "--canary", "100%", "--detach").returncode == 0
        assert gw.request("/x").text == b"new" and ask(gw, "/status")[0] == 200
        assert gw.command("canary", "promote").returncode == 0
        assert gw.request("/x").text == b"new" and ask(gw, "/status")[0] == 200


def test_files_are_pushed_over_the_admin_interface():
    with Gateway(config(OLD), workers=2, warns=WARNS) as gw:
        text = (gw.folder / "gateway.lua").read_text()
        files = {"gateway.lua": 'include "routes/*.lua"\n' + text.replace(OLD, NEW), "routes/a.lua": 'route "y" { path = "/y", handler = "mine" }',
                 "plugins/mine.lua": "return { handler = function() return tg.respond(200, 'mine') end }"}
        assert ask(gw, "/generations", "PUT", {"files": files})[0] == 200
        assert gw.request("/x").text == b"new" and gw.request("/y").text == b"mine"
        assert "push by token" in gw.command("history").stdout.splitlines()[0]
        for wrong, said in (({}, "no gateway.lua"), ({"gateway.lua": "nonsense {"}, "gateway.lua:1"), ({**files, "../x": ""}, "leads elsewhere"),
                            ({**files, "n": 1}, "found no text")):
            status, answer = ask(gw, "/generations", "PUT", {"files": wrong})
            assert status == 409 and said in answer["detail"], answer
        assert ask(gw, "/generations", "PUT", {"files": "x"})[0] == 400
        assert gw.request("/x").text == b"new"
        assert ask(gw, "/generations", "PUT", {"files": {**files, "gateway.lua": text}, "canary": "100%", "watch": "60s"})[0] == 200
        assert gw.request("/x").text == b"old" and ask(gw, "/canary", "PUT", {"state": "aborted"})[0] == 200
        assert gw.request("/x").text == b"new"
        assert gw.command("reload").returncode == 0 and gw.request("/x").text == b"old"  # the files of the disk again
