"""Configurations of all kinds are loaded one after the other while requests come at a constant rate, and workers are killed: no request fails.

    python3 tests/load/changes.py [--seconds 60] [--rate 2000] [--reloads 0]

Kinds: good, huge (10,000 routes), slow to load, and refused ones: bad, looping, crashing (out of stack, out of memory). A request fails when anything but
its whole answer comes; one whose connection a killed worker has taken along before a byte of its answer came is asked again, as clients do,
which may only happen where a worker was killed. Prints how long answers took while nothing happened, and while the huge ones were
loaded, which says something on a quiet machine only. With --reloads, so many more reloads follow, over which memory must be flat."""
import argparse
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

LOAD = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(LOAD.parent / "e2e"))

from gateway import RELEASE, Gateway, free_port, kill  # noqa: E402

CONNECTIONS, PATHS, HUGE, WORKERS = 64, 10, 10000, 2
KILL_EVERY, QUIET = 7, 1.5  # seconds
AFTER_KILL = 1.0  # seconds in which connections may be seen to have ended with a worker
CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, keepalive_requests = 100000000 }
upstream "b" { targets = { "http://127.0.0.1:%d" } }
for i = 0, %d - 1 do
  route ("r" .. i) { path = "/" .. i .. "/*", to = "b", strip_path = true, use = { { "mark", value = "%d" } } }
end
"""
MARK = """
return {
  doc = "Say who was here.",
  schema = { value = t.string() },
  response = function(ctx, conf) ctx.res.headers["X-Mark"] = conf.value end,
}
"""
SLOW = """
return { doc = "Takes its time.", setup = function()
  local till = os.clock() + 0.7
  while os.clock() < till do end
end, access = function() end }
"""
REFUSED = {
    "bad": 'route "x" { path = 5 }\n', "malformed": "route {\n", "looping": "while true do end\n",
    "crashing": "local function f() return 1 + f() end f()\n",
    "greedy": "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end\n",
}


def clock():
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def build(name, folder):
    program = folder / name
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", str(program), str(LOAD / f"{name}.c")], check=True)
    return program


class Changes:
    def __init__(self, gw, backend):
        self.gw, self.backend, self.n, self.done = gw, backend, 0, {}
        self.quiet, self.loud, self.kills = [], [], []

    def text(self, routes=PATHS):
        self.n += 1
        return CONFIG % (self.backend, routes, self.n)

    def load(self, kind, text):
        self.gw.write("gateway.lua", text)
        begin = clock()
        answer = self.gw.command("reload")
        if kind in REFUSED:
            assert answer.returncode == 1, (kind, answer.stdout)
        elif answer.returncode != 0:  # the one reason that is none of its own
            assert "a worker died" in answer.stderr or "could not be asked" in answer.stderr, (kind, answer.stderr)
            kind += ", refused for a worker that died"
        self.done[kind] = self.done.get(kind, 0) + 1
        return begin

    def huge(self):
        begin = clock()
        time.sleep(QUIET)
        self.quiet.append((begin, clock()))
        begin = self.load("huge", self.text(HUGE))
        self.settle(10)
        self.loud.append((begin, clock()))

    def settle(self, seconds):
        end = clock() + seconds
        while self.gw.command("status").stdout.count("in 1 generation\n") != WORKERS and clock() < end:
            time.sleep(0.1)

    def kill(self):
        if self.kills and clock() < self.kills[-1] + KILL_EVERY:
            return
        workers = self.gw.workers()
        if len(workers) == WORKERS:
            self.kills.append(clock())
            kill(workers[len(self.kills) % WORKERS])

    def round(self):
        for kind, more in REFUSED.items():
            self.load(kind, self.text() + more)
            self.kill()
            self.load("good", self.text())
        self.load("slow", self.text() + 'use { "slow" }\n')
        self.kill()
        self.huge()


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat(changes, reloads):
    """Memory of a worker: the least of the last tenth against the most of the second one."""
    changes.load("good", changes.text())
    changes.settle(20)
    worker, marks = changes.gw.workers()[0], []
    for _ in range(reloads):
        changes.load("good", changes.text())
        marks.append(resident(worker))
    tenth = max(1, reloads // 10)
    early, late = max(marks[tenth:2 * tenth]), min(marks[-tenth:])
    print(f"memory of a worker over {reloads} reloads: {early >> 10} KiB in the second tenth, {late >> 10} KiB in the last", flush=True)
    assert late <= early + 4 * 2 ** 20, marks[::tenth]


def quantile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] if times else 0


def judge(changes, data):
    records = [(due / 1e6, took, outcome) for due, took, outcome in struct.iter_unpack("<QII", data)]
    stray = [due for due, took, outcome in records
             if outcome == 1 and not any(due <= at + AFTER_KILL and due + took / 1e6 >= at for at in changes.kills)]
    windows = [[took for due, took, _ in records if any(b <= due < e for b, e in spans)] for spans in (changes.quiet, changes.loud)]
    ratios = [quantile([took for due, took, _ in records if b2 <= due < e2], 0.99) / max(1, quantile([took for due, took, _ in records if b <= due < e], 0.99))
              for (b, e), (b2, e2) in zip(changes.quiet, changes.loud)]
    print(f"{len(records)} requests, {sum(o == 1 for _, _, o in records)} of them asked again, {sum(o == 2 for _, _, o in records)} failed; "
          f"{len(changes.kills)} workers killed; reloads: {changes.done}")
    for name, times in zip(("undisturbed", "while 10,000 routes are loaded"), windows):
        print(f"{name}: p50 {quantile(times, 0.5)} us, p99 {quantile(times, 0.99)} us, worst {max(times, default=0)} us")
    print(f"p99, median of the ratios of neighbouring windows: {statistics.median(ratios):.2f}" if ratios else "no window", flush=True)
    assert not any(outcome == 2 for _, _, outcome in records), "requests have failed"
    assert not stray, f"asked again where no worker was killed: {stray[:5]}"


def run(seconds, rate, reloads):
    with tempfile.TemporaryDirectory(prefix="tidegate-changes-") as name:
        folder = pathlib.Path(name)
        port = free_port()
        client_program, backend_program = build("client", folder), build("backend", folder)
        backend = subprocess.Popen([backend_program, str(port)], stdout=subprocess.PIPE)
        backend.stdout.readline()
        try:
            with Gateway(CONFIG % (port, PATHS, 0), workers=WORKERS, plugins={"mark": MARK, "slow": SLOW}, binary=RELEASE, warns=".") as gw:
                changes = Changes(gw, port)
                with open(folder / "records", "wb") as records:
                    client = subprocess.Popen([client_program, str(gw.port), str(CONNECTIONS), str(rate), str(10 * seconds + 600), str(PATHS)],
                                              stdout=records, stderr=subprocess.PIPE, text=True)
                    try:
                        end = clock() + seconds
                        while clock() < end:
                            changes.round()
                    finally:
                        client.terminate()
                        told = client.communicate(timeout=60)[1]
                print(told.strip())
                judge(changes, (folder / "records").read_bytes())
                if reloads > 0:
                    flat(changes, reloads)
        finally:
            backend.kill()
            backend.wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--rate", type=int, default=2000)
    options.add_argument("--reloads", type=int, default=0)
    given = options.parse_args()
    run(int(given.seconds), given.rate, given.reloads)
