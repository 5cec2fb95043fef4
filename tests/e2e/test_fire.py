"""Clients that are slow on purpose, by the hundred and by the thousand, while an ordinary one is served in time."""
import os
import re
import resource
import signal
import socket
import struct
import threading
import time

import pytest
from gateway import Gateway, kill

HALF_OPEN = 5000
SLOW_SENDER, SLOW_READER = 16_000, 400_000  # bytes that one may cost: an exchange; an exchange and a buffer
DESCRIPTORS = HALF_OPEN + 2500  # a worker takes connections up to 80 % of its descriptors, less 256

ORIGIN = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, client_connections = 0 }
route "echo" { path = "/echo", handler = function(ctx) return tg.respond(200, assert(ctx.req:text(1024))) end }
route "small" { path = "/small", handler = function() return tg.respond(200, "small") end }
"""
BIG = b"0123456789abcdef" * (512 * 1024)
CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, client_connections = 0, header_timeout = "%(header)s", body_timeout = "1s", send_timeout = "2s" }
upstream "o" { targets = { "http://127.0.0.1:%(origin)d" } }
upstream "big" { targets = { "http://127.0.0.1:%(big)d" } }
route "all" { path = "/*", to = "o" }
route "big" { path = "/big", to = "big" }
"""
# The sanitizers keep freed memory back; here it would be taken for growth.
SANITIZERS = {"ASAN_OPTIONS": "quarantine_size_mb=1:" + os.environ.get("ASAN_OPTIONS", "")}


@pytest.fixture(scope="module")
def origin():
    with Gateway(ORIGIN) as running:
        yield running


@pytest.fixture(scope="module")
def big():
    """An origin whose answers are larger than what the kernel keeps for a reader."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(s):
        with s:
            try:
                while s.recv(65536):
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG)
            except OSError:
                pass  # the gateway has given up on a client

    def accept():
        try:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.fixture
def descriptors():
    """Enough of them, for the test and for the gateway that inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"{DESCRIPTORS} descriptors are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def gateway(origin, big, header="2s"):
    return Gateway(CONFIG % {"origin": origin.port, "big": big, "header": header}, env=SANITIZERS)


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", open(f"/proc/{pid}/status").read())[1]) * 1024


def wait_for_open(gw, condition, seconds=5):
    """Until the number of connections is as it should be; the worker tells it ten times a second."""
    end = time.monotonic() + seconds
    while not condition(count := int(re.search(r"connections (\d+) open", gw.command("status").stdout)[1])):
        assert time.monotonic() < end, f"{count} connections are open after {seconds} s\n{gw.log()[-2000:]}"
        time.sleep(0.05)


class Slow:
    """A client that sends at most `pace` bytes and reads at most `gulp` bytes a step."""

    def __init__(self, port, data, pace, gulp):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.left, self.pace, self.gulp = data, pace, gulp
        self.got, self.end, self.began, self.seconds = b"", None, time.monotonic(), None

    def step(self):
        try:
            self.left = self.left[self.socket.send(self.left[:self.pace]):] if self.left else b""
        except BlockingIOError:
            pass
        except OSError as failure:
            self.left = b""  # the gateway has had enough; what it has answered is still to be read
            self.end = "reset" if self.gulp == 0 and isinstance(failure, ConnectionResetError) else None
        try:
            if self.gulp > 0:
                chunk = self.socket.recv(self.gulp)
                self.got += chunk
                self.end = None if chunk else "eof"
            elif self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
                self.end = "reset"
        except BlockingIOError:
            pass
        except OSError:
            self.end = "reset"
        if self.end:
            self.seconds = time.monotonic() - self.began
            self.socket.close()


class Crowd(threading.Thread):
    """Lets its members take a step twenty times a second, until the gateway has ended all of them."""

    def __init__(self, members, seconds):
        super().__init__(daemon=True)
        self.members, self.until = members, time.monotonic() + seconds
        self.start()

    def run(self):
        while time.monotonic() < self.until and (busy := [member for member in self.members if not member.end]):
            for member in busy:
                member.step()
            time.sleep(0.05)


def ask_in_time(gw, is_over):
    """An ordinary client; returns how many answers it got, each on a connection of its own and within a second."""
    answers = 0
    while not is_over():
        start = time.monotonic()
        answer = gw.request("/small")
        assert answer.status == 200 and answer.text == b"small"
        assert time.monotonic() - start < 1
        answers += 1
        time.sleep(0.02)
    return answers


def request(method, path, rest=b"\r\n"):
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode() + rest


