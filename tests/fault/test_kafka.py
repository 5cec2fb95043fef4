"""Lines of a log that go to Kafka: to the library's own cluster for tests, in a process of its own, which goes away and comes back."""
import json
import pathlib
import subprocess
import threading
import time

import pytest
from faults import wait_until
from gateway import BINARY, Gateway

HERE = pathlib.Path(__file__).parent
CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
use { { "access-log", path = "kafka://%s/access", kafka = { ["compression.type"] = "gzip", ["linger.ms"] = "20" } } }
route "a" { path = "/*", handler = function() return tg.respond(200, "fine") end }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("broker") / "broker"
    libraries = subprocess.run(["pkg-config", "--libs", "rdkafka"], capture_output=True, text=True, check=True).stdout.split()
    command = ["cc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-o", str(path), str(HERE / "broker.c"), *libraries]
    subprocess.run(command, check=True)
    return path


class Broker:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hosts = self.process.stdout.readline().split()[1]
        self.lines = []
        threading.Thread(target=lambda: [self.lines.append(line) for line in self.process.stdout], daemon=True).start()

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def paths(self):
        return sorted(json.loads(line)["path"] for line in list(self.lines))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_lines_of_all_workers_are_messages_and_none_is_lost_at_the_end(program):
    with Broker(program) as broker:
        with Gateway(CONFIG % broker.hosts, workers=2) as gw:
            for i in range(40):
                assert gw.request(f"/{i:02}").status == 200
            wait_until(lambda: len(broker.lines) == 40, "all lines are there")
            for i in range(40, 60):
                gw.request(f"/{i:02}")
        wait_until(lambda: len(broker.lines) == 60, "also those of the last moment")
        assert broker.paths() == [f"/{i:02}" for i in range(60)]


def test_a_broker_that_is_away_holds_nobody_up_and_gets_the_lines_later(program):
    with Broker(program) as broker:
        with Gateway(CONFIG % broker.hosts) as gw:
            gw.request("/before")
            wait_until(lambda: broker.paths() == ["/before"], "a line")
            broker.say("down")
            wait_until(lambda: gw.request("/while").status == 200 and "send kafka://" in gw.log(), "it is told", 20)
            start = time.monotonic()
            for _ in range(200):
                assert gw.request("/while").status == 200
            assert time.monotonic() - start < 10
            broker.say("up")
            wait_until(lambda: broker.paths().count("/while") > 200, "what has waited comes", 30)
            assert gw.log().count("send kafka://") == 1, "not a line for each try"


def test_other_settings_hold_after_a_reload(program):
    with Broker(program) as broker, Broker(program) as other:
        with Gateway(CONFIG % broker.hosts) as gw:
            gw.request("/one")
            text = (gw.folder / "gateway.lua").read_text()
            gw.write("gateway.lua", text.replace('"gzip"', '"lz4"'))
            assert gw.command("reload").returncode == 0
            gw.request("/two")
            wait_until(lambda: broker.paths() == ["/one", "/two"], "both lines")
            gw.write("gateway.lua", text.replace(broker.hosts, other.hosts))
            assert gw.command("reload").returncode == 0
            gw.request("/three")
            wait_until(lambda: other.paths() == ["/three"], "it goes to the other one")


@pytest.mark.parametrize("sink, said", [
    ('path = "kafka://x"', "expected host:port/topic"),
    ('path = "kafka://x/a b"', "not a topic: a b"),
    ('path = "kafka://x/a", kafka = { ["no.such"] = "1" }', 'No such configuration property: "no.such"'),
    ('path = "kafka://x/a", kafka = { ["linger.ms"] = "soon" }', "Invalid value"),
    ('path = "kafka://x/a", kafka = { ["plugin.library.paths"] = "x.so" }', "plugin.library.paths is not to be set here"),
    ('path = "kafka://x/a", kafka = { ["linger.ms"] = "1\\nplugin.library.paths=x.so" }', "its value has a newline"),
    ('path = "tcp://nobody"', "expected host:port"),
])
def test_what_is_wrong_is_told_before_it_is_live(tmp_path, sink, said):
    path = tmp_path / "gateway.lua"
    path.write_text(f'listen {{ port = 1 }}\nuse {{ {{ "access-log", {sink} }} }}\n')
    done = subprocess.run([BINARY, "check", str(path)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and said in done.stderr and "gateway.lua:2" in done.stderr, done.stderr
