#!/usr/bin/env python3
"""consumers.py: what a hundred thousand consumers cost more than one: time for a request, and memory of a worker.

    python3 tests/load/consumers.py [--consumers 100000] [--rounds 5] [--seconds 2]

Two gateways, each with one worker, one of them with one consumer; wrk asks both in turn, in interleaved rounds, with keys that are drawn
from all that it has. CPU time is what the kernel's scheduler counted for the worker. Memory is what the worker alone has (Private of
smaps): the generation itself is shared by all. Exit status: 0 within both bounds; 1 not; 2 wrong usage.
"""
import argparse
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from gateway import RELEASE, Gateway, free_port  # noqa: E402

MICROSECONDS, MEGABYTES = 2.0, 60.0  # more than with one consumer, at most
A_FILE = 8000  # consumers: a file has at most 1 MiB
CONFIG = """
listen { address = "127.0.0.1", port = @PORT@, keepalive_requests = 100000000 }
consumers { file = { %s } }
upstream "backend" { targets = { "http://127.0.0.1:@BACKEND@" }, pool = { idle = 64, requests = 0 } }
route "all" { path = "/*", to = "backend", use = { "key-auth" } }
"""
SCRIPT = """
local requests, at = {}, 0
init = function()
  for key in io.lines(%s) do requests[#requests + 1] = wrk.format("GET", "/1k", { Host = "x", ["X-Api-Key"] = key }) end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


def key_of(i):
    return f"key-{i:08d}-0123456789abcdef"


def start_backend():
    """That of bench.py; its port and its process."""
    binary = ROOT / "build/load/backend"
    binary.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", binary, HERE / "backend.c"], check=True)
    port = free_port()
    process = subprocess.Popen([binary, str(port)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return port, process


def gateway(count, backend):
    files = {f"consumers-{first}.json": json.dumps({f"c{i:08d}": {"groups": ["gold"], "credentials": {"key": key_of(i)}}
                                                    for i in range(first, min(count, first + A_FILE))}) for first in range(0, count, A_FILE)}
    names = ", ".join(f'"{name}"' for name in files)
    return Gateway((CONFIG % names).replace("@BACKEND@", str(backend)), binary=RELEASE, files=files)


def cpu(pid):
    return sum(int(path.read_text().split()[0]) for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


def private(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.M)) / 1024


def cost(gw, script, seconds):
    """Microseconds of the worker for a request."""
    pid = gw.workers()[0]
    before = cpu(pid)
    said = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}", "-s", script, f"http://127.0.0.1:{gw.port}/"], capture_output=True, text=True,
                          check=True, timeout=seconds + 60).stdout
    if "Non-2xx" in said:
        sys.exit("not every key is known:\n" + said)
    return (cpu(pid) - before) / int(re.search(r"(\d+) requests in", said).group(1))


def measure(options, backend):
    with tempfile.TemporaryDirectory() as folder, gateway(1, backend) as one, gateway(options.consumers, backend) as many:
        sides = []
        for gw, count in ((one, 1), (many, options.consumers)):
            keys, script = pathlib.Path(folder) / f"{count}.txt", pathlib.Path(folder) / f"{count}.lua"
            keys.write_text("".join(key_of(random.randrange(count)) + "\n" for _ in range(20000)))
            script.write_text(SCRIPT % json.dumps(str(keys)))
            sides.append((gw, str(script)))
            cost(gw, str(script), options.seconds)
        time.sleep(1)
        memory = [private(gw.workers()[0]) for gw, _ in sides]
        rounds = []
        for number in range(options.rounds):
            order = [0, 1] if number % 2 == 0 else [1, 0]
            found = {side: cost(*sides[side], options.seconds) for side in order}
            rounds.append((found[0], found[1]))
    more = [many_cost - one_cost for one_cost, many_cost in rounds]
    print(f"time for a request: {statistics.median(a for a, _ in rounds):.2f} us with one, {statistics.median(b for _, b in rounds):.2f} us with "
          f"{options.consumers}; within a round {statistics.median(more):+.2f} us ({min(more):+.2f} to {max(more):+.2f}), at most {MICROSECONDS} us")
    print(f"memory of a worker: {memory[0]:.1f} MiB with one, {memory[1]:.1f} MiB; {memory[1] - memory[0]:+.1f} MiB, at most {MEGABYTES} MiB")
    return 0 if statistics.median(more) <= MICROSECONDS and memory[1] - memory[0] < MEGABYTES else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--consumers", type=int, default=100000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    backend, process = start_backend()
    try:
        return measure(options, backend)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
