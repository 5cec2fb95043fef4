"""HTTP/2 towards clients and towards upstreams: curl, h2load, nghttp, python3-h2 and a real origin that speaks it."""
import asyncio
import json
import re
import shutil
import signal
import socket

import subprocess
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.errors
import h2.settings
import pytest
import websockets
from authority import Authority
from gateway import RELEASE, Gateway, free_port
from node import run

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, tls = { cert = "@CA@/site.pem", key = "@CA@/site.key" }, @OPTIONS@ }
listen { address = "127.0.0.1", port = @PORT2@, @OPTIONS@ }
route "ok" { path = "/ok", handler = function(ctx) return tg.respond(200, "ok " .. ctx.req.version) end }
route "big" { path = "/big", handler = function() return tg.respond(200, ("0123456789"):rep(300000)) end }
route "echo" { path = "/echo", handler = function(ctx) return tg.respond(200, ctx.req:text(8e6)) end }
route "head" { path = "/head", handler = function(ctx)
  local seen = {}
  for name, value in ctx.req.headers() do seen[#seen + 1] = { name, value } end
  return tg.respond(200, { method = ctx.req.method, path = ctx.req.path, host = ctx.req.host, query = ctx.req.raw_query, seen = seen })
end }
route "slow" { path = "/slow", handler = function() tg.sleep(0.5) return tg.respond(200, "slow") end }
route "stream" { path = "/stream", handler = function()
  return tg.respond(200, function(write) for i = 1, 50 do write("piece " .. i .. "\\n") tg.sleep(0.002) end end)
end }
@MORE@
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test,DNS:localhost,IP:127.0.0.1")
    return authority


def gateway(ca, options="", more="", **rest):
    return Gateway(CONFIG.replace("@CA@", str(ca.folder)).replace("@OPTIONS@", options).replace("@MORE@", more), **rest)


def curl(gw, ca, path, *words, **options):
    return subprocess.run(["curl", "-s", "--http2", "--cacert", str(ca.cert), *words, f"https://localhost:{gw.port}{path}"],
                          capture_output=True, timeout=30, **options).stdout


class Client:
    """A client of python3-h2, in plain text with prior knowledge; what it sends is not checked, so that it can be wrong."""

    def __init__(self, gw, strict=True, window=None):
        self.socket = socket.create_connection(("127.0.0.1", gw.port2), timeout=10)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=strict,
                                           normalize_outbound_headers=strict, validate_inbound_headers=True)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.responses, self.events = {}, []
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def raw(self, kind, flags, stream, payload=b""):
        self.socket.sendall(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    def start(self, path="/ok", method="GET", end=True, headers=(), host="localhost"):
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path), *headers]
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def take(self, acknowledge=True):
        """Reads once; False: the connection has ended."""
        data = self.socket.recv(65536)
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            answer = self.responses.setdefault(getattr(event, "stream_id", None), {"body": b"", "headers": {}, "end": None})
            if isinstance(event, h2.events.ResponseReceived):
                answer["headers"] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                answer["body"] += event.data
                if acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                answer["trailers"] = dict(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                answer["end"] = "end"
            elif isinstance(event, h2.events.StreamReset):
                answer["end"] = event.error_code
        self.flush()
        return True

    def upload(self):
        """A stream whose request goes on and on, always the same."""
        self.uploading = getattr(self, "uploading", None) or self.start("/echo", "POST", False)
        return self.uploading

    def answer(self, stream, seconds=10):
        end = time.time() + seconds
        while self.responses.get(stream, {}).get("end") is None:
            assert time.time() < end and self.take(), self.events
        return self.responses[stream]

    def goaway(self):
        """The code with which the gateway ends the connection."""
        while True:
            for event in self.events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    return event.error_code
            if not self.take():
                return None


def wait_for_limit(gw, name):
    end = time.time() + 10
    while name + " reached" not in (status := gw.command("status").stdout):
        assert time.time() < end, status
        time.sleep(0.1)


def test_curl_over_tls_and_in_plain_text(ca):
    with gateway(ca) as gw:
        assert curl(gw, ca, "/ok", "-w", " %{http_version}") == b"ok 2 2"
        plain = subprocess.run(["curl", "-s", "--http2-prior-knowledge", f"http://127.0.0.1:{gw.port2}/ok"], capture_output=True, timeout=20)
        assert plain.stdout == b"ok 2"
        upgrade = subprocess.run(["curl", "-s", "--http2", f"http://127.0.0.1:{gw.port2}/ok"], capture_output=True, timeout=20)
        assert upgrade.stdout == b"ok 1.1"  # Upgrade: h2c is not taken
        assert curl(gw, ca, "/big") == b"0123456789" * 300000
        body = bytes(range(256)) * 12000
        assert curl(gw, ca, "/echo", "--data-binary", "@-", input=body) == body
        assert curl(gw, ca, "/stream").count(b"piece") == 50
        assert b"content-length: 3000000" in curl(gw, ca, "/big", "-I")


def test_it_can_be_switched_off(ca):
    with gateway(ca, "http2 = false") as gw:
        assert curl(gw, ca, "/ok") == b"ok 1.1"
        assert b"505" in gw.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", port=gw.port2)


def test_many_streams_at_once(ca):
    with gateway(ca) as gw:
        out = subprocess.run(["h2load", "-n", "3000", "-c", "3", "-m", "100", f"https://localhost:{gw.port}/ok"], capture_output=True,
                             text=True, timeout=60).stdout
        assert "3000 succeeded, 0 failed, 0 errored" in out, out
        with Client(gw) as client:
            slow = [client.start("/slow") for _ in range(90)]
            began = time.time()
            assert all(client.answer(stream)["body"] == b"slow" for stream in slow)
            assert time.time() - began < 5


def test_nghttp(ca, tmp_path):
    (tmp_path / "body").write_bytes(b"0123456789" * 20000)
    with gateway(ca) as gw:
        base = f"https://localhost:{gw.port}"
        out = subprocess.run(["nghttp", "-n", "-s", f"{base}/ok", f"{base}/big", f"{base}/stream"], capture_output=True, text=True, timeout=30).stdout
        assert len(re.findall(r" 200 +\S+ /(?:ok|big|stream)$", out, re.M)) == 3, out
        sent = subprocess.run(["nghttp", "-d", tmp_path / "body", "--trailer", "x-sum: 1", f"{base}/echo"], capture_output=True, timeout=30)
        assert sent.stdout == b"0123456789" * 20000, sent.stderr


def test_the_fields_of_a_request(ca):
    with gateway(ca) as gw, Client(gw) as client:
        stream = client.start("/head?a=1&b", headers=[("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("te", "trailers")], host="Site.Test:99")
        answer = json.loads(client.answer(stream)["body"])
        assert (answer["method"], answer["path"], answer["host"], answer["query"]) == ("GET", "/head", "site.test", "a=1&b")
        seen = {name.lower(): value for name, value in answer["seen"]}
        assert seen["cookie"] == "a=1; b=2" and seen["x-one"] == "1"


MALFORMED = [
    ("an upper-case name", [("X-Upper", "1")]), ("a connection field", [("connection", "close")]), ("keep-alive", [("keep-alive", "1")]),
    ("a transfer coding", [("transfer-encoding", "chunked")]), ("an upgrade", [("upgrade", "h2c")]), ("te", [("te", "gzip")]),
    ("another host", [("host", "other.test")]), ("a second host", [("host", "localhost"), ("host", "localhost")]),
    ("a late pseudo-field", [("x", "1"), (":path", "/")]), ("an unknown pseudo-field", [(":unknown", "1")]), ("an empty name", [("", "1")]),
    ("a line feed", [("x", "a\nb")]), ("a carriage return", [("x", "a\rb")]), ("a NUL", [("x", "a\0b")]), ("a blank in a name", [("a b", "1")]),
    ("a colon in a name", [("a:b", "1")]), ("a length without a body", [("content-length", "5")]), ("no number", [("content-length", "+1")]),
    ("two lengths", [("content-length", "0"), ("content-length", "1")]),
]


@pytest.mark.parametrize("name, headers", MALFORMED, ids=[row[0] for row in MALFORMED])
def test_a_malformed_request_never_reaches_a_route(ca, name, headers):
    with gateway(ca) as gw, Client(gw, strict=False) as client:
        answer = client.answer(client.start(headers=headers))
        assert answer["end"] == h2.errors.ErrorCodes.PROTOCOL_ERROR or answer["headers"][":status"] == "400", answer
        assert client.answer(client.start())["body"] == b"ok 2"  # the connection goes on


@pytest.mark.parametrize("path", ["", "ok", "*", "http://localhost/ok"])
def test_a_malformed_path(ca, path):
    with gateway(ca) as gw, Client(gw, strict=False) as client:
        answer = client.answer(client.start(path))
        assert answer["end"] == h2.errors.ErrorCodes.PROTOCOL_ERROR or answer["headers"][":status"] == "400", answer


def test_the_request_as_the_client_sent_it(ca):
    """Asked for before it was changed, and after."""
    more = """route "original" { path = "/original", use = { function(ctx)
  if ctx.req.query.first then ctx.vars.before = ctx.req.original.headers["x-one"] end
  ctx.req.headers["x-one"], ctx.req.headers["x-two"], ctx.req.method = "changed", nil, "PUT"
end }, handler = function(ctx)
  local original, names = ctx.req.original, {}
  for name in original.headers() do names[#names + 1] = name end
  return tg.respond(200, { original.method, original.path, original.headers["x-one"], original.headers["x-two"], ctx.req.headers["x-one"],
    ctx.vars.before or "", #names })
end }"""
    with gateway(ca, more=more) as gw:
        for path, before in (("/original", ""), ("/original?first=1", "1")):
            for version in ("--http2", "--http1.1"):
                seen = json.loads(curl(gw, ca, path, version, "-H", "X-One: 1", "-H", "X-Two: 2"))
                assert seen[:6] == ["GET", "/original", "1", "2", "changed", before] and seen[6] >= 4


@pytest.mark.parametrize("sent, told", [(b"abc", "4"), (b"abcde", "4"), (b"", "1")])
def test_a_body_of_another_length_than_was_told(ca, sent, told):
    with gateway(ca) as gw, Client(gw) as client:
        stream = client.start("/echo", "POST", False, [("content-length", told)])
        client.h2.send_data(stream, sent, end_stream=True)
        client.flush()
        assert client.answer(stream)["end"] == h2.errors.ErrorCodes.PROTOCOL_ERROR


def test_limits_of_a_head_are_answered(ca):
    with gateway(ca, "fields = 50, head = '8KiB', field = '4KiB'") as gw, Client(gw) as client:
        many = client.answer(client.start(headers=[(f"x-{i}", "1") for i in range(60)]))
        assert many["headers"][":status"] == "431"
        long = client.answer(client.start(headers=[("x", "y" * 5000)]))
        assert long["headers"][":status"] == "431"
        crumbs = client.answer(client.start(headers=[("cookie", "a=1")] * 60))
        assert crumbs["headers"][":status"] == "431"
        assert client.answer(client.start())["body"] == b"ok 2"


def test_rapid_reset(ca):
    with gateway(ca) as gw:
        with Client(gw) as client:
            try:
                for _ in range(400):
                    stream = client.start("/slow")
                    client.h2.reset_stream(stream)
                    client.flush()
                assert client.goaway() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
            except (ConnectionError, h2.exceptions.ProtocolError):
                pass
        gw.wait_for("is live")
        time.sleep(0.3)
        assert "h2_resets reached" in gw.command("status").stdout
        assert curl(gw, ca, "/ok") == b"ok 2"


FLOODS = {
    "PING": lambda client: client.raw(6, 0, 0, b"12345678"),
    "SETTINGS": lambda client: client.raw(4, 0, 0),
    "PRIORITY": lambda client: client.raw(2, 0, 1, b"\0\0\0\0\x10"),
    "unknown": lambda client: client.raw(0x42, 0, 0, b"x"),
    "WINDOW_UPDATE": lambda client: client.raw(8, 0, 0, b"\0\0\0\1"),
    "empty DATA": lambda client: client.raw(0, 0, client.upload()),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_that_carry_nothing(ca, name):
    with gateway(ca) as gw:
        with Client(gw) as client:
            try:
                for _ in range(3000):
                    FLOODS[name](client)
                assert client.goaway() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
            except (ConnectionError, h2.exceptions.ProtocolError):
                pass
        time.sleep(0.3)
        assert re.search(r"h2_(controls|answers) reached", gw.command("status").stdout)
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_continuations_without_end(ca):
    with gateway(ca) as gw:
        with Client(gw) as client:
            client.raw(1, 0, 1, b"\x82")
            try:
                for _ in range(2000):
                    client.raw(9, 0, 1, b"x")
                client.goaway()
            except (ConnectionError, h2.exceptions.ProtocolError):
                pass
        wait_for_limit(gw, "h2_continuations")
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_a_header_bomb_is_not_unpacked(ca):
    """A large field goes into the table of HPACK once, and is named again and again by one byte each."""
    with gateway(ca) as gw, Client(gw) as client:
        client.take()
        block = client.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/ok"), ("x", "y" * 3900)])
        client.raw(1, 5, 1, block + b"\xbe" * 12000)
        assert client.goaway() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        wait_for_limit(gw, "h2_head")
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_an_upload_that_does_not_go_on_ends_in_time(ca):
    with gateway(ca, "body_timeout = '1s'") as gw, Client(gw) as client:
        stream = client.start("/echo", "POST", False)
        answer = client.answer(stream, 30)
        assert answer["headers"].get(":status") == "408" or answer["end"] != "end", answer
        wait_for_limit(gw, "body_timeout")
        assert client.answer(client.start())["body"] == b"ok 2"  # the connection goes on


def test_a_client_that_gives_no_window_is_reset_and_holds_little(ca):
    with gateway(ca, "send_timeout = '1s'") as gw, Client(gw, window=0) as client:
        streams = [client.start("/big") for _ in range(20)]
        answers = [client.answer(stream, 40) for stream in streams]
        assert all(answer["end"] != "end" for answer in answers)
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_more_streams_than_allowed_are_refused(ca):
    with gateway(ca, "http2_streams = 5") as gw, Client(gw) as client:
        streams = [client.start("/slow") for _ in range(8)]  # before it has heard of the limit
        ends = [client.answer(stream)["end"] for stream in streams]
        assert ends == ["end"] * 5 + [h2.errors.ErrorCodes.REFUSED_STREAM] * 3
        assert client.h2.remote_settings.max_concurrent_streams == 5
        wait_for_limit(gw, "h2_streams")
        assert client.answer(client.start())["body"] == b"ok 2"
        client.h2.remote_settings = h2.settings.Settings(client=False)  # it forgets
        for _ in range(8):
            client.start("/slow")
        assert client.goaway() == h2.errors.ErrorCodes.PROTOCOL_ERROR
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_a_large_upload_waits_for_its_reader(ca):
    more = """route "sip" { path = "/sip", body_limit = "64MiB", handler = function(ctx)
      local n = 0
      for chunk in ctx.req:chunks() do n = n + #chunk tg.sleep(0.001) end
      return tg.respond(200, tostring(n))
    end }"""
    with gateway(ca, more=more) as gw:
        assert curl(gw, ca, "/sip", "--data-binary", "@-", input=b"x" * 5000000) == b"5000000"


def test_a_drain_tells_and_loses_nothing(ca):
    with gateway(ca) as gw, Client(gw) as client:
        client.take()
        load = subprocess.Popen(["h2load", "-n", "50", "-c", "1", "-m", "50", f"https://localhost:{gw.port}/slow"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)
        gw.process.send_signal(signal.SIGQUIT)
        assert client.goaway() == h2.errors.ErrorCodes.NO_ERROR
        assert "50 succeeded, 0 failed" in load.communicate(timeout=20)[0]
        assert gw.process.wait(10) == 0


def test_reloads_lose_no_stream(ca):
    with gateway(ca, workers=2) as gw:
        load = subprocess.Popen(["h2load", "-D", "4", "-c", "10", "-m", "100", f"https://localhost:{gw.port}/ok"], stdout=subprocess.PIPE, text=True)
        for i in range(3):
            time.sleep(1)
            gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text() + f"-- {i}\n")
            assert gw.command("reload").returncode == 0
        out = load.communicate(timeout=30)[0]
        assert re.search(r" 0 failed, 0 errored", out), out


def test_a_preface_in_pieces_and_what_is_none(ca):
    with gateway(ca) as gw:
        with socket.create_connection(("127.0.0.1", gw.port2), timeout=5) as plain:
            for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0":
                plain.sendall(bytes([byte]))
            assert plain.recv(9)[3] == 4  # SETTINGS
        with socket.create_connection(("127.0.0.1", gw.port2), timeout=5) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
            received = b""
            while piece := plain.recv(1000):
                received += piece
            assert b"HTTP/1.1" not in received


# ------------------------------------------------------------------ towards upstreams

TO = """
upstream "plain" { targets = { "http://127.0.0.1:@PORT2@" }, http2 = true }
upstream "secure" { targets = { "https://localhost:@PORT@" }, tls = { ca = "@CA@/ca.pem" }, http2 = true }
route "plain" { path = "/plain/*", to = "plain", strip_path = true, body_limit = "16MiB" }
route "secure" { path = "/secure/*", to = "secure", strip_path = true, body_limit = "16MiB" }
route "calls" { path = "/calls", handler = function()
  local a, b = tg.upstream("plain"):get("/ok"), tg.upstream("secure"):post("/echo", "hello")
  return tg.respond(200, a:text() .. " " .. b:text())
end }
"""


@pytest.mark.parametrize("way", ["plain", "secure"])
def test_an_upstream_that_speaks_it(ca, way):
    with gateway(ca, more=TO.replace("@CA@", str(ca.folder))) as gw:
        def get(path, *words, **options):
            return subprocess.run(["curl", "-s", "--http1.1", *words, f"http://127.0.0.1:{gw.port2}/{way}{path}"], capture_output=True,
                                  timeout=30, **options).stdout
        assert get("/ok") == b"ok 2"
        assert get("/big") == b"0123456789" * 300000
        body = b"z" * 4000000
        assert get("/echo", "--data-binary", "@-", input=body) == body
        assert get("/echo", "--data-binary", "@-", "-H", "Transfer-Encoding: chunked", input=body) == body
        assert get("/stream").count(b"piece") == 50
        assert b"Content-Length: 3000000" in get("/big", "-I")
        assert b" 404" in get("/nothing", "-i")
        assert curl(gw, ca, f"/{way}/echo", "--data-binary", "@-", input=body) == body
        assert gw.request("/calls", port=gw.port2).text == b"ok 2 hello"


def test_requests_share_few_connections(ca):
    with gateway(ca, more=TO.replace("@CA@", str(ca.folder)), options="client_connections = 0") as gw:
        threads = [threading.Thread(target=gw.request, args=("/plain/slow",), kwargs={"port": gw.port2}) for _ in range(60)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        out = subprocess.run(["ss", "-tnH", "state", "established", f"( sport = :{gw.port2} )"], capture_output=True, text=True).stdout
        for thread in threads:
            thread.join()
        assert len(out.splitlines()) <= 60 + 3, out


def test_a_peer_without_it_is_spoken_to_in_http_1_1(ca):
    with gateway(ca, "http2 = false", more=TO.replace("@CA@", str(ca.folder))) as gw:
        for _ in range(3):
            assert gw.request("/secure/ok", port=gw.port2).text == b"ok 1.1"


def test_an_upstream_of_another_make(ca, tmp_path):
    """nghttpd as the origin: what it serves passes, and its end is survived."""
    assert shutil.which("nghttpd")
    (tmp_path / "file").write_bytes(b"a" * 500000)
    port = free_port()
    origin = subprocess.Popen(["nghttpd", "--no-tls", "-d", str(tmp_path), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    more = f'upstream "o" {{ targets = {{ "http://127.0.0.1:{port}" }}, http2 = true }} route "o" {{ path = "/o/*", to = "o", strip_path = true }}'
    gw = gateway(ca, more=more)
    try:
        gw.wait_for("is live")
        end = time.time() + 5
        while gw.request("/o/file", port=gw.port2).status != 200:
            assert time.time() < end
        assert gw.request("/o/file", port=gw.port2).text == b"a" * 500000
        assert gw.request("/o/none", port=gw.port2).status == 404
        origin.kill()
        origin.wait()
        assert gw.request("/o/file", port=gw.port2).status == 502
    finally:
        origin.kill()
        gw.__exit__(AssertionError)  # the log has warnings


class HintingOrigin:
    """Answers each request with what `heads` says: lists of fields, each sent by itself; the last one is the response's."""

    def __init__(self, heads, pause=0):
        self.heads, self.pause = heads, pause
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        try:
            while True:
                client.sendall(connection.data_to_send())
                received = client.recv(65536)
                if not received:
                    return
                for event in connection.receive_data(received):
                    if isinstance(event, h2.events.StreamEnded):
                        self.answer(client, connection, event.stream_id)
        except OSError:
            pass

    def answer(self, client, connection, stream):
        for fields in self.heads[:-1]:
            connection.send_headers(stream, fields)
            if self.pause:
                client.sendall(connection.data_to_send())
                time.sleep(self.pause)
        connection.send_headers(stream, self.heads[-1])
        connection.send_data(stream, b"whole", end_stream=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def hint(number):
    return [(":status", "103"), ("link", f"</{number}.css>; rel=preload")]


FINAL = [(":status", "200"), ("x-end", "yes")]


def hinted(origin):
    return f'upstream "o" {{ targets = {{ "{origin.url}" }}, http2 = true }} route "o" {{ path = "/o", to = "o" }} ' \
        'route "call" { path = "/call", handler = function() return tg.respond(200, tg.upstream("o"):get("/o"):text()) end }'


def test_hints_of_an_upstream_are_passed_on(ca):
    """RFC 8297, of HTTP/2 to clients of either version."""
    with HintingOrigin([hint(1), [(":status", "102")], hint(2), FINAL]) as origin, gateway(ca, more=hinted(origin)) as gw:
        for _ in range(3):
            answer = gw.raw(b"GET /o HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", gw.port2)
            heads = answer.split(b"\r\n\r\n")
            assert [head.split(b"\r\n")[0] for head in heads[:3]] == [b"HTTP/1.1 103 Early Hints"] * 2 + [b"HTTP/1.1 200 OK"], answer
            assert b"Link: </1.css>; rel=preload" in heads[0] or b"link: </1.css>; rel=preload" in heads[0]
            assert b"</2.css>" in heads[1] and b"x-end: yes" in heads[2].lower() and b"Length" not in heads[0] + heads[1]
            assert heads[3] in (b"whole", b"5\r\nwhole\r\n0")
        assert gw.raw(b"GET /o HTTP/1.0\r\nHost: a\r\n\r\n", gw.port2).startswith(b"HTTP/1.1 200 ")  # knows no 1xx
        shown = curl(gw, ca, "/o", "-v", "--stderr", "-").decode()
        assert shown.count("< HTTP/2 103") == 2 and "</2.css>" in shown and "< HTTP/2 200" in shown
        assert gw.request("/call", port=gw.port2).text == b"whole"  # hints are not for it


def test_hints_of_an_upstream_come_at_once(ca):
    with HintingOrigin([hint(1), FINAL], pause=0.6) as origin, gateway(ca, more=hinted(origin)) as gw:
        with socket.create_connection(("127.0.0.1", gw.port2), timeout=5) as s:
            began = time.monotonic()
            s.sendall(b"GET /o HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(1000).startswith(b"HTTP/1.1 103 ") and time.monotonic() - began < 0.5
            assert s.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_of_many_hints_few_are_passed_on_and_without_end_they_are_an_error(ca):
    with HintingOrigin([hint(n) for n in range(16)] + [FINAL]) as origin, gateway(ca, more=hinted(origin)) as gw:
        assert curl(gw, ca, "/o", "-v", "--stderr", "-").count(b"< HTTP/2 103") == 8
    with HintingOrigin([hint(n) for n in range(17)] + [FINAL]) as origin, gateway(ca, more=hinted(origin), warns="upstream") as gw:
        answer = gw.raw(b"GET /o HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", gw.port2)
        assert b"HTTP/1.1 502 " in answer and b"HTTP/1.1 200 " not in answer
        wait_for_limit(gw, "interim_responses")
    with HintingOrigin([[(":status", "100")]] * 17 + [FINAL]) as origin, gateway(ca, more=hinted(origin), warns="upstream") as gw:
        assert gw.request("/o", port=gw.port2).status == 502
        assert gw.request("/call", port=gw.port2).status == 500  # the call has no answer


def websocket(gw, ca, more=()):
    client = Client(gw, strict=False)
    client.take()
    stream = client.start("/ws", "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13"), *more])
    return client, stream


def test_websocket_over_a_stream(ca):
    ports = []

    async def serve(ready):
        async def echo(connection, *_):
            async for message in connection:
                await connection.send(message)

        async with websockets.serve(echo, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await asyncio.sleep(8)

    ready = threading.Event()
    threading.Thread(target=lambda: asyncio.run(serve(ready)), daemon=True).start()
    assert ready.wait(5)
    more = f'upstream "ws" {{ targets = {{ "http://127.0.0.1:{ports[0]}" }} }} route "ws" {{ path = "/ws", to = "ws", upgrade = {{ "websocket" }} }}'
    with gateway(ca, more=more) as gw:
        client, stream = websocket(gw, ca)
        with client:
            mask = b"\1\2\3\4"
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(b"hello"))
            client.h2.send_data(stream, b"\x81" + bytes([0x80 | len(payload)]) + mask + payload)
            client.flush()
            while b"hello" not in client.responses.get(stream, {"body": b""})["body"]:
                assert client.take()
            assert client.responses[stream]["headers"][":status"] == "200"
            assert "sec-websocket-accept" not in client.responses[stream]["headers"]
            assert client.responses[stream]["body"] == b"\x81\x05hello"


def test_another_protocol_is_not_connected_to(ca):
    with gateway(ca) as gw, Client(gw, strict=False) as client:
        client.take()
        stream = client.start("/ok", "CONNECT", False, [(":protocol", "connect-udp")])
        answer = client.answer(stream)
        assert answer["headers"][":status"] == "501"


def test_a_short_body_between_streams_is_not_lost(ca):
    """Its head and all of it come with one read: that it has ended does not mean that there was none."""
    with gateway(ca, more=TO.replace("@CA@", str(ca.folder))) as gw, Client(gw) as client:
        for _ in range(5):
            assert client.answer(client.start("/plain/ok"))["body"] == b"ok 2"


def test_a_browser_uses_it_for_a_page_and_a_websocket(ca):
    """All of Chromium's requests are streams of one connection, and so is its WebSocket (RFC 8441)."""
    more = """dict "seen" { size = "64KiB" }
    upstream "ws" { targets = { "http://127.0.0.1:@WS@" } }
    use { function(ctx) if ctx.req.headers["sec-websocket-version"] then tg.dict("seen"):set("by", ctx.req.version) end end }
    route "page" { path = "/", handler = function() return tg.respond(200, "<!doctype html><title>page</title>", { ["Content-Type"] = "text/html" }) end }
    route "piece" { path = "/piece", handler = function() return tg.respond(200, ("x"):rep(10000)) end }
    route "length" { path = "/length", handler = function(ctx) return tg.respond(200, tostring(#ctx.req:text(4e6))) end }
    route "ws" { path = "/ws", to = "ws", upgrade = "websocket" }
    route "seen" { path = "/seen", handler = function() return tg.respond(200, tg.dict("seen"):get("by")) end }"""
    async def echo(socket, _=None):
        async for message in socket:
            await socket.send(message)

    async def main():
        async with websockets.serve(echo, "127.0.0.1", 0) as origin:
            port = origin.sockets[0].getsockname()[1]
            with gateway(ca, more=more.replace("@WS@", str(port)), binary=RELEASE) as gw:
                seen = json.loads(await asyncio.to_thread(run, "browser_h2", f"https://localhost:{gw.port}/"))
                assert seen["pieces"] == [10000] * 60 and seen["upload"] == "2000000"
                assert seen["heard"] == ["hello", 200000, 1000, "enough", True]
                assert seen["protocols"] == ["h2"] and seen["loaded"] >= 62, seen
                assert gw.request("/seen", port=gw.port2).text == b"2"

    asyncio.run(main())
