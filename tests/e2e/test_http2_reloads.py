"""Reloads under everything that lasts: streams of HTTP/2, WebSockets over TLS and over streams. None may be lost."""
import base64
import hashlib
import socket
import ssl
import threading
import time

import pytest
from authority import Authority
from test_http2 import Client, gateway

RELOADS, CONNECTIONS, STREAMS, SOCKETS = 6, 10, 100, 100
PIECES = RELOADS + 3


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test,DNS:localhost,IP:127.0.0.1")
    return authority


def switch_and_echo(taken):
    with taken:
        head = b""
        while b"\r\n\r\n" not in head:
            head += taken.recv(65536)
        key = head.lower().partition(b"sec-websocket-key: ")[0]
        key = head[len(key):].partition(b": ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        taken.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while data := taken.recv(65536):
            taken.sendall(data)


def serve(listener):
    while True:
        try:
            taken = listener.accept()[0]
        except OSError:
            return
        threading.Thread(target=switch_and_echo, args=(taken,), daemon=True).start()


@pytest.fixture
def origin():
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


class OverTls:
    def __init__(self, gw, ca):
        plain = socket.create_connection(("127.0.0.1", gw.port), timeout=20)
        self.socket = ssl.create_default_context(cafile=str(ca.cert)).wrap_socket(plain, server_hostname="site.test")
        self.socket.sendall(b"GET /ws HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head

    def exchange(self, message):
        self.socket.sendall(message)
        received = b""
        while len(received) < len(message):
            piece = self.socket.recv(65536)
            assert piece, "a WebSocket over TLS was lost"
            received += piece
        assert received == message


def open_on_stream(client):
    return client.start("/ws", "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13")])


def exchange_on_stream(client, stream, message):
    wanted = client.responses.get(stream, {"body": b""})["body"] + message
    client.h2.send_data(stream, message)
    client.flush()
    while client.responses.get(stream, {"body": b""})["body"] != wanted:
        assert client.take() and client.responses.get(stream, {}).get("end") is None, "a WebSocket on a stream was lost"


def test_a_reload_every_second_loses_no_stream_and_no_websocket(ca, origin):
    more = f"""upstream "ws" {{ targets = {{ "http://127.0.0.1:{origin}" }} }}
    route "ws" {{ path = "/ws", to = "ws", upgrade = {{ "websocket" }} }}
    route "hold" {{ path = "/hold", handler = function()
      return tg.respond(200, function(write) for i = 1, {PIECES} do write(i .. "\\n") tg.sleep(1) end end)
    end }}"""
    with gateway(ca, "client_connections = 0", more, workers=2) as gw:
        clients = [Client(gw) for _ in range(CONNECTIONS)]
        for client in clients:
            client.take()
        streams = [(client, client.start("/hold")) for _ in range(STREAMS) for client in clients]
        carrier = Client(gw, strict=False)
        carrier.take()
        over_streams = [open_on_stream(carrier) for _ in range(SOCKETS)]
        over_tls = [OverTls(gw, ca) for _ in range(SOCKETS)]
        for number in range(RELOADS):
            began = time.monotonic()
            gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text() + f"-- {number}\n")
            assert gw.command("reload").returncode == 0
            for i, ws in enumerate(over_tls):
                ws.exchange(b"tls %d %d" % (number, i) * 20)
            for i, stream in enumerate(over_streams):
                exchange_on_stream(carrier, stream, b"stream %d %d" % (number, i) * 20)
            time.sleep(max(0, began + 1 - time.monotonic()))
        whole = "".join(f"{i}\n" for i in range(1, PIECES + 1)).encode()
        for client, stream in streams:
            answer = client.answer(stream, 30)
            assert (answer["body"], answer["end"]) == (whole, "end")
        for client in [*clients, carrier]:
            client.socket.close()
        for ws in over_tls:
            ws.socket.close()
        end = time.monotonic() + 10
        while gw.command("status").stdout.count("in 1 generation\n") != 2:
            assert time.monotonic() < end, gw.command("status").stdout
            time.sleep(0.1)
