"""A gateway at half of what it can do, with one percent of faults of each kind, for as long as it is told: nothing may grow, nobody may wait.

    python3 tests/load/soak.py [--seconds 60]

Faults: system calls that fail (tests/fault/shim.c), clients that break off, an upstream that resets or stalls, reloads, a worker killed now
and then. Every tenth of the time it looks at memory, descriptors and latency; the last tenth may not be worse than the second."""
import argparse
import errno
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "fault"), str(TESTS / "e2e"), str(TESTS / "conformance")]

import faults  # noqa: E402
from gateway import kill  # noqa: E402
from origin import Origin  # noqa: E402

CALLERS, SHARE = 4, 0.5  # threads; of the time that they work
KINDS = [kind for kind in faults.KINDS if kind != "big"]
FAULTS = [(faults.ACCEPT, errno.EMFILE), (faults.CONNECT, errno.ECONNREFUSED), (faults.RECV, errno.ECONNRESET), (faults.SEND, errno.EPIPE),
          (faults.EPOLL_CTL, errno.ENOMEM), (faults.MALLOC, errno.ENOMEM)]


class Callers:
    def __init__(self, gw):
        self.gw, self.stop, self.times, self.wrong, self.outcomes = gw, threading.Event(), [], [], {}
        self.threads = [threading.Thread(target=self.run, args=(seed,)) for seed in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def run(self, seed):
        chance = random.Random(seed)
        while not self.stop.is_set():
            start = time.monotonic()
            try:
                kind = chance.choice(KINDS)
                if chance.random() < 0.01:
                    with faults.Client(self.gw.port) as client:
                        client.send(faults.KINDS[kind][0][:chance.randrange(1, 60)])
                    continue
                outcome = faults.ask(self.gw.port, kind)
                self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            except ConnectionRefusedError:
                pass
            except AssertionError as error:
                self.wrong.append(str(error))
            spent = time.monotonic() - start
            self.times.append(spent)
            time.sleep(spent * (1 - SHARE) / SHARE)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)


def answer(connection, request):
    draw = random.random()
    if draw < 0.005:
        connection.reset()
        return None
    if draw < 0.01:
        time.sleep(0.3)
    return faults.answer_of(connection, request)


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def look(gw, callers):
    pid = gw.workers()[0]
    times, callers.times = callers.times, []
    cut = sorted(times)[int(len(times) * 0.99)] if times else 0
    return {"resident": resident(pid), "descriptors": faults.descriptors(pid), "p99": cut, "median": statistics.median(times or [0]), "asked": len(times)}


def disturb(gw, n):
    function, error = FAULTS[n % len(FAULTS)]
    gw.plan.arm(function, error, gw.workers()[0], faults.ANYWHERE if function in (faults.MALLOC, faults.EPOLL_CTL) else faults.INTERNET, chance=10, seed=n)
    if n % 3 == 0:
        gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text().partition("-- n")[0] + f"-- n {n}\n")
        gw.command("reload")
    if n % 25 == 24:
        kill(gw.workers()[1])


def soak(seconds):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-soak-"))
    shim = folder / "shim.so"
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-fno-builtin", "-fPIC", "-shared", "-o", str(shim), str(TESTS / "fault/shim.c")], check=True)
    origin = Origin()
    origin.reset(answer)
    rows = []
    with faults.Faulty(faults.CONFIG % {"origin": origin.port}, shim, folder, plugins={"judge": faults.JUDGE}, workers=2) as gw:
        first = gw.workers()[0]
        callers = Callers(gw)
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            till = min(end, time.monotonic() + seconds / 10)
            while time.monotonic() < till:
                disturb(gw, n)
                n += 1
                time.sleep(min(0.5, seconds / 50))
            rows.append(look(gw, callers))
            print(" ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
        gw.plan.disarm()
        callers.end()
        faults.must_be_right(gw.port)
        assert gw.workers()[0] == first, gw.log()
        faults.wait_until(lambda: gw.command("status").stdout.count("in 1 generation\n") == 2, "one generation is left", 15)
    early, late = rows[1], rows[-1]
    assert not callers.wrong, callers.wrong[:5]
    assert callers.outcomes.get(faults.RIGHT, 0) > 5 * sum(callers.outcomes.get(key, 0) for key in (faults.FAILED, faults.CUT)), callers.outcomes
    assert late["resident"] < early["resident"] * 1.25 + 8 * 2 ** 20, rows
    assert late["descriptors"] < early["descriptors"] + 64, rows
    assert late["p99"] < 2 * early["p99"] + 0.1, rows
    return callers.outcomes


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=60)
    print(soak(options.parse_args().seconds))
