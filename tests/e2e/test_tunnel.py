"""Connections that become another protocol's: only where a route allows it, and only when both sides have agreed."""
import asyncio
import os
import socket
import threading
import time

import pytest
import websockets
from gateway import Gateway, free_port

CONFIG = """
api = 1
listen { port = @PORT@, address = "127.0.0.1", send_timeout = "1s" }
upstream "ws" { targets = { "http://127.0.0.1:@ORIGIN@" } }
route "ws" { path = "/ws/*", to = "ws", upgrade = "websocket", tunnel_timeout = "1s" }
route "two" { path = "/two/*", to = "ws", upgrade = { "websocket", "chat/2" }, tunnel_timeout = "30s" }
route "closed" { path = "/closed", to = "ws" }
use { "seen" }
"""
SEEN = """
return { api = 1, doc = "Logs what has ended.", log = function(ctx)
  tg.log.info(("ended %s in=%d out=%d."):format(tostring(ctx.status), ctx.bytes_in, ctx.bytes_out))
end }
"""
ASK = b"GET /two/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\n"


class Origin:
    """Answers each connection's head with `answer`, then echoes; `heads` is what it was asked."""

    def __init__(self, answer, echo=True):
        self.answer, self.echo, self.heads = answer, echo, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, s):
        with s:
            data = b""
            while b"\r\n\r\n" not in data:
                chunk = s.recv(65536)
                if not chunk:
                    return
                data += chunk
            head, _, rest = data.partition(b"\r\n\r\n")
            self.heads.append(head)
            s.sendall(self.answer + rest)
            try:
                while self.echo and (chunk := s.recv(65536)):
                    s.sendall(chunk)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def gateway(port):
    return Gateway(CONFIG.replace("@ORIGIN@", str(port)), plugins={"seen": SEEN})


def read_head(s):
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = s.recv(1)
        if not chunk:
            break
        data += chunk
    return data


def test_a_websocket_client_talks_to_a_websocket_server():
    async def echo(connection, *_):
        async for message in connection:
            await connection.send(message)

    async def talk(origin):
        async with websockets.serve(echo, "127.0.0.1", origin, max_size=None):
            with gateway(origin) as gw:
                async with websockets.connect(f"ws://127.0.0.1:{gw.port}/ws/room", max_size=None) as client:
                    for message in ("hello", "\u6f6e" * 1000, os.urandom(3_000_000), b""):
                        await client.send(message)
                        assert await client.recv() == message
                gw.wait_for("ended 101 ")

    asyncio.run(talk(free_port()))


def test_the_heads_say_what_was_agreed():
    with Origin(AGREED) as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(ASK)
        head = read_head(s).lower()
        assert head.startswith(b"http/1.1 101 ") and head.count(b"\r\nconnection: upgrade\r\n") == 1
        assert b"\r\nupgrade: websocket\r\n" in head and b"sec-websocket-accept: x" in head
        assert b"content-length" not in head and b"transfer-encoding" not in head
        asked = origin.heads[0].lower()
        assert b"\r\nconnection: upgrade\r\nupgrade: websocket" in asked and b"keep-alive" not in asked


def test_bytes_behind_either_head_are_not_lost():
    with Origin(AGREED + b"first") as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(ASK + b"early")
        read_head(s)
        data = b""
        while len(data) < 10:
            data += s.recv(100)
        assert data == b"firstearly"


def test_one_side_may_end_before_the_other():
    with Origin(AGREED) as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(ASK)
        read_head(s)
        s.sendall(b"x" * 500_000)
        s.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := s.recv(65536):
            data += chunk
        assert data == b"x" * 500_000
        gw.wait_for("ended 101 in=500000 out=500000.")


