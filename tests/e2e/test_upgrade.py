"""The program is replaced under load: nothing is lost when the new one works, and nothing happens when it does not."""
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest
from gateway import BINARY, Gateway, free_port, kill
from test_tunnel import AGREED, ASK, Origin

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
dict "hits" { size = "1MiB" }
route "ok" { path = "/ok", handler = function() return tg.respond(200, "%s") end }
route "count" { path = "/count", handler = function() return tg.respond(200, tostring(tg.dict("hits"):incr("n", 1))) end }
"""
WAITING = """#!/bin/sh
echo $$ > {folder}/started
while [ ! -e {folder}/go ]; do sleep 0.02; done
exec {binary} "$@"
"""


def wait_until(condition, what, seconds=15):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(what)


def fields_of(pid):
    """/proc/PID/status; empty when it has ended, also when nobody has asked how."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {} if fields["State"].startswith("Z") else fields


def children(pid):
    found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return {child for child in found if fields_of(child).get("PPid") == str(pid)}


def descriptors(gw):
    """How many its processes hold."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (gw.master(), *gw.workers())]


class Upgradable(Gateway):
    """Its program is a link of its own; its master is whoever stands in the pid file."""

    def __init__(self, place, config, options=(), **more):
        self.place, self.pid_file = place, place / "pid"
        self.link(BINARY)
        super().__init__(config, binary=str(place / "tidegate"), options=("--pid-file", str(self.pid_file), *options), **more)

    def __exit__(self, failure, *rest):
        if self.pid_file.exists() and self.master() != self.process.pid:
            kill(self.master(), signal.SIGTERM)
            wait_until(lambda: not self.pid_file.exists(), "the last master ends")
        super().__exit__(failure, *rest)

    def link(self, target):
        (self.place / "new").symlink_to(target)
        (self.place / "new").rename(self.place / "tidegate")

    def script(self, text):
        (self.place / "new").write_text(text.format(folder=self.place, binary=BINARY))
        (self.place / "new").chmod(0o755)
        (self.place / "new").rename(self.place / "tidegate")

    def write(self, name, text):
        self.folder.chmod(0o755)  # other users read it too
        super().write(name, text)

    def wait_for(self, text, seconds=15, count=1):
        wait_until(lambda: self.log().count(text) >= count, f"{text!r} does not come up in the log", seconds)

    def master(self):
        return int(self.pid_file.read_text())

    def command(self, *words):
        return subprocess.run([BINARY, words[0], "--control", str(self.control), *words[1:]], capture_output=True, text=True, timeout=60)

    def upgrade(self):
        """In the background; `.out` when it has ended."""
        thread = threading.Thread(target=lambda: setattr(thread, "out", self.command("upgrade")))
        thread.start()
        return thread

    def text(self, path="/ok"):
        return self.request(path).text

    def must_go_on(self, pid, text=b"one"):
        assert self.process.poll() is None and self.master() == pid
        assert f"master      pid {pid}\n" in self.command("status").stdout
        assert self.text() == text


class Load:
    """Clients that ask without a pause; `errors` is what they could not get."""

    def __init__(self, port):
        self.port, self.errors, self.answers, self.stop = port, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(keep,)) for keep in (True, True, True, False)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def run(self, keep):
        connection, kept, answered = None, False, 0
        while not self.stop.is_set():
            try:
                connection = connection or socket.create_connection(("127.0.0.1", self.port), timeout=10)
                connection.sendall(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = b""
                while not answer.endswith((b"one", b"two")):
                    chunk = connection.recv(4096)
                    if not chunk:
                        raise ConnectionResetError("closed")
                    answer += chunk
                self.answers.append(answer[-3:])
                kept, answered = keep and b"connection: close" not in answer.lower(), time.time()
            except OSError as error:
                # Only a connection on which nothing was asked for long may be closed without a word.
                if not kept or time.time() - answered < 0.8:
                    self.errors.append(error)
                kept = False
            if not kept and connection:
                connection.close()
                connection = None


def test_an_upgrade_under_load_loses_nothing(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one", workers=2) as gw, Load(gw.port) as load:
        old = gw.master()
        assert old == gw.process.pid
        wait_until(lambda: len(load.answers) > 100, "the load runs")
        gw.write("gateway.lua", CONFIG % "two")
        gw.script("#!/bin/sh\necho $$ > {folder}/started\nexec {binary} \"$@\"\n")
        out = gw.command("upgrade")
        assert out.returncode == 0, out.stderr + gw.log()
        new = int((tmp_path / "started").read_text())
        assert f"pid {new} is the master now" in out.stdout
        assert gw.master() == new != old
        assert gw.process.wait(10) == 0
        assert f"master      pid {new}\n" in gw.command("status").stdout
        before = len(load.answers)
        wait_until(lambda: len(load.answers) > before + 100, "the load goes on")
        load.stop.set()
        assert not load.errors, load.errors
        assert set(load.answers[:50]) == {b"one"} and set(load.answers[-50:]) == {b"two"}
    assert not gw.control.exists()


def test_what_is_in_work_ends_on_the_old_one(tmp_path):
    tunnel_origin, rest = Origin(AGREED), threading.Event()
    half = b"x" * 300000
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener.accept()[0] as s:
            s.recv(65536)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + half)
            rest.wait(20)
            s.sendall(half)
    threading.Thread(target=serve, daemon=True).start()
    config = CONFIG % "one" + f"""
