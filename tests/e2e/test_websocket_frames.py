"""Frames by hand: each that breaks a rule of RFC 6455 has its code, on both sides, and the gateway goes on."""
import base64
import os
import socket
import struct
import threading
import time

import h2.events
import pytest
from gateway import Gateway
from test_http2 import Client
from test_websocket_messages import JUDGE, Origin, alive, converse

CONFIG = """
api = 1
listen { port = @PORT@, address = "127.0.0.1", send_timeout = "2s" }
listen { port = @PORT2@, address = "127.0.0.1" }
upstream "ws" { targets = { "http://127.0.0.1:@ORIGIN@" } }
route "ws" { path = "/ws/*", to = "ws", upgrade = "websocket", use = { "judge" } }
route "packed" { path = "/packed/*", to = "ws", upgrade = "websocket", message_deflate = true, use = { "judge" } }
"""
MASK = b"\x11\x22\x33\x44"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n%s\r\n"


def gateway(port):
    return Gateway(CONFIG.replace("@ORIGIN@", str(port)), plugins={"judge": JUDGE})


def frame(first, payload=b"", masked=True, length=None):
    """`length`: the bytes that tell it, when they are not the right ones."""
    n = len(payload)
    bit = 0x80 if masked else 0
    if length is not None:
        size = bytes([bit | length[0]]) + length[1:]
    else:
        size = bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n) if n < 65536 else bytes([bit | 127]) + struct.pack(">Q", n)
    if masked:
        payload = bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))
    return bytes([first]) + size + (MASK if masked else b"") + payload


class Peer:
    """A client that has opened a WebSocket, and writes what it likes."""

    def __init__(self, gw, path="/ws/x", headers=b""):
        self.socket = socket.create_connection(("127.0.0.1", gw.port), timeout=10)
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                            b"Sec-WebSocket-Key: " + key + b"\r\n" + headers + b"\r\n")
        self.data, self.head = b"", b""
        while b"\r\n\r\n" not in self.data:
            self.more()
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")

    def more(self):
        chunk = self.socket.recv(65536)
        if not chunk:
            raise EOFError
        self.data += chunk

    def read(self):
        """(first byte, payload) of the next frame; raises EOFError."""
        while True:
            if len(self.data) >= 2:
                assert self.data[1] & 0x80 == 0, "the gateway is a server: it does not mask"
                n, at = self.data[1], 2
                if n == 126:
                    n, at = int.from_bytes(self.data[2:4], "big"), 4
                elif n == 127:
                    n, at = int.from_bytes(self.data[2:10], "big"), 10
                if len(self.data) >= at + n:
                    first, payload, self.data = self.data[0], self.data[at:at + n], self.data[at + n:]
                    return first, payload
            self.more()

    def close_code(self):
        first, payload = self.read()
        while first != 0x88:
            first, payload = self.read()
        with pytest.raises(EOFError):
            self.read()
        return int.from_bytes(payload[:2], "big") if payload else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


BROKEN = {
    "RSV1": (frame(0xc1, b"x"), 1002),
    "RSV2": (frame(0xa1, b"x"), 1002),
    "RSV3": (frame(0x91, b"x"), 1002),
    "opcode 3": (frame(0x83, b"x"), 1002),
    "opcode 11": (frame(0x8b, b"x"), 1002),
    "ping in fragments": (frame(0x09, b"x"), 1002),
    "long ping": (frame(0x89, b"x" * 126), 1002),
    "fragment of nothing": (frame(0x80, b"x"), 1002),
    "message within a message": (frame(0x01, b"x") + frame(0x81, b"y"), 1002),
    "length of 5 in 16 bits": (frame(0x82, b"x" * 5, length=b"\x7e\0\5"), 1002),
    "length of 5 in 64 bits": (frame(0x82, b"x" * 5, length=b"\x7f" + b"\0" * 7 + b"\5"), 1002),
    "negative length": (frame(0x82, length=b"\x7f\x80" + b"\0" * 7), 1002),
    "2 GiB": (frame(0x82, length=b"\x7f\0\0\0\0\x80\0\0\0"), 1009),
    "bad text": (frame(0x81, b"\xff"), 1007),
    "text that ends within a character": (frame(0x01, b"\xe6\xbd") + frame(0x80), 1007),
    "half a close code": (frame(0x88, b"\3"), 1002),
    "close 1005": (frame(0x88, struct.pack(">H", 1005)), 1002),
    "close 1006": (frame(0x88, struct.pack(">H", 1006)), 1002),
    "close 2000": (frame(0x88, struct.pack(">H", 2000)), 1002),
    "reason that is no text": (frame(0x88, b"\3\xe8\xff"), 1007),
}


