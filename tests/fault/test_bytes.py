"""A connection that ends, breaks or pauses behind each byte of a request or of a response: what is not whole is never taken for whole."""
import socket
import struct
import time

import pytest
import faults
from faults import CONFIG, JUDGE, Client, Cut, Gateway, chunks, get, must_be_right, wait_until
from origin import Origin, body_of

SMALL = b"0123456789" * 3
REQUESTS = {
    "get": get(b"/get", b"X-Field: value\r\n"),
    "post": get(b"/post", b"Content-Length: %d\r\n" % len(SMALL), b"POST") + SMALL,
    "chunked": get(b"/post", b"Transfer-Encoding: chunked\r\n", b"POST") + chunks(SMALL, 11),
    "buffered": get(b"/buffered", b"Content-Length: %d\r\n" % len(SMALL), b"POST") + SMALL,
    "transformed": get(b"/transformed", b"Content-Length: %d\r\n" % len(SMALL), b"POST") + SMALL,
    "guarded": get(b"/guarded", b"X-Api-Key: k\r\n"),
}
PASS = """
return { doc = "Passes bodies on, piece by piece.", access = function(ctx)
  ctx.req:transform(function(input, write) for piece in input do write(piece) end end)
end, response = function(ctx)
  ctx.res:transform(function(input, write) for piece in input do write(piece) end end)
end }
"""
ROUTES = """
route "transformed" { path = "/transformed", to = "o", use = { "pass" } }
route "whole" { path = "/whole", to = "o", use = { "whole" } }
"""
WHOLE = 'return { doc = "Reads the answer.", response = function(ctx) assert(ctx.res:text()) end }'


def echo(_, request):
    body = body_of(request) if request.startswith(b"POST") else b"ok"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture(scope="module")
def own():
    scripted = Origin()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def gw(own):
    with Gateway(CONFIG % {"origin": own.port} + ROUTES, plugins={"judge": JUDGE, "pass": PASS, "whole": WHOLE}) as running:
        yield running
        assert "Sanitizer" not in running.log()


def reset(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_that_is_cut_behind_any_byte_never_arrives_whole(gw, own, request_, how):
    own.reset(echo)
    worker = gw.workers()
    for k in range(1, len(request_)):
        with Client(gw.port, 3) as client:
            client.send(request_[:k])
            if how == "reset":
                reset(client)
                continue
            client.socket.shutdown(socket.SHUT_WR)
            data, end = client.rest()
            assert end in ("eof", "reset") and b" 200 " not in data, (k, data)
    own.settle()
    assert not own.received, own.received[:3]
    with Client(gw.port) as client:
        client.send(request_)
        assert client.answer().status == 200
    assert gw.workers() == worker


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_may_pause_behind_any_byte(gw, own, request_):
    own.reset(echo)
    expected = SMALL if request_.startswith(b"POST") else b"ok"
    for k in range(1, len(request_)):
        with Client(gw.port) as client:
            client.send(request_[:k], pause=0.0005)
            client.send(request_[k:])
            answer = client.answer()
            assert (answer.status, answer.body) == (200, expected), k
    with Client(gw.port) as client:
        client.send(*[request_[i:i + 1] for i in range(len(request_))], pause=0.0002)
        assert client.answer().body == expected


RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nX-Field: value\r\nContent-Length: 30\r\n\r\n" + SMALL,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(SMALL, 11),
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + SMALL,
}
PATHS = ["/get", "/transformed", "/whole", "/call"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_that_is_cut_behind_any_byte_is_never_passed_off_as_whole(gw, own, response, how, path):
    at = [0]

    def cut(connection, _):
        connection.socket.sendall(response[:at[0]])
        if how == "reset":
            time.sleep(0.0005)
            connection.reset()
        return None

    own.reset(cut)
    worker = gw.workers()
    for at[0] in range(0, len(response)):
        with Client(gw.port) as client:
            client.send(get(path.encode()))
            try:
                answer = client.answer()
                assert answer.status in (500, 502), (at[0], answer.status, answer.body)
            except Cut:
                pass
    own.reset(response)
    with Client(gw.port) as client:
        client.send(get(path.encode()))
        assert client.answer().body == SMALL
    assert gw.workers() == worker


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_may_pause_behind_any_byte(gw, own, response, path):
    at = [0]

    def pause(connection, _):
        connection.socket.sendall(response[:at[0]])
        time.sleep(0.0005)
        return response[at[0]:]

    own.reset(pause)
    for at[0] in range(1, len(response)):
        with Client(gw.port) as client:
            client.send(get(path.encode()))
            answer = client.answer()
            assert (answer.status, answer.body) == (200, SMALL), at[0]


def test_every_kind_is_right_in_the_end(gw, own):
    own.reset(faults.answer_of)
    must_be_right(gw.port)
    wait_until(lambda: "connections 0 open" in gw.command("status").stdout, "the connections are gone")
