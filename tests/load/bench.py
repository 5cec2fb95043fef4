#!/usr/bin/env python3
"""bench.py: Tidegate beside nginx and HAProxy, in one run, as ratios to nginx.

Each gateway has one worker on the first core; wrk, the backend and this program have the second. CPU time is what the
kernel's scheduler counted for all threads of all processes of a gateway. The rounds are interleaved (A B C, C B A), and
a ratio is made within a round, so that a machine that grows slower does not favour anybody. Every answer is checked
before anything is measured, and every run is compared with what the backend saw. A folder of contestants/ is a gateway.
Exit status: 0 measured; 1 something failed or answered wrongly; 2 wrong usage.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = "nginx"
ORDER = ("tidegate", "nginx", "haproxy")
KEYS = 1000
WARM_UP = 1  # seconds; a just-in-time compiler and the upstream connections need them
WAITED_MAX = 0.05  # of a round; the worker should be alone on its core
KB, MB = 1024, 1048576
SCENARIOS = {  # config: which configuration of the contestants
    "plain": {"config": "plain", "path": "/1k", "connections": 64, "title": "plain: 1 KB answers"},
    "policy": {"config": "policy", "path": "/1k", "connections": 64,
               "title": f"policy: {KEYS} API keys, rate limit, headers, 1 KB answers"},
    "big": {"config": "plain", "path": "/1m", "connections": 16, "title": "big: 1 MB answers"},
}

# The numbers that wrk prints are rounded; its script gets the exact ones.
REPORT = """
done = function(summary)
  local e = summary.errors
  io.write(("\\nREPORT %d %d %d %d\\n"):format(summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# The requests are made before the measurement: within it, a key costs wrk one look-up.
WITH_KEYS = """
local requests, at = {}, 0
init = function()
  for line in io.lines(%s) do
    local headers = { ["Host"] = wrk.headers["Host"], ["X-Api-Key"] = line:match "%%S+" }
    requests[#requests + 1] = wrk.format("GET", nil, headers)
  end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


class Failure(Exception):
    """Something that makes the measurement impossible or meaningless; its text is for the user."""


def expect(what, found, expected):
    if found != expected:
        raise Failure(f"{what}: found {found!r}, expected {expected!r}")


def payload(size):
    """The bytes that backend.c sends."""
    return bytes(ord("a") + (i + i // 1009) % 26 for i in range(size))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def read_stat(pid):
    """(parent, start time) of a process, or None when it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[19]


def process_tree(root):
    """{pid: start time} of `root` and its descendants."""
    stats = {int(name): read_stat(name) for name in os.listdir("/proc") if name.isdigit()}
    tree, grown = {root}, True
    while grown:
        grown = {pid for pid, stat in stats.items() if stat and stat[0] in tree} - tree
        tree |= grown
    return {pid: stats[pid][1] for pid in tree if stats.get(pid)}


def cpu_times(tree):
    """Nanoseconds that the threads of `tree` have run, and that they were ready but had to wait for the core."""
    ran = waited = 0
    for pid in tree:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            fields = (task / "schedstat").read_text().split()
            ran += int(fields[0])
            waited += int(fields[1])
    return ran, waited


def start(command, core, log):
    """Starts `command` on `core`. The process is the caller's, until stop()."""
    def prepare():
        os.sched_setaffinity(0, {core})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    return subprocess.Popen(command, preexec_fn=prepare, stdin=subprocess.DEVNULL, stdout=log,
                            stderr=subprocess.STDOUT, cwd=ROOT)


def stop(process):
    """Ends `process`, and those of its children that outlive it."""
    tree = process_tree(process.pid) if process.poll() is None else {}
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and any((read_stat(pid) or (0, 0))[1] == born for pid, born in tree.items()):
        time.sleep(0.02)
    for pid, born in tree.items():
        # The start time tells a child from a stranger that got its number.
        if (read_stat(pid) or (0, 0))[1] == born:
            os.kill(pid, signal.SIGKILL)


def wait_for_port(process, port, log, name):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failure(f"{name} does not listen; it said:\n{pathlib.Path(log).read_text(errors='replace')[-2000:]}")


def find_program(name):
    found = str(ROOT / "build/release/tidegate") if name == "tidegate" else shutil.which(name)
    if not found or not os.path.exists(found):
        raise Failure(f"{name} is not there: `make bench` builds and installs what is needed")
    return found


class Backend:
    def __init__(self, work, core):
        source, binary = HERE / "backend.c", ROOT / "build/load/backend"
        binary.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror",
                        "-o", str(binary), str(source)], check=True)
        self.port = free_port()
        log = work / "backend.log"
        with open(log, "wb") as out:
            self.process = start([str(binary), str(self.port)], core, out)
        try:
            wait_for_port(self.process, self.port, log, "the backend")
        except BaseException:
            stop(self.process)
            raise

    def seen(self):
        """(connections, requests) so far."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        client.request("GET", "/stats")
        connections, requests = client.getresponse().read().split()
        client.close()
        return int(connections), int(requests)

    def seen_at_rest(self):
        """The same, when nothing comes any more: a gateway still sends what it had read when wrk ended."""
        last = None
        for _ in range(50):
            seen = self.seen()
            if seen == last:
                return seen
            last = seen
            time.sleep(0.1)
        raise Failure("requests reach the backend though nobody asks")


class Contestant:
    def __init__(self, name):
        self.name = name
        self.folder = HERE / "contestants" / name
        self.about = json.loads((self.folder / "contestant.json").read_text())
        self.title = self.about["title"]
        self.process = None

    def command(self, text):
        program, *rest = shlex.split(text)
        return [find_program(program), *rest]

    def version(self):
        said = subprocess.run(self.command(self.about["version"]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=True)
        return said.stdout.splitlines()[0]

    def prepare(self, data):
        if "prepare" in self.about:
            subprocess.run([sys.executable, str(self.folder / self.about["prepare"]), str(data)], check=True)

    def start(self, config, work, data, backend_port, core):
        run = work / f"{self.name}-{config}"
        run.mkdir(exist_ok=True)
        self.port = free_port()
        source = self.about["scenarios"][config]
        values = {"PORT": self.port, "BACKEND": backend_port, "DATA": data, "RUN": run, "CONF": run / source}

        def fill(text):
            return re.sub(r"@([A-Z]+)@", lambda m: str(values[m.group(1)]), text)
        (run / source).write_text(fill((self.folder / source).read_text()))
        with open(run / "log", "wb") as out:
            self.process = start(self.command(fill(self.about["start"])), core, out)
        wait_for_port(self.process, self.port, run / "log", self.title)

    def stop(self):
        if self.process:
            stop(self.process)
            self.process = None

    def check_core(self, core):
        for pid in process_tree(self.process.pid):
            for task in os.listdir(f"/proc/{pid}/task"):
                expect(f"{self.title}, cores of thread {task}", os.sched_getaffinity(int(task)), {core})


def ask(client, path, headers):
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    return answer, answer.read()


def check_answers(contestant, scenario, keys, backend):
    """Refuses a contestant that does less than the scenario asks for: what is left out costs no time."""
    who = f"{contestant.title}, {scenario}"
    path = SCENARIOS[scenario]["path"]
    body = payload(MB if path == "/1m" else KB)
    policy = SCENARIOS[scenario]["config"] == "policy"
    client = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=10)
    client.connect()
    first = client.sock
    for key, consumer in (keys[0], keys[-1]):
        # A client that names itself must not be believed.
        headers = {"X-Api-Key": key, "X-Consumer": "somebody-else"} if policy else {}
        answer, found = ask(client, path, headers)
        expect(f"{who}, status", answer.status, 200)
        expect(f"{who}, body is whole", found == body, True)
        expect(f"{who}, consumer at the backend", answer.headers["X-Seen-Consumer"], consumer if policy else None)
        expect(f"{who}, X-RateLimit-Limit", answer.headers["X-RateLimit-Limit"], "1000000000" if policy else None)
        expect(f"{who}, X-Served-By", answer.headers["X-Served-By"], contestant.name if policy else None)
        expect(f"{who}, the client's connection is kept", client.sock is first, True)
    client.close()
    if policy:
        before = backend.seen()[1]
        for headers in ({}, {"X-Api-Key": "unknown"}):
            client = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=10)
            expect(f"{who}, status with {headers}", ask(client, path, headers)[0].status, 401)
            client.close()
        expect(f"{who}, refused requests at the backend", backend.seen()[1] - before, 0)


def run_wrk(contestant, scenario, seconds, script, core):
    """(requests, seconds, bytes) of one run."""
    plan = SCENARIOS[scenario]
    command = [find_program("wrk"), "-t1", f"-c{plan['connections']}", f"-d{seconds}s", "-s", str(script),
               f"http://127.0.0.1:{contestant.port}{plan['path']}"]
    process = start(command, core, subprocess.PIPE)
    try:
        said = process.communicate(timeout=seconds + 30)[0].decode(errors="replace")
    finally:
        if process.poll() is None:
            stop(process)
    found = re.search(r"^REPORT (\d+) (\d+) (\d+) (\d+)$", said, re.M)
    if process.returncode != 0 or not found:
        raise Failure(f"wrk failed with {contestant.title}, {scenario} (status {process.returncode}):\n{said}")
    requests, duration, size, errors = map(int, found.groups())
    expect(f"{contestant.title}, {scenario}, errors that wrk saw", errors, 0)
    if requests == 0:
        raise Failure(f"{contestant.title}, {scenario}: no request was answered")
    return requests, duration / 1e6, size


def measure(contestant, scenario, seconds, script, core, backend):
    tree = process_tree(contestant.process.pid)
    connections_before, requests_before = backend.seen_at_rest()
    ran_before, waited_before = cpu_times(tree)
    requests, duration, size = run_wrk(contestant, scenario, seconds, script, core)
    expect(f"{contestant.title}, {scenario}, processes", process_tree(contestant.process.pid), tree)
    ran, waited = cpu_times(tree)
    cpu, waited = ran - ran_before, waited - waited_before
    connections, at_backend = backend.seen_at_rest()
    connections, at_backend = connections - connections_before, at_backend - requests_before
    # What wrk left unanswered when it ended is at most one request a connection.
    most = SCENARIOS[scenario]["connections"]
    if not requests <= at_backend <= requests + most:
        raise Failure(f"{contestant.title}, {scenario}: {requests} answers, {at_backend} requests at the backend")
    if connections > 4 * most:
        raise Failure(f"{contestant.title}, {scenario}: {connections} connections to the backend, expected them kept")
    work = size / 1e9 if scenario == "big" else requests
    return {"cpu": cpu / work, "rate": work / duration, "busy": cpu / 1e9 / duration,
            "waited": waited / 1e9 / duration}


def median_of(values, form):
    return f"{form % statistics.median(values)} ({form % min(values)} - {form % max(values)})"


def report(scenario, contestants, rounds, verbose):
    unit = "GB" if scenario == "big" else "request"
    print(f"\n{SCENARIOS[scenario]['title']}, {SCENARIOS[scenario]['connections']} connections")
    print(f"  {'':10}{'CPU per ' + unit:24}{unit + ('' if unit == 'GB' else 's') + '/s':24}core busy")
    for c in contestants:
        ratios = [{k: r[c.name][k] / r[BASE][k] for k in ("cpu", "rate")} for r in rounds]
        busy = statistics.median(r[c.name]["busy"] for r in rounds)
        print(f"  {c.title:10}{median_of([r['cpu'] for r in ratios], '%.2f'):24}"
              f"{median_of([r['rate'] for r in ratios], '%.2f'):24}{busy:.0%}")
    waited = max(r[c.name]["waited"] for r in rounds for c in contestants)
    if waited > WAITED_MAX:
        print(f"  Disturbed: other work held a gateway's core for {waited:.0%} of a round; do not trust the rates.")
    if verbose:
        scale, name = (1e6, "ms") if scenario == "big" else (1e3, "us")
        for c in contestants:
            cpu = median_of([r[c.name]["cpu"] / scale for r in rounds], "%.2f")
            rate = median_of([r[c.name]["rate"] for r in rounds], "%.1f")
            print(f"    {c.title:10}{cpu} {name} per {unit}, {rate} {unit if unit == 'GB' else 'requests'}/s")
    sys.stdout.flush()


def run_scenario(scenario, contestants, options, work, keys, backend, cores):
    plan = SCENARIOS[scenario]
    script = work / f"{scenario}.lua"
    with_keys = WITH_KEYS % json.dumps(str(work / "keys.txt")) if plan["config"] == "policy" else ""
    script.write_text(with_keys + REPORT)
    try:
        for c in contestants:
            c.start(plan["config"], work, work, backend.port, cores[0])
            c.check_core(cores[0])
            check_answers(c, scenario, keys, backend)
        for c in contestants:
            run_wrk(c, scenario, WARM_UP, script, cores[1])
        rounds = []
        for number in range(options.rounds):
            order = contestants if number % 2 == 0 else contestants[::-1]
            rounds.append({c.name: measure(c, scenario, options.seconds, script, cores[1], backend) for c in order})
    finally:
        for c in contestants:
            c.stop()
    report(scenario, contestants, rounds, options.verbose)


def write_keys(path):
    """1,000 keys, the same in each run: another set would fill the hash tables otherwise."""
    source = random.Random(1)
    keys = [(f"{source.getrandbits(128):032x}", f"consumer-{i:04}") for i in range(KEYS)]
    path.write_text("".join(f"{key} {consumer}\n" for key, consumer in keys))
    return keys


def parse_options():
    def positive(text):
        value = int(text)
        if value < 1:
            raise ValueError(text)
        return value
    parser = argparse.ArgumentParser(description="Tidegate beside nginx and HAProxy, as ratios to nginx.")
    parser.add_argument("--rounds", type=positive, default=3, help="measurements of each gateway (default 3)")
    parser.add_argument("--seconds", type=positive, default=2, help="length of a measurement (default 2)")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="print absolute numbers of this machine, too")
    return parser.parse_args()


def run(options, work):
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Failure("one core found, expected two: one for the gateway, one for the load")
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian keeps the other gateways
    os.sched_setaffinity(0, {cores[1]})
    contestants = [Contestant(name) for name in ORDER]
    keys = write_keys(work / "keys.txt")
    for c in contestants:
        print(f"{c.title}: {c.version()}")
        c.prepare(work)
    print(f"{options.rounds} rounds of {options.seconds} s; ratios to {BASE} in the same round: median (min - max)")
    sys.stdout.flush()
    backend = Backend(work, cores[1])
    try:
        for scenario in options.scenario or SCENARIOS:
            run_scenario(scenario, contestants, options, work, keys, backend, cores)
    finally:
        stop(backend.process)
    print("\nA core that is not busy waited for the load: then compare the CPU time, not the rate.")


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended, too
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as work:
        try:
            run(options, pathlib.Path(work))
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