@pytest.fixture(scope="module")
def echo():
    with Origin() as origin, gateway(origin.port) as gw:
        yield origin, gw


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "byte by byte"])
def test_what_a_client_breaks(echo, name, slowly):
    origin, gw = echo
    del origin.closed[:]
    data, code = BROKEN[name]
    with Peer(gw) as peer:
        peer.socket.sendall(frame(0x81, b"first"))
        assert peer.read() == (0x81, b"first")
        for piece in [data[i:i + 1] for i in range(min(len(data), 20))] + [data[20:]] if slowly else [data]:
            peer.socket.sendall(piece)
        assert peer.close_code() == code
    wait_for(lambda: codes(origin) == [code])
    assert converse(gw, alive) == "alive"


def codes(origin):
    """Of what has not ended well: one that was only to be seen alive may end late."""
    return [code for code, _ in origin.closed if code != 1000]


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_does_not_mask(echo):
    origin, gw = echo
    del origin.closed[:]
    with Peer(gw) as peer:
        peer.socket.sendall(frame(0x81, b"x", masked=False))
        assert peer.close_code() == 1002
    wait_for(lambda: codes(origin) == [1002])


def test_control_frames_between_fragments_come_at_once_and_the_message_as_one(echo):
    with Peer(echo[1]) as peer:
        peer.socket.sendall(frame(0x01, b"Hel") + frame(0x89, b"now") + frame(0x00, b""))
        assert peer.read() == (0x8a, b"now")
        peer.socket.sendall(frame(0x00, b"l") + frame(0x8a, b"unasked") + frame(0x80, b"o"))
        assert peer.read() == (0x81, b"Hello")
        peer.socket.sendall(frame(0x88))
        assert peer.close_code() is None


def test_what_comes_behind_a_close_is_nothing(echo):
    with Peer(echo[1]) as peer:
        peer.socket.sendall(frame(0x88, b"\x0f\xa1bye") + frame(0x81, b"hello?") + b"\xff" * 1000)
        assert peer.close_code() == 4001


def test_frames_that_come_with_the_request_are_not_lost(echo):
    port = echo[1].port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(b"GET /ws/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame(0x81, b"early"))
        data = b""
        while not data.endswith(b"\x81\x05early"):
            chunk = s.recv(65536)
            assert chunk, data
            data += chunk


def test_a_reader_that_does_not_read_stops_the_writer(echo):
    words = frame(0x82, os.urandom(50_000))
    sent = got = 0
    with Peer(echo[1]) as peer:
        peer.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            while sent < 200_000_000:
                sent += peer.socket.send(words[sent % len(words):])
        assert sent < 60_000_000, "nobody takes the echo, and still all is taken"
        peer.socket.settimeout(10)
        while got < sent // len(words):
            assert peer.read()[0] == 0x82
            got += 1


class RawOrigin:
    """Agrees to each upgrade, says `words`, and keeps what comes then in `heard`."""

    def __init__(self, words, extension=b""):
        self.words, self.agreed, self.heard = words, AGREED % extension, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection as s:
                s.settimeout(10)
                data = b""
                while b"\r\n\r\n" not in data and (chunk := s.recv(65536)):
                    data += chunk
                s.sendall(self.agreed + self.words)
                data = data.partition(b"\r\n\r\n")[2]
                try:
                    while chunk := s.recv(65536):
                        data += chunk
                except OSError:
                    pass
                self.heard.append(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def unmasked_close(data):
    """The code of the masked close frame that ends `data`."""
    assert data[-8] == 0x88 or 0x88 in data
    at = data.index(b"\x88")
    n, mask = data[at + 1] & 0x7f, data[at + 2:at + 6]
    assert data[at + 1] & 0x80, "the gateway is a client of its upstreams: it masks"
    payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at + 6:at + 6 + n]))
    return int.from_bytes(payload[:2], "big")


