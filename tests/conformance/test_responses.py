"""Bytes of an origin, and what the client gets. A bad answer is a 502, and its connection is never used again."""
import json
import time

import pytest
from client import Client, Cut
from origin import OK as WHOLE

OK = b"HTTP/1.1 200 OK\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

BAD = [
    ("another protocol", b"HTTX/1.1 200 OK\r\n" + EMPTY, "9112 4"),
    ("lower-case http", b"http/1.1 200 OK\r\n" + EMPTY, "9112 2.3"),
    ("HTTP/2 status line", b"HTTP/2 200\r\n" + EMPTY, "9112 2.3"),
    ("HTTP/1.2", b"HTTP/1.2 200 OK\r\n" + EMPTY, "9112 2.3"),
    ("HTTP/0.9: a body without a head", b"<html>hello</html>\r\n\r\n", "9112 2.3"),
    ("two spaces before the status", b"HTTP/1.1  200 OK\r\n" + EMPTY, "9112 4"),
    ("tab before the status", b"HTTP/1.1\t200 OK\r\n" + EMPTY, "9112 4"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n" + EMPTY, "9112 4"),
    ("status of four digits", b"HTTP/1.1 2000 OK\r\n" + EMPTY, "9112 4"),
    ("status that is no number", b"HTTP/1.1 2x0 OK\r\n" + EMPTY, "9112 4"),
    ("status out of range", b"HTTP/1.1 999 x\r\n" + EMPTY, "9110 15"),
    ("status below the range", b"HTTP/1.1 099 x\r\n" + EMPTY, "9110 15"),
    ("NUL in the reason", b"HTTP/1.1 200 O\0K\r\n" + EMPTY, "9112 4"),
    ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n" + EMPTY, "9112 2.2"),
    ("empty line first", b"\r\n" + OK + EMPTY, "9112 2.2"),
    ("blank first", b" " + OK + EMPTY, "9112 4"),
    ("bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "9112 2.2"),
    ("bare LF after a field", OK + b"Content-Length: 0\n\r\n", "9112 2.2"),
    ("bare LF ends the head", OK + b"Content-Length: 0\r\n\n", "9112 2.2"),
    ("bare CR in a value", OK + b"X: a\rb\r\n" + EMPTY, "9112 2.2"),
    ("NUL in a value", OK + b"X: a\0\r\n" + EMPTY, "9110 5.5"),
    ("control byte in a value", OK + b"X: a\x01\r\n" + EMPTY, "9110 5.5"),
    ("obs-fold", OK + b"X: a\r\n b\r\n" + EMPTY, "9112 5.2"),
    ("obs-fold with a tab", OK + b"X: a\r\n\tb\r\n" + EMPTY, "9112 5.2"),
    ("fold before the first field", OK + b" X: a\r\n" + EMPTY, "9112 2.2"),
    ("blank in a name", OK + b"X y: a\r\n" + EMPTY, "9112 5.1"),
    ("blank before the colon", OK + b"X : a\r\n" + EMPTY, "9112 5.1"),
    ("empty name", OK + b": a\r\n" + EMPTY, "9110 5.1"),
    ("line without colon", OK + b"X\r\n" + EMPTY, "9112 5"),
    ("length and coding", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "9112 6.3"),
    ("coding and length", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "9112 6.3"),
    ("two lengths that differ", OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "9112 6.3"),
    ("two lengths that agree", OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "SECURITY 1.1"),
    ("list of lengths", OK + b"Content-Length: 2, 2\r\n\r\nab", "SECURITY 1.1"),
    ("negative length", OK + b"Content-Length: -1\r\n\r\n", "9112 6.3"),
    ("length with a sign", OK + b"Content-Length: +2\r\n\r\nab", "9112 6.3"),
    ("hex length", OK + b"Content-Length: 0x2\r\n\r\nab", "9112 6.3"),
    ("empty length", OK + b"Content-Length:\r\n\r\n", "9112 6.3"),
    ("length past 64 bits", OK + b"Content-Length: 18446744073709551618\r\n\r\nab", "9112 6.3"),
    ("gzip, chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("identity", OK + b"Transfer-Encoding: identity\r\n\r\nab", "9112 6.1"),
    ("chunked twice", OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("two codings in two lines", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("xchunked", OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("coding in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "9112 6.1"),
    ("head too large", OK + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + EMPTY, "SECURITY 1.2"),
    ("field that does not end", OK + b"X: " + b"a" * 70000, "SECURITY 1.2"),
    ("status line that does not end", b"HTTP/1.1 200 " + b"a" * 70000, "SECURITY 1.2"),
    ("one field too many", OK + b"X: a\r\n" * 200 + EMPTY, "SECURITY 1.2"),
    ("101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "9110 15.2.2"),
    ("17 interim answers", b"HTTP/1.1 103 x\r\n\r\n" * 17 + OK + EMPTY, "SECURITY 1.1"),
    ("malformed interim answer", b"HTTP/1.1 103 x\r\nX : a\r\n\r\n" + OK + EMPTY, "9112 5.1"),
    ("size that is no number, before any data", CHUNKED + b"zz\r\n", "9112 7.1"),
    ("size with 0x, before any data", CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", "9112 7.1"),
    ("bare LF after the size, before any data", CHUNKED + b"2\nab\r\n0\r\n\r\n", "9112 7.1"),
]

# What breaks once data has gone out: the client must see that the answer is not whole.
BROKEN = [
    ("chunk longer than its size", b"4\r\nhalfx\r\n0\r\n\r\n", "9112 7.1"),
    ("bare LF after the data", b"4\r\nhalf\n0\r\n\r\n", "9112 7.1"),
    ("size that is no number", b"4\r\nhalf\r\nzz\r\n", "9112 7.1"),
    ("size past 64 bits", b"4\r\nhalf\r\n" + b"f" * 17 + b"\r\n", "9112 7.1"),
    ("extension too long", b"4\r\nhalf\r\n2;" + b"x" * 300 + b"\r\nab\r\n0\r\n\r\n", "SECURITY 1.1"),
    ("malformed trailer", b"4\r\nhalf\r\n0\r\nbad name: x\r\n\r\n", "9112 7.1.2"),
    ("length in the trailers", b"4\r\nhalf\r\n0\r\nContent-Length: 4\r\n\r\n", "9110 6.5.1"),
    ("trailers too large", b"4\r\nhalf\r\n0\r\nX: " + b"a" * 5000 + b"\r\n\r\n", "SECURITY 1.1"),
]


def ids(table):
    return [row[0] for row in table]


def ask(gw, data=GET, method="GET"):
    with Client(gw.port) as client:
        client.send(data)
        return client.answer(method)


@pytest.mark.parametrize("name,answer,section", BAD, ids=ids(BAD))
def test_a_bad_answer_is_502_and_its_connection_ends(gw, origin, name, answer, section):
    origin.reset(answer)
    with Client(gw.port) as client:
        client.send(GET)
        got = client.answer()
        assert got.status == 502, section
        assert got.field("Content-Type") == "application/problem+json" and json.loads(got.body)["status"] == 502
        bad = origin.connections[origin.used[-1]]
        assert bad.ended.wait(3), "the gateway closes it: the origin did not"
        asked = len(origin.received)
        origin.reset()
        client.send(GET)  # the client's own connection has done nothing wrong
        assert client.answer().body == b"ok"
    assert asked == 1, "an answer, however bad, is not asked for again"


@pytest.mark.parametrize("name,body,section", BROKEN, ids=ids(BROKEN))
def test_a_body_that_breaks_is_never_a_clean_end(gw, origin, name, body, section):
    def in_pieces(connection, _):
        connection.socket.sendall(CHUNKED + body[:7])
        time.sleep(0.03)
        return body[7:]

    origin.reset(in_pieces)
    with Client(gw.port) as client:
        client.send(GET)
        with pytest.raises(Cut) as cut:
            client.answer()
    assert b"0\r\n\r\n" not in cut.value.got, section
    assert origin.connections[origin.used[-1]].ended.wait(3)


# ---- good answers in unusual forms

@pytest.mark.parametrize("name,answer,body", [
    ("no reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("no reason and no blank", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("bytes over 0x7f in the reason", b"HTTP/1.1 200 \xe4\xb8\xad\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("leading zeros in the length", OK + b"Content-Length: 0002\r\n\r\nab", b"ab"),
    ("chunked in any case", OK + b"transfer-ENCODING: Chunked \r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
    ("extensions and trailers", CHUNKED + b"2;x=y\r\nab\r\n1 ; z\r\nc\r\n0;l\r\nX-T: 1\r\n\r\n", b"abc"),
    ("an empty chunked body", CHUNKED + b"0\r\n\r\n", b""),
    ("an underscore in a name", OK + b"X_y: 1\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("200 fields", OK + b"X: a\r\n" * 199 + b"Content-Length: 2\r\n\r\nab", b"ab"),
    ("a head of nearly 64 KiB", OK + (b"X: " + b"a" * 8000 + b"\r\n") * 7 + b"Content-Length: 2\r\n\r\nab", b"ab"),
    ("a value of 30 KiB", OK + b"X: " + b"a" * 30000 + b"\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ("16 interim answers", b"HTTP/1.1 103 x\r\nLink: y\r\n\r\n" * 16 + OK + b"Content-Length: 2\r\n\r\nab", b"ab"),
    ("100 and 102", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nab", b"ab"),
    ("an interim answer with a length", b"HTTP/1.1 103 x\r\nContent-Length: 9\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nab", b"ab"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_good_answers(gw, origin, name, answer, body):
    origin.reset(answer)
    with Client(gw.port) as client:
        for _ in range(2):  # nothing of an answer is left for the next one
            client.send(GET)
            got = client.answer()
            assert (got.status, got.body) == (200, body)
        assert client.is_open()


def test_an_answer_is_the_same_however_it_is_cut(gw, origin):
    answer = b"HTTP/1.1 103 x\r\n\r\n" + CHUNKED + b"3;e=f\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"
    at = 0

    def in_pieces(connection, _):
        connection.socket.sendall(answer[:at])
        time.sleep(0.003)
        return answer[at:]

    origin.reset(in_pieces)
    with Client(gw.port) as client:
        for at in range(1, len(answer)):
            client.send(GET)
            got = client.answer()
            assert (got.status, got.body) == (200, b"abcde"), answer[:at]


def test_interim_answers_do_not_reach_a_client_of_http_1_0(gw, origin):
    origin.reset(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\n" + WHOLE)
    got = ask(gw, OLD)
    assert (got.status, got.body) == (200, b"ok")


def test_trailers_stay_behind(gw, origin):
    origin.reset(CHUNKED + b"2\r\nab\r\n0\r\nX-T: 1\r\n\r\n")
    assert ask(gw).body == b"ab"  # the client would not accept trailers


def test_fields_pass_unchanged_and_in_order(gw, origin):
    origin.reset(OK + b"Set-Cookie: a=1\r\nX-One: \t b  c \t\r\nset-cookie: b=2\r\nX-Bytes: \xff\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" + EMPTY)
    got = ask(gw)
    assert got.fields[:5] == [("set-cookie", "a=1"), ("x-one", "b  c"), ("set-cookie", "b=2"), ("x-bytes", "\xff"),
                              ("date", "Thu, 01 Jan 1970 00:00:00 GMT")]


def test_a_date_is_added_when_there_is_none(gw, origin):
    origin.reset()
    assert ask(gw).field("Date").endswith(" GMT")


def test_hop_by_hop_fields_of_an_answer_stay_behind(gw, origin):
    origin.reset(OK + b"Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\n"
                 b"Trailer: X\r\nTE: x\r\nX-End: 1\r\n" + EMPTY)
    got = ask(gw)
    assert got.field("X-End") == "1"
    for name in ("X-Hop", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Upgrade", "Trailer", "TE"):
        assert got.field(name) is None, name


# ---- no body

@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_body(gw, origin, status):
    origin.reset([b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\n" % status, WHOLE])
    with Client(gw.port) as client:
        client.send(GET)
        assert client.answer().status == status
        client.send(GET)
        assert client.answer().body == b"ok"
    assert origin.used[0] == origin.used[1], "nothing was left on the connection: it is kept"


@pytest.mark.parametrize("head,data,method", [
    (b"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", GET, "GET"),
    (b"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", GET, "GET"),
    (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", GET, "GET"),
    (OK + b"Content-Length: 5\r\n\r\n", HEAD, "HEAD"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n", HEAD, "HEAD"),
    (OK + b"\r\n", HEAD, "HEAD"),
], ids=["204", "204 chunked", "304", "HEAD", "HEAD chunked", "HEAD without length"])
def test_a_body_where_none_may_be_reaches_nobody(gw, origin, head, data, method):
    origin.reset([head + b"evil!", WHOLE])
    with Client(gw.port) as client:
        client.send(data)
        client.answer(method)
        assert client.is_open()
        client.send(GET)
        assert client.answer().body == b"ok"
    assert origin.used[0] != origin.used[1] and origin.connections[origin.used[0]].ended.wait(3)


def test_head_has_the_length_of_its_get(gw, origin):
    origin.reset([OK + b"Content-Length: 5\r\n\r\n", OK + b"\r\n", CHUNKED, WHOLE])
    with Client(gw.port) as client:
        client.send(HEAD)
        assert client.answer("HEAD").field("Content-Length") == "5"
        for _ in range(2):
            client.send(HEAD)
            assert client.answer("HEAD").field("Content-Length") is None
        client.send(GET)
        assert client.answer().body == b"ok"


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_204_has_no_framing_field(gw, origin, status):
    """RFC 9110, section 8.6, and RFC 9112, section 6.1: neither in a 204; a 205 is known to be empty."""
    origin.reset(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
    got = ask(gw)
    assert got.field("Transfer-Encoding") is None and got.body == b""
    assert status != 204 or got.field("Content-Length") is None


# ---- where a body ends

def test_an_answer_that_ends_with_its_connection_becomes_chunked(gw, origin):
    origin.reset(OK + b"\r\nto the end", close_after=True)
    with Client(gw.port) as client:
        for _ in range(2):
            client.send(GET)
            got = client.answer()
            assert (got.body, got.field("Transfer-Encoding"), got.field("Connection")) == (b"to the end", "chunked", None)


def test_an_answer_that_ends_with_a_reset_has_no_last_chunk(gw, origin):
    def die(connection, _):
        connection.socket.sendall(OK + b"\r\nhalf")
        time.sleep(0.05)
        connection.reset()

    origin.reset(die)
    with Client(gw.port) as client:
        client.send(GET)
        with pytest.raises(Cut) as cut:
            client.answer()
    assert b"0\r\n\r\n" not in cut.value.got


@pytest.mark.parametrize("answer", [CHUNKED + b"2\r\nab\r\n0\r\n\r\n", OK + b"\r\nab"], ids=["chunked", "to the end"])
def test_to_a_client_of_http_1_0_it_ends_with_the_connection(gw, origin, answer):
    origin.reset(answer, close_after=True)
    with Client(gw.port) as client:
        client.send(OLD)
        got = client.answer()
        assert got.body == b"ab" and got.field("Connection") == "close" and got.field("Transfer-Encoding") is None


def test_a_client_of_http_1_0_sees_a_cut_as_a_reset(gw, origin):
    """Nothing else can tell it: an end of the connection is an end of the body."""
    def in_pieces(connection, _):
        connection.socket.sendall(CHUNKED + b"4\r\nhalf\r\n")
        time.sleep(0.03)

    origin.reset(in_pieces)
    with Client(gw.port) as client:
        client.send(OLD)
        client.until(b"\r\n\r\n")
        assert client.rest()[1] == "reset"


@pytest.mark.parametrize("answer", [OK + b"Content-Length: 10\r\n\r\nhalf", CHUNKED + b"4\r\nhalf\r\n", CHUNKED + b"4\r\nhalf\r\n0\r\n", CHUNKED + b"8\r\nhalf"],
                         ids=["length", "chunked", "before the last line", "in a chunk"])
def test_a_cut_body_is_seen_as_one(gw, origin, answer):
    def in_pieces(connection, _):
        head = answer.index(b"half") + 4
        connection.socket.sendall(answer[:head])
        time.sleep(0.03)
        connection.socket.sendall(answer[head:])

    origin.reset(in_pieces)
    with Client(gw.port) as client:
        client.send(GET)
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        got, how = client.rest()
    assert got in (b"half", b"4\r\nhalf\r\n", b"") and how in ("eof", "reset")
    assert len(origin.received) == 1, "what has begun is not asked for again"


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 2", OK, OK + b"Content-Le", b"HTTP/1.1 103 x\r\n\r\n"], ids=["nothing", "a word", "a line", "fields", "interim"])
def test_a_head_that_is_cut_is_502(gw, origin, cut):
    origin.reset(cut, close_after=True)
    assert ask(gw, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na").status == 502
    assert len(origin.received) == 1


def test_an_origin_that_does_not_answer_is_504(gw, origin):
    origin.reset(b"")
    start = time.monotonic()
    assert ask(gw).status == 504 and 1.5 < time.monotonic() - start < 4
    assert origin.connections[origin.used[-1]].ended.wait(3)


def test_a_body_that_stops_is_cut(gw, origin):
    origin.reset(OK + b"Content-Length: 10\r\n\r\nhalf")
    with Client(gw.port) as client:
        client.send(GET)
        start = time.monotonic()
        with pytest.raises(Cut):
            client.answer()
        assert 0.7 < time.monotonic() - start < 4
    assert origin.connections[origin.used[-1]].ended.wait(3)


# ---- which answer belongs to whom

@pytest.mark.parametrize("answer", [WHOLE + OK + b"Content-Length: 4\r\n\r\nevil", WHOLE + b"x", CHUNKED + b"2\r\nok\r\n0\r\n\r\nevil",
                                    WHOLE + b"\r\n"], ids=["an answer", "a byte", "after chunks", "a line"])
def test_bytes_after_an_answer_never_reach_the_next_request(gw, origin, answer):
    origin.reset(answer)
    with Client(gw.port) as client:
        for _ in range(10):
            client.send(GET)
            assert client.answer().body == b"ok"
    assert len(set(origin.used)) == 10, "a connection with bytes left on it is not used again"


def test_bytes_that_come_while_a_connection_is_idle_end_it(gw, origin):
    origin.reset()
    assert ask(gw).body == b"ok"
    idle = origin.connections[origin.used[-1]]
    idle.socket.sendall(OK + b"Content-Length: 4\r\n\r\nevil")
    assert idle.ended.wait(3)
    assert ask(gw).body == b"ok"
    assert origin.used[-1] != idle.number


def test_bytes_that_come_just_before_the_next_request_never_answer_it(gw, origin):
    origin.reset()
    for _ in range(50):
        assert ask(gw).body == b"ok"
        origin.connections[origin.used[-1]].socket.sendall(OK + b"Content-Length: 4\r\n\r\nevil")
    assert ask(gw).body == b"ok"


@pytest.mark.parametrize("answer,kept", [
    (WHOLE, True),
    (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", False),
    (OK + b"Connection: keep-alive, Close\r\nContent-Length: 2\r\n\r\nok", False),
    (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", True),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok", False),
], ids=["1.1", "1.1 close", "1.1 close in a list", "1.1 chunked", "1.0", "1.0 keep-alive", "1.0 both"])
def test_an_origin_connection_is_kept_when_both_versions_say_so(gw, origin, answer, kept):
    origin.reset(answer)
    for _ in range(3):
        assert ask(gw).body == b"ok"
    assert (len(set(origin.used)) == 1) == kept
    assert kept or origin.connections[origin.used[0]].ended.wait(3)


def hang_up_on_second(connection, _):
    """Answers the first request of a connection and ends it without a word at the second."""
    return WHOLE if connection.requests == 1 else None


def keep_one(gw, origin):
    """Leaves one connection in the pool, on which the next request will find the end."""
    origin.reset(hang_up_on_second)
    for _ in range(3):  # the first ones may use up what an earlier test has left
        assert ask(gw).body == b"ok"
    used = origin.used[-1]
    if origin.connections[used].requests != 1:
        assert ask(gw).body == b"ok"
    return len(origin.received)


def test_a_kept_connection_that_had_ended_is_no_failure_for_get(gw, origin):
    before = keep_one(gw, origin)
    assert ask(gw).body == b"ok"
    assert len(origin.received) == before + 2, "asked again once, on a fresh connection"


def test_what_may_have_had_effect_is_not_sent_twice(gw, origin):
    before = keep_one(gw, origin)
    assert ask(gw, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").status == 502
    assert len(origin.received) == before + 1


def test_answers_go_to_the_client_that_asked(gw, origin):
    def echo(_, request):
        body = request.split(b" ")[1]
        time.sleep(0.002)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    origin.reset(echo)
    clients = [Client(gw.port) for _ in range(8)]
    for round_ in range(20):
        for number, client in enumerate(clients):
            client.send(b"GET /%d/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number, round_))
        for number, client in enumerate(clients):
            assert client.answer().body == b"/%d/%d" % (number, round_)
    for client in clients:
        client.socket.close()


# ---- interim answers

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"


def test_early_hints_are_passed_on(gw, origin):
    """RFC 9110, section 15.2.4; RFC 8297."""
    origin.reset(HINT + b"HTTP/1.1 102 x\r\n\r\n" + HINT + WHOLE)
    with Client(gw.port) as client:
        for round in (1, 2):
            client.send(GET)
            got = client.answer()
            assert (got.status, got.body) == (200, b"ok")
            assert len(client.hints) == 2 * round
        for hint in client.hints:
            assert hint.field("Link") == "</a.css>; rel=preload"
            assert not hint.field("Content-Length") and not hint.field("Transfer-Encoding") and not hint.field("Connection")


def test_hints_come_before_the_answer_is_ready(gw, origin):
    def late(connection, _):
        connection.socket.sendall(HINT)
        time.sleep(0.5)
        return WHOLE

    origin.reset(late)
    with Client(gw.port) as client:
        start = time.monotonic()
        client.send(GET)
        client.until(b"\r\n\r\n")
        assert time.monotonic() - start < 0.4
        assert client.answer().status == 200


def test_at_most_eight_hints_are_passed_on(gw, origin):
    origin.reset(HINT * 12 + WHOLE)
    with Client(gw.port) as client:
        client.send(GET)
        assert client.answer().status == 200 and len(client.hints) == 8


def test_hints_do_not_frame_anything(gw, origin):
    origin.reset(b"HTTP/1.1 103 x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n" + WHOLE)
    with Client(gw.port) as client:
        client.send(GET)
        assert client.answer().body == b"ok" and client.is_open()
        assert not client.hints[0].field("Content-Length") and not client.hints[0].field("Connection")