@pytest.mark.parametrize("ask", [
    ASK.replace(b"/two/x", b"/closed"),
    ASK.replace(b"Upgrade: websocket", b"Upgrade: h2c\r\nHTTP2-Settings: x"),
    ASK.replace(b"keep-alive, Upgrade", b"keep-alive"),
    ASK.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
], ids=["route", "h2c", "option", "method", "body", "version"])
def test_where_it_is_not_allowed_the_request_is_an_ordinary_one(ask):
    with Origin(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", echo=False) as origin, gateway(origin.port) as gw:
        with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
            s.sendall(ask)
            assert read_head(s).startswith(b"HTTP/1.1 200 ")
        head = origin.heads[0].lower()
        assert b"upgrade:" not in head and b"connection: upgrade" not in head and b"http2-settings" not in head


@pytest.mark.parametrize("answer", [
    AGREED.replace(b"WebSocket", b"chat/2"),
    AGREED.replace(b"Upgrade: WebSocket\r\n", b""),
    AGREED.replace(b"Connection: Upgrade\r\n", b""),
    AGREED.replace(b"Sec-", b"Content-Length: 5\r\nSec-"),
    AGREED.replace(b"Sec-", b"Transfer-Encoding: chunked\r\nSec-"),
    AGREED.replace(b"HTTP/1.1", b"HTTP/1.0"),
], ids=["other", "to nothing", "no option", "length", "coding", "version"])
def test_another_101_is_no_agreement(answer):
    with Origin(answer) as origin:
        gw = gateway(origin.port)
        with gw, socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
            s.sendall(ASK + b"smuggled")
            assert read_head(s).startswith(b"HTTP/1.1 502 ")
            gw.log_path.write_text(gw.log().replace("[warn]", "[expected]"))


def test_a_101_that_nobody_asked_for_is_502():
    with Origin(AGREED) as origin:
        with gateway(origin.port) as gw:
            assert gw.request("/two/x").status == 502
            gw.log_path.write_text(gw.log().replace("[warn]", "[expected]"))


def test_a_refusal_is_an_ordinary_answer_and_the_connection_goes_on():
    with Origin(b"HTTP/1.1 426 x\r\nContent-Length: 2\r\n\r\nno", echo=False) as origin, gateway(origin.port) as gw:
        with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
            for _ in range(2):
                s.sendall(ASK)
                head = read_head(s)
                assert head.startswith(b"HTTP/1.1 426 ") and b"onnection: close" not in head
                assert s.recv(2) == b"no"


def test_a_silent_tunnel_ends_and_is_counted():
    with Origin(AGREED) as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=6) as s:
        s.sendall(ASK.replace(b"/two/", b"/ws/"))
        read_head(s)
        start = time.monotonic()
        for _ in range(3):
            s.sendall(b"x")
            assert s.recv(1) == b"x"
            time.sleep(0.5)
        try:
            assert s.recv(1) == b""
        except ConnectionResetError:
            pass
        assert 2 < time.monotonic() - start < 4.5
        for _ in range(50):
            if "tunnel_timeout" in gw.command("status").stdout:
                break
            time.sleep(0.05)
        assert "limit       tunnel_timeout reached 1 time\n" in gw.command("status").stdout


def test_a_reader_that_does_not_read_stops_the_writer():
    with Origin(AGREED) as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=2) as s:
        s.sendall(ASK)
        read_head(s)
        sent = 0
        s.settimeout(0.5)
        try:
            while sent < 200_000_000:
                sent += s.send(b"x" * 65536)
        except TimeoutError:
            pass
        assert sent < 60_000_000, "nobody takes the echo, and still all is taken"
        s.settimeout(5)
        got = 0
        while got < sent:
            got += len(s.recv(1 << 20))
        assert got == sent


def test_a_tunnel_lives_through_a_reload():
    with Origin(AGREED) as origin, gateway(origin.port) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(ASK)
        read_head(s)
        gw.write("gateway.lua", CONFIG.replace("@ORIGIN@", str(origin.port)) + 'route "new" { path = "/new", to = "ws" }\n')
        assert gw.command("reload").returncode == 0
        for _ in range(3):
            s.sendall(b"still here")
            assert s.recv(100) == b"still here"


def test_connect_is_refused():
    with Origin(AGREED) as origin, gateway(origin.port) as gw:
        assert gw.raw(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nsmuggled").startswith(b"HTTP/1.1 501 ")
        assert origin.heads == []


def test_http_itself_cannot_be_upgraded_to():
    with Origin(AGREED) as origin, gateway(origin.port) as gw:
        for name in ("h2c", "HTTP/2.0", "TLS/1.0"):
            gw.write("gateway.lua", CONFIG.replace("@ORIGIN@", str(origin.port)).replace('"websocket",', f'"{name}",'))
            refused = gw.command("reload")
            assert refused.returncode == 1 and f'found     "{name}"' in refused.stderr