upstream "ws" {{ targets = {{ "http://127.0.0.1:{tunnel_origin.port}" }} }}
upstream "file" {{ targets = {{ "http://127.0.0.1:{listener.getsockname()[1]}" }} }}
route "two" {{ path = "/two/*", to = "ws", upgrade = {{ "websocket", "chat/2" }}, tunnel_timeout = "30s" }}
route "file" {{ path = "/file", to = "file" }}
"""
    with Upgradable(tmp_path, config) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=10) as tunnel, \
            socket.create_connection(("127.0.0.1", gw.port), timeout=10) as download:
        tunnel.sendall(ASK)
        assert b"101" in tunnel.recv(65536)
        download.sendall(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while len(received) < 300000:
            received += download.recv(65536)
        assert gw.command("upgrade").returncode == 0, gw.log()
        assert gw.process.poll() is None, "the old one has work"
        assert gw.text() == b"one"
        tunnel.sendall(b"still here")
        assert tunnel.recv(100) == b"still here"
        rest.set()
        while chunk := download.recv(65536):
            received += chunk
        assert received.endswith(half + half) and len(received.partition(b"\r\n\r\n")[2]) == 600000
        assert gw.process.poll() is None, "the tunnel is open"
        tunnel.close()
        assert gw.process.wait(10) == 0
        assert gw.text() == b"one"


@pytest.mark.parametrize("content, mode, why", [
    (b"#!/bin/sh\nexit 3\n", 0o755, "ended with status 3"),
    (b"#!/bin/sh\nexit 0\n", 0o755, "ended with status 0"),
    (b"#!/bin/sh\nkill -SEGV $$\n", 0o755, "ended by signal 11"),
    (b"\x7fELF and nothing more", 0o755, "Exec format error"),
    (b"#!/bin/sh\nexit 0\n", 0o644, "Permission denied"),
    (None, 0, "No such file or directory"),
    (b"#!/bin/sh\nexec sleep 30\n", 0o755, "was not ready after 1 s"),
])
def test_a_new_program_that_fails_changes_nothing(tmp_path, content, mode, why):
    with Upgradable(tmp_path, CONFIG % "one", options=("--upgrade-timeout", "1")) as gw, Load(gw.port) as load:
        old, workers = gw.master(), gw.workers()
        (tmp_path / "tidegate").unlink()
        if content:
            (tmp_path / "tidegate").write_bytes(content)
            (tmp_path / "tidegate").chmod(mode)
        out = gw.command("upgrade")
        assert out.returncode == 1 and why in out.stderr, out
        assert why in gw.log()
        gw.must_go_on(old)
        assert gw.workers() == workers
        assert "the last upgrade failed" in gw.command("status").stdout
        assert not load.errors


def test_a_new_configuration_that_fails_changes_nothing(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one", workers=2) as gw, socket.create_server(("127.0.0.1", gw.port2)):
        old, workers = gw.master(), gw.workers()
        for config, why in ((CONFIG % "two" + "listen { prot = 1 }", "did you mean"),
                            (CONFIG % "two" + 'listen { address = "127.0.0.1", port = @PORT2@ }', "Address already in use"),
                            (CONFIG % "two" + 'use { { "access-log", path = "/nowhere/log" } }', "a worker ended while it started")):
            gw.write("gateway.lua", config)
            out = gw.command("upgrade")
            assert out.returncode == 1 and why in out.stderr, out
            gw.must_go_on(old)
            assert gw.workers() == workers
        gw.write("gateway.lua", CONFIG % "two")
        assert gw.command("upgrade").returncode == 0, gw.log()
        assert gw.text() == b"two"


def test_upgrades_follow_each_other_by_signal(tmp_path):
    """Dictionaries live on; listeners come and go with the configuration that each finds."""
    second = 'listen { address = "127.0.0.1", port = @PORT2@ }'
    with Upgradable(tmp_path, CONFIG % "one", workers=2) as gw:
        masters, held = [gw.master()], [descriptors(gw)]
        for extra in (second, "", second):
            gw.text("/count")
            gw.write("gateway.lua", CONFIG % "one" + extra)
            kill(masters[-1], signal.SIGUSR2)
            wait_until(lambda: gw.master() not in masters, "another master")
            wait_until(lambda: not fields_of(masters[-1]), "the old one ends")
            masters.append(gw.master())
            held.append(descriptors(gw))
            if extra:
                assert all(gw.request("/ok", port=gw.port2).status == 200 for _ in range(10))
            else:
                with pytest.raises(OSError):
                    gw.request("/ok", port=gw.port2)
        assert held[0] == held[2] and held[1] == held[3], held
        assert gw.text("/count") == b"4"
        assert gw.command("reload").returncode == 0


def test_two_upgrades_at_once_are_one(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one") as gw:
        gw.script(WAITING)
        first = gw.upgrade()
        wait_until((tmp_path / "started").exists, "the new program runs")
        out = gw.command("upgrade")
        assert out.returncode == 1 and "an upgrade is under way" in out.stderr
        kill(gw.master(), signal.SIGUSR2)
        gw.wait_for("upgrade refused: an upgrade is under way", count=2)
        gw.write("gateway.lua", CONFIG % "two")
        reload = threading.Thread(target=lambda: setattr(reload, "out", gw.command("reload")))
        reload.start()
        out = gw.command("rollback")
        assert out.returncode == 1 and gw.text() == b"one"
        (tmp_path / "go").touch()
        first.join()
        reload.join()
        assert first.out.returncode == 0, first.out
        assert reload.out.returncode == 1 and "was upgraded meanwhile" in reload.out.stderr, reload.out
        assert gw.text() == b"two"
        assert gw.process.wait(10) == 0


def test_a_reload_that_waits_for_a_failed_upgrade_is_done(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one") as gw:
        gw.script(WAITING)
        first = gw.upgrade()
        wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "the new program runs")
        gw.write("gateway.lua", CONFIG % "two")
        kill(gw.master(), signal.SIGHUP)
        kill(int((tmp_path / "started").read_text()))
        first.join()
        assert first.out.returncode == 1 and "ended by signal 9" in first.out.stderr
        wait_until(lambda: gw.text() == b"two", "the reload")


def test_a_new_master_that_is_killed_when_it_is_ready_changes_nothing(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one", workers=2) as gw, Load(gw.port) as load:
        old = gw.master()
        gw.script(WAITING)
        upgrade = gw.upgrade()
        wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "the new program runs")
        new = int((tmp_path / "started").read_text())
        kill(old, signal.SIGSTOP)  # so that it cannot give way
        try:
            (tmp_path / "go").touch()
            wait_until(lambda: len(children(new)) == 2, "the workers of the new one")
            workers = children(new)
            kill(new)
            wait_until(lambda: not any(fields_of(worker) for worker in workers), "they end with it")
        finally:
            kill(old, signal.SIGCONT)
        upgrade.join()
        assert upgrade.out.returncode == 1 and "ended by signal 9" in upgrade.out.stderr, upgrade.out
        gw.must_go_on(old)
        assert not load.errors


def test_an_old_master_that_dies_while_it_upgrades_is_followed(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one") as gw:
        gw.script(WAITING)
        upgrade = gw.upgrade()
        wait_until((tmp_path / "started").exists, "the new program runs")
        orphan, = gw.workers()
        gw.process.kill()
        gw.process.wait()
        upgrade.join()
        assert upgrade.out.returncode == 3
        (tmp_path / "go").touch()
        gw.wait_for("has taken over")
        assert gw.command("status").returncode == 0 and gw.text() == b"one"
        assert gw.master() == int((tmp_path / "started").read_text())
        kill(orphan)
        assert all(gw.text() == b"one" for _ in range(10))


def test_a_stop_ends_both(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one") as gw:
        gw.script(WAITING)
        upgrade = gw.upgrade()
        wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "the new program runs")
        assert gw.command("stop").returncode == 0
        assert gw.process.wait(10) == 0
        upgrade.join()
        assert upgrade.out.returncode != 0
        wait_until(lambda: not fields_of(int((tmp_path / "started").read_text())), "the new one ends")
        assert not gw.control.exists() and not gw.pid_file.exists()


def test_a_pid_file_that_is_anothers_is_left(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one") as gw:
        assert gw.master() == gw.process.pid
        gw.pid_file.write_text("1\n")
        gw.process.terminate()
        assert gw.process.wait(10) == 0
        assert gw.pid_file.read_text() == "1\n"
        gw.pid_file.unlink()
    out = subprocess.run([BINARY, "run", "--control", str(tmp_path / "c"), "--pid-file", "/nowhere/pid", str(write(tmp_path))],
                         capture_output=True, text=True, timeout=20)
    assert out.returncode == 1 and "pid file /nowhere/pid" in out.stderr


def write(folder):
    file = folder / "plain.lua"
    file.write_text('listen { address = "127.0.0.1", port = %d }' % free_port())
    return file


def test_a_stale_variable_is_no_handover(tmp_path):
    """Another process's numbers, and another version's words."""
    for text, status in (("1 1\nreport 5\ncontrol 6 /x\nlisten 127.0.0.1 80 7\n", None), ("2 1\n", 1), ("nonsense", None)):
        gw = subprocess.Popen([BINARY, "run", "--workers", "1", "--control", str(tmp_path / "c"), str(write(tmp_path))],
                              env={**os.environ, "TIDEGATE_HANDOVER": text}, stderr=subprocess.PIPE, text=True)
        try:
            if status is None:
                assert "is live" in gw.stderr.readline()
            else:
                assert gw.wait(20) == status and "expected 1" in gw.stderr.read()
        finally:
            gw.terminate()
            gw.wait(10)
            gw.stderr.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_drops_to_the_user_and_binds_low_ports(tmp_path):
    low = next(port for port in range(1023, 600, -1) if is_free(port))
    with Upgradable(tmp_path, CONFIG % "one", workers=2, options=("--user", "nobody")) as gw:
        for extra in ("", f'listen {{ address = "127.0.0.1", port = {low} }}'):
            gw.write("gateway.lua", CONFIG % "one" + extra)
            assert gw.command("reload").returncode == 0, gw.log()
        assert gw.request("/ok", port=low).status == 200
        assert gw.command("upgrade").returncode == 0, gw.log()
        assert gw.request("/ok", port=low).status == 200
        assert fields_of(gw.master())["Uid"].split() == ["0"] * 4
        for worker in gw.workers():
            fields = fields_of(worker)
            assert fields["Uid"].split() == ["65534"] * 4 and fields["Gid"].split() == ["65534"] * 4
            assert fields["Groups"].split() in ([], ["65534"]) and fields["NoNewPrivs"] == "1" and int(fields["CapEff"], 16) == 0
            assert os.stat(f"/proc/{worker}/mem").st_uid == 0, "its memory is nobody's to read"
        # The configuration is read by that user too.
        gw.write("gateway.lua", CONFIG % "two")
        (gw.folder / "gateway.lua").chmod(0o600)
        out = gw.command("reload")
        assert out.returncode == 1 and "Permission denied" in out.stderr, out
        assert gw.text() == b"one"


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_group_and_numbers(tmp_path):
    with Upgradable(tmp_path, CONFIG % "one", options=("--user", "12345:daemon", "--core-dumps")) as gw:
        fields = fields_of(gw.workers()[0])
        assert fields["Uid"].split() == ["12345"] * 4 and fields["Gid"].split() == ["1"] * 4 and fields["Groups"].split() == ["1"]
        assert os.stat(f"/proc/{gw.workers()[0]}/mem").st_uid == 12345, "a core may be written"
    for text in ("nosuchuser", "nobody:nosuchgroup", "", ":daemon", "4294967295", "-1"):
        out = subprocess.run([BINARY, "check", "--user", text, str(write(tmp_path))], capture_output=True, text=True, timeout=20)
        assert out.returncode == 2 and "--user" in out.stderr, (text, out)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into processes that write none")
@pytest.mark.parametrize("options, expected", [((), "0"), (("--core-dumps",), None)])
def test_cores_are_written_only_when_asked_for(tmp_path, options, expected):
    with Upgradable(tmp_path, CONFIG % "one", options=options) as gw:
        hard = open("/proc/self/limits").read().partition("Max core file size")[2].split()[1]
        for pid in (gw.master(), *gw.workers()):
            soft = open(f"/proc/{pid}/limits").read().partition("Max core file size")[2].split()[0]
            assert soft == (expected or hard)
            assert fields_of(pid)["NoNewPrivs"] == ("0" if pid == gw.master() else "1")
