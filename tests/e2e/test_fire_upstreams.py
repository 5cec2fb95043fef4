"""Upstreams that break every promise: the client gets the right status or sees a cut, and the next request gets its own answer."""
import concurrent.futures
import hashlib
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from gateway import Gateway, ROOT

sys.path.append(str(ROOT / "tests/conformance"))
from client import Client, Cut  # noqa: E402

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, body_timeout = "1s", keepalive_timeout = "2s" }
upstream "o" { targets = { "http://127.0.0.1:%d" }, first_byte_timeout = "1s", idle_timeout = "1s", pool = { idle_timeout = "200ms" } }
route "all" { path = "/*", to = "o", body_limit = 0 }
route "call" { path = "/call/*", handler = function(ctx)
  local result, err = tg.upstream("o"):get(ctx.req.path:sub(6), { timeout = 1.5 })
  return tg.respond(result and result.status or err.status, result and result.body:sub(1, 100) or err.code)
end }
"""
# The sanitizers keep freed memory back; here it would be taken for growth.
SANITIZERS = {"ASAN_OPTIONS": "quarantine_size_mb=1:" + os.environ.get("ASAN_OPTIONS", "")}
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
POISON = OK + b"Content-Length: 6\r\n\r\npoison"


class Upstream:
    """Gives each connection that the gateway opens to `behave(socket, paths)`; counts those that are still open."""

    def __init__(self, behave):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port, self.behave = self.listener.getsockname()[1], behave
        self.asked, self.open, self.lock = 0, 0, threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self):
        try:
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    def serve(self, s):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.count(1)
        try:
            self.behave(s, self.paths(s))
        except OSError:
            pass  # the gateway has ended it
        finally:
            s.close()
            self.count(-1)

    def count(self, difference):
        with self.lock:
            self.open += difference

    def paths(self, s):
        """The path of each request, as soon as its head is there."""
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                chunk = s.recv(65536)
                if not chunk:
                    return
                data += chunk
            head, _, data = data.partition(b"\r\n\r\n")
            self.asked += 1
            yield head.split(b" ")[1].decode()


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def gateway(upstream):
    return Gateway(CONFIG % upstream.port, env=SANITIZERS)


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", open(f"/proc/{pid}/status").read())[1]) * 1024


def wait_until(condition, what, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s: {what}"
        time.sleep(0.01)


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def ask(gw, path):
    """(status, body) on a connection of its own, or the Cut."""
    with Client(gw.port) as client:
        client.send(get(path))
        try:
            answer = client.answer()
            return answer.status, answer.body
        except Cut as cut:
            return cut


def with_length(path):
    return OK + b"Content-Length: %d\r\n\r\n" % len(path) + path.encode()


def with_chunks(path):
    middle = len(path) // 2
    pieces = (path[:middle], path[middle:])
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece.encode()) for piece in pieces) + b"0\r\n\r\n"


def cut_short(answer):
    return answer[:answer.index(b"\r\n\r\n") + 4 + 9]


def forever(s, data):
    while True:
        s.sendall(data)


# What an upstream does with a request for /NAME/..., and what the client may see of it: a status, or a cut.
ROGUES = {
    "length": (lambda s, path: s.sendall(with_length(path)), {200}),
    "chunks": (lambda s, path: s.sendall(with_chunks(path)), {200}),
    "too-much": (lambda s, path: s.sendall(with_length(path) + POISON), {200}),
    "too-many-chunks": (lambda s, path: s.sendall(with_chunks(path) + POISON), {200}),
    "reset": (lambda s, path: reset(s), {502}),
    "reset-in-head": (lambda s, path: (s.sendall(OK + b"Content-Le"), reset(s)), {502}),
    "reset-in-length": (lambda s, path: (s.sendall(cut_short(with_length(path))), reset(s)), {502, "cut"}),
    "reset-in-chunks": (lambda s, path: (s.sendall(cut_short(with_chunks(path))), reset(s)), {502, "cut"}),
    "end": (lambda s, path: s.close(), {502}),
    "end-in-head": (lambda s, path: (s.sendall(OK + b"Content-Le"), s.close()), {502}),
    "end-in-length": (lambda s, path: (s.sendall(cut_short(with_length(path))), s.close()), {"cut"}),
    "end-in-chunks": (lambda s, path: (s.sendall(cut_short(with_chunks(path))), s.close()), {"cut"}),
    "garbage": (lambda s, path: s.sendall(os.urandom(1000) + POISON), {502}),
    "field-without-end": (lambda s, path: (s.sendall(OK + b"X: "), forever(s, b"a" * 65536)), {502}),
    "fields-without-end": (lambda s, path: (s.sendall(OK), forever(s, b"X: a\r\n" * 10000)), {502}),
    "interim-without-end": (lambda s, path: forever(s, b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" * 1000), {502}),
}


def rogue(s, paths):
    for path in paths:
        ROGUES[re.sub("^/call", "", path).split("/")[1]][0](s, path)


def check(gw, name, path, prefix):
    """One request of the mixture; what comes must be of this request, or no answer at all."""
    got = ask(gw, prefix + path)
    expected = ROGUES[name][1]
    if isinstance(got, Cut):
        assert prefix == "" and "cut" in expected, (path, got)
        assert b"poison" not in got.got and not got.got.endswith((path.encode(), b"0\r\n\r\n")), got
        return
    status, body = got
    assert status in expected or (prefix and status == 502 and "cut" in expected), (path, got)
    assert body == path.encode() if status == 200 else path.encode() not in body, (path, got)


@pytest.mark.parametrize("prefix", ["", "/call"], ids=["proxied", "called from Lua"])
def test_rogues_of_all_kinds_at_once_poison_no_other_request_and_leave_nothing(prefix):
    names = sorted(ROGUES) + ["length", "chunks"] * 8
    chance = random.Random(1)
    with Upstream(rogue) as upstream, gateway(upstream) as gw, concurrent.futures.ThreadPoolExecutor(24) as pool:
        worker = gw.workers()[0]
        held, sizes = len(os.listdir(f"/proc/{worker}/fd")), []
        for round_ in range(3):
            plan = [(name, f"/{name}/{round_}/{number}/{'x' * 20}") for number, name in enumerate(chance.choices(names, k=500))]
            for done in [pool.submit(check, gw, name, path, prefix) for name, path in plan]:
                done.result()
            sizes.append(rss(worker))
        wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= held, "the descriptors of the worker")
        wait_until(lambda: upstream.open == 0, "the connections of the upstream")
        assert sizes[2] - sizes[1] < 2_000_000, sizes
        assert gw.workers() == [worker]


@pytest.mark.parametrize("whole", [with_length("/a body"), with_chunks("/a body"), OK + b"\r\n/a body"], ids=["length", "chunks", "to the end"])
@pytest.mark.parametrize("die", [reset, socket.socket.close], ids=["reset", "end"])
def test_an_answer_that_breaks_after_any_byte_is_never_a_whole_one(whole, die):
    """A part of the head is a 502, a part of the body a cut; the next request finds a connection of its own."""
    head = whole.index(b"\r\n\r\n") + 4
    framed = b":" in whole[:head]

    def behave(s, paths):
        for path in paths:
            if path == "/good":
                s.sendall(with_length("/good"))
            else:
                s.sendall(whole[:int(path[1:])])
                return die(s)

    with Upstream(behave) as upstream, gateway(upstream) as gw:
        for count in range(len(whole) + 1):
            got = ask(gw, f"/{count}")
            if count < head:
                assert not isinstance(got, Cut) and got[0] == 502, (count, got)
            elif framed and count == len(whole):
                assert got == (200, b"/a body"), got
            elif not framed and die is not reset:
                assert got == (200, whole[head:count]), (count, got)
            elif isinstance(got, Cut):
                assert not got.got.endswith(b"0\r\n\r\n"), (count, got)
            else:
                assert got[0] == 502, (count, got)
            assert ask(gw, "/good") == (200, b"/good")


BLOCK = bytes(range(256)) * 256
FLOODS = {
    "length": (OK + b"Content-Length: %d\r\n\r\n" % (200 * 1024 * 1024), BLOCK, b""),
    "large chunks": (CHUNKED, b"10000\r\n" + BLOCK + b"\r\n", b"0\r\n\r\n"),
    "tiny chunks": (CHUNKED, b"".join(b"10\r\n" + BLOCK[i:i + 16] + b"\r\n" for i in range(0, 65536, 16)), b"0\r\n\r\n"),
    "to the end": (OK + b"\r\n", BLOCK, b""),
}


def read_body(client, amount):
    """Counts and hashes a body, decoded by its framing, without keeping it."""
    head = client.until(b"\r\n\r\n").lower()
    digest, size = hashlib.sha256(), 0
    left = None if b"transfer-encoding: chunked" in head else amount
    while left != 0:
        if left is None:
            piece = int(client.until(b"\r\n"), 16)
            if piece == 0:
                assert client.take(2) == b"\r\n"
                break
            data = client.take(piece + 2)[:-2]
        else:
            data = client.take(min(left, 65536))
            left -= len(data)
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_waits_for_a_slow_reader_and_arrives_whole(flood):
    head, piece, last = FLOODS[flood]
    times = 3200 if flood in ("length", "to the end") else 800
    sent = [0]

    def behave(s, paths):
        next(paths)
        s.sendall(head)
        for _ in range(times):
            s.sendall(piece)
            sent[0] += 1
        s.sendall(last)

    with Upstream(behave) as upstream, gateway(upstream) as gw:
        worker = gw.workers()[0]
        before, sizes = rss(worker), []
        with Client(gw.port, seconds=10) as client:
            client.send(get("/"))
            for _ in range(20):  # at most 64 KiB twenty times a second, then as fast as it can
                client.fill()
                sizes.append(rss(worker))
                time.sleep(0.05)
            assert sent[0] < times // 4, "the upstream is not read while the client does not read"
            expected = hashlib.sha256()
            for _ in range(times):
                expected.update(BLOCK)
            assert read_body(client, times * len(BLOCK)) == (times * len(BLOCK), expected.hexdigest())
        sizes.append(rss(worker))
        assert max(sizes) - before < 1_000_000, sizes


def test_what_an_upstream_sends_behind_its_answer_is_not_even_read():
    finished = threading.Event()

    def behave(s, paths):
        for path in paths:
            if path != "/flood":
                s.sendall(with_length(path))
                continue
            s.sendall(with_length(path) + POISON)
            for _ in range(3200):
                s.sendall(POISON * 1600)
            finished.set()

    with Upstream(behave) as upstream, gateway(upstream) as gw:
        worker = gw.workers()[0]
        assert ask(gw, "/warm") == (200, b"/warm")
        before = rss(worker)
        with Client(gw.port) as client:
            for number in range(20):
                for path in ("/flood", f"/{number}"):
                    client.send(get(path))
                    answer = client.answer()
                    assert (answer.status, answer.body) == (200, path.encode())
        wait_until(lambda: upstream.open == 0, "the connections of the upstream")
        assert not finished.is_set() and rss(worker) - before < 1_000_000


ENDLESS = {
    "a status line": b"HTTP/1.1 200 " + b"a" * 100_000,
    "a field": OK + b"X: " + b"a" * 100_000,
    "fields": OK + b"X: a\r\n" * 20_000,
    "interim answers": b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" * 4_000,
    "bytes of no protocol": b"a" * 100_000,
    "empty lines": b"\r\n" * 50_000,
}


@pytest.mark.parametrize("call", ["", "/call"], ids=["proxied", "called from Lua"])
@pytest.mark.parametrize("head", ENDLESS)
def test_a_head_without_end_is_502_at_once(head, call):
    sent = []

    def behave(s, paths):
        for path in paths:
            if path == "/good":
                s.sendall(with_length(path))
                continue
            s.sendall(ENDLESS[head][:13])
            rest = ENDLESS[head][13:]
            while True:
                s.sendall(rest)
                sent.append(len(rest))

    with Upstream(behave) as upstream, gateway(upstream) as gw:
        for _ in range(5):
            start = time.monotonic()
            got = ask(gw, call + "/")
            assert not isinstance(got, Cut) and got[0] == 502 and time.monotonic() - start < 0.9
            assert ask(gw, call + "/good") == (200, b"/good")
        wait_until(lambda: upstream.open <= 1, "the connections of the upstream")
        assert sum(sent) < 5 * 20_000_000, "what a socket holds"


def drip(s, data, pause):
    for byte in data:
        s.sendall(bytes([byte]))
        time.sleep(pause)


def test_upstreams_that_drip_have_the_time_of_their_limits_and_slow_nobody():
    """The time for a head is one for all its bytes; that for a body is for each of them."""
    def behave(s, paths):
        for path in paths:
            kind = path.split("/")[1]
            if kind == "good":
                s.sendall(with_length(path))
            elif kind == "head":
                drip(s, with_length(path), 0.05)
            elif kind == "interim":
                for _ in range(16):
                    drip(s, b"HTTP/1.1 103 Early\r\n\r\n", 0.01)
                s.sendall(with_length(path))
            elif kind == "body":
                s.sendall(OK + b"Content-Length: 100\r\n\r\n")
                drip(s, b"b" * 100, 0.02)
            else:
                s.sendall(CHUNKED)
                drip(s, b"1\r\nb\r\n" * 20 + b"0\r\n\r\n", 0.02)

    with Upstream(behave) as upstream, gateway(upstream) as gw, concurrent.futures.ThreadPoolExecutor(40) as pool:
        slow = {kind: [pool.submit(ask, gw, f"/{kind}/{number}") for number in range(10)] for kind in ("head", "interim", "body", "chunks")}
        waits = []
        for number in range(30):
            start = time.monotonic()
            assert ask(gw, f"/good/{number}") == (200, f"/good/{number}".encode())
            waits.append(time.monotonic() - start)
            time.sleep(0.02)
        assert max(waits) < 0.5
        assert {done.result()[0] for kind in ("head", "interim") for done in slow[kind]} == {504}
        assert {done.result() for done in slow["body"]} == {(200, b"b" * 100)}
        assert {done.result() for done in slow["chunks"]} == {(200, b"b" * 20)}


def send_all_then_read(client, data):
    """As clients do that look for an answer only when their request is out, or cannot be sent any more."""
    try:
        client.socket.sendall(data)
    except OSError:
        pass
    return client.answer()


@pytest.mark.parametrize("seconds", [0, 0.05], ids=["at once", "in a moment"])
def test_an_answer_before_the_request_has_ended_reaches_the_client(seconds):
    """As an upstream refuses an upload: it answers, reads no more, and its system resets the connection."""
    def behave(s, paths):
        for path in paths:
            if path == "/good":
                s.sendall(with_length(path))
                continue
            s.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge")
            time.sleep(seconds)
            return

    size = 20_000_000
    with Upstream(behave) as upstream, gateway(upstream) as gw:
        for _ in range(20):
            with Client(gw.port) as client:
                answer = send_all_then_read(client, b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
                assert (answer.status, answer.body) == (413, b"large")
            assert ask(gw, "/good") == (200, b"/good")


def test_a_stalled_upload_is_ended_although_its_upstream_drips():
    """The time for the client's bytes is not that of the upstream's."""
    def behave(s, paths):
        for _ in paths:
            while True:
                drip(s, b"HTTP/1.1 103 Early\r\n\r\n", 0.3)

    with Upstream(behave) as upstream, gateway(upstream) as gw, Client(gw.port, seconds=10) as client:
        start = time.monotonic()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nstalled")
        assert client.answer().status == 408 and time.monotonic() - start < 3


def unread(gw, client):
    """Bytes of a client that have arrived and that the gateway has not taken."""
    # /proc/net/tcp is read in so many steps that it grows slow, and misses some, beside thousands of closed connections.
    ends = f"sport = :{gw.port} and dport = :{client.socket.getsockname()[1]}"
    row = subprocess.run(["ss", "-tnH", "state", "connected", ends], capture_output=True, text=True, check=True, timeout=10).stdout.split()
    return int(row[1])


def test_an_upstream_that_does_not_read_is_left_although_the_client_drips():
    def behave(s, paths):
        next(paths)
        ended.wait(20)

    ended = threading.Event()
    with Upstream(behave) as upstream, gateway(upstream) as gw, Client(gw.port) as client:
        upstream.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel finds no more room for what it does not read
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        client.socket.settimeout(0.2)
        stalled = time.monotonic()
        while not client.data and time.monotonic() - stalled < 5:
            if unread(gw, client) == 0:  # the gateway goes on reading until it cannot write; the kernel may find room late
                client.send(b"a" * 65536)
                stalled = time.monotonic()
                continue
            client.send(b"a")
            try:
                client.fill()
            except TimeoutError:
                pass
        ended.set()
        assert client.data.startswith(b"HTTP/1.1 504 ") and time.monotonic() - stalled < 3


@pytest.mark.parametrize("call", ["", "/call"], ids=["proxied", "called from Lua"])
def test_a_request_that_had_an_interim_answer_does_not_go_out_again(call):
    """A kept connection that breaks without a word is no failure yet; with a word, the request may have had its effect."""
    def behave(s, paths):
        for path in paths:
            if path == "/good":
                s.sendall(with_length(path))
            else:
                s.sendall(b"HTTP/1.1 103 Early\r\n\r\n")
                return reset(s)

    with Upstream(behave) as upstream, gateway(upstream) as gw:
        for _ in range(5):
            assert ask(gw, call + "/good") == (200, b"/good")
            before = upstream.asked
            assert ask(gw, call + "/interim")[0] == 502
            assert upstream.asked == before + 1
