"""gRPC through the gateway, with grpcio on both sides: all kinds of calls, metadata, deadlines, cancellation, errors."""
import base64
import threading
import time
from concurrent import futures

import grpc
import pytest
from authority import Authority
from gateway import Gateway, free_port

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, tls = { cert = "@CA@/site.pem", key = "@CA@/site.key" } }
listen { address = "127.0.0.1", port = @PORT2@ }
upstream "origin" { targets = { "@ORIGIN@" }, http2 = true, tls = { ca = "@CA@/ca.pem" } }
upstream "dead" { targets = { "http://127.0.0.1:@DEAD@" }, http2 = true }
route "service" { path = "/test.Service/*", to = "origin" }
route "web" { path = "/test.Web/*", to = "origin", use = { "grpc-web", function(ctx)
  ctx.req.path = "/test.Service/" .. ctx.req.path:match "[^/]+$"
end } }
route "dead" { path = "/test.Dead/*", to = "dead" }
route "denied" { path = "/test.Denied/*", handler = function() return tg.problem(401, "who are you?") end }
route "marked" { path = "/test.Marked/*", to = "origin", use = { function(ctx)
  ctx.req.path = "/test.Service/" .. ctx.req.path:match "[^/]+$"
  ctx.req.headers["x-marked"] = "yes"
end } }
"""


class Origin(grpc.GenericRpcHandler):
    """Messages are bytes; the method says what becomes of them."""

    def __init__(self):
        self.cancelled = threading.Event()

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary), "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum), "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail), "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Endless": grpc.unary_stream_rpc_method_handler(self.endless),
        }.get(name)

    def unary(self, request, context):
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-initial", "one"),))
        context.set_trailing_metadata((("x-trailing", "two"), ("x-binary-bin", b"\0\1\2")))
        return request + b" " + metadata.get("x-sent", "").encode() + metadata.get("x-marked", "").encode()

    def many(self, request, _):
        for i in range(int(request)):
            yield b"%d" % i

    def sum(self, requests, _):
        return b"%d" % sum(int(request) for request in requests)

    def chat(self, requests, _):
        for request in requests:
            yield request + b"!"

    def fail(self, _, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: \u00e4\u00f6")

    def slow(self, request, context):
        time.sleep(3)
        return request

    def endless(self, request, context):
        context.add_callback(self.cancelled.set)
        while context.is_active():
            yield request
            time.sleep(0.01)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:localhost,IP:127.0.0.1")
    return authority


@pytest.fixture(scope="module", params=["plain", "tls"])
def setting(request, ca):
    """The gateway, a channel to it, and the origin: in plain text, and with TLS on both sides."""
    origin = Origin()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((origin,))
    if request.param == "tls":
        credentials = grpc.ssl_server_credentials([((ca.folder / "site.key").read_bytes(), (ca.folder / "site.pem").read_bytes())])
        url = f"https://localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    else:
        url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    config = CONFIG.replace("@CA@", str(ca.folder)).replace("@ORIGIN@", url).replace("@DEAD@", str(free_port()))
    gw = Gateway(config)
    gw.wait_for("is live")
    if request.param == "tls":
        channel = grpc.secure_channel(f"localhost:{gw.port}", grpc.ssl_channel_credentials(ca.cert.read_bytes()))
    else:
        channel = grpc.insecure_channel(f"127.0.0.1:{gw.port2}")
    yield gw, channel, origin
    channel.close()
    server.stop(None)
    gw.__exit__(AssertionError)


def test_unary_with_metadata_both_ways(setting):
    _, channel, _ = setting
    answer, call = channel.unary_unary("/test.Service/Unary").with_call(b"hello", metadata=(("x-sent", "three"),), timeout=10)
    assert answer == b"hello three"
    assert dict(call.initial_metadata())["x-initial"] == "one"
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailing"] == "two" and trailing["x-binary-bin"] == b"\0\1\2"


def test_many_calls_at_once(setting):
    _, channel, _ = setting
    calls = [channel.unary_unary("/test.Service/Unary").future(b"%d" % i, timeout=20) for i in range(200)]
    assert [call.result() for call in calls] == [b"%d " % i for i in range(200)]


def test_server_streaming(setting):
    _, channel, _ = setting
    assert list(channel.unary_stream("/test.Service/Many")(b"500", timeout=20)) == [b"%d" % i for i in range(500)]


def test_client_streaming(setting):
    _, channel, _ = setting
    assert channel.stream_unary("/test.Service/Sum")((b"%d" % i for i in range(300)), timeout=20) == b"44850"


def test_both_stream_and_each_waits_for_the_other(setting):
    _, channel, _ = setting
    ready, received = threading.Semaphore(1), []

    def messages():
        for i in range(50):
            ready.acquire()
            yield b"%d" % i

    for answer in channel.stream_stream("/test.Service/Chat")(messages(), timeout=20):
        received.append(answer)
        ready.release()
    assert received == [b"%d!" % i for i in range(50)]


def test_large_messages(setting):
    _, channel, _ = setting
    message = b"m" * 3000000
    assert channel.unary_unary("/test.Service/Unary")(message, timeout=20) == message + b" "
    assert list(channel.stream_stream("/test.Service/Chat")(iter([message] * 5), timeout=30)) == [message + b"!"] * 5


def test_an_error_of_the_service(setting):
    _, channel, _ = setting
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Service/Fail")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not now: \u00e4\u00f6"
    assert dict(caught.value.trailing_metadata())["x-why"] == "because"


@pytest.mark.parametrize("method, code", [
    ("/test.Nothing/Unary", grpc.StatusCode.UNIMPLEMENTED), ("/test.Service/Nothing", grpc.StatusCode.UNIMPLEMENTED),
    ("/test.Dead/Unary", grpc.StatusCode.UNAVAILABLE), ("/test.Denied/Unary", grpc.StatusCode.UNAUTHENTICATED),
])
def test_errors_of_the_gateway_are_those_of_grpc(setting, method, code):
    _, channel, _ = setting
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() == code, caught.value


def test_a_deadline_is_kept_by_the_gateway(setting):
    gw, channel, _ = setting
    start = time.time()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Service/Slow")(b"", timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.time() - start < 2


def test_a_cancelled_call_ends_at_the_service(setting):
    _, channel, origin = setting
    origin.cancelled.clear()
    call = channel.unary_stream("/test.Service/Endless")(b"x")
    assert next(call) == b"x"
    call.cancel()
    assert origin.cancelled.wait(5)


def test_policies_see_calls(setting):
    _, channel, _ = setting
    assert channel.unary_unary("/test.Marked/Unary")(b"hello", timeout=10) == b"hello yes"


def frames(data):
    """The messages of a body, and its trailers."""
    messages, trailers = [], {}
    while data:
        kind, size = data[0], int.from_bytes(data[1:5], "big")
        if kind & 0x80:
            trailers = dict(line.split(":", 1) for line in data[5:5 + size].decode().strip().split("\r\n"))
        else:
            messages.append(data[5:5 + size])
        data = data[5 + size:]
    return messages, trailers


def message(data):
    return b"\0" + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("form", ["", "-text"])
def test_grpc_web(setting, form):
    gw, _, _ = setting
    encode, decode = (base64.b64encode, base64.b64decode) if form else (bytes, bytes)

    def call(method, data):
        answer = gw.request(f"/test.Web/{method}", "POST", encode(message(data)), {"Content-Type": f"application/grpc-web{form}+proto"}, gw.port2)
        assert answer.status == 200 and answer.headers["Content-Type"] == f"application/grpc-web{form}+proto"
        return answer, *frames(decode(answer.text))

    _, messages, trailers = call("Unary", b"hello")
    assert messages == [b"hello "] and trailers["grpc-status"] == "0" and trailers["x-trailing"] == "two"
    _, messages, trailers = call("Many", b"100")
    assert messages == [b"%d" % i for i in range(100)] and trailers["grpc-status"] == "0"
    answer, messages, trailers = call("Fail", b"")
    assert messages == [] and (answer.headers["grpc-status"] or trailers["grpc-status"]) == "9"


class Fickle(grpc.GenericRpcHandler):
    """A server that may be unavailable, and says so to the health protocol, too."""

    def __init__(self, name):
        self.name, self.calls, self.refuses, self.serving, self.checks = name, 0, False, 1, []
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self.check)
        return grpc.unary_unary_rpc_method_handler(self.unary)

    def check(self, request, _):
        self.checks.append(request)
        return b"\x08" + bytes([self.serving])

    def unary(self, request, context):
        self.calls += 1
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return self.name + request


def test_a_call_that_is_refused_as_unavailable_goes_to_another_peer_with_its_message():
    servers = [Fickle(b"a"), Fickle(b"b")]
    try:
        targets = ", ".join(f'"http://127.0.0.1:{server.port}"' for server in servers)
        config = f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ {targets} }}, http2 = true, passive = false,
  retry = {{ on = {{ "connect", "reset", "grpc:unavailable" }}, budget = 1, budget_min = 100 }} }}
route "all" {{ path = "/*", to = "app" }}"""
        with Gateway(config) as gw, grpc.insecure_channel(f"127.0.0.1:{gw.port}") as channel:
            call = channel.unary_unary("/test.Service/Unary")
            servers[0].refuses = True
            message = b"x" * 5000
            assert {call(message, timeout=5) for _ in range(20)} == {b"b" + message}
            assert servers[0].calls >= 8
            servers[1].refuses = True
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=5)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and refused.value.details() == "not now"
    finally:
        for server in servers:
            server.server.stop(None)


def test_the_health_protocol_decides_who_is_asked():
    servers = [Fickle(b"a"), Fickle(b"b")]
    try:
        targets = ", ".join(f'"http://127.0.0.1:{server.port}"' for server in servers)
        config = f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ {targets} }}, http2 = true, health = {{ type = "grpc", service = "test.Service", every = "50ms", fall = 1, rise = 1 }} }}
route "all" {{ path = "/*", to = "app" }}"""
        with Gateway(config, warns="peer unhealthy") as gw, grpc.insecure_channel(f"127.0.0.1:{gw.port}") as channel:
            call = channel.unary_unary("/test.Service/Unary")
            assert {call(b"", timeout=5) for _ in range(8)} == {b"a", b"b"}
            servers[0].serving = 2  # NOT_SERVING
            gw.wait_for("peer unhealthy")
            assert {call(b"", timeout=5) for _ in range(8)} == {b"b"}
            servers[0].serving = 1
            gw.wait_for("peer healthy")
            assert {call(b"", timeout=5) for _ in range(8)} == {b"a", b"b"}
            assert servers[0].checks[0] == b"\x0a\x0ctest.Service"
    finally:
        for server in servers:
            server.server.stop(None)
