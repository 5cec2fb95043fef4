"""A gateway with the shim preloaded, the plan that says what fails in it, and one request of each kind with its right answer."""
import concurrent.futures
import errno
import mmap
import os
import pathlib
import re
import struct
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "conformance")]

from client import Client, Cut  # noqa: E402
from gateway import RELEASE, Gateway  # noqa: E402
from origin import OK, body_of  # noqa: E402

# The order of enum function and enum where in shim.c.
(ACCEPT, CONNECT, SOCKET, SOCKETPAIR, RECV, RECVMSG, READ, SEND, WRITE, OPEN, MEMFD, PIPE, EPOLL_CTL, EPOLL_WAIT, FORK, MALLOC,
 MMAP, FSYNC) = range(18)
ANYWHERE, INTERNET, LOCAL, FILES = range(4)
SHORT, HANGS = 0, -1
HEAD, RULE = struct.Struct("IIIi"), struct.Struct("IIiIIIIIII")


class Plan:
    """What fails, in which process: shared with the shim. Nothing fails before `arm`."""

    def __init__(self, path):
        self.path, self.skew = path, 0
        path.write_bytes(bytes(HEAD.size + 8 * RULE.size))
        with open(path, "r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 0)

    def arm(self, function, error, pid=0, where=ANYWHERE, first=1, chance=1000, times=0, seed=1):
        RULE.pack_into(self.shared, HEAD.size, 1 << function, where, error, first, chance, times, seed, 0, 0, 0)
        HEAD.pack_into(self.shared, 0, 1, pid, 1, self.skew)

    def disarm(self):
        """How many calls were asked about, and how many of them have failed."""
        HEAD.pack_into(self.shared, 0, 0, 0, 0, self.skew)
        return self.counts()

    def jump(self, seconds):
        """The wall clock is so many seconds ahead from now on."""
        self.skew = seconds
        self.disarm()

    def counts(self):
        return RULE.unpack_from(self.shared, HEAD.size)[7:9]


class Faulty(Gateway):
    """Of the release build: the sanitizers have an allocator of their own, which a preloaded one would fight."""

    def __init__(self, config, shim, folder, **options):
        self.plan = Plan(folder / "plan")
        super().__init__(config, binary=RELEASE, env={"LD_PRELOAD": str(shim), "FAULT_PLAN": str(self.plan.path)}, **options)

    def log(self):
        """Without what libevent has to say of the failures that it was given."""
        return re.sub(r"^\[warn\] Epoll ADD.*\n", "", super().log(), flags=re.M)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_until(condition, what, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, header_timeout = "1s", body_timeout = "1s", send_timeout = "1s" }
local pool = { idle_timeout = "100ms" }
upstream "o" { targets = { "http://127.0.0.1:%(origin)d" }, pool = pool, first_byte_timeout = "1s", idle_timeout = "1s" }
upstream "named" { targets = { "http://localhost:%(origin)d" }, pool = pool, first_byte_timeout = "1s", idle_timeout = "1s" }
dict "rates" { size = "1MiB" }
consumer "acme" { credentials = { key = "k" } }
use { { "access-log", path = "@DIR@/access.log" } }
defaults { timeout = "4s" }
route "local" { path = "/local", handler = function() return tg.respond(200, "local") end }
route "sleep" { path = "/sleep", handler = function() tg.sleep(0.01) return tg.respond(200, "slept") end }
route "named" { path = "/named", to = "named" }
route "buffered" { path = "/buffered", to = "o", use = { "judge" } }
route "guarded" { path = "/guarded", to = "o", use = { "key-auth", { "rate-limit", limit = 1000000, key = "${consumer.id}" },
  { "headers", request = { set = { ["X-Who"] = "${consumer.id}" } }, response = { set = { ["X-By"] = "tidegate" } } } } }
route "call" { path = "/call", handler = function()
  local result, err = tg.upstream("o"):get("/get")
  if not result then error(err, 0) end
  return tg.respond(result.status, result.body)
end }
route "both" { path = "/both", handler = function()
  local function fetch(path)
    return function()
      local result, err = tg.upstream("o"):get(path)
      return result and result.body, err
    end
  end
  local data, err = tg.fetch_all { one = fetch "/get", two = fetch "/big" }
  if not data then error(err, 0) end
  return tg.respond(200, data.one .. data.two)
end }
route "all" { path = "/*", to = "o" }
"""
JUDGE = """
return { doc = "Looks at the body.", access = function(ctx)
  local body, err = ctx.req:text(1024 * 1024)
  if not body then error(err, 0) end
end }
"""
BIG = bytes(range(256)) * 1200
BODY = bytes(range(255, -1, -1)) * 80


def chunks(data, size):
    return b"".join(b"%x\r\n%s\r\n" % (len(data[i:i + size]), data[i:i + size]) for i in range(0, len(data), size)) + b"0\r\n\r\n"


def answer_of(connection, request):
    path = request.split(b" ")[1]
    if path == b"/big":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG
    if path == b"/chunked":
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(BIG, 5000)
    if path == b"/hints":
        return b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK
    if path == b"/close":
        connection.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BIG)
        return None
    if request.startswith(b"POST"):
        body = body_of(request)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    if request.startswith(b"HEAD"):
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    return OK


def get(path, fields=b"", method=b"GET", version=b"1.1"):
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: a\r\n" + fields + b"\r\n"


def post(path, fields=b""):
    return get(path, b"Content-Length: %d\r\n" % len(BODY) + fields, b"POST")


# Name: what is sent, and for each answer the status and the body that are right.
KINDS = {
    "local": (get(b"/local"), [(200, b"local")]),
    "sleep": (get(b"/sleep"), [(200, b"slept")]),
    "get": (get(b"/get"), [(200, b"ok")]),
    "named": (get(b"/named"), [(200, b"ok")]),
    "head": (get(b"/get", method=b"HEAD"), [(200, b"")]),
    "big": (get(b"/big"), [(200, BIG)]),
    "chunked": (get(b"/chunked"), [(200, BIG)]),
    "close": (get(b"/close"), [(200, BIG)]),
    "hints": (get(b"/hints"), [(200, b"ok")]),
    "old": (get(b"/chunked", version=b"1.0"), [(200, BIG)]),
    "post": (post(b"/post") + BODY, [(200, BODY)]),
    "upload": (get(b"/post", b"Transfer-Encoding: chunked\r\n", b"POST") + chunks(BODY, 1000), [(200, BODY)]),
    "expect": (post(b"/post", b"Expect: 100-continue\r\n"), [(100, b""), (200, BODY)]),
    "buffered": (post(b"/buffered") + BODY, [(200, BODY)]),
    "guarded": (get(b"/guarded", b"X-Api-Key: k\r\n"), [(200, b"ok")]),
    "anonymous": (get(b"/guarded"), [(401, None)]),
    "call": (get(b"/call"), [(200, b"ok")]),
    "both": (get(b"/both"), [(200, b"ok" + BIG)]),
    "pipelined": (get(b"/get") + get(b"/local") + get(b"/big"), [(200, b"ok"), (200, b"local"), (200, BIG)]),
    "malformed": (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", [(400, None)]),
}
RIGHT, FAILED, CUT = "right", "failed", "cut"
CLEAR = {500, 502, 503, 504}


def ask(port, kind):
    """RIGHT: all answers were; FAILED: one was a clear status; CUT: the connection ended first. All else is an error."""
    data, expected = KINDS[kind]
    method = data.split(b" ")[0].decode()
    try:
        with Client(port, 10) as client:
            client.send(data)
            for status, body in expected:
                answer = client.answer(method)
                if answer.status == 100 and status == 100:
                    client.send(BODY)
                elif answer.status != status and (answer.status in CLEAR or (kind == "buffered" and answer.status == 400)):
                    return FAILED  # 400: the policy asked for a body whose connection broke
                else:
                    assert answer.status == status, f"{kind}: {answer.status}, not {status}: {answer.body[:200]}"
                    assert body is None or answer.body == body, f"{kind}: {len(answer.body)} bytes that are not the right ones"
    except (Cut, BrokenPipeError, ConnectionResetError):
        return CUT
    except AssertionError as found:
        if str(found) != "reset":  # a body that ends with its connection, ended with a reset: a cut as well
            raise
        return CUT
    except TimeoutError:
        raise AssertionError(f"{kind}: neither an answer nor an end") from None
    return RIGHT


def ask_all(port, times=1, without=()):
    """Each kind, several at once: {kind: outcomes}."""
    kinds = [kind for kind in KINDS if kind not in without]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda kind: ask(port, kind), kinds * times))
    return {kind: outcomes[i::len(kinds)] for i, kind in enumerate(kinds)}


def must_be_right(port):
    wrong = {kind: outcomes for kind, outcomes in ask_all(port).items() if outcomes != [RIGHT]}
    assert not wrong, wrong


def name_of(error):
    return errno.errorcode.get(error, "short")
