"""Logs that cannot be written: traffic goes on at its pace, lines are dropped and counted, writing goes on when it can."""
import errno
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
from faults import CONFIG, FILES, JUDGE, WRITE, Faulty, must_be_right, wait_until
from gateway import BINARY, Gateway, free_port

SIMPLE = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
use { { "access-log", path = "%s" } }
route "a" { path = "/*", handler = function(ctx) tg.log.warn(("x"):rep(500)) return tg.respond(200, "fine") end }
"""


def lost(gw):
    found = re.search(r"^log +(\d+) lines lost", gw.command("status").stdout, re.M)
    return int(found[1]) if found else 0


def is_quick(gw, count=200):
    start = time.monotonic()
    for _ in range(count):
        answer = gw.request("/x")
        assert (answer.status, answer.text) == (200, b"fine")
    assert time.monotonic() - start < 10


def test_a_full_disk_under_the_access_log_loses_lines_only():
    with Gateway(SIMPLE % "/dev/full") as gw:
        worker = gw.workers()
        is_quick(gw)
        wait_until(lambda: lost(gw) > 0, "what is lost is counted")
        assert gw.workers() == worker


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_for_a_while_is_written_again(shim, origin, tmp_path, error):
    with Faulty(CONFIG % {"origin": origin.port}, shim, tmp_path, plugins={"judge": JUDGE}) as gw:
        worker, = gw.workers()
        log = gw.folder / "access.log"
        must_be_right(gw.port)
        wait_until(lambda: log.exists() and log.read_text().count("\n") > 10, "lines are written")
        gw.plan.arm(WRITE, error, worker, FILES)
        must_be_right(gw.port)
        wait_until(lambda: gw.plan.counts()[1] > 0, "a write has failed")
        gw.plan.disarm()
        size = log.stat().st_size
        must_be_right(gw.port)
        wait_until(lambda: log.stat().st_size > size, "it is written again", 10)
        assert gw.workers() == [worker]
        for line in log.read_text().splitlines():
            assert line.startswith("{") and line.endswith("}"), f"half a line: {line}"


def test_a_log_whose_folder_is_gone_comes_back_with_it():
    with Gateway(SIMPLE % "@DIR@/logs/access.log", files={"logs/.keep": ""}) as gw:
        log = gw.folder / "logs/access.log"
        is_quick(gw, 5)
        wait_until(lambda: log.exists() and "\n" in log.read_text(), "lines are written")
        shutil.rmtree(gw.folder / "logs")
        is_quick(gw, 5)
        os.kill(gw.process.pid, signal.SIGUSR1)
        is_quick(gw, 5)
        (gw.folder / "logs").mkdir()
        os.kill(gw.process.pid, signal.SIGUSR1)

        def comes_back():
            is_quick(gw, 1)
            return log.exists() and "\n" in log.read_text()
        wait_until(comes_back, "it is written again", 10)


def test_a_log_that_is_rotated_loses_no_line():
    with Gateway(SIMPLE % "@DIR@/access.log") as gw:
        log = gw.folder / "access.log"
        asked = 0
        for n in range(5):
            is_quick(gw, 20)
            asked += 20
            wait_until(lambda: log.exists(), "the log is there")
            log.rename(gw.folder / f"access.{n}")
            is_quick(gw, 5)
            asked += 5
            os.kill(gw.process.pid, signal.SIGUSR1)
            wait_until(lambda: log.exists(), "it was opened again")

        def lines():
            return sum(path.read_text().count("\n") for path in gw.folder.glob("access.*"))
        wait_until(lambda: lines() == asked, f"all {asked} lines are there")
        assert lost(gw) == 0


def test_a_fifo_that_nobody_reads_holds_nobody_up(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Gateway(SIMPLE % fifo) as gw:
        is_quick(gw)
        assert gw.workers()


class Piped:
    """A gateway whose error log is a pipe that the test holds."""

    def __init__(self, folder, stderr):
        self.port, self.control = free_port(), folder / "control"
        (folder / "gateway.lua").write_text((SIMPLE % "/dev/null").replace("@PORT@", str(self.port)))
        self.process = subprocess.Popen([BINARY, "run", "--config", str(folder / "gateway.lua"), "--workers", "2", "--control", str(self.control)],
                                        stderr=stderr, stdout=stderr)
        wait_until(self.status, "it runs", 15)

    def status(self):
        return subprocess.run([BINARY, "status", "--control", str(self.control)], capture_output=True, text=True, timeout=40).stdout

    command = None
    request = Gateway.request

    def end(self):
        self.process.terminate()
        try:
            assert self.process.wait(10) in (0, -signal.SIGTERM)
        finally:
            self.process.kill()


def test_an_error_log_that_nobody_reads_holds_nobody_up(tmp_path):
    reader, writer = os.pipe()
    gw = Piped(tmp_path, writer)
    try:
        is_quick(gw, 400)  # 500 bytes a line: several times what a pipe holds
        wait_until(lambda: re.search(r"^log +[1-9]\d* lines lost", gw.status(), re.M), "what is lost is counted")
        taken = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")], daemon=True)
        taken.start()
        is_quick(gw, 50)
    finally:
        os.close(writer)
        gw.end()


def test_an_error_log_whose_reader_is_gone_ends_nobody(tmp_path):
    reader, writer = os.pipe()
    gw = Piped(tmp_path, writer)
    try:
        os.close(reader)
        is_quick(gw)
        assert gw.process.poll() is None and gw.status().count("worker ") == 2
    finally:
        os.close(writer)
        gw.end()


def test_an_error_log_on_a_full_disk_ends_nobody(tmp_path):
    with open("/dev/full", "wb") as full:
        gw = Piped(tmp_path, full)
    try:
        is_quick(gw)
        wait_until(lambda: re.search(r"^log +[1-9]\d* lines lost", gw.status(), re.M), "what is lost is counted")
    finally:
        gw.end()


def test_a_configuration_that_vanishes_or_is_half_written_changes_nothing():
    with Gateway(SIMPLE % "/dev/null", watch=True) as gw:
        config = pathlib.Path(gw.folder / "gateway.lua")
        text = config.read_text()
        config.unlink()
        is_quick(gw, 20)
        for size in (0, 1, 20, len(text) // 2, len(text) - 2):
            config.write_text(text[:size])
            is_quick(gw, 10)
        config.write_text(text + 'route "b" { path = "/b", handler = function() return tg.respond(200, "b") end }\n')
        wait_until(lambda: gw.request("/b").text == b"b", "the whole one is live")
