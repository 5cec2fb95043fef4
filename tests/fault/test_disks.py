"""The disk of the history hangs: the master does not wait for it, and what is read later is whole and in order."""
import os
import re
import signal
import subprocess
import time

import pytest
from faults import FSYNC, HANGS, Faulty, wait_until
from gateway import kill

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
route "x" { path = "/x", handler = function() return tg.respond(200, "%s") end }
"""
HISTORY = 3


class Kept(Faulty):
    def __init__(self, shim, folder):
        self.state = folder / "state"
        super().__init__(CONFIG % "first", shim, folder, workers=2, options=("--state", str(self.state), "--history", str(HISTORY)),
                         warns="is not kept")

    def __enter__(self):
        super().__enter__()
        wait_until(self.files, "the first generation is kept")
        return self

    def __exit__(self, *failure):
        self.plan.disarm()
        super().__exit__(*failure)

    def files(self):
        """Ids, oldest first."""
        return [re.match(r"\d{10}-(\w+)\.generation", path.name)[1] for path in sorted(self.state.glob("*.generation"))]

    def ids(self):
        """The same, as the master has them."""
        return [line.split()[0] for line in self.command("history").stdout.splitlines()][::-1]

    def hang(self):
        self.plan.arm(FSYNC, HANGS)

    def change(self, *texts):
        for text in texts:
            self.write("gateway.lua", CONFIG % text)
            start = time.monotonic()
            done = self.command("reload")
            assert done.returncode == 0 and time.monotonic() - start < 3, done
            assert self.request("/x").text.decode() == text

    def writers(self):
        """Children of the master that are no workers."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return set(map(int, open(path, encoding="ascii").read().split())) - set(self.workers())

    def start(self):
        before = self.log().count("is live with")
        with open(self.log_path, "ab") as log:
            env = {**os.environ, "LD_PRELOAD": str(self.shim), "FAULT_PLAN": str(self.plan.path)}
            self.process = subprocess.Popen(self.process.args, stdout=log, stderr=log, env=env)
        self.wait_for("is live with", count=before + 1)


@pytest.fixture
def gw(shim, tmp_path):
    Kept.shim = shim
    with Kept(shim, tmp_path) as gateway:
        yield gateway


def test_reloads_status_and_a_killed_worker_go_on_while_the_disk_hangs(gw):
    gw.hang()
    gw.change("a")
    wait_until(lambda: gw.plan.counts()[1] == 1, "the disk hangs")
    writer, = gw.writers()
    assert not [name for name in map(os.readlink, (f"/proc/{writer}/fd/{n}" for n in os.listdir(f"/proc/{writer}/fd"))) if "socket" in name]
    gw.change(*"bcdef")
    assert gw.writers() == {writer}  # one at a time, however many wait
    old = gw.workers()
    kill(old[0])
    wait_until(lambda: len(gw.workers()) == 2 and old[0] not in gw.workers(), "the worker is replaced")
    for _ in range(20):
        start = time.monotonic()
        assert gw.command("status").returncode == 0 and time.monotonic() - start < 1
    assert gw.command("rollback").returncode == 0 and gw.request("/x").text == b"e"
    before = gw.files()
    assert len(before) == 1 and "is not kept" in gw.log()  # too many wait
    gw.plan.disarm()
    ids = gw.ids()
    wait_until(lambda: gw.files() == ids, f"the last ones are kept, in order: {ids}")
    gw.wait_for("are kept in")
    gw.change("g")
    wait_until(lambda: gw.files() == gw.ids(), "and all is as always")
    assert len(gw.files()) == HISTORY and not gw.writers() and not list(gw.state.glob(".new"))


def test_a_disk_that_does_not_answer_is_told_once_with_its_path(gw):
    gw.hang()
    gw.change("a")
    gw.wait_for("the disk does not answer", 20)
    gw.change("b")
    assert re.search(rf" warn \[master\] generation \w+ is not kept in {gw.state}: the disk does not answer", gw.log())
    assert gw.log().count("is not kept") == 1
    gw.plan.disarm()
    gw.wait_for("are kept in")
    wait_until(lambda: gw.files() == gw.ids(), "both are kept")


def test_a_gateway_ends_and_starts_while_the_disk_hangs_and_finds_what_was_whole(gw):
    first = gw.files()
    gw.hang()
    gw.change("a", "b")
    id_a, = set(gw.ids()[:-1]) - set(first)
    gw.process.terminate()
    assert gw.process.wait(5) == 0
    assert gw.log().count("is not kept") == 2
    gw.write("gateway.lua", CONFIG % "c")
    gw.start()
    assert gw.files() == first and gw.ids()[0] == first[0] and len(gw.ids()) == 2
    gw.plan.disarm()
    wait_until(lambda: gw.files() == [*first, id_a, gw.ids()[-1]], "what was begun before is kept, too, and before what came later")


def test_a_writer_that_is_killed_leaves_what_was_before(gw):
    first = gw.files()
    gw.hang()
    gw.change("a")
    wait_until(lambda: gw.plan.counts()[1] == 1, "the disk hangs")
    kill(*gw.writers(), signal.SIGKILL)
    gw.wait_for("was ended by signal 9")
    assert gw.files() == first
    gw.plan.disarm()
    gw.change("b")
    wait_until(lambda: gw.files() == [*first, gw.ids()[-1]], "the next one is kept")
    assert not list(gw.state.glob(".new"))
