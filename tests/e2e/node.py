"""Programs of tests/npm: other people's clients and servers for Node, ended by their own process ids."""
import os
import select
import subprocess
import time

from gateway import ROOT

FOLDER = ROOT / "tests/npm"


def run(name, *arguments, timeout=120):
    """Runs tests/npm/NAME.mjs to its end; its output, or an AssertionError with what it said."""
    done = subprocess.run(["node", str(FOLDER / f"{name}.mjs"), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{name}.mjs: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Server:
    """tests/npm/NAME.mjs, which prints `ready` on a line of its own when it listens."""

    def __init__(self, name, *arguments, timeout=30, env=None, talks=False):
        """`talks`: it hears what `say` says."""
        self.name, self.timeout = name, timeout
        self.process = subprocess.Popen(["node", str(FOLDER / f"{name}.mjs"), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.PIPE if talks else subprocess.DEVNULL, env={**os.environ, **(env or {})})

    def __enter__(self):
        end, seen = time.monotonic() + self.timeout, b""
        while b"ready\n" not in seen:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not chunk:
                self.process.kill()
                raise AssertionError(f"{self.name}.mjs is not ready: {seen.decode(errors='replace')}")
            seen += chunk
        return self

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()
        if self.process.stdin:
            self.process.stdin.close()
