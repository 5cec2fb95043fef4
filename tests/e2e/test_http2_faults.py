"""What broke HTTP/2 and TLS, each once: streams at every wrong moment, peers that say the wrong thing, and reloads all the while."""
import concurrent.futures
import json
import select
import signal
import socket
import subprocess
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest
from authority import Authority
from test_http2 import Client, curl, gateway

END_HEADERS, END_STREAM = 4, 1


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test,DNS:localhost,IP:127.0.0.1")
    return authority


def status_of(gw):
    return gw.command("status").stdout


# ------------------------------------------------------------------ clients


def test_an_idle_connection_is_kept_for_its_own_time_not_for_a_sweep(ca):
    with gateway(ca, "keepalive_timeout = '4s'") as gw, Client(gw) as client:
        assert client.answer(client.start())["body"] == b"ok 2"
        time.sleep(2.5)
        assert client.answer(client.start())["body"] == b"ok 2"
        began = time.time()
        assert client.goaway() == h2.errors.ErrorCodes.NO_ERROR
        assert 3 < time.time() - began < 6


def swallow_nothing(gw, streams=40):
    """A client with every window open that reads nothing: the gateway's side of the connection fills up."""
    client = Client(gw, window=2**31 - 1)
    client.h2.increment_flow_control_window(2**31 - 1 - 65535)
    for _ in range(streams):
        client.start("/big")
    time.sleep(1)
    return client


def test_who_reads_nothing_is_closed_when_its_time_is_over(ca):
    with gateway(ca, "send_timeout = '1s', keepalive_timeout = '1s'") as gw, swallow_nothing(gw):
        end = time.time() + 12
        while "connections 0" not in (out := connections(gw)):
            assert time.time() < end, out
            time.sleep(0.2)


def connections(gw):
    """Established ones at the port of plain text."""
    out = subprocess.run(["ss", "-tnH", "state", "established", f"( sport = :{gw.port2} )"], capture_output=True, text=True).stdout
    return f"connections {len(out.splitlines())}\n{out}"


def test_frames_that_carry_nothing_do_not_put_off_the_end_of_a_stalled_stream(ca):
    with gateway(ca, "send_timeout = '60s'") as gw, Client(gw, window=0) as client:
        stream = client.start("/big")
        end = time.time() + 36
        while client.responses.get(stream, {}).get("end") is None:
            assert time.time() < end
            while select.select([client.socket], [], [], 0)[0]:
                assert client.take()
            client.raw(6, 0, 0, b"12345678")
            time.sleep(0.6)
        assert client.responses[stream]["end"] == h2.errors.ErrorCodes.CANCEL
        assert "h2_stall reached" in status_of(gw)


def test_a_head_that_goes_on_after_its_time_gets_into_no_other_request(ca):
    """Its exchange serves another client by then."""
    more = """route "late" { path = "/late", handler = function(ctx)
      tg.sleep(1.5)
      local seen = {}
      for name in ctx.req.headers() do seen[#seen + 1] = name end
      return tg.respond(200, seen)
    end }"""
    with gateway(ca, "header_timeout = '1s', send_timeout = '20s'", more=more) as gw, swallow_nothing(gw) as slow:
        block = slow.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/ok")])
        stream = slow.h2.get_next_available_stream_id()
        slow.raw(1, END_STREAM, stream, block)
        time.sleep(2)  # 408 waits behind what is not read
        with Client(gw) as other:
            late = other.start("/late")
            time.sleep(0.3)
            slow.raw(9, END_HEADERS, stream, slow.h2.encoder.encode([(f"x-evil-{i}", "1") for i in range(30)]))
            seen = json.loads(other.answer(late)["body"])
        assert not [name for name in seen if "evil" in name.lower()], seen
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_a_request_that_was_reset_at_once_costs_nothing(ca):
    more = """dict "seen" { size = "64KiB" }
    route "seen" { path = "/seen", handler = function() tg.dict("seen"):incr("n", 1, 0) return tg.respond(200) end }
    route "count" { path = "/count", handler = function() return tg.respond(200, tostring(tg.dict("seen"):get("n") or 0)) end }"""
    with gateway(ca, more=more) as gw, Client(gw) as client:
        client.take()
        for _ in range(20):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/seen")], end_stream=True)
            client.h2.reset_stream(stream)
        client.flush()
        time.sleep(0.2)
        assert client.answer(client.start("/count"))["body"] == b"0"


