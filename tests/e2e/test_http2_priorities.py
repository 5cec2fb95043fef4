"""RFC 9218 as clients meet it: in which order the DATA frames of streams come, by what they have asked for."""
import http.server
import itertools
import threading
import time

import h2.errors
import h2.events
import pytest
from gateway import Gateway
from test_http2 import Client

WINDOW = 65_535  # of a connection, at its begin
SIZE = 60_000  # of a body: what waits for a window as a whole
FRAME = 16_384  # bytes at most: how far turns may be apart
LARGE = 400_000  # of a body of which only a part can wait
CONFIG = """
api = 1
listen { port = @PORT@, address = "127.0.0.1" }
listen { name = "plain", port = @PORT2@, address = "127.0.0.1" }
upstream "origin" { targets = { "http://127.0.0.1:@ORIGIN@" } }
route "fill" { path = "/fill", handler = function() return tg.respond(200, ("x"):rep(65535)) end }
route "own" { path = "/own", handler = function() return tg.respond(200, ("x"):rep(60000)) end }
route "first" { path = "/first", handler = function() return tg.respond(200, ("x"):rep(60000), { Priority = "u=0" }) end }
route "turns" { path = "/turns", handler = function() return tg.respond(200, ("x"):rep(60000), { Priority = "i" }) end }
route "odd" { path = "/odd", handler = function() return tg.respond(200, ("x"):rep(60000), { Priority = "u=0, i=" }) end }
route "large" { path = "/large", handler = function() return tg.respond(200, ("x"):rep(400000)) end }
route "origin" { path = "/origin", to = "origin" }
"""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard = []

    def do_GET(self):
        self.heard.append(self.headers.get("priority"))
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        if "?" in self.path:
            self.send_header("Priority", self.path.partition("?")[2])
        self.end_headers()
        self.wfile.write(b"x" * SIZE)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def gw():
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with Gateway(CONFIG.replace("@ORIGIN@", str(origin.server_address[1]))) as gateway:
        yield gateway
    origin.shutdown()


class Reader(Client):
    """Its window is used up, so that all that it asks for waits until `read`."""

    def __init__(self, gw):
        super().__init__(gw, window=1 << 20)
        fill = self.start("/fill")
        while self.responses.get(fill, {}).get("end") is None:
            assert self.take(acknowledge=False)
        self.asked = []

    def ask(self, *priorities, path="/own"):
        """Streams, whose answers have begun to wait."""
        streams = [self.start(path, headers=[("priority", priority)] if priority else []) for priority in priorities]
        while not all(self.responses.get(stream, {}).get("headers") for stream in streams):
            assert self.take(acknowledge=False)
        time.sleep(0.3)  # the body comes behind the head
        return streams

    def update(self, stream, priority, on=0):
        self.raw(0x10, 0, on, stream.to_bytes(4, "big") + priority.encode())

    def read(self, n):
        """Of which streams the next `n` bytes are, frame by frame."""
        before, got = len(self.events), 0
        self.h2.increment_flow_control_window(n)
        self.flush()
        while got < n:
            assert self.take(acknowledge=False)
            frames = [event for event in self.events[before:] if isinstance(event, h2.events.DataReceived)]
            got = sum(len(event.data) for event in frames)
        self.sizes = [(event.stream_id, len(event.data)) for event in frames if event.data]
        return [stream for stream, _ in self.sizes]

    def first(self, n):
        """Bytes of each stream among the first `n` that the last `read` has got."""
        share = {}
        for stream, size in self.sizes:
            share[stream] = share.get(stream, 0) + min(size, n)
            n -= min(size, n)
        return share

    def order(self, n):
        """The same, each run of frames once."""
        return [stream for stream, _ in itertools.groupby(self.read(n))]


@pytest.mark.parametrize("path", ["/own", "/origin"])
def test_the_more_urgent_goes_first(gw, path):
    with Reader(gw) as client:
        last, normal, first, second = client.ask("u=7", "u=3", "u=0", "u=1", path=path)
        assert client.order(4 * SIZE) == [first, second, normal, last]


def test_the_more_urgent_goes_first_also_where_bodies_are_larger_than_what_waits(gw):
    with Reader(gw) as client:
        last, first, second = client.ask("u=7", "u=0", "u=1", path="/large")
        assert client.order(3 * LARGE) == [first, second, last]


def test_the_upstream_hears_what_the_client_has_asked_for(gw):
    del Answer.heard[:]
    with Reader(gw) as client:
        client.ask("u=1, i", path="/origin")
    assert Answer.heard == ["u=1, i"]


