"""WebSockets that nobody looks into, when the gateway ends: both sides are told, and no message is cut where that can be helped."""
import asyncio
import contextlib
import socket
import struct
import threading
import time

import h2.events
import node
import pytest
import websockets
from gateway import Gateway, free_port
from hyperframe.frame import GoAwayFrame
from test_http2 import Client
from test_tunnel import read_head
from test_websocket_messages import Origin, close_of

CONFIG = """
api = 1
listen { port = @PORT@, address = "127.0.0.1" }
listen { name = "plain", port = @PORT2@, address = "127.0.0.1" }
upstream "ws" { targets = { "http://127.0.0.1:@ORIGIN@" } }
route "ws" { path = "/ws/*", to = "ws", upgrade = { "websocket", "chat/2" } }
"""
END = (1001, "the gateway ends")
CLOSE = b"\x88\x12\x03\xe9the gateway ends"
MASK = b"\x37\xfa\x21\x3d"


def frame(first, payload=b"", mask=MASK):
    head = bytes([first, (0x80 if mask else 0) | min(len(payload), 126)]) + (struct.pack(">H", len(payload)) if len(payload) > 125 else b"")
    return head + (mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload)


@contextlib.contextmanager
def both(origin=None, drain=3, **options):
    with origin or Origin() as server, Gateway(CONFIG.replace("@ORIGIN@", str(server.port)), options=("--drain-timeout", str(drain)), **options) as gw:
        yield server, gw


def connect(gw, **options):
    return websockets.connect(f"ws://127.0.0.1:{gw.port}/ws/x", **{"max_size": None, "compression": None, "ping_interval": None, **options})


def drain(gw):
    assert gw.command("stop", "--drain").returncode == 0