def test_a_slow_reader_who_asked_for_short_records(ca):
    """OpenSSL holds one record of a write that blocks, not all of it (RFC 6066, section 4)."""
    more = """route "huge" { path = "/huge", handler = function()
      return tg.respond(200, function(write) for _ = 1, 100 do write(("0123456789"):rep(25000)) end end)
    end }"""
    with gateway(ca, more=more) as gw:
        reader = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-servername", "site.test", "-CAfile", str(ca.cert),
                                   "-maxfraglen", "512", "-quiet", "-no_ign_eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        reader.stdin.write(b"GET /huge HTTP/1.0\r\nHost: site.test\r\nConnection: close\r\n\r\n")
        reader.stdin.flush()
        time.sleep(1.5)  # its pipe is full, then the sockets are
        received = b""
        while piece := reader.stdout.read(65536):
            received += piece
        reader.stdin.close()
        reader.wait(10)
        assert received.partition(b"\r\n\r\n")[2] == b"0123456789" * 2500000, len(received)


def frames(connection):
    """(type, stream, payload) of each frame until the end."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    while received:
        end = 9 + int.from_bytes(received[:3], "big")
        yield received[3], int.from_bytes(received[5:9], "big"), received[9:end]
        received = received[end:]


def test_requests_on_their_way_when_a_drain_begins_are_served(ca):
    with gateway(ca) as gw, Client(gw) as client:
        assert client.answer(client.start())["body"] == b"ok 2"
        gw.process.send_signal(signal.SIGQUIT)
        time.sleep(0.3)  # it knows nothing of the end, or has not looked
        stream = client.start("/slow")
        told, body = [], b""
        for kind, of, payload in frames(client.socket):  # python3-h2 takes nothing any more after a GOAWAY
            if kind == 7:
                told.append(int.from_bytes(payload[:4], "big"))
            elif kind == 0 and of == stream:
                body += payload
        assert body == b"slow" and told == [2**31 - 1, stream]
        assert gw.process.wait(5) == 0


# ------------------------------------------------------------------ upstreams


class Upstream:
    """A server of HTTP/2 in plain text; `act(connection, event)` is called for each event of each connection."""

    def __init__(self, act, streams=None, greet=True):
        self.act, self.streams, self.greet = act, streams, greet
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for connection in self.connections:
            connection.end()

    def accept(self):
        while True:
            try:
                taken = self.listener.accept()[0]
            except OSError:
                return
            connection = Connection(self, taken)
            self.connections.append(connection)
            threading.Thread(target=connection.run, daemon=True).start()

    def config(self, more=""):
        return f"""upstream "o" {{ targets = {{ "http://127.0.0.1:{self.port}" }}, http2 = true, {more} }}
        route "o" {{ path = "/o/*", to = "o", strip_path = true, body_limit = "64MiB" }}"""


class Connection:
    def __init__(self, upstream, taken):
        self.upstream, self.socket, self.lock = upstream, taken, threading.RLock()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
                                                                       normalize_outbound_headers=False))
        if upstream.streams is not None:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: upstream.streams, h2.settings.SettingCodes.MAX_FRAME_SIZE: 16384})
        self.h2.initiate_connection()
        self.requests = {}
        if upstream.greet:
            self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def raw(self, kind, flags, stream, payload=b""):
        self.socket.sendall(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    def end(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def run(self):
        try:
            while data := self.socket.recv(65536):
                with self.lock:
                    for event in self.h2.receive_data(data):
                        if isinstance(event, h2.events.RequestReceived):
                            self.requests[event.stream_id] = [dict(event.headers), b""]
                        elif isinstance(event, h2.events.DataReceived):
                            self.requests[event.stream_id][1] += event.data
                            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        try:
                            self.upstream.act(self, event)
                        except h2.exceptions.ProtocolError:
                            pass  # the stream was reset meanwhile
                    self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass

    def answer(self, stream, body=b"", fields=(), status="200", end=True):
        self.h2.send_headers(stream, [(":status", status), *fields], end_stream=end and not body)
        for at in range(0, len(body), 16384):
            self.h2.send_data(stream, body[at:at + 16384], end_stream=end and at + 16384 >= len(body))

    def later(self, seconds, stream, body):
        def run():
            with self.lock:
                try:
                    self.answer(stream, body)
                    self.flush()
                except (OSError, h2.exceptions.ProtocolError):
                    pass
        threading.Timer(seconds, run).start()


def ended(event):
    return isinstance(event, h2.events.StreamEnded)


def ask(gw, path, method="GET", body=None, headers=None):
    answer = gw.request(path, method, body, headers, port=gw.port2)
    return answer.status, answer.text


def ask_many(gw, count, path, method="GET", body=None):
    with concurrent.futures.ThreadPoolExecutor(min(count, 200)) as pool:
        return [done.result() for done in [pool.submit(ask, gw, path, method, body) for _ in range(count)]]


@pytest.mark.parametrize("method, body", [("GET", None), ("POST", None), ("POST", b"x" * 3000)], ids=["get", "post", "body"])
def test_many_requests_to_an_upstream_that_takes_one_at_a_time(ca, method, body):
    def act(connection, event):
        if ended(event):
            connection.later(0.02, event.stream_id, b"done")

    with Upstream(act, streams=1) as upstream, gateway(ca, "client_connections = 0", upstream.config("connect_timeout = '20s'")) as gw:
        answers = ask_many(gw, 300, "/o/x", method, body)
        assert answers == [(200, b"done")] * 300, set(answers)
        assert len(upstream.connections) <= 300


@pytest.mark.parametrize("method, body", [("GET", None), ("POST", None)])
def test_requests_that_came_too_late_for_a_goaway_go_to_another_connection(ca, method, body):
    """The one it names is served, those beyond are not (RFC 9113, section 6.8); none is lost."""
    def act(connection, event):
        if isinstance(event, h2.events.RequestReceived) and connection is upstream.connections[0] and event.stream_id == 5:
            connection.flush()
            connection.raw(7, 0, 0, (1).to_bytes(4, "big") + bytes(4))
            connection.later(0.5, 1, b"first")
        elif ended(event) and connection is not upstream.connections[0]:
            connection.answer(event.stream_id, b"second")

    with Upstream(act) as upstream, gateway(ca, "client_connections = 0", upstream.config()) as gw:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            first = pool.submit(ask, gw, "/o/x", method, body)
            time.sleep(0.3)
            rest = [pool.submit(ask, gw, "/o/x", method, body) for _ in range(5)]
            assert [one.result() for one in rest] == [(200, b"second")] * 5
            assert first.result() == (200, b"first")
        assert ask(gw, "/o/x", method, body) == (200, b"second")
        assert len(upstream.connections) == 2


def test_what_an_upstream_refuses_is_asked_again_but_not_for_ever(ca):
    seen = []

    def act(connection, event):
        if isinstance(event, h2.events.RequestReceived):
            seen.append(dict(event.headers)[":path"])
            if len(seen) == 1 or "never" in seen[-1]:
                connection.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                connection.answer(event.stream_id, b"now")

    with Upstream(act) as upstream, gateway(ca, more=upstream.config(), warns="TG_ERESET|reset|connection") as gw:
        assert ask(gw, "/o/x", "POST") == (200, b"now")
        assert ask(gw, "/o/never", "POST")[0] == 502
        assert 4 <= len(seen) <= 12, seen


def test_an_upstream_that_has_vanished_is_not_asked_for_ever(ca):
    """Its connection swallows what is sent: the next request goes to another one."""
    def act(connection, event):
        if ended(event) and connection is not upstream.connections[0]:
            connection.answer(event.stream_id, b"alive")
        elif ended(event) and not connection.requests[event.stream_id][0][":path"].endswith("hang"):
            connection.answer(event.stream_id, b"alive")
        elif ended(event):
            time.sleep(30)

    with Upstream(act) as upstream, gateway(ca, more=upstream.config("first_byte_timeout = '1500ms'"), warns="upstream") as gw:
        assert ask(gw, "/o/x") == (200, b"alive")
        assert ask(gw, "/o/hang")[0] == 504
        began = time.time()
        assert ask(gw, "/o/x") == (200, b"alive")
        assert time.time() - began < 1


@pytest.mark.parametrize("name, sent, status", [
    ("too short", ([("content-length", "10")], b"abc"), None), ("too long", ([("content-length", "2")], b"abc"), None),
    ("two lengths", ([("content-length", "3"), ("content-length", "4")], b"abc"), 502), ("no number", ([("content-length", "x")], b"abc"), 502),
    ("a line feed", ([("x", "a\nb")], b"abc"), 502), ("a NUL", ([("x", "a\0b")], b"abc"), 502), ("upper case", ([("X-A", "1")], b"abc"), 502),
    ("a connection field", ([("connection", "close")], b"abc"), 502), ("a coding", ([("transfer-encoding", "chunked")], b"abc"), 502),
    ("a blank in a name", ([("a b", "1")], b"abc"), 502), ("a pseudo-field", ([(":path", "/")], b"abc"), 502), ("a late status", ([("x", "1"), (":status", "200")], b"abc"), 502),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_malformed_response_is_never_passed_on(ca, name, sent, status):
    def act(connection, event):
        if ended(event):
            fields, body = sent
            block = connection.h2.encoder.encode([(":status", "200"), *fields])
            connection.raw(1, END_HEADERS, event.stream_id, block)
            connection.raw(0, END_STREAM, event.stream_id, body)

    with Upstream(act) as upstream, gateway(ca, more=upstream.config(), warns="upstream") as gw:
        if status is not None:
            assert ask(gw, "/o/x")[0] == status
        else:  # its head has gone out, perhaps: the body must not pass for a whole one
            with Client(gw) as client:
                answer = client.answer(client.start("/o/x"))
                assert answer["headers"].get(":status") == "502" or answer["end"] != "end", answer
            received = gw.raw(b"GET /o/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", port=gw.port2)
            assert b" 502 " in received or b"\r\n\r\nabc" not in received or b"Content-Length: 10" in received, received


@pytest.mark.parametrize("method, status, body", [("HEAD", "200", b""), ("GET", "204", b""), ("GET", "304", b"")])
def test_answers_without_a_body(ca, method, status, body):
    def act(connection, event):
        if ended(event):
            connection.answer(event.stream_id, fields=[("content-length", "5")] if status != "204" else [], status=status)

    with Upstream(act) as upstream, gateway(ca, more=upstream.config()) as gw, Client(gw) as client:
        for _ in range(2):
            answer = gw.request("/o/x", method, port=gw.port2)
            assert (answer.status, answer.text) == (int(status), body)
            answer = client.answer(client.start("/o/x", method))
            assert (answer["headers"][":status"], answer["body"], answer["end"]) == (status, body, "end")
        assert len(upstream.connections) == 1


def test_trailers_of_a_request_are_no_part_of_its_body(ca):
    def act(connection, event):
        if ended(event):
            connection.answer(event.stream_id, connection.requests[event.stream_id][1], [("x-seen", ",".join(connection.requests[event.stream_id][0]))])

    with Upstream(act) as upstream, gateway(ca, more=upstream.config()) as gw:
        sent = b"POST /o/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
        received = gw.raw(sent, port=gw.port2)
        assert b"hello" in received and b"x-sum,\r" not in received and received.startswith(b"HTTP/1.1 200"), received
        with Client(gw) as client:
            stream = client.start("/o/x", "POST", False)
            client.h2.send_data(stream, b"hello")
            client.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
            client.flush()
            assert client.answer(stream)["body"] == b"hello"


def test_a_call_that_uploads_over_http2_is_not_chunked(ca):
    def act(connection, event):
        if ended(event):
            connection.answer(event.stream_id, connection.requests[event.stream_id][1])

    more = """route "up" { path = "/up", handler = function()
      local result, err = tg.upstream("o"):post("/echo", function(write) for _ = 1, 50 do write(("x"):rep(1000)) end end)
      return tg.respond(result and result.status or 500, result and result:text() or tostring(err))
    end }"""
    with Upstream(act) as upstream, gateway(ca, more=upstream.config() + more) as gw:
        for _ in range(3):
            assert ask(gw, "/up") == (200, b"x" * 50000)


def test_resets_at_each_moment_of_an_exchange(ca):
    """By the client, and by the upstream; while heads, bodies and policies are under way."""
    def act(connection, event):
        if isinstance(event, h2.events.RequestReceived):
            path = connection.requests[event.stream_id][0][":path"]
            if path == "/reset-head":
                connection.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            elif path == "/reset-body":
                connection.answer(event.stream_id, b"some", end=False)
                connection.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            elif path == "/slow":
                connection.later(0.1, event.stream_id, b"slow")
            elif path == "/open":
                connection.answer(event.stream_id, b"some", end=False)
        if ended(event) and connection.requests[event.stream_id][0][":path"] == "/echo":
            connection.answer(event.stream_id, b"z" * 30000)

    more = """route "sleep" { path = "/sleep", handler = function(ctx) tg.sleep(0.05) return tg.respond(200, ctx.req:text(1e6)) end }
    route "call" { path = "/call", handler = function()
      local result = tg.upstream("o"):get("/slow")
      return tg.respond(200, result and result:text() or "lost")
    end }"""
    with Upstream(act) as upstream, gateway(ca, "http2_resets = 100000", upstream.config() + more, warns="upstream") as gw:
        with Client(gw) as client:
            for path in ["/o/slow", "/o/open", "/o/echo", "/o/reset-head", "/o/reset-body", "/sleep", "/call", "/stream", "/big"]:
                for wait in [0, 0.002, 0.01, 0.06, 0.15]:
                    for end in [True, False]:
                        stream = client.start(path, "GET" if end else "POST", end)
                        if not end:
                            client.h2.send_data(stream, b"part")
                            client.flush()
                        time.sleep(wait)
                        while select.select([client.socket], [], [], 0)[0]:
                            assert client.take()
                        if client.responses.get(stream, {}).get("end") is None:
                            client.h2.reset_stream(stream)
                            client.flush()
            assert client.answer(client.start())["body"] == b"ok 2"
            assert client.answer(client.start("/o/reset-head"))["headers"][":status"] == "502"
            assert client.answer(client.start("/o/reset-body"))["end"] not in (None, "end")
        time.sleep(0.3)
        assert "connections 0 open" in status_of(gw)


def test_an_upstream_that_goes_on_with_a_head_nobody_waits_for(ca):
    """Its client has gone; the reset of the stream waits behind an upload that the upstream does not read."""
    gone = threading.Event()

    def act(connection, event):
        if isinstance(event, h2.events.RequestReceived) and connection.requests[event.stream_id][0][":path"] == "/head":
            connection.raw(1, 0, event.stream_id, connection.h2.encoder.encode([(":status", "200"), ("x", "1")]))
            gone.wait(5)
            time.sleep(0.5)
            connection.raw(9, END_HEADERS, event.stream_id, connection.h2.encoder.encode([(f"x-{i}", "y" * 50) for i in range(50)]))

    with Upstream(act) as upstream, gateway(ca, more=upstream.config("first_byte_timeout = '1s'"), warns="upstream") as gw:
        with Client(gw) as client:
            stream = client.start("/o/head")
            time.sleep(0.3)
            client.h2.reset_stream(stream)
            client.flush()
            gone.set()
            time.sleep(0.7)
            assert client.answer(client.start())["body"] == b"ok 2"
        assert gw.workers()


def test_a_plain_answer_to_an_extended_connect_opens_no_tunnel(ca):
    """To a client of RFC 8441 any 2xx would mean that what follows is a WebSocket."""
    def serve(listener):
        while True:
            try:
                taken = listener.accept()[0]
            except OSError:
                return
            taken.recv(65536)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    more = f'upstream "ws" {{ targets = {{ "http://127.0.0.1:{listener.getsockname()[1]}" }} }} route "ws" {{ path = "/ws", to = "ws", upgrade = {{ "websocket" }} }}'
    with gateway(ca, more=more) as gw, Client(gw, strict=False) as client:
        client.take()
        for path in ["/ws", "/ok"]:
            stream = client.start(path, "CONNECT", False, [(":protocol", "websocket"), ("sec-websocket-version", "13")])
            answer = client.answer(stream)
            assert answer["headers"][":status"] == "502", answer
    listener.close()
