"""A real gateway for a test: started on free ports, ended by its own process id."""
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TIDEGATE", str(ROOT / "build/debug/tidegate"))
RELEASE = str(ROOT / "build/release/tidegate")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def free_ports(count):
    """Different ones: the kernel may give the same twice."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Gateway:
    def __init__(self, config, workers=1, watch=False, binary=BINARY, plugins=None, files=None, env=None, options=(), warns=None):
        """`warns`: a pattern of the warnings that the test provokes."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-e2e-"))
        self.port, self.port2 = free_ports(2)
        self.binary, self.warns = binary, warns
        self.control = self.folder / "control.sock"
        self.write("gateway.lua", config)
        for name, text in (plugins or {}).items():
            self.write(f"plugins/{name}.lua", text)
        for name, text in (files or {}).items():
            self.write(name, text)
        self.log_path = self.folder / "log"
        if os.geteuid() != 0:
            options = (*options, "--core-dumps")  # tests look into /proc, which root alone may when there are none
        command = [binary, "run", "--config", str(self.folder / "gateway.lua"), "--workers", str(workers),
                   "--control", str(self.control), *(["--watch"] if watch else []), *options]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})

    def __enter__(self):
        self.wait_for("is live")
        return self

    def __exit__(self, failure, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        log = self.log()
        shutil.rmtree(self.folder)
        if failure is None:
            log = re.sub(rf".*\[warn\] .*(?:{self.warns}).*\n", "", log) if self.warns else log
            assert "[warn] " not in log and "Sanitizer" not in log and "runtime error" not in log, log

    def write(self, name, text):
        """As an editor saves: beside, then renamed."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.replace("@PORT@", str(self.port)).replace("@PORT2@", str(self.port2)).replace("@DIR@", str(self.folder))
        temporary = path.with_name("." + path.name + ".new")
        temporary.write_text(text)
        temporary.rename(path)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_for(self, text, seconds=15, count=1):
        end = time.time() + seconds
        while time.time() < end:
            if self.log().count(text) >= count:
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.01)
        raise AssertionError(f"{text!r} does not come up in the log:\n{self.log()}")

    def command(self, *words):
        return subprocess.run([self.binary, words[0], "--control", str(self.control), *words[1:]], capture_output=True, text=True, timeout=40)

    def workers(self):
        return [int(pid) for pid in re.findall(r"^worker \d+ +pid (\d+)", self.command("status").stdout, re.M)]

    def request(self, path="/", method="GET", body=None, headers=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked="Transfer-Encoding" in (headers or {}))
            answer = connection.getresponse()
            answer.text = answer.read()
            return answer
        finally:
            connection.close()

    def raw(self, data, port=None, seconds=5):
        """Sends bytes; returns all that comes until the end or until nothing comes any more."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=seconds) as s:
            s.sendall(data)
            received = b""
            try:
                while chunk := s.recv(65536):
                    received += chunk
            except (TimeoutError, ConnectionResetError):
                pass
            return received


def kill(pid, number=signal.SIGKILL):
    os.kill(pid, number)
