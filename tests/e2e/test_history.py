"""Generations on disk: a restart and an upgrade know them, a refused configuration starts from the last good one, and no file there harms anybody."""
import os
import re
import subprocess
import time

from gateway import BINARY, RELEASE, Gateway
from test_upgrade import Upgradable, wait_until

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
route "x" { path = "/x", handler = function() return tg.respond(200, "%s") end }
"""


class Kept(Gateway):
    """A gateway that keeps its generations in `state`, and can be ended and started again."""

    def __init__(self, state, text="one", options=(), **more):
        self.state = state
        super().__init__(CONFIG % text, options=("--state", str(state), *options), **more)

    def end(self):
        self.process.terminate()
        self.process.wait(20)

    def start(self, options=()):
        before = self.log().count("is live with")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.process.args, *options], stdout=log, stderr=log)
        self.wait_for("is live with", count=before + 1)

    def restart(self, *options):
        self.end()
        self.start(options)

    def change(self, *texts):
        for text in texts:
            self.write("gateway.lua", CONFIG % text)
            done = self.command("reload")
            assert done.returncode == 0, done
        return self

    def files(self):
        return sorted(self.state.glob("*.generation"))

    def kept(self):
        """The same, when the live generation is among them: who writes it is not waited for by a reload."""
        live = self.ids()[0] + ".generation"
        wait_until(lambda: self.files() and self.files()[-1].name.endswith(live) and not list(self.state.glob(".new")), "the live generation is kept")
        return self.files()

    def ids(self):
        return [line.split()[0] for line in self.command("history").stdout.splitlines()]

    def says(self):
        return self.request("/x").text.decode()


def test_a_restart_knows_the_generations_before(tmp_path):
    with Kept(tmp_path / "state", options=("--history", "3")) as gw:
        wait_until(gw.files, "the first generation is kept")
        first = gw.ids()[0]
        gw.change("two", "three")
        before = gw.command("history").stdout
        assert len(gw.kept()) == 3 and gw.state.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in gw.files()} == {0o600}
        gw.restart()
        assert gw.command("history").stdout == before  # also who asked for the live one, and when
        assert gw.command("rollback", first[:6]).returncode == 0 and gw.says() == "one"
        gw.restart()
        assert gw.says() == "three" and len(gw.ids()) == 3  # what the files say; the rollback is in the history
        assert "rollback" in gw.command("history").stdout.splitlines()[1]
        gw.change("four")
        assert len(gw.kept()) == 3 and len(gw.ids()) == 3
        gw.write("gateway.lua", CONFIG % "five")
        gw.restart()
        wait_until(lambda: gw.files()[-1].name.endswith(gw.ids()[0] + ".generation"), "what was changed meanwhile is kept")
        assert gw.command("rollback").returncode == 0 and gw.says() == "four"


def test_what_a_generation_changes_is_told_as_a_unified_diff(tmp_path):
    with Kept(tmp_path / "state") as gw:
        wait_until(gw.files, "the first generation is kept")
        first = gw.ids()[0]
        text = (gw.folder / "gateway.lua").read_text()
        gw.write("gateway.lua", "-- more\n" + "-- lines\n" * 9 + text.replace('"one"', '"two"'))
        assert gw.command("reload").returncode == 0
        gw.restart()
        done = gw.command("diff", first, gw.ids()[0])
        assert done.returncode == 0 and done.stdout.startswith("--- gateway.lua\n+++ gateway.lua\n@@ -1,4 +1,14 @@\n+-- more\n")
        assert gw.command("diff", first).stdout == done.stdout  # the live one
        (tmp_path / "gateway.lua").write_text(text)
        assert subprocess.run(["patch", "-s", str(tmp_path / "gateway.lua")], input=done.stdout, text=True, check=False).returncode == 0
        assert (tmp_path / "gateway.lua").read_text() == (gw.folder / "gateway.lua").read_text()
        assert gw.command("diff", first, first).stdout == ""
        assert gw.command("diff", "fff", first).returncode == 1 and gw.command("diff").returncode == 2


def test_a_refused_configuration_starts_from_the_last_good_one_where_that_is_wanted(tmp_path):
    with Kept(tmp_path / "state") as gw:
        gw.change("two")
        live = gw.ids()[0]
        gw.end()
        gw.write("gateway.lua", "listen {")
        refused = subprocess.run([*gw.process.args], capture_output=True, text=True, timeout=30)
        assert refused.returncode == 1 and "gateway.lua:1" in refused.stderr
        gw.start(("--last-good",))
        assert gw.says() == "two" and gw.ids()[0] == live
        assert re.search(rf"error \[master\] generation {live} of .*, the last good one, is started, since .* refused: gateway\.lua:1", gw.log())
        assert "gateway.lua:1" in gw.command("status").stdout and len(gw.files()) == 2
        gw.change("three")  # and all is as always
        assert gw.says() == "three" and "refused" not in gw.command("status").stdout
    for options, said in ((("--last-good",), "--state"), (("--state", str(tmp_path / "empty"), "--last-good"), "gateway.lua:1")):
        (tmp_path / "gateway.lua").write_text("listen {")
        refused = subprocess.run([BINARY, "run", str(tmp_path / "gateway.lua"), *options], capture_output=True, text=True, timeout=30)
        assert refused.returncode in (1, 2) and said in refused.stderr


def test_files_that_are_broken_or_of_another_program_are_left_alone(tmp_path):
    other = BINARY if os.path.realpath(BINARY) != os.path.realpath(RELEASE) else str(tmp_path / "copy")
    with Kept(tmp_path / "state", "zero", binary=RELEASE) as gw:
        wait_until(gw.files, "the first generation is kept")
    if not os.path.exists(other):
        os.link(RELEASE, other)
        with open(other, "ab") as program:
            program.write(b"\n")
    with Kept(tmp_path / "state", binary=other) as gw:
        gw.change("two", "three", "four", "five")
        assert "another version" in gw.log()
        good = gw.ids()[0]
        _, one, two, three, four, five = gw.kept()
        gw.end()
        os.truncate(one, one.stat().st_size // 2)
        with open(two, "r+b") as file:
            file.seek(-500, os.SEEK_END)
            file.write(bytes([file.read(1)[0] ^ 1]))
        three.chmod(0o644)
        os.truncate(four, 0)
        (gw.state / "notes.txt").write_text("mine")
        gw.start()
        for path in (one, two, three, four):
            assert gw.log().count(f"{path.name} is left alone") == 1
        assert gw.ids() == [good] and gw.says() == "five" and five.exists()
        gw.change("six")
        assert gw.command("rollback").returncode == 0 and gw.says() == "five" and (gw.state / "notes.txt").exists()


def test_a_full_disk_harms_nobody_and_is_told_once(tmp_path):
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    script = tmp_path / "run"  # the file system ends with the process that has it
    script.write_text(f'#!/bin/sh\nmount -t tmpfs -o size=64k,mode=0700 tmpfs {place} && head -c 65536 /dev/zero > {place}/full && exec {BINARY} "$@"\n')
    script.chmod(0o755)
    script = [] if os.geteuid() == 0 else ["-r"]
    (tmp_path / "tidegate").write_text(f'#!/bin/sh\nexec unshare {" ".join(["-m", *script])} {tmp_path}/run "$@"\n')
    (tmp_path / "tidegate").chmod(0o755)
    with Kept(place, binary=str(tmp_path / "tidegate")) as gw:
        gw.wait_for("is not kept")
        gw.binary = BINARY
        gw.change("two", "three")
        assert gw.says() == "three" and gw.log().count("is not kept") == 1 and "No space left" in gw.log()
        assert gw.command("rollback").returncode == 0 and gw.says() == "two"  # memory has them


def test_a_folder_of_others_is_not_used_and_one_that_comes_back_is(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o777)
    state.chmod(0o777)
    with Kept(state) as gw:
        gw.wait_for("others may write there")
        gw.change("two")
        assert gw.files() == [] and "is not kept" not in gw.log()
        state.chmod(0o700)
        gw.change("three")
        gw.wait_for("are kept in")
        assert len(gw.files()) == 1


def test_an_upgrade_keeps_the_history(tmp_path):
    state = tmp_path / "state"
    with Upgradable(tmp_path, CONFIG % "one", options=("--state", str(state))) as gw:
        gw.write("gateway.lua", CONFIG % "two")
        assert gw.command("reload").returncode == 0
        time.sleep(0.3)
        before = gw.command("history").stdout
        assert len(before.splitlines()) == 2 and gw.command("upgrade").returncode == 0
        assert gw.command("history").stdout == before
        assert gw.command("rollback").returncode == 0 and gw.request("/x").text == b"one"
        gw.write("gateway.lua", "listen {")  # one that fails has kept nothing
        wait_until(lambda: len(list(state.glob("*.generation"))) == 3 and not list(state.glob(".new")), "the rollback is kept")
        files = sorted(state.iterdir())
        assert gw.command("upgrade").returncode == 1 and sorted(state.iterdir()) == files
