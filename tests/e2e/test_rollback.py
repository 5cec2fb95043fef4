"""The way back in need: it waits for nothing that is under way, and no worker that dies is in its way."""
import re
import signal
import threading
import time

from gateway import Gateway, kill
from test_upgrade import CONFIG as UPGRADED, WAITING, Upgradable, children, wait_until

CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
route "x" { path = "/*", handler = function() return tg.respond(200, "%s") end }
"""
HANGS = CONFIG % "hangs" + 'local _ = ("a"):rep(200):find(("a-"):rep(100) .. "b")\n'


def live_in(gw):
    return re.search(r"^generation +(\w+)", gw.command("status").stdout, re.M).group(1)


def in_background(gw, *words):
    """`.out` and `.seconds` when it has ended."""
    def run():
        begin = time.monotonic()
        thread.out = gw.command(*words)
        thread.seconds = time.monotonic() - begin
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def gateway(**more):
    """The second generation is live."""
    gw = Gateway(CONFIG % "one", **more)
    gw.wait_for("is live")
    gw.write("gateway.lua", CONFIG % "two")
    assert gw.command("reload").returncode == 0
    return gw


def compiling(gw, workers=1):
    return len(children(gw.process.pid)) > workers


def reload_that_no_worker_builds(gw, worker, *others):
    """It is compiled, and waits for a worker that stands still."""
    workers = 1 + len(others)
    kill(worker, signal.SIGSTOP)
    gw.write("gateway.lua", CONFIG % "three")
    reload = in_background(gw, "reload")
    time.sleep(1)  # it is compiled in a few milliseconds, which nobody sees
    assert not compiling(gw, workers) and reload.is_alive()
    return reload


def test_a_configuration_that_is_being_compiled_is_left():
    with gateway() as gw:
        first = live_in(gw)
        gw.write("gateway.lua", HANGS)
        reload = in_background(gw, "reload")
        wait_until(lambda: compiling(gw), "the child that compiles")
        behind = in_background(gw, "reload")  # waits for the next one, which would undo the rollback
        time.sleep(0.2)
        back = in_background(gw, "rollback")
        for thread in (reload, behind, back):
            thread.join()
        assert back.out.returncode == 0 and back.seconds < 3, (back.out, back.seconds)
        for thread in (reload, behind):
            assert thread.out.returncode == 1 and re.search("a rollback by .* came before it", thread.out.stderr), thread.out
        assert gw.request().text == b"one"
        wait_until(lambda: not compiling(gw), "the end of the child")
        assert live_in(gw) != first and "last reload was refused" not in gw.command("status").stdout
        gw.write("gateway.lua", CONFIG % "three")
        assert gw.command("reload").returncode == 0 and gw.request().text == b"three"


def test_one_that_workers_build_is_left_and_the_workers_take_the_other():
    with gateway(workers=2) as gw:
        worker, other = gw.workers()
        reload = reload_that_no_worker_builds(gw, worker, other)
        back, again = in_background(gw, "rollback"), in_background(gw, "rollback")
        reload.join()
        assert reload.out.returncode == 1 and "came before it" in reload.out.stderr, reload.out
        kill(worker, signal.SIGCONT)
        for thread in (back, again):  # the second one waits with the first
            thread.join()
            assert thread.out.returncode == 0 and "is live" in thread.out.stdout, thread.out
        assert {gw.request().text for _ in range(20)} == {b"one"}


def test_a_worker_that_dies_meanwhile_does_not_stop_it():
    with gateway(workers=2) as gw:
        worker = gw.workers()[1]
        kill(worker, signal.SIGSTOP)
        back = in_background(gw, "rollback")
        time.sleep(0.3)
        assert back.is_alive()
        kill(worker)
        back.join()
        assert back.out.returncode == 0, back.out
        wait_until(lambda: len(gw.workers()) == 2, "another worker")
        assert {gw.request().text for _ in range(20)} == {b"one"}


def test_a_trial_ends_for_a_named_one_and_the_current_one_can_be_named():
    with gateway() as gw:
        first = live_in(gw)
        gw.write("gateway.lua", CONFIG % "three")
        assert "is on trial" in gw.command("reload", "--canary", "100%", "--watch", "60s", "--detach").stdout
        assert gw.request().text == b"three"
        answer = gw.command("rollback", first)
        assert answer.returncode == 0 and "what was under way has ended" in answer.stdout, answer
        assert gw.request().text == b"two" and live_in(gw) == first
        assert "is live already" in gw.command("rollback", first).stdout
        gw.command("rollback")
        second = live_in(gw)
        assert gw.request().text == b"one"
        gw.write("gateway.lua", CONFIG % "four")
        gw.command("reload", "--canary", "100%", "--watch", "60s", "--detach")
        answer = gw.command("rollback", first)
        assert answer.returncode == 0 and f"generation {first} is live" in answer.stdout, answer
        assert gw.request().text == b"two" and "came before it" in gw.log()
        assert gw.command("rollback", "0000000000000").returncode == 1 and gw.command("rollback", second).returncode == 0


def test_an_upgrade_that_is_under_way_gives_way(tmp_path):
    with Upgradable(tmp_path, UPGRADED % "one") as gw:
        gw.write("gateway.lua", UPGRADED % "two")
        assert gw.command("reload").returncode == 0
        master = gw.master()
        gw.script(WAITING)
        upgrade = gw.upgrade()
        wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "the new program runs")
        answer = gw.command("rollback")
        assert answer.returncode == 0, answer
        upgrade.join()
        assert upgrade.out.returncode == 1 and "came before it" in upgrade.out.stderr, upgrade.out
        gw.must_go_on(master)


def test_a_stop_ends_a_gateway_that_builds_a_generation():
    with gateway() as gw:
        worker = gw.workers()[0]
        reload = reload_that_no_worker_builds(gw, worker)
        kill(gw.process.pid, signal.SIGTERM)
        wait_until(lambda: "SigPnd" in open(f"/proc/{worker}/status").read() and gw.process.poll() is None, "both run")
        kill(worker, signal.SIGCONT)
        assert gw.process.wait(10) == 0
        reload.join()
