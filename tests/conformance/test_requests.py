"""Bytes of a client, the verdict, and the section that says so. Refused: nothing reaches the origin, and the connection ends."""
import pytest

H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    ("bare LF ends the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400, "9112 2.2"),
    ("bare LF ends a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "9112 2.2"),
    ("bare CR in a field", GET + b"X: a\rb\r\n\r\n", 400, "9112 2.2"),
    ("NUL in a field", GET + b"X: a\0b\r\n\r\n", 400, "9110 5.5"),
    ("control byte in a field", GET + b"X: a\x01b\r\n\r\n", 400, "9110 5.5"),
    ("DEL in a field", GET + b"X: a\x7fb\r\n\r\n", 400, "9110 5.5"),
    ("two empty lines first", b"\r\n\r\n" + GET + b"\r\n", 400, "9112 2.2"),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400, "9112 2.3"),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505, "9110 15.6.6"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505, "9110 15.6.6"),
    ("lower-case http", b"GET / http/1.1\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("tab for space", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("space at the end", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400, "9112 3"),
    ("space in the target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2"),
    ("empty method", b" / HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 9.1"),
    ("method that is no token", b"G@T / HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 9.1"),
    ("fragment", b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.1"),
    ("backslash", b"GET /a\\b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2"),
    ("byte over 0x7f in the target", b"GET /\xc3\xa4 HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2"),
    ("target without slash", b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.1"),
    ("asterisk outside OPTIONS", b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.4"),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\n" + H + b"\r\n", 501, "9110 9.3.6"),
    ("absolute-form of another scheme", b"GET ftp://a/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.2"),
    ("absolute-form with userinfo", b"GET http://u@a/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.4"),
    ("absolute-form without host", b"GET http:/// HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.1"),
    ("bad percent-encoding", b"GET /%zz HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2.1"),
    ("cut percent-encoding", b"GET /%4 HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2.1"),
    ("encoded NUL", b"GET /%00 HTTP/1.1\r\n" + H + b"\r\n", 400, "SECURITY 1.4"),
    ("encoded slash", b"GET /a%2fb HTTP/1.1\r\n" + H + b"\r\n", 400, "SECURITY 1.4"),
    ("encoded backslash", b"GET /a%5cb HTTP/1.1\r\n" + H + b"\r\n", 400, "SECURITY 1.4"),
    ("above the root", b"GET /a/../../b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 5.2.4"),
    ("above the root, encoded", b"GET /%2e%2e/b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 5.2.4"),
    ("overlong UTF-8", b"GET /%c0%af HTTP/1.1\r\n" + H + b"\r\n", 400, "3629 3"),
    ("space before the colon", GET + b"X : a\r\n\r\n", 400, "9112 5.1"),
    ("empty name", GET + b": a\r\n\r\n", 400, "9110 5.1"),
    ("name that is no token", GET + b"X(: a\r\n\r\n", 400, "9110 5.1"),
    ("line without colon", GET + b"X\r\n\r\n", 400, "9112 5"),
    ("obs-fold", GET + b"X: a\r\n b\r\n\r\n", 400, "9112 5.2"),
    ("fold before the first field", b"GET / HTTP/1.1\r\n X: a\r\n" + H + b"\r\n", 400, "9112 2.2"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "9112 3.2"),
    ("two Hosts", GET + H + b"\r\n", 400, "9112 3.2"),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "9110 7.2"),
    ("Host that is none", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "9110 7.2"),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "9110 7.2"),
    ("Host with userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "9110 7.2"),
    ("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "9110 7.2"),
    ("two Content-Lengths that agree", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, "9112 6.3"),
    ("two Content-Lengths that differ", POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "9112 6.3"),
    ("list in Content-Length", POST + b"Content-Length: 1, 1\r\n\r\na", 400, "9112 6.3"),
    ("sign in Content-Length", POST + b"Content-Length: +1\r\n\r\na", 400, "9110 8.6"),
    ("negative Content-Length", POST + b"Content-Length: -1\r\n\r\n", 400, "9110 8.6"),
    ("hex Content-Length", POST + b"Content-Length: 0x1\r\n\r\na", 400, "9110 8.6"),
    ("empty Content-Length", POST + b"Content-Length:\r\n\r\n", 400, "9110 8.6"),
    ("Content-Length past 64 bits", POST + b"Content-Length: 18446744073709551617\r\n\r\na", 400, "9112 6.3"),
    ("both length and coding", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("both, the other way round", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("two codings in two lines", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked is not last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "9112 6.3"),
    ("gzip, chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "9112 6.1"),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("quoted chunked", POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400, "9112 6.1"),
    ("vertical tab before chunked", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "9110 5.5"),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("expectation that we do not know", POST + b"Content-Length: 1\r\nExpect: 200-ok\r\n\r\na", 417, "9110 10.1.1"),
    ("Connection names Host", GET + b"Connection: host\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names Authorization", GET + b"Authorization: x\r\nConnection: authorization\r\n\r\n", 400, "9110 7.6.1"),
    ("request line too long", b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n" + H + b"\r\n", 414, "9110 15.5.15"),
    ("field too long", GET + b"X: " + b"a" * 8200 + b"\r\n\r\n", 431, "6585 5"),
    ("head too large", GET + (b"X: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n", 431, "6585 5"),
    ("too many fields", GET + b"X: a\r\n" * 101 + b"\r\n", 431, "6585 5"),
    ("body over the limit", POST + b"Content-Length: 65537\r\n\r\n", 413, "9110 15.5.14"),
    ("head that does not come", b"GET / HTTP/1.1\r\n", 408, "9110 15.5.9"),
]

# Refused while the body flows: the head has gone upstream by then, the request never becomes a whole one.
CUT = [
    ("chunk size with 0x", CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size with a sign", CHUNKED + b"+1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("empty chunk size", CHUNKED + b"\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size of 17 digits", CHUNKED + b"00000000000000001\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size past 64 bits", CHUNKED + b"fffffffffffffffff\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare LF after the size", CHUNKED + b"1\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("data longer than its size", CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare LF after the data", CHUNKED + b"1\r\na\n0\r\n\r\n", 400, "9112 7.1"),
    ("extension too long", CHUNKED + b"1;" + b"x" * 300 + b"\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("control byte in an extension", CHUNKED + b"1;\x01\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("Content-Length in the trailers", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400, "9110 6.5.1"),
    ("Host in the trailers", CHUNKED + b"0\r\nHost: b\r\n\r\n", 400, "9110 6.5.1"),
    ("malformed trailer", CHUNKED + b"0\r\nbad name: x\r\n\r\n", 400, "9112 7.1.2"),
    ("trailers too large", CHUNKED + b"0\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 5 + b"\r\n", 400, "9112 7.1.2"),
    ("chunked body over the limit", CHUNKED + (b"4000\r\n" + b"a" * 0x4000 + b"\r\n") * 5, 413, "9110 15.5.14"),
    ("body that does not come", POST + b"Content-Length: 5\r\n\r\nab", 408, "9110 15.5.9"),
]

# Accepted, with what the origin must and must not get.
FORWARDED = [
    ("an empty line first", b"\r\n" + GET + b"\r\n", [b"GET / HTTP/1.1\r\n", b"\r\nHost: a\r\n"], [], "9112 2.2"),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", [b"GET / HTTP/1.1\r\n"], [], "9112 3.2"),
    ("absolute-form wins over Host", b"GET http://b/x HTTP/1.1\r\n" + H + b"\r\n", [b"GET /x ", b"\r\nHost: b\r\n"], [b"Host: a"], "9112 3.2.2"),
    ("host in lower case", b"GET / HTTP/1.1\r\nHost: ExAmPle\r\n\r\n", [b"\r\nHost: example\r\n"], [], "9110 4.2.3"),
    ("dots and slashes", b"GET /a/./b//c/../d HTTP/1.1\r\n" + H + b"\r\n", [b"GET /a/b/d "], [], "3986 6.2.2"),
    ("unreserved bytes are decoded", b"GET /%7eu%41?q=%41 HTTP/1.1\r\n" + H + b"\r\n", [b"GET /~uA?q=%41 "], [], "3986 6.2.2.2"),
    ("hex in upper case", b"GET /%e4%b8%ad HTTP/1.1\r\n" + H + b"\r\n", [b"GET /%E4%B8%AD "], [], "3986 6.2.2.1"),
    ("hop-by-hop fields", GET + b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
     [], [b"X-Hop", b"Keep-Alive", b"TE:", b"Upgrade", b"HTTP2-Settings", b"Connection"], "9110 7.6.1"),
    ("names with an underscore", GET + b"X_Forwarded_For: 1.2.3.4\r\n\r\n", [], [b"X_Forwarded_For", b"1.2.3.4"], "SECURITY 1.1"),
    ("Proxy", GET + b"Proxy: http://evil\r\n\r\n", [], [b"evil"], "SECURITY 1.4"),
    ("what a client says of others", GET + b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nVia: 1.0 x\r\n\r\n",
     [b"X-Forwarded-For: 127.0.0.1\r\n", b"X-Forwarded-Proto: http\r\n", b"Via: 1.1 tidegate\r\n"], [b"1.2.3.4", b"1.0 x"], "7239 8.1"),
    ("leading zeros in Content-Length", POST + b"Content-Length: 0002\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9110 8.6"),
    ("chunks, extensions and trailers", CHUNKED + b"1;a=b\r\na\r\n2\r\nbc\r\n0\r\nX-T: 1\r\n\r\n",
     [b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"], [b"X-T", b"a=b"], "9112 7.1"),
    ("a body on GET", GET + b"Content-Length: 2\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9110 9.3.1"),
    ("bytes over 0x7f in a value", GET + b"X: \xff\xfe\r\n\r\n", [b"X: \xff\xfe\r\n"], [], "9110 5.5"),
    ("empty value and blanks", GET + b"X:\r\nY: \t a b \t\r\n\r\n", [b"X: \r\n", b"Y: a b\r\n"], [], "9112 5.1"),
]


def status_of(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


@pytest.mark.parametrize("name,data,status,section", REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(gw, origin, name, data, status, section):
    origin.reset()
    answer = gw.raw(data + GET + b"\r\n" if status != 408 else data)
    assert status_of(answer) == status, section
    assert answer.count(b"HTTP/1.1 ") == 1, "nothing after a refused request is read"
    assert b"Connection: close\r\n" in answer
    assert not origin.received


@pytest.mark.parametrize("name,data,status,section", CUT, ids=[row[0] for row in CUT])
def test_cut(gw, origin, name, data, status, section):
    origin.reset()
    answer = gw.raw(data)
    assert status_of(answer) == status, section
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not origin.received, "never a whole request upstream"


@pytest.mark.parametrize("name,data,parts,absent,section", FORWARDED, ids=[row[0] for row in FORWARDED])
def test_forwarded(gw, origin, name, data, parts, absent, section):
    origin.reset()
    answer = gw.raw(data, seconds=0.3)
    assert status_of(answer) == 200, answer
    assert len(origin.received) == 1
    for part in parts:
        assert part in origin.received[0], (section, origin.received[0])
    for part in absent:
        assert part not in origin.received[0], (section, origin.received[0])


def test_a_request_is_the_same_however_it_is_cut(gw, origin):
    import socket
    data = POST + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    origin.reset()
    for at in range(1, len(data)):
        with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.sendall(data[:at])
            s.sendall(data[at:])
            assert s.recv(1000).startswith(b"HTTP/1.1 200 ")
    bodies = {request.replace(b"\r\nabc", b"abc").split(b"\r\n\r\n", 1)[0] for request in origin.received}
    assert len(origin.received) == len(data) - 1 and len(bodies) <= 2


def test_keep_alive_of_both_versions(gw, origin):
    origin.reset()
    assert b"Connection: keep-alive\r\n" in gw.raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", seconds=0.3)
    assert b"Connection: close\r\n" in gw.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert b"Connection" not in gw.raw(GET + b"\r\n", seconds=0.3)
    assert b"Connection: close\r\n" in gw.raw(GET + b"Connection: close\r\n\r\n")
