"""The n-th allocation fails while a request goes over HTTP/2 to the upstream, which is the same gateway: it is answered at once, one way or the other."""
import errno
import http.client
import time

import pytest
from faults import MALLOC, Faulty, descriptors, wait_until

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" }, http2 = true, first_byte_timeout = "5s", passive = false }
route "front" { listen = "front", path = "/x", methods = { "GET", "POST" }, to = "back" }
route "back" { listen = "back", path = "/x", methods = { "GET", "POST" }, handler = function(ctx)
  local body = ctx.req:text(1e6)
  return tg.respond(200, #body .. " " .. (ctx.req.headers["X-Last"] or ""), { ["X-Long"] = ("v"):rep(3000) })
end }
"""
FIELDS = {**{f"X-Field-{i}": "v" * 40 for i in range(60)}, "X-Last": "yes"}  # more than the first block of an arena
SOON = 3  # seconds: less than the upstream's time


@pytest.fixture(scope="module")
def gw(shim, tmp_path_factory):
    with Faulty(CONFIG, shim, tmp_path_factory.mktemp("plan"), warns="") as running:
        ask(running, b"")
        yield running
        running.plan.disarm()


def ask(gw, body):
    """Status and body; None: the connection ended."""
    client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=10)
    began = time.monotonic()
    try:
        client.request("POST" if body else "GET", "/x", body=body or None, headers=FIELDS)
        answer = client.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError):
        return None
    finally:
        client.close()
        assert time.monotonic() - began < SOON, gw.log()


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_each_allocation_of_a_request_over_http2_fails_once(gw, size):
    worker, = gw.workers()
    body, right = b"b" * size, (200, b"%d yes" % size)
    assert ask(gw, body) == right
    before = descriptors(worker)
    gw.plan.arm(MALLOC, errno.ENOMEM, worker, chance=0)
    assert ask(gw, body) == right
    count = gw.plan.disarm()[0]
    assert count > 0
    for n in range(1, min(count, 120) + 1):
        gw.plan.arm(MALLOC, errno.ENOMEM, worker, first=n, times=1)
        answer = ask(gw, body)
        gw.plan.disarm()
        assert answer is None or answer == right or answer[0] in (500, 502, 503), (n, answer, gw.log())
        assert gw.workers() == [worker], f"allocation {n}: {gw.log()}"
    assert ask(gw, body) == right
    wait_until(lambda: descriptors(worker) <= before + 8, "no descriptor is left")