@pytest.mark.parametrize("how", ["drain", "stop"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_both_sides_are_told(how, compression):
    async def talk(gw):
        async with connect(gw, compression=compression) as client:
            for message in ("here", "x" * 100_000, ""):
                await client.send(message)
                assert await client.recv() == message
            await asyncio.to_thread(gw.command, *(("stop", "--drain") if how == "drain" else ("stop",)))
            if how == "drain":  # until the end is near it goes on
                await client.send("still here" * 100)
                assert await client.recv() == "still here" * 100
            return await asyncio.wait_for(close_of(client), 10)

    with both(Origin(compression=compression)) as (server, gw):
        assert asyncio.run(talk(gw)) == END
        server.wait_closed(END)
        gw.process.wait(10)


class RawOrigin:
    """Says `first` after the 101, then what it is told to; keeps all that it hears."""

    def __init__(self, first=b""):
        self.first, self.heard, self.ended = first, b"", threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.begun = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        self.connection = self.listener.accept()[0]
        asked = read_head(self.connection)
        key = next(line.split(b":")[1].strip() for line in asked.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        name = next(line.split(b":")[1].strip() for line in asked.split(b"\r\n") if line.lower().startswith(b"upgrade"))
        self.connection.sendall(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: " + name + b"\r\nSec-WebSocket-Accept: "
                                + websockets.utils.accept_key(key.decode()).encode() + b"\r\n\r\n" + self.first)
        self.begun.set()
        with contextlib.suppress(OSError):
            while chunk := self.connection.recv(65536):
                self.heard += chunk
        self.ended.set()

    def wait_for(self, ending, seconds=8):
        end = time.monotonic() + seconds
        while not self.heard.endswith(ending):
            assert time.monotonic() < end, self.heard[-100:]
            time.sleep(0.01)

    def close(self):
        """As frames of a client are: with a mask, which is taken off."""
        head, mask, text = self.heard[-24:-22], self.heard[-22:-18], self.heard[-18:]
        return head, bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.connection.close()


def open_raw(gw, protocol=b"websocket"):
    s = socket.create_connection(("127.0.0.1", gw.port), timeout=8)
    s.sendall(b"GET /ws/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert read_head(s).startswith(b"HTTP/1.1 101 ")
    return s


def read_all(s, seconds=8):
    s.settimeout(seconds)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := s.recv(65536):
            data += chunk
    return data


def read_until(s, ending):
    data = b""
    while not data.endswith(ending):
        chunk = s.recv(65536)
        assert chunk, data[-100:]
        data += chunk
    return data


MESSAGES = {
    "frame": (frame(0x82, b"x" * 60_000, None), 30_000),
    "head": (frame(0x82, b"x" * 60_000, None), 3),
    "fragments": (frame(0x01, b"one", None) + frame(0x89, b"ping", None) + frame(0x00, b"two", None) + frame(0x80, b"three", None), 5 + 6),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_the_upstream_says_is_finished_first(name):
    message, cut = MESSAGES[name]
    with RawOrigin(message[:cut]) as origin, both(origin, drain=2) as (_, gw), open_raw(gw) as s:
        got = b""
        while len(got) < cut:
            got += s.recv(65536)
        drain(gw)
        origin.wait_for(b"")
        end = time.monotonic() + 8
        while len(origin.heard) < 24:  # that side, where nothing is under way, is told at once
            assert time.monotonic() < end
            time.sleep(0.01)
        assert origin.close() == (b"\x88\x92", CLOSE[2:])
        origin.connection.sendall(message[cut:] + frame(0x82, b"too late", None))
        got += read_until(s, CLOSE)
        assert got == message + CLOSE
        s.sendall(frame(0x88, b"\x03\xe9"))
        origin.connection.sendall(frame(0x88, b"\x03\xe9", None))
        assert s.recv(10) == b"" and origin.ended.wait(5)


@pytest.mark.parametrize("name", MESSAGES)
def test_what_the_client_says_is_finished_first(name):
    unmasked, cut = MESSAGES[name]
    parts = {"frame": frame(0x82, b"x" * 60_000), "head": frame(0x82, b"x" * 60_000),
             "fragments": frame(0x01, b"one") + frame(0x89, b"ping") + frame(0x00, b"two") + frame(0x80, b"three")}
    message = parts[name]
    with RawOrigin() as origin, both(origin, drain=2) as (_, gw), open_raw(gw) as s:
        s.sendall(message[:cut])
        origin.wait_for(message[:cut])
        drain(gw)
        assert read_until(s, CLOSE) == CLOSE
        assert origin.heard == message[:cut]
        s.sendall(message[cut:] + frame(0x82, b"too late") + frame(0x88, b"\x03\xe9"))
        end = time.monotonic() + 5
        while len(origin.heard) < len(message) + 24:
            assert time.monotonic() < end, origin.heard[-100:]
            time.sleep(0.01)
        assert origin.heard[:-24] == message and origin.close() == (b"\x88\x92", CLOSE[2:])
        origin.connection.sendall(frame(0x88, b"\x03\xe9", None))
        assert s.recv(10) == b"" and origin.ended.wait(5)


def test_a_message_without_end_is_closed_between_its_fragments():
    with RawOrigin(frame(0x01, b"one", None)) as origin, both(origin, drain=3) as (_, gw), open_raw(gw) as s:
        assert s.recv(5) == frame(0x01, b"one", None)
        drain(gw)
        assert read_until(s, CLOSE) == CLOSE


def test_who_does_not_answer_is_cut_in_time():
    with RawOrigin() as origin, both(origin, drain=30) as (_, gw), open_raw(gw) as s:
        gw.process.send_signal(2)
        assert read_all(s) == CLOSE
        assert origin.ended.wait(5)


def test_a_frame_that_does_not_end_is_cut():
    with RawOrigin(frame(0x82, b"x" * 100, None)[:50]) as origin, both(origin, drain=3) as (_, gw), open_raw(gw) as s:
        drain(gw)
        assert read_all(s) == frame(0x82, b"x" * 100, None)[:50]
        assert origin.ended.wait(5) and origin.close() == (b"\x88\x92", CLOSE[2:])


@pytest.mark.parametrize("protocol,said,heard", [(b"chat/2", b"", b""), (b"websocket", b"GARBAGE, no frames", b""), (b"websocket", b"", b"\x81\x02ab"),
                                                 (b"websocket", b"\x83\0", b""), (b"websocket", b"\x80\0", b""), (b"websocket", b"\x09\0", b""),
                                                 (b"websocket", b"\x82\x7f" + b"\xff" * 8, b"")])
def test_what_are_no_frames_is_cut_without_a_word(protocol, said, heard):
    with RawOrigin(said) as origin, both(origin, drain=1) as (_, gw), open_raw(gw, protocol) as s:
        s.sendall(heard)
        origin.wait_for(heard)
        drain(gw)
        assert read_all(s) == said
        assert origin.ended.wait(5) and origin.heard == heard


def test_a_close_that_is_under_way_is_the_only_one():
    with RawOrigin() as origin, both(origin, drain=3) as (_, gw), open_raw(gw) as s:
        s.sendall(frame(0x88, b"\x03\xe8"))
        origin.wait_for(frame(0x88, b"\x03\xe8"))
        drain(gw)
        assert read_all(s) == CLOSE
        assert origin.ended.wait(5) and origin.heard == frame(0x88, b"\x03\xe8")


def test_a_stream_of_http_2_is_told():
    with Origin() as server, Gateway(CONFIG.replace("@ORIGIN@", str(server.port)), options=("--drain-timeout", "3")) as gw:
        client = Client(gw, strict=False)
        # python3-h2 takes the first notice of a drain for the end of all streams.
        client.h2._frame_dispatch_table[GoAwayFrame] = lambda _: ([], [])
        client.take()
        stream = client.start("/ws/x", "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13")])
        with client:
            client.h2.send_data(stream, frame(0x82, b"x" * 1000))
            client.h2.send_data(stream, frame(0x82, b"in the middle")[:8])
            client.flush()
            whole = frame(0x82, b"x" * 1000, None)
            while client.responses.get(stream, {"body": b""})["body"] != whole:
                assert client.take()
            drain(gw)
            while not client.responses[stream]["body"].endswith(CLOSE):
                assert client.take()
            client.h2.send_data(stream, frame(0x82, b"in the middle")[8:])
            client.h2.send_data(stream, frame(0x88, b"\x03\xe9"))
            client.flush()
            while not any(isinstance(event, h2.events.StreamEnded) for event in client.events):
                assert client.take()
            assert client.responses[stream]["body"] == whole + CLOSE
        server.wait_closed(END)


def test_a_reload_ends_none():
    async def talk(gw):
        async with connect(gw) as client:
            gw.write("gateway.lua", CONFIG.replace("@ORIGIN@", str(server.port)) + 'route "new" { path = "/new", to = "ws" }\n')
            assert (await asyncio.to_thread(gw.command, "reload")).returncode == 0
            await asyncio.sleep(2)
            await client.send("still here")
            assert await client.recv() == "still here"

    with both(drain=1) as (server, gw):
        asyncio.run(talk(gw))


def test_talkers_lose_nothing_but_what_comes_after_the_close():
    """Each that got its echo got it whole and in order, also while it goes on talking."""
    async def talk(gw, i):
        async with connect(gw) as client:
            room = asyncio.Semaphore(8)  # what is under way must be read before the close is

            async def say():
                with contextlib.suppress(websockets.ConnectionClosed):
                    for n in range(1_000_000):
                        await asyncio.wait_for(room.acquire(), 10)
                        await client.send(f"{i} {n} " + "x" * (n * 7919 % 50_000))
            said, n = asyncio.create_task(say()), 0
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    assert await client.recv() == f"{i} {n} " + "x" * (n * 7919 % 50_000)
                    n += 1
                    room.release()
            said.cancel()
            return n > 10 and (client.close_code, client.close_reason)

    async def run(gw):
        talks = [asyncio.create_task(talk(gw, i)) for i in range(5)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(drain, gw)
        return await asyncio.wait_for(asyncio.gather(*talks), 20)

    with both(drain=3) as (_, gw):
        assert asyncio.run(run(gw)) == [END] * 5


def test_the_package_ws_on_both_sides():
    origin = free_port()
    with Gateway(CONFIG.replace("@ORIGIN@", str(origin)), options=("--drain-timeout", "2")) as gw:
        with node.Server("ws_drain", gw.port, origin) as sockets:
            drain(gw)
            said = b""
            while chunk := sockets.process.stdout.read1(65536):
                said += chunk
        assert said.decode().splitlines() == [
            "client: permessage-deflate, 1001 the gateway ends",
            "client: none, 1001 the gateway ends",
            "the server saw: 1001 the gateway ends, 1001 the gateway ends",
        ]
