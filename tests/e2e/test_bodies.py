"""Bodies in the hands of plugins: read whole or in pieces, replaced, made, transformed while they flow; bounded and in order."""
import hashlib
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from gateway import RELEASE, ROOT, Gateway

sys.path.append(str(ROOT / "tests/conformance"))
from client import Client, Cut  # noqa: E402

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
route "echo" { listen = "back", path = "/echo", body_limit = "100MiB", handler = function(ctx)
  return tg.respond(200, assert(ctx.req:text(100 * 1024 * 1024)), { ["X-Length"] = ctx.req.headers["X-Was"] })
end }
route "duplex" { listen = "back", path = "/duplex", handler = function(ctx)
  local request = ctx.req
  return tg.respond(200, function(write) for piece in request:chunks() do write(piece) end end)
end }
route "lines" { listen = "back", path = "/lines", handler = function() return tg.respond(200, "one\\ntwo\\r\\nthree", { ETag = '"v1"' }) end }
route "big" { listen = "back", path = "/big", handler = function() return tg.respond(200, function(write)
  for i = 1, 320 do write(("%08d"):format(i):rep(12500)) end
end) end }
route "json" { listen = "back", path = "/json", handler = function() return tg.respond(200, { a = 1, list = { 1, 2 } }) end }
route "events" { listen = "back", path = "/events", handler = function() return tg.respond(200, function(write)
  for i = 1, 5 do write { event = "tick", id = i, data = "line " .. i .. "\\nmore" } tg.sleep(0.05) end
end, { ["Content-Type"] = "text/event-stream" }) end }
"""


def routes(**uses):
    return "".join(f'route "{name}" {{ listen = "front", path = "/{name}/*", strip_path = true, to = "o", body_limit = "100MiB", use = {{ {use} }} }}\n'
                   for name, use in uses.items())


def plugin(phase, body):
    return f'return {{ doc = "Is a test.", {phase} = function(ctx) {body} end }}'


PLUGINS = {
    "upper": plugin("response", "ctx.res:transform(function(input, write) for piece in input do write(piece:upper()) end end)"),
    "number": plugin("response", "ctx.res:transform(function(input, write) local n = 0 for line in input:lines() do n = n + 1 "
                                 "write(n .. ' ' .. line .. '\\n') end end)"),
    "slow": plugin("response", "ctx.res:transform(function(input, write) for piece in input do tg.sleep(0.01) write(piece) end end)"),
    "whole": plugin("response", "local text = assert(ctx.res:text()) ctx.res:set_body(('%d:%s'):format(#text, text))"),
    "look": plugin("response", "assert(ctx.res:json().list[2] == 2)"),
    "table": plugin("response", "ctx.res:set_body({ new = true })"),
    "small": plugin("response", "local text, err = ctx.res:text(10) ctx.res.headers['X-Error'] = err and err.code assert(text, err)"),
    "eat": plugin("response", "for piece in ctx.res:chunks() do end"),
    "first-line": plugin("response", "ctx.res:transform(function(input, write) for line in input:lines() do write(line) return end end)"),
    "raise-early": plugin("response", "ctx.res:transform(function(input, write) error 'early' end)"),
    "raise-late": plugin("response", "ctx.res:transform(function(input, write) write(input()) tg.sleep(0.02) error 'late' end)"),
    "count-events": plugin("response", "ctx.res:transform(function(input, write) for event in input:events() do "
                                       "assert(event.event == 'tick' and event.data:find '^line %d\\nmore$') write(event) end write { data = 'end' } end)"),
    "matches": plugin("response", "ctx.res:transform(function(input, write) for text, m in input:matches([[0000(\\d+?)(?=0000)]]) do write(text) "
                                  "if m then write('<' .. m[1] .. '>') end end end)"),
    "request-upper": plugin("access", "ctx.req:transform(function(input, write) for piece in input do write(piece:upper()) end end)"),
    "request-whole": plugin("access", "local text = assert(ctx.req:text(64 * 1024)) ctx.req.headers['X-Was'] = tostring(#text)"),
    "request-json": plugin("access", "local value = assert(ctx.req:json()) value.seen = true ctx.req:set_body(value)"),
    "request-eat": plugin("access", "for piece in ctx.req:chunks() do end"),
    "request-made": plugin("access", "ctx.req:set_body(function(write) for i = 1, 3 do write('part' .. i) tg.sleep(0.01) end end)"),
    "request-replaced": plugin("access", "local n = 0 for piece in ctx.req:chunks() do n = n + #piece end ctx.req:set_body('was ' .. n)"),
    "request-raise": plugin("access", "ctx.req:transform(function(input, write) write(input()) error 'no' end)"),
    "hash": plugin("response", "local last ctx.res:transform(function(input, write) for piece in input do last = piece write(piece) end end)"),
}


@pytest.fixture(scope="module")
def gw():
    uses = {name: f'"{name}"' for name in PLUGINS}
    uses["stacked"] = '"number", "upper"'
    with Gateway(CONFIG + routes(**uses), plugins=PLUGINS) as running:
        yield running
        assert len(running.workers()) == 1


def get(gw, path, method="GET", body=None, **headers):
    return gw.request(path, method, body, {name.replace("_", "-"): value for name, value in headers.items()})


def test_a_response_is_transformed_and_no_longer_says_what_is_not_true_of_it(gw):
    answer = get(gw, "/upper/lines")
    assert (answer.status, answer.text) == (200, b"ONE\nTWO\r\nTHREE")
    assert answer.headers["ETag"] == 'W/"v1"' and answer.headers["Content-Length"] is None


def test_transforms_stack_in_the_order_of_response_phases(gw):
    assert get(gw, "/stacked/lines").text == b"1 ONE\n2 TWO\n3 THREE\n"


def test_head_and_old_clients_get_what_fits_them(gw):
    answer = get(gw, "/upper/lines", "HEAD")
    assert answer.status == 200 and answer.text == b"" and answer.headers["ETag"] == 'W/"v1"'
    raw = gw.raw(b"GET /upper/lines HTTP/1.0\r\nHost: a\r\n\r\n")
    assert raw.endswith(b"\r\n\r\nONE\nTWO\r\nTHREE") and b"chunked" not in raw
    kept = b"GET /upper/lines HTTP/1.1\r\nHost: a\r\n\r\n"
    assert gw.raw(kept + kept + kept.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(b"THREE") == 3


def test_a_body_of_any_length_passes_through_a_slow_transform_in_bounded_memory(gw):
    expected = hashlib.sha256(b"".join(b"%08d" % n * 12500 for n in range(1, 321))).hexdigest()
    worker, = gw.workers()
    for path in ("/hash/big", "/slow/big"):
        assert hashlib.sha256(get(gw, path).text).hexdigest() == expected
    with socket.create_connection(("127.0.0.1", gw.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before = resident(worker)
        client.sendall(b"GET /hash/big HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)  # a time in which an unbounded one would take it all: 32 MB
        assert resident(worker) - before < 16 * 2 ** 20


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_matches_are_found_across_the_borders_of_chunks(gw):
    whole = "".join("%08d" % n * 12500 for n in range(1, 321))
    expected = re.sub(r"0000(\d+?)(?=0000)", r"<\1>", whole)
    assert get(gw, "/matches/big").text.decode() == expected


def test_a_response_is_read_whole_and_goes_on(gw):
    assert get(gw, "/whole/lines").text == b"14:one\ntwo\r\nthree"
    answer = get(gw, "/look/json")
    assert answer.status == 200 and answer.text.startswith(b"{") and answer.headers["Content-Length"] == str(len(answer.text))
    answer = get(gw, "/table/lines")
    assert answer.text == b'{"new":true}' and answer.headers["Content-Type"] == "application/json"
    answer = get(gw, "/table/lines", "HEAD")
    assert answer.text == b"" and answer.headers["Content-Length"] == "12"


def test_what_is_too_large_or_read_away_is_an_error_and_never_half_a_body(gw):
    assert get(gw, "/small/lines").status == 502
    assert get(gw, "/eat/lines").status == 500
    assert get(gw, "/first-line/lines").text == b"one"


def test_a_transform_that_raises_is_a_500_or_a_visible_cut(gw):
    assert get(gw, "/raise-early/lines").status == 500
    with Client(gw.port) as client:
        client.send(b"GET /raise-late/big HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(Cut):
            client.answer()
    assert get(gw, "/upper/lines").status == 200


def test_events_go_through_one_by_one_when_they_come(gw):
    with Client(gw.port) as client:
        client.send(b"GET /count-events/events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"\r\n\r\n")
        start, times = time.monotonic(), []
        for n in range(1, 6):
            assert b"event: tick\nid: %d\ndata: line %d\ndata: more\n" % (n, n) in client.until(b"\n\n") + b"\n"
            times.append(time.monotonic() - start)
        assert b"data: end" in client.until(b"\n\n")
        assert times[-1] - times[0] > 0.15, "they were held back"


BODY = b"some Text " * 5000


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_request_is_transformed_read_or_replaced(gw, chunked):
    def post(path, body=BODY):
        headers = {"Transfer-Encoding": "chunked"} if chunked else {}
        answer = gw.request(path, "POST", iter([body]) if chunked else body, headers)
        return answer.status, answer.text
    assert post("/request-upper/echo") == (200, BODY.upper())
    assert post("/request-whole/echo") == (200, BODY)
    assert post("/request-whole/echo", b"x" * 70000)[0] == 413
    assert post("/request-made/echo") == (200, b"part1part2part3")
    assert post("/request-replaced/echo") == (200, b"was %d" % len(BODY))
    assert post("/request-eat/echo")[0] == 500
    assert post("/request-raise/echo")[0] == 500
    assert post("/request-json/echo", b'{"a":[]}')[1] in (b'{"a":[],"seen":true}', b'{"seen":true,"a":[]}', b'{"a":{},"seen":true}', b'{"seen":true,"a":{}}')
    assert post("/request-json/echo", b'{"a":')[0] == 400


def test_a_handler_may_answer_while_it_reads(gw):
    with Client(gw.port2) as client:
        client.send(b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"200 OK" in client.until(b"\r\n\r\n")
        for n in range(5):
            client.send(b"5\r\nping%d\r\n" % n)
            assert client.until(b"ping%d\r\n" % n) == b"5\r\n"
        client.send(b"0\r\n\r\n")
        assert client.until(b"0\r\n\r\n") == b""


def test_many_at_once_do_not_mix(gw):
    wrong = []

    def ask(n):
        body = b"%03d" % n * 30000
        answer = gw.request("/request-upper/echo", "POST", body)
        if answer.text != body:
            wrong.append(n)
        if get(gw, "/stacked/lines").text != b"1 ONE\n2 TWO\n3 THREE\n":
            wrong.append(-n)
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_client_that_leaves_ends_what_runs_for_it(gw):
    for path in (b"/slow/big", b"/count-events/events", b"/request-made/echo"):
        for _ in range(10):
            with Client(gw.port) as client:
                client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
                client.socket.settimeout(0.05)
                try:
                    client.fill()
                except TimeoutError:
                    pass
    done = gw.command("reload")
    assert done.returncode == 0
    end = time.monotonic() + 8
    while "in 1 generation\n" not in gw.command("status").stdout:
        assert time.monotonic() < end, gw.command("status").stdout
        time.sleep(0.05)


def test_a_body_plugin_of_the_release_build_is_as_right():
    with Gateway(CONFIG + routes(hash='"hash"', up='"request-upper"'), plugins=PLUGINS, binary=RELEASE) as gw:
        expected = b"".join(b"%08d" % n * 12500 for n in range(1, 321))
        for _ in range(20):
            assert gw.request("/hash/big").text == expected
            assert gw.request("/up/echo", "POST", BODY * 20).text == (BODY * 20).upper()


@pytest.mark.parametrize("use", ["pass", "upper", "whole", "look"])
def test_a_client_that_asks_for_the_head_gets_no_body_whatever_the_upstream_is_asked_for(use):
    """Its bytes would be the beginning of the next answer."""
    change = "function(ctx) ctx.req.method = 'GET' end"
    uses = change if use == "pass" else f'{change}, "{use}"'
    with Gateway(CONFIG + routes(changed=uses), plugins=PLUGINS) as gateway:
        for path in ("json", "big"):
            if path == "big" and use in ("whole", "look"):
                continue
            request = f"HEAD /changed/{path} HTTP/1.1\r\nHost: x\r\n\r\nGET /changed/lines HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            received = gateway.raw(request.encode()) if use != "look" else gateway.raw(request.replace("lines", "json").encode())
            head, _, rest = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200") and rest.startswith(b"HTTP/1.1 200"), received[:1000]
            assert rest.partition(b"\r\n\r\n")[2], received[:1000]
        out = subprocess.run(["curl", "-sI", "--http2-prior-knowledge", f"http://127.0.0.1:{gateway.port}/changed/json"], capture_output=True, timeout=10)
        assert out.returncode == 0 and out.stdout.startswith(b"HTTP/2 200")


def test_a_client_gets_an_empty_body_when_the_upstream_is_asked_for_the_head_alone():
    with Gateway(CONFIG + routes(changed="function(ctx) ctx.req.method = 'HEAD' end"), plugins=PLUGINS) as gateway:
        for _ in range(2):
            received = gateway.raw(b"GET /changed/json HTTP/1.1\r\nHost: x\r\n\r\nGET /changed/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert received.count(b"HTTP/1.1 200") == 2 and received.count(b"Content-Length: 0\r\n") == 2, received