def test_without_a_word_streams_take_turns(gw):
    with Reader(gw) as client:
        streams = client.ask(None, None, None)
        client.read(3 * SIZE)
        share = client.first(3 * SIZE // 2)
        assert set(share) == set(streams) and max(share.values()) - min(share.values()) <= 2 * FRAME, client.sizes


def test_incremental_ones_take_turns_and_others_do_not(gw):
    with Reader(gw) as client:
        one, two = client.ask("u=3, i", "u=3, i=?1")
        frames = client.read(2 * SIZE)
        assert abs(frames.index(one) - frames.index(two)) == 1
        share = client.first(SIZE)
        assert abs(share[one] - share[two]) <= 2 * FRAME, client.sizes
        one, two = client.ask("u=3", "u=3, i=?0")
        assert client.order(2 * SIZE) == [one, two]


def test_what_is_urgent_passes_those_that_take_turns(gw):
    with Reader(gw) as client:
        one, two, urgent = client.ask("i", "i", "u=2")
        frames = client.read(3 * SIZE)
        assert set(frames[:4]) == {urgent}
        rest = [stream for stream in frames if stream != urgent]
        assert frames[-len(rest):] == rest and {*rest[:2]} == {one, two}


def test_an_update_changes_the_order_of_what_waits(gw):
    with Reader(gw) as client:
        one, two, three = client.ask("u=3", "u=3", "u=3")
        client.update(three, "u=1")
        client.update(one, "u=6")
        assert client.order(3 * SIZE) == [three, two, one]


def test_an_update_stops_what_is_being_sent(gw):
    with Reader(gw) as client:
        one, two = client.ask("u=3", "u=4")
        assert client.order(20_000) == [one]
        client.update(one, "u=5")
        assert client.order(SIZE) == [two]
        assert client.order(SIZE - 20_000) == [one]


def test_an_update_makes_turns(gw):
    with Reader(gw) as client:
        one, two = client.ask("u=3", "u=3")
        client.update(one, "u=3, i")
        client.update(two, "u=3, i")
        client.read(2 * SIZE)
        share = client.first(SIZE)
        assert abs(share[one] - share[two]) <= 2 * FRAME, client.sizes


def test_an_update_may_come_before_its_request(gw):
    with Reader(gw) as client:
        next_one = client.h2.get_next_available_stream_id()
        client.update(next_one + 2, "u=0")
        client.update(next_one, "u=5")
        one, two = client.ask(None, None)
        assert (one, two) == (next_one, next_one + 2)
        assert client.order(2 * SIZE) == [two, one]


@pytest.mark.parametrize("priority", ["u=9", "u=-1", "u", "i=7", "u=1.5", "(", "\u00ff", "x=1, u=\"0\"", ", ,", "u=" + "0" * 3000])
def test_what_is_no_priority_is_the_usual_one(gw, priority):
    with Reader(gw) as client:
        low, odd, high = client.ask("u=4", priority, "u=2")
        order = client.order(3 * SIZE)
        assert order == [high, odd, low]
        client.update(99, priority)
        client.ask("u=1")
        client.read(SIZE)


@pytest.mark.parametrize("path", ["/first", "/origin?u=0"])
def test_the_response_knows_better_than_the_client(gw, path):
    with Reader(gw) as client:
        (normal,), (first,) = client.ask("u=3"), client.ask("u=5", path=path)
        assert client.order(2 * SIZE) == [first, normal]


def test_of_the_clients_word_stays_what_the_response_does_not_name(gw):
    with Reader(gw) as client:
        (normal,), (one,), (two,) = client.ask("u=2"), client.ask("u=1", path="/turns"), client.ask("u=1", path="/turns")
        frames = client.read(3 * SIZE)
        assert frames[-4:] == [normal] * 4
        share = client.first(SIZE)
        assert share.get(normal, 0) == 0 and abs(share[one] - share[two]) <= 2 * FRAME, client.sizes


def test_what_the_client_has_said_before_its_request_stays_as_well(gw):
    with Reader(gw) as client:
        early = client.h2.get_next_available_stream_id() + 2
        client.update(early, "u=6")
        client.update(early, "u=1")
        (normal,), (turns,) = client.ask("u=2"), client.ask(None, path="/turns")
        assert turns == early and client.order(2 * SIZE) == [turns, normal]


def test_the_client_has_the_last_word(gw):
    with Reader(gw) as client:
        (normal,), (first,) = client.ask("u=3"), client.ask("u=3", path="/first")
        client.update(first, "u=6")
        assert client.order(2 * SIZE) == [normal, first]


def test_a_priority_of_the_response_that_is_none_says_nothing(gw):
    with Reader(gw) as client:
        (normal,), (odd,) = client.ask("u=3"), client.ask("u=4", path="/odd")
        assert client.order(2 * SIZE) == [normal, odd]


@pytest.mark.parametrize("on,payload,code", [
    (1, b"\0\0\0\5u=0", h2.errors.ErrorCodes.PROTOCOL_ERROR), (0, b"\0\0", h2.errors.ErrorCodes.FRAME_SIZE_ERROR),
    (0, b"\0\0\0\2u=0", h2.errors.ErrorCodes.PROTOCOL_ERROR), (0, b"\0\0\0\0u=0", h2.errors.ErrorCodes.PROTOCOL_ERROR),
    (0, b"\x80\0\0\0u=0", h2.errors.ErrorCodes.PROTOCOL_ERROR), (0, b"\0\0\0\0", h2.errors.ErrorCodes.PROTOCOL_ERROR)],
    ids=["on a stream", "short", "of the server's", "of stream 0", "of stream 0 with a reserved bit", "of stream 0, empty"])
def test_an_update_that_breaks_the_rules_ends_the_connection(gw, on, payload, code):
    with Client(gw) as client:
        client.take()
        client.raw(0x10, 0, on, payload)
        assert client.goaway() == code
