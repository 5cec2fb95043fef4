"""Bytes of an origin, and what the client gets. A bad answer is a 502, and its connection is never used again."""
import socket

import pytest

OK = b"HTTP/1.1 200 OK\r\n"

BAD = [
    ("bad status line", b"HTTX/1.1 200 OK\r\n\r\n", "9112 4"),
    ("HTTP/2 status line", b"HTTP/2 200\r\n\r\n", "9112 2.3"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", "9112 4"),
    ("status out of range", b"HTTP/1.1 999 x\r\n\r\n", "9110 15"),
    ("length and coding", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "9112 6.3"),
    ("two lengths", OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "9112 6.3"),
    ("bad length", OK + b"Content-Length: -1\r\n\r\n", "9112 6.3"),
    ("unknown coding", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("obs-fold", OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "9112 5.2"),
    ("NUL", OK + b"X: a\0\r\nContent-Length: 0\r\n\r\n", "9110 5.5"),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "9112 2.2"),
    ("bad name", OK + b"X y: a\r\nContent-Length: 0\r\n\r\n", "9112 5.1"),
    ("head too large", OK + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n", "SECURITY 1.2"),
    ("too many fields", OK + b"X: a\r\n" * 210 + b"\r\n", "SECURITY 1.2"),
    ("101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "9110 15.2.2"),
    ("interim answers without end", b"HTTP/1.1 103 x\r\n\r\n" * 40, "SECURITY 1.1"),
    ("malformed chunk before anything was sent", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "9112 7.1"),
]


@pytest.mark.parametrize("name,answer,section", BAD, ids=[row[0] for row in BAD])
def test_bad_answers_are_502(gw, origin, name, answer, section):
    origin.reset(answer, close_after=True)
    got = gw.request("/")
    assert got.status == 502, section
    assert got.headers["Content-Type"] == "application/problem+json"
    origin.reset()
    assert gw.request("/").text == b"ok"


def body_of(gw, answer, origin, method="GET", close_after=False):
    origin.reset(answer, close_after)
    got = gw.request("/", method)
    return got.status, got.text, got.headers


def test_interim_answers_are_consumed(gw, origin):
    status, body, _ = body_of(gw, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", origin)
    assert (status, body) == (200, b"hi")


def test_chunked_with_extensions_and_trailers(gw, origin):
    status, body, headers = body_of(gw, OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n", origin)
    assert (status, body, headers["Transfer-Encoding"]) == (200, b"abc", "chunked")


def test_an_answer_that_ends_with_its_connection_becomes_chunked(gw, origin):
    status, body, headers = body_of(gw, OK + b"\r\nto the end", origin, close_after=True)
    assert (status, body, headers["Transfer-Encoding"]) == (200, b"to the end", "chunked")


def test_to_an_old_client_it_ends_with_the_connection(gw, origin):
    origin.reset(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
    answer = gw.raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nab") and b"Connection: close\r\n" in answer and b"chunked" not in answer


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_body(gw, origin, status):
    got, body, _ = body_of(gw, b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\n" % status, origin)
    assert (got, body) == (status, b"")


def test_head_has_the_length_and_no_body(gw, origin):
    status, body, headers = body_of(gw, OK + b"Content-Length: 5\r\n\r\n", origin, "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "5")


def test_hop_by_hop_fields_of_an_answer_stay_behind(gw, origin):
    _, _, headers = body_of(gw, OK + b"Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: x\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n", origin)
    assert headers["X-End"] == "1"
    for name in ("X-Hop", "Keep-Alive", "Proxy-Authenticate"):
        assert headers[name] is None, name


@pytest.mark.parametrize("answer", [OK + b"Content-Length: 10\r\n\r\nhalf", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"])
def test_a_cut_answer_is_seen_as_one(gw, origin, answer):
    origin.reset(answer, close_after=True)
    with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = b""
        try:
            while chunk := s.recv(65536):
                got += chunk
        except ConnectionResetError:
            pass
    assert got.partition(b"\r\n\r\n")[2] in (b"", b"half", b"4\r\nhalf\r\n")


def test_bytes_after_an_answer_never_reach_the_next_request(gw, origin):
    origin.reset(OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil")
    for _ in range(20):
        assert gw.request("/").text == b"ok"


def test_an_early_answer_ends_the_upload_in_order(gw, origin):
    """The origin answers before the body is whole: the client gets that answer, and the connection is not used again."""
    listener = socket.create_server(("127.0.0.1", 0))
    import threading
    from gateway import Gateway

    def serve():
        s = listener.accept()[0]
        s.recv(65536)
        s.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        s.recv(65536)
    threading.Thread(target=serve, daemon=True).start()
    config = ('listen { address = "127.0.0.1", port = @PORT@ } upstream "o" { targets = { "http://127.0.0.1:%d" } } '
              'route "all" { path = "/*", to = "o" }' % listener.getsockname()[1])
    with Gateway(config) as early:
        with socket.create_connection(("127.0.0.1", early.port), timeout=5) as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
            got = s.recv(65536)
            assert got.startswith(b"HTTP/1.1 403 ") and b"Connection: close\r\n" in got
    listener.close()
