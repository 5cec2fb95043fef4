"""The examples do what their READMEs show: examples/bff, examples/custom-policy, examples/streaming-rewrite, examples/server-sent-events,
examples/rate-limiting, examples/resilience, examples/auth, examples/tls, examples/grpc, examples/websocket-chat,
examples/observability."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

import node
import pytest
from gateway import RELEASE, ROOT, Gateway, free_port, free_ports
from test_documents import blocks

NAMES = ["bff", "custom-policy", "streaming-rewrite", "server-sent-events", "resilience", "auth", "tls"]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_an_example(name):
    folder = ROOT / "examples" / name
    ports = {str(8080 + i): str(port) for i, port in enumerate(free_ports(4))}

    def with_ports(text):
        return re.sub("808[0-3]", lambda found: ports[found[0]], text)

    files = {path.name: with_ports(path.read_text()) for path in folder.glob("*.lua") if path.name != "gateway.lua"}
    plugins = {path.stem: path.read_text() for path in folder.glob("plugins/*.lua") if not path.name.endswith(".spec.lua")}
    warns = "circuit breaker|peer ejected|upstream 127" if name == "resilience" else None
    with Gateway(with_ports((folder / "gateway.lua").read_text()), plugins=plugins, files=files, warns=warns) as gw:
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) >= 3
        for command, expected in found:
            out = subprocess.run(["bash", "-c", with_ports(command)], capture_output=True, text=True, timeout=30, cwd=ROOT).stdout
            for line in expected:
                assert with_ports(line) in out, f"{command}\n{out}\n{gw.log()}"


def test_the_slow_service_costs_no_more_than_its_timeout():
    folder = ROOT / "examples/bff"
    port = free_port()
    config = (folder / "gateway.lua").read_text().replace("8080", str(port)).replace("8081", str(free_port()))
    with Gateway(config, plugins={"home": (folder / "plugins/home.lua").read_text()}, files={"services.lua": (folder / "services.lua").read_text()}) as gw:
        for path in ("/home/5", "/by-hand/5"):
            start = time.time()
            assert gw.request(path, port=port).status == 200
            assert time.time() - start < 0.9


def test_examples_run_as_they_stand(tmp_path):
    """From their own folders, as a user starts them: checked with the program that is installed."""
    for name in [*NAMES, "oidc-login"]:
        shutil.copytree(ROOT / "examples" / name, tmp_path / name)
        out = subprocess.run([RELEASE, "check", str(tmp_path / name / "gateway.lua")], capture_output=True, text=True, timeout=20)
        assert out.returncode == 0, f"{name}: {out.stderr}"


def test_two_gateways_share_a_redis_that_dies_and_comes_back(tmp_path):
    """examples/rate-limiting, which starts all that it needs."""
    shutil.copytree(ROOT / "examples/rate-limiting", tmp_path / "examples/rate-limiting")
    folder = tmp_path / "examples/rate-limiting"
    ports = {"8080": str(free_port()), "8081": str(free_port()), "6390": str(free_port())}
    for path in folder.iterdir():
        path.write_text(re.sub("8080|8081|6390", lambda found: ports[found[0]], path.read_text()))
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen([folder / "start.sh"], stdout=log, stderr=log, env={**os.environ, "TIDEGATE": RELEASE})
    try:
        end = time.monotonic() + 15
        while (tmp_path / "log").read_text().count("is live") < 2:
            assert time.monotonic() < end and running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        time.sleep(3)  # each counts the others every 2 s
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) == 7
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path).stdout
            for line in expected:
                assert line in out, f"{command}\n{out}\n{(tmp_path / 'log').read_text()}"
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(10)
    assert not (folder / "redis.pid").exists()


def test_json_and_grpc_on_one_port(tmp_path):
    """examples/grpc, which starts all that it needs."""
    folder = tmp_path / "examples/grpc"
    shutil.copytree(ROOT / "examples/grpc", folder)
    ports = {"8080": str(free_port()), "50051": str(free_port())}
    for path in folder.iterdir():
        if path.is_file():
            path.write_text(re.sub("8080|50051", lambda found: ports[found[0]], path.read_text()))
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen([folder / "start.sh"], stdout=log, stderr=log, env={**os.environ, "TIDEGATE": RELEASE})
    try:
        end = time.monotonic() + 20
        while "is live" not in (tmp_path / "log").read_text() or "is open" not in (tmp_path / "log").read_text():
            assert time.monotonic() < end and running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) == 5
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path)
            for line in expected:
                assert line in out.stdout, f"{command}\n{out.stdout}{out.stderr}\n{(tmp_path / 'log').read_text()}"
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(10)
    assert not (folder / "library.pb").exists()


@contextlib.contextmanager
def chat(tmp_path):
    """examples/websocket-chat with its server, on ports of its own; a copy of the folder in tmp_path/examples."""
    folder = tmp_path / "examples/websocket-chat"
    shutil.copytree(ROOT / "examples/websocket-chat", folder)
    ports = dict(zip(("8080", "8081"), map(str, free_ports(2))))
    for path in folder.rglob("*.*"):
        path.write_text(re.sub("808[01]", lambda found: ports[found[0]], path.read_text()))
    plugins = {path.stem: path.read_text() for path in folder.glob("plugins/*.lua")}
    with subprocess.Popen(["/usr/bin/python3", folder / "server.py", ports["8081"]], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == b"the room is open\n"
            with Gateway((folder / "gateway.lua").read_text(), plugins=plugins) as gw:
                gw.public = ports["8080"]
                yield folder, gw
        finally:
            server.terminate()


def test_the_commands_of_the_chat(tmp_path):
    with chat(tmp_path) as (folder, gw):
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) == 5
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path).stdout
            for line in expected:
                assert line in out, f"{command}\n{out}\n{gw.log()}"
    out = subprocess.run([RELEASE, "check", str(folder / "gateway.lua")], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0, out.stderr


def test_the_chat_in_two_windows_of_a_browser(tmp_path):
    with chat(tmp_path) as (_, gw):
        assert node.run("chat", f"http://127.0.0.1:{gw.public}").splitlines() == [
            "Ann and Bob: open open",
            "Ann: hello <b>Bob</b>",
            "gateway: you are Bob",
            "Bob: closed 1008 too much in too short a time",
            "Ann: open",
            "nobody: closed 1006 ",
        ]


def test_prometheus_traces_and_the_page(tmp_path):
    """examples/observability, which starts all that it needs."""
    folder = tmp_path / "o"  # the path of a socket is short
    shutil.copytree(ROOT / "examples/observability", folder)
    ports = dict(zip(("8080", "8081", "9901", "9090", "4318"), map(str, free_ports(5))))

    def with_ports(text):
        return re.sub("|".join(ports), lambda found: ports[found[0]], text)

    for path in folder.iterdir():
        if path.suffix != ".png":
            path.write_text(with_ports(path.read_text()))
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen([folder / "start.sh"], stdout=log, stderr=log, env={**os.environ, "TIDEGATE": RELEASE})
    try:
        end = time.monotonic() + 20
        ready = ["curl", "-sf", f"localhost:{ports['9090']}/-/ready"]
        while subprocess.run(ready, capture_output=True, timeout=10).returncode != 0:
            assert time.monotonic() < end and running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) == 5
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path).stdout
            for line in expected:
                assert line in out, f"{command}\n{out}\n{(tmp_path / 'log').read_text()}"
        assert "Sanitizer" not in (tmp_path / "log").read_text()
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(10)
    assert not list(folder.glob("tidegate.sock*"))


def test_a_reload_that_is_tried_first(tmp_path):
    """examples/canary-reload, in a copy, as its README says."""
    folder = tmp_path / "prices"
    shutil.copytree(ROOT / "examples/canary-reload", folder)
    port = str(free_port())
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.write_text(path.read_text().replace("8080", port))
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen([RELEASE, "run", "--config", "gateway.lua", "--control", "./control.sock"], stdout=log, stderr=log, cwd=folder)
    try:
        end = time.monotonic() + 15
        while "is live" not in (tmp_path / "log").read_text():
            assert time.monotonic() < end and running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) == 4
        path = f"{os.path.dirname(RELEASE)}:{os.environ['PATH']}"
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=folder, env={**os.environ, "PATH": path})
            for line in expected:
                assert line in out.stdout, f"{command}\n{out.stdout}{out.stderr}\n{(tmp_path / 'log').read_text()}"
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(10)