def test_slow_clients_of_all_kinds_do_not_slow_an_ordinary_one(origin, big):
    with gateway(origin, big) as gw:
        worker = gw.workers()[0]
        head = request("POST", "/echo", b"Content-Length: 20\r\n\r\n")
        endless = request("GET", "/small", b"X: " + b"a" * 8000)
        heads = [Slow(gw.port, endless, 1, 1000) for _ in range(100)]
        silent = [Slow(gw.port, head + b"only a part", 1000, 1000) for _ in range(100)]
        honest = [Slow(gw.port, head + b"byte by byte, slowly", len(head) if i % 2 else 10, 1000) for i in range(50)]
        deaf = [Slow(gw.port, request("GET", "/big"), 1000, 0) for _ in range(50)]
        greedy = [Slow(gw.port, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 50_000, 1_000_000, 0) for _ in range(10)]
        readers = [Slow(gw.port, request("GET", "/big"), 1000, 250_000) for _ in range(10)]
        crowd = Crowd(heads + silent + honest + deaf + greedy + readers, seconds=15)
        sizes = [rss(worker)]

        def is_over():
            sizes.append(rss(worker))
            return not crowd.is_alive()

        assert ask_in_time(gw, is_over) > 50
        assert max(sizes) - sizes[0] < 250 * SLOW_SENDER + 70 * SLOW_READER, sizes
        for member in heads + silent:
            assert member.got.startswith(b"HTTP/1.1 408 ") and member.end == "eof"
        assert all(1.5 < member.seconds < 5 for member in heads), "one time for all bytes of a head"
        for member in honest:
            assert member.got.startswith(b"HTTP/1.1 200 OK\r\n") and member.got.endswith(b"\r\n\r\nbyte by byte, slowly")
        assert {member.end for member in deaf + greedy} == {"reset"}, "a cut that can be seen"
        assert all(member.seconds < 8 for member in deaf + greedy)
        for member in readers:
            assert member.got.partition(b"\r\n\r\n")[2] == BIG
        wait_for_open(gw, lambda count: count == 0)


def open_half(gw, count, data):
    sockets = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", gw.port), timeout=10)
        s.sendall(data)
        sockets.append(s)
    return sockets


def read_all(s):
    with s:
        received = b""
        while chunk := s.recv(4096):
            received += chunk
        return received


def read_all_or_reset(s):
    try:
        return read_all(s)
    except ConnectionResetError:
        return b""


def processor_time(pid):
    times = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def wave(gw, worker):
    """Half-open connections of three kinds, until the gateway has ended each of them; returns what one of each kind has cost in bytes."""
    half = request("GET", "/small", b"")
    kinds = [(b"", HALF_OPEN // 2), (half, HALF_OPEN * 3 // 10), (half + b"X: " + b"a" * 6000, HALF_OPEN // 5)]
    sockets, costs = [], []
    for data, count in kinds:
        before = rss(worker)
        sockets.append(open_half(gw, count, data))
        wait_for_open(gw, lambda now: now == sum(len(some) for some in sockets))
        costs.append((rss(worker) - before) // count)
    start = time.monotonic()
    assert ask_in_time(gw, lambda: time.monotonic() - start > 1) > 10
    silent, *talking = sockets
    assert {read_all(s) for s in silent} == {b""}
    assert all(read_all(s).startswith(b"HTTP/1.1 408 ") for some in talking for s in some)
    wait_for_open(gw, lambda now: now == 0)
    return costs


def test_5000_half_open_connections_cost_little_and_go_in_time(origin, big, descriptors):
    with gateway(origin, big, header="5s") as gw:
        worker = gw.workers()[0]
        ask_in_time(gw, iter([False] * 20 + [True]).__next__)
        held = len(os.listdir(f"/proc/{worker}/fd"))
        silent, half, more = wave(gw, worker)
        assert silent < 1024 and half < 12 * 1024 and more < 48 * 1024, (silent, half, more)
        after = rss(worker)
        wave(gw, worker)
        assert rss(worker) - after < 2_000_000, "what the first wave has cost serves the second one"
        assert len(os.listdir(f"/proc/{worker}/fd")) <= held


@pytest.mark.parametrize("data", [b"GET / HT", request("POST", "/echo", b"Content-Length: 20\r\n\r\nonly a part")], ids=["head", "body"])
def test_a_reset_that_comes_with_the_last_bytes_ends_the_request_at_once(origin, big, data):
    """Both are one event for the gateway, which stands still meanwhile: the bytes are no reason to wait for more of them."""
    config = CONFIG.replace('"1s"', '"20s"')
    with Gateway(config % {"origin": origin.port, "big": big, "header": "20s"}) as gw:
        worker = gw.workers()[0]
        sockets = open_half(gw, 100, b"")
        wait_for_open(gw, lambda count: count == 100)
        kill(worker, signal.SIGSTOP)
        for s in sockets:
            s.sendall(data)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        kill(worker, signal.SIGCONT)
        wait_for_open(gw, lambda count: count == 0)


def test_when_descriptors_run_out_accepting_pauses_and_goes_on(origin, big):
    with gateway(origin, big) as gw:
        worker = gw.workers()[0]
        ask_in_time(gw, iter([False] * 5 + [True]).__next__)
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{worker}/fd")) + 20, hard))
        before, start = processor_time(worker), time.monotonic()
        sockets = open_half(gw, 50, b"GET / HT")
        gw.wait_for("no descriptors left")
        ends = [read_all_or_reset(s) for s in sockets]
        assert sum(end.startswith(b"HTTP/1.1 408 ") for end in ends) >= 15, "those that were there keep their time"
        assert gw.request("/small").status == 200
        assert processor_time(worker) - before < 0.2 * (time.monotonic() - start), "it waits; it does not spin"
