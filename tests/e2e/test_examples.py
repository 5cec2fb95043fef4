"""The examples do what their READMEs show: examples/bff, examples/custom-policy, examples/streaming-rewrite, examples/server-sent-events,
examples/rate-limiting, examples/resilience, examples/auth, examples/tls."""
import os
import re
import shutil
import signal
import subprocess
import time

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
    for name in NAMES:
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
