"""Workers are killed under load: what they had accepted is lost, and nothing else is."""
import http.client
import os
import signal
import socket
import threading
import time

import pytest
from gateway import Gateway, kill

FIRE_SECONDS = int(os.environ.get("FIRE_SECONDS", "8"))
WORKERS = max(2, -(-FIRE_SECONDS // 5))  # five deaths of a slot are replaced at once; what dies more often has a test of its own
SERVED_IN = 5  # seconds that anybody may have to wait: a worker starts in a tenth of that, also under the sanitizers

ORIGIN = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
route "all" { path = "/{word}", handler = function(ctx) return tg.respond(200, ctx.req.params.word:rep(3000)) end }
"""
# The count makes the workers die with locks of shared memory in their hands.
CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
dict "seen" { size = "1MiB" }
upstream "o" { targets = { "http://127.0.0.1:%d" } }
route "all" { path = "/*", to = "o", use = { function() for _ = 1, 20 do assert(tg.dict("seen"):incr("all", 1)) end end } }
"""


@pytest.fixture(scope="module")
def origin():
    with Gateway(ORIGIN) as running:
        yield running


def stop(pid):
    """Nothing is accepted any more: what the process holds now is what will die with it."""
    kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 5
    while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < end
        time.sleep(0.001)


def clients_of(pid, port):
    """The ports of the clients whose connections to `port` this process has accepted."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
    ends = [(int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16), f"socket:[{row[9]}]") for row in rows]
    return {theirs for ours, theirs, inode in ends if ours == port and theirs != 0 and inode in held}


class Client(threading.Thread):
    """Asks for words of its own until it is told to end; `requests` on each connection."""

    def __init__(self, port, number, requests, ended):
        super().__init__(daemon=True)
        self.port, self.number, self.requests, self.ended = port, number, requests, ended
        self.served, self.failures = 0, []  # failures: (own port or None, what happened)

    def run(self):
        while not self.ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SERVED_IN)
            own = None
            try:
                connection.connect()
                connection.auto_open = 0
                own = connection.sock.getsockname()[1]
                self.talk(connection)
            except TimeoutError:
                self.failures.append((None, f"nothing came for {SERVED_IN} s"))
            except (OSError, http.client.HTTPException) as failure:
                self.failures.append((own, repr(failure)))
            finally:
                connection.close()

    def talk(self, connection):
        for _ in range(self.requests):
            if self.ended.is_set():
                return
            word = f"{self.number}.{self.served}."
            connection.request("GET", "/" + word)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or body != word.encode() * 3000:
                self.failures.append((None, f"{answer.status} with {len(body)} bytes for {word}"))
            self.served += 1
            time.sleep(0.005)


def kill_one(gw, number):
    """Kills the worker of the slot whose turn it is; returns the ports of its clients."""
    workers = gw.workers()
    victim = workers[number % len(workers)]
    stop(victim)
    lost = clients_of(victim, gw.port)
    kill(victim)
    gw.wait_for("was ended by signal 9", count=number + 1)
    return lost


def test_a_worker_killed_every_second_takes_only_its_own_connections(origin):
    with Gateway(CONFIG % origin.port, workers=WORKERS) as gw:
        ended = threading.Event()
        clients = [Client(gw.port, number, 100_000 if number < 12 else 1, ended) for number in range(16)]
        for client in clients:
            client.start()
        lost, start = set(), time.monotonic()
        for number in range(FIRE_SECONDS):
            time.sleep(max(0, start + number + 1 - time.monotonic()))
            lost |= kill_one(gw, number)
        served = [client.served for client in clients]
        time.sleep(1)
        ended.set()
        for client in clients:
            client.join(SERVED_IN + 5)
        failures = [failure for client in clients for failure in client.failures]
        others = [failure for failure in failures if failure[0] not in lost]
        assert not others, (others, gw.log())
        assert len(failures) >= FIRE_SECONDS, "each victim had connections, and each of these was seen to break"
        assert all(client.served > before for client, before in zip(clients, served)), "all are served after the last death"
        assert gw.process.poll() is None and f"master      pid {gw.process.pid}\n" in gw.command("status").stdout
        assert gw.log().count("was ended by signal") == FIRE_SECONDS, gw.log()


def test_the_backlog_of_a_killed_worker_is_served_by_the_next(origin):
    with Gateway(CONFIG % origin.port) as gw:
        victim = gw.workers()[0]
        stop(victim)
        waiting = []
        for _ in range(300):
            s = socket.create_connection(("127.0.0.1", gw.port), timeout=SERVED_IN)
            s.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            waiting.append(s)
        assert not clients_of(victim, gw.port)
        kill(victim)
        for s in waiting:
            with s, s.makefile("rb") as answer:
                received = answer.read()
            assert received.startswith(b"HTTP/1.1 200 OK\r\n") and received.endswith(b"\r\n\r\n" + b"late" * 3000)
        assert gw.workers() != [victim]


def test_while_a_slot_that_dies_too_often_pauses_the_others_serve_its_connections(origin):
    """The kernel still gives it its share of the new ones: to leave them waiting would be half an outage."""
    with Gateway(CONFIG % origin.port, workers=2) as gw:
        for number in range(7):
            end = time.monotonic() + 5
            while (victim := gw.workers()[0]) == 0:
                assert time.monotonic() < end, gw.log()
                time.sleep(0.02)
            kill(victim)
            gw.wait_for("was ended by signal 9", count=number + 1)
        gw.wait_for("the next one in 2 s")
        start = time.monotonic()
        for _ in range(20):
            assert gw.request("/word").text == b"word" * 3000
        assert time.monotonic() - start < 1
        assert gw.workers()[0] == 0, "it was still away"