@pytest.mark.parametrize("words,code", [
    (frame(0x81, b"masked"), 1002),
    (frame(0x81, b"\xff", masked=False), 1007),
    (frame(0xc1, b"x", masked=False), 1002),
    (frame(0x82, masked=False, length=b"\x7f\0\0\0\0\x80\0\0\0"), 1009),
    (frame(0x88, b"\3", masked=False), 1002),
], ids=["mask", "text", "RSV1", "2 GiB", "half a code"])
def test_what_an_upstream_breaks(words, code):
    with RawOrigin(frame(0x81, b"first", masked=False) + words) as origin, gateway(origin.port) as gw:
        with Peer(gw) as peer:
            assert peer.read() == (0x81, b"first")
            assert peer.close_code() == code
        wait_for(lambda: len(origin.heard) == 1)
        assert unmasked_close(origin.heard[0]) == code


@pytest.mark.parametrize("path,extension", [
    ("/ws/x", b"Sec-WebSocket-Extensions: permessage-deflate\r\n"),
    ("/packed/x", b"Sec-WebSocket-Extensions: x-other\r\n"),
    ("/packed/x", b"Sec-WebSocket-Extensions: permessage-deflate, x-other; a=1\r\n"),
    ("/packed/x", b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"),
])
def test_an_extension_that_cannot_be_read_is_no_agreement(path, extension):
    with RawOrigin(b"", extension) as origin, gateway(origin.port) as gw, Peer(gw, path) as peer:
        assert peer.head.startswith(b"HTTP/1.1 502 ")


def test_compressed_messages_keep_their_mark():
    extension = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
    packed = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # "Hello": RFC 7692, section 7.2.3.1
    with RawOrigin(frame(0x41, packed[:3], masked=False) + frame(0x80, packed[3:], masked=False), extension) as origin, gateway(origin.port) as gw:
        with Peer(gw, "/packed/x", b"Sec-WebSocket-Extensions: permessage-deflate\r\n") as peer:
            assert b"server_no_context_takeover" in peer.head
            assert peer.read() == (0xc1, packed)
            gw.wait_for("text to downstream: 7 bytes compressed.")


class Stream:
    """A WebSocket over a stream of HTTP/2 (RFC 8441)."""

    def __init__(self, gw, path="/ws/x"):
        self.client = Client(gw, strict=False)
        self.client.take()
        self.id = self.client.start(path, "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13")])

    def say(self, data):
        self.client.h2.send_data(self.id, data)
        self.client.flush()

    def wait_for(self, ending):
        while not self.client.responses.get(self.id, {"body": b""})["body"].endswith(ending):
            assert self.client.take()
        return self.client.responses[self.id]


def test_messages_over_a_stream(echo):
    origin, gw = echo
    del origin.closed[:]
    stream = Stream(gw)
    with stream.client:
        stream.say(frame(0x81, b"mark"))
        assert stream.wait_for(b"\x81\x0amark >1 <1")["headers"][":status"] == "200"
        stream.say(frame(0x81, b"drop") + frame(0x81, b"reply"))
        stream.wait_for(b"\x81\x06to you\x82\x02\0\1")
        stream.say(frame(0x88, b"\x03\xe8"))
        stream.wait_for(b"\x88\x02\x03\xe8")
        while not any(isinstance(event, h2.events.StreamEnded) for event in stream.client.events):
            assert stream.client.take()
    wait_for(lambda: (1000, "") in origin.closed)


def test_a_stream_that_breaks_the_rules_takes_nobody_with_it(echo):
    origin, gw = echo
    del origin.closed[:]
    stream = Stream(gw)
    with stream.client:
        good = stream.client.start("/ws/y", "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13")])
        stream.say(frame(0x81, b"\xff"))
        answer = stream.wait_for(b"a text that is no UTF-8")
        assert answer["body"].startswith(b"\x88") and answer["body"][2:4] == struct.pack(">H", 1007)
        stream.client.h2.send_data(good, frame(0x81, b"well"))
        stream.client.flush()
        while b"well" not in stream.client.responses.get(good, {"body": b""})["body"]:
            assert stream.client.take()
    wait_for(lambda: sorted(codes(origin)) == [1001, 1007])
