"""What goes through: bodies both ways, with other people's clients."""
import concurrent.futures
import hashlib
import os
import socket
import subprocess
import time

import pytest
from gateway import Gateway, RELEASE

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@, header_timeout = "1s", body_timeout = "1s" }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
upstream "nobody" { targets = { "http://127.0.0.1:1" } }
upstream "named" { targets = { "http://localhost:@PORT2@" }, host = "target" }
upstream "unknown" { targets = { "http://no-such-host.invalid:80" } }
upstream "two" { targets = { "http://127.0.0.1:1", "http://127.0.0.1:@PORT2@" } }
upstream "silent" { targets = { "http://127.0.0.1:@PORT2@" }, first_byte_timeout = "500ms" }
route "echo" { listen = "back", path = "/echo", handler = function(ctx)
  return tg.respond(200, assert(ctx.req:text(8 * 1024 * 1024)), { ["X-Method"] = ctx.req.method })
end }
route "sleep" { listen = "back", path = "/sleep", handler = function() tg.sleep(2) return tg.respond(200, "late") end }
route "big" { listen = "back", path = "/big", handler = function() return tg.respond(200, ("x"):rep(400000)) end }
route "all" { listen = "front", path = "/*", to = "back", body_limit = "2MiB" }
route "nobody" { listen = "front", path = "/nobody", to = "nobody" }
route "two" { listen = "front", path = "/two", to = "two", strip_path = false }
route "silent" { listen = "front", path = "/silent/*", to = "silent", strip_path = true }
route "named" { listen = "front", path = "/host", to = "named" }
route "unknown" { listen = "front", path = "/unknown", to = "unknown" }
route "host" { listen = "back", path = "/host", handler = function(ctx) return tg.respond(200, ctx.req.headers.host) end }
route "boom" { listen = "front", path = "/boom", handler = function() error "secret detail" end }
route "thrown" { listen = "front", path = "/thrown", handler = function() error(tg.respond(418, "thrown")) end }
route "get" { listen = "back", path = "/get", methods = { "GET" }, handler = function() return tg.respond(200) end }
route "b" { listen = "back", path = "/two", handler = function() return tg.respond(200, "two") end }
"""


@pytest.fixture(scope="module")
def gw():
    with Gateway(CONFIG) as gateway:
        yield gateway


def test_a_body_goes_both_ways_unchanged(gw):
    for size in (0, 1, 1000, 65536, 500_000):
        body = os.urandom(size)
        answer = gw.request("/echo", "POST", body)
        assert answer.status == 200 and answer.text == body and answer.headers["X-Method"] == "POST"


def test_a_chunked_body_goes_both_ways_unchanged(gw):
    body = os.urandom(200_000)
    answer = gw.request("/echo", "PUT", iter([body[:10], body[10:70_000], body[70_000:]]), {"Transfer-Encoding": "chunked"})
    assert answer.status == 200 and hashlib.sha256(answer.text).digest() == hashlib.sha256(body).digest()


def test_curl_with_expect_100_continue(gw, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(os.urandom(300_000))
    out = subprocess.run(["curl", "-sS", "-H", "Expect: 100-continue", "--data-binary", f"@{file}", f"http://127.0.0.1:{gw.port}/echo"],
                         capture_output=True, timeout=20)
    assert out.stdout == file.read_bytes(), out.stderr


def test_pipelined_requests_are_answered_in_order(gw):
    one = b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = gw.raw(one * 5 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 5 and answer.count(b"HTTP/1.1 404 Not Found") == 1
    assert answer.rindex(b"200 OK") < answer.index(b"404")


def test_a_client_that_closes_its_half_gets_its_answer(gw):
    with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
        s.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := s.recv(65536):
            received += chunk
    assert b"200 OK" in received and received.endswith(b"two")


def test_bad_input_gets_the_status_of_the_field(gw):
    def status(data):
        return int(gw.raw(data).split(b" ")[1])
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n") == 400
    assert status(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 150 + b"\r\n") == 431
    assert status(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n") == 505
    assert status(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n") == 413
    assert status(b"GET / HTTP/1.1\r\nHost: a\r\n") == 408
    assert gw.request("/get", "DELETE", port=gw.port2).status == 405
    assert gw.request("/get", "DELETE", port=gw.port2).headers["Allow"] == "GET, HEAD"


def test_a_chunked_body_over_the_limit_is_cut_off_with_413(gw):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = gw.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 40)
    assert answer.split(b" ")[1] == b"413"


def test_a_slow_body_gets_408(gw):
    answer = gw.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    assert answer.split(b" ")[1] == b"408"


def test_upstreams_that_fail_have_their_statuses(gw):
    assert gw.request("/nobody").status == 502
    assert gw.request("/silent/sleep").status == 504
    assert gw.request("/none").status == 404


def test_a_peer_is_found_by_name_and_may_get_its_own_as_host(gw):
    answer = gw.request("/host")
    assert answer.status == 200 and answer.text == f"localhost:{gw.port2}".encode()
    assert gw.request("/unknown").status == 502
    assert gw.request("/host").status == 200


def test_a_peer_that_refuses_is_skipped(gw):
    assert [gw.request("/two").status for _ in range(4)] == [200] * 4


def test_a_plugin_that_raises_is_a_500_without_details(gw):
    answer = gw.request("/boom")
    assert answer.status == 500 and b"secret" not in answer.text
    gw.wait_for("secret detail [plugin inline function, route boom, generation ")
    assert "stack traceback" in gw.log()


def test_a_thrown_response_is_an_answer(gw):
    answer = gw.request("/thrown")
    assert (answer.status, answer.text) == (418, b"thrown")


def test_a_client_that_goes_away_does_not_hurt(gw):
    for _ in range(50):
        s = socket.create_connection(("127.0.0.1", gw.port))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        s.close()
    assert gw.request("/two").status == 200


def test_many_connections_at_once(gw):
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert {answer.status for answer in pool.map(lambda _: gw.request("/big"), range(200))} == {200}


def test_an_upstream_that_closes_idle_connections_costs_no_request():
    """The stub closes each connection a moment after its answer: the pool must notice, or send the request again."""
    import threading
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(s):
        while data := s.recv(65536):
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"GET "))
            time.sleep(0.002)
            break
        s.close()

    def accept():
        while True:
            try:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
            except OSError:
                return
    threading.Thread(target=accept, daemon=True).start()
    config = ('api = 1 listen { address = "127.0.0.1", port = @PORT@ } upstream "o" { targets = { "http://127.0.0.1:%d" } } '
              'route "all" { path = "/*", to = "o" }' % listener.getsockname()[1])
    with Gateway(config) as gateway:
        assert [gateway.request("/").status for _ in range(300)] == [200] * 300
    listener.close()


def test_a_slow_reader_of_a_large_body_costs_little_memory(tmp_path):
    """1 GB from an origin that never stops, read at a trickle: what the exchange holds is bounded."""
    import threading
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        s = listener.accept()[0]
        s.recv(65536)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        block = b"x" * 1_000_000
        try:
            for _ in range(1000):
                s.sendall(block)
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    config = ('api = 1 listen { address = "127.0.0.1", port = @PORT@ } upstream "o" { targets = { "http://127.0.0.1:%d" } } '
              'route "all" { path = "/*", to = "o" }' % listener.getsockname()[1])

    def rss(pid):
        return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1])
    with Gateway(config, binary=RELEASE) as gateway:
        worker = gateway.workers()[0]
        before = rss(worker)
        with socket.create_connection(("127.0.0.1", gateway.port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(20):
                s.recv(50_000)
                time.sleep(0.05)
            assert rss(worker) - before < 512
    listener.close()


def test_a_log_phase_still_has_the_fields_of_the_response():
    """The buffer that they came in carries the body by then, and belongs to others when the phase waits."""
    config = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
use { "seen" }
route "big" { listen = "back", path = "/*", handler = function(ctx)
  return tg.respond(200, ("x"):rep(tonumber(ctx.req.query.n)), { ["X-Mark"] = ctx.req.query.n .. "-mark" })
end }
route "all" { listen = "front", path = "/*", to = "back" }
"""
    plugin = """
return {
  api = 1, doc = "Logs a field of the response.",
  log = function(ctx)
    if ctx.route.name ~= "all" then return end
    tg.sleep(0.05)
    tg.log.info("mark " .. tostring(ctx.res.headers["x-mark"]) .. "." .. ctx.req.headers.host .. "." .. ctx.res.headers["content-length"] .. ".")
  end,
}
"""
    with Gateway(config, plugins={"seen": plugin}) as gw:
        for n in (3, 300_000, 20, 70_000):
            assert len(gw.request(f"/?n={n}").text) == n
        for n in (3, 300_000, 20, 70_000):
            gw.wait_for(f"mark {n}-mark.127.0.0.1:{gw.port}.{n}.")
