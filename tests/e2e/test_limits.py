"""Limits and options of listeners and routes: what is refused, what is counted, and what an operator may allow."""
import json
import socket
import time

import pytest
from gateway import RELEASE, Gateway

CONFIG = """
api = 1
@GLOBAL@
listen { name = "front", address = "127.0.0.1", port = @PORT@, @OPTIONS@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
route "echo" { listen = "back", path = "/*", encoded_slashes = "keep", invalid_utf8 = "keep", handler = function(ctx)
  local fields = {}
  for name, value in ctx.req.headers() do fields[name:lower()] = value end
  return tg.respond(200, { fields = fields, raw = ctx.req.original.path, path = (ctx.req.path:gsub("[\\128-\\255]", "?")) })
end }
route "own" { listen = "front", path = "/own/*", handler = function(ctx)
  return tg.respond(200, { raw = ctx.req.raw_path, path = (ctx.req.path:gsub("[\\128-\\255]", "?")), route = ctx.route.name })
end }
route "keep" { listen = "front", path = "/keep/*", to = "back", encoded_slashes = "keep", invalid_utf8 = "keep" }
route "hold" { listen = "front", path = "/hold", handler = function(ctx) return tg.respond(200, tostring(#assert(ctx.req:text(2 ^ 30)))) end,
  body_limit = "1GiB" }
route "all" { listen = "front", path = "/*", to = "back" }
"""


def gateway(options="", top="", **more):
    return Gateway(CONFIG.replace("@OPTIONS@", options).replace("@GLOBAL@", top), **more)


def reached(gw, limit, times=1):
    """Waits until status says how often a limit was reached."""
    line = f"limit       {limit} reached {times} time"
    for _ in range(100):
        if line in gw.command("status").stdout:
            return True
        time.sleep(0.03)
    raise AssertionError(gw.command("status").stdout)


def get(gw, path, **headers):
    return gw.request(path, headers={name.replace("0", "_"): value for name, value in headers.items()})


@pytest.mark.parametrize("limit,request_bytes,status", [
    ("request_line", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("field", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    ("head", b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n", 431),
    ("fields", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
    ("body_limit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
    ("chunk_extensions", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300 + b"\r\na\r\n0\r\n\r\n", 400),
    ("trailers", b"POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 400),
    ("header_timeout", b"GET / HT", 408),
    ("body_timeout", b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", 408),
], ids=lambda value: value if isinstance(value, str) else "")
def test_each_limit_is_counted_and_named(limit, request_bytes, status):
    with gateway('header_timeout = "300ms", body_timeout = "300ms"', 'log { level = "debug" }') as gw:
        assert gw.raw(request_bytes).startswith(b"HTTP/1.1 %d " % status)
        assert reached(gw, limit)
        gw.wait_for(f"limit {limit}\n")


def test_the_head_is_limited_to_the_byte():
    with gateway('head = "1KiB", field = "1KiB", request_line = "1KiB"') as gw:
        start = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
        for size, status in ((1024, 200), (1025, 431)):
            head = start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"
            assert len(head) == size
            assert gw.raw(head).startswith(b"HTTP/1.1 %d " % status), size


def test_connections_of_one_client_are_limited():
    with gateway("client_connections = 5") as gw:
        held = [socket.create_connection(("127.0.0.1", gw.port), timeout=3) for _ in range(5)]
        for s in held:
            s.sendall(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(12) == b"HTTP/1.1 200"
        assert gw.raw(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n") == b"", "the sixth"
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.connect(("127.0.0.1", gw.port))
            other.sendall(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200", "another client"
        for s in held:
            s.close()
        time.sleep(0.1)
        assert get(gw, "/own/x").status == 200
        assert reached(gw, "client_connections")


def test_trusted_proxies_are_not_one_client():
    with gateway('client_connections = 2, trusted_proxies = "127.0.0.1"') as gw:
        held = [socket.create_connection(("127.0.0.1", gw.port), timeout=3) for _ in range(6)]
        for s in held:
            s.sendall(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(12) == b"HTTP/1.1 200"
            s.close()


def test_connections_in_all_are_limited():
    with gateway(top="limits { connections = 3 }") as gw:
        held = [socket.create_connection(("127.0.0.1", gw.port), timeout=3) for _ in range(3)]
        for s in held:
            s.sendall(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(12) == b"HTTP/1.1 200"
        assert gw.raw(b"GET /own/x HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        held.pop().close()
        time.sleep(0.1)
        assert get(gw, "/own/x").status == 200
        assert reached(gw, "connections")
        for s in held:
            s.close()


def test_short_memory_sheds_and_recovers():
    """Bodies that a policy reads whole fill the memory; who comes then gets 503, the largest is given up, and all goes on."""
    with gateway(top='limits { memory = "48MiB" }', binary=RELEASE) as gw:
        clients = [socket.create_connection(("127.0.0.1", gw.port), timeout=10) for _ in range(3)]
        for s in clients:
            s.sendall(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 40000000\r\n\r\n")
        shed = False
        for s in clients:
            s.sendall(b"x" * 8_000_000)
        for _ in range(500):  # in small steps, since the memory is looked at ten times a second
            for s in clients:
                try:
                    s.sendall(b"x" * 40_000)
                except OSError:
                    pass
            if shed:
                break
            time.sleep(0.02)
            try:
                answer = get(gw, "/own/x")
                shed = shed or answer.status == 503 and answer.headers["Retry-After"] == "1" and answer.headers["Connection"] == "close"
            except OSError:
                pass  # nothing is accepted
        assert shed
        for s in clients:
            s.close()
        for _ in range(100):
            time.sleep(0.05)
            try:
                if get(gw, "/own/x").status == 200:
                    break
            except OSError:
                pass
        else:
            raise AssertionError(gw.log())
        assert "MiB in use: " in gw.log() and "limit       memory reached " in gw.command("status").stdout
        gw.log_path.write_text(gw.log().replace("[warn]", "[expected]"))


# ---- underscores

def test_names_with_underscores_are_dropped_by_default():
    with gateway() as gw:
        assert "x_y" not in json.loads(get(gw, "/", X0Y="1").text)["fields"]


def test_names_with_underscores_may_be_allowed():
    with gateway('underscores = "allow"') as gw:
        # The second listener drops them: what reached it is seen in a handler of the first.
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", 'underscores = "allow"').replace("@GLOBAL@", "").replace(
            "route = ctx.route.name }", 'route = ctx.req.headers["X_Y"] }'))
        assert gw.command("reload").returncode == 0
        assert json.loads(get(gw, "/own/x", X0Y="1").text)["route"] == "1"


def test_names_with_underscores_may_be_refused():
    with gateway('underscores = "reject"') as gw:
        assert get(gw, "/", X0Y="1").status == 400
        assert get(gw, "/", X="1").status == 200


def test_identity_is_taken_from_clients_in_either_spelling():
    config = CONFIG.replace("@GLOBAL@", 'consumer "acme" { credentials = { key = "k" } }').replace("@OPTIONS@", 'underscores = "allow"')
    config += 'route "auth" { listen = "front", path = "/auth", to = "back", use = { "key-auth" } }\n'
    config = config.replace("route = ctx.route.name }", 'route = ctx.req.headers["X_Consumer_ID"] or ctx.req.headers["X-Consumer-ID"] or "none" }')
    with Gateway(config, plugins={"key-auth": (Gateway.__init__.__globals__["ROOT"] / "plugins/key-auth.lua").read_text()}) as gw:
        assert json.loads(get(gw, "/own/x", X0Consumer0ID="root").text)["route"] == "none"
        assert json.loads(gw.request("/own/x", headers={"X-Consumer-ID": "root", "X-Consumer_ID": "root"}).text)["route"] == "none"


# ---- paths

@pytest.mark.parametrize("path", ["/a%2Fb", "/a%5cb", "/own/a%2fb", "/%ff", "/own/%e4%b8", "/nowhere%2f"])
def test_doubtful_paths_are_refused(path):
    with gateway() as gw:
        assert get(gw, path).status == 400
        assert b"HTTP/1.1 200" in gw.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /own/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()), \
            "the request is refused, not the connection"


def test_a_route_may_let_doubtful_paths_through():
    with gateway() as gw:
        got = json.loads(get(gw, "/keep/a%2fb%5C%ff").text)
        assert got["raw"] == "/keep/a%2Fb%5C%FF" and got["path"] == "/keep/a%2Fb%5C?"


@pytest.mark.parametrize("path", ["/keep/%00", "/keep/%c0%af", "/keep/%0a", "/keep/%zz", "/keep/..;/x", "/keep/%2e%2e;/x"])
def test_no_route_lets_these_through(path):
    with gateway() as gw:
        assert get(gw, path).status == 400


def test_slashes_are_merged_unless_they_are_kept():
    with gateway() as gw:
        assert json.loads(get(gw, "/own//a///b").text)["path"] == "/own/a/b"
    with gateway("merge_slashes = false") as gw:
        assert json.loads(get(gw, "/own//a///b").text)["path"] == "/own//a///b"
        assert b'"path":"\\/\\/own\\/a"' not in gw.raw(b"GET //own/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "another route"


def test_parameters_pass_no_rule_by():
    with gateway() as gw:
        got = json.loads(get(gw, "/own;x=1/a;y").text)
        assert got["route"] == "own" and got["path"] == "/own/a" and got["raw"] == "/own;x=1/a;y"
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", "").replace("@GLOBAL@", "") + 'route "p" { path = "/a;b", to = "back" }\n')
        refused = gw.command("reload")
        assert refused.returncode == 1 and "without ;parameters" in refused.stderr


# ---- what Lua sets

def test_what_may_not_stand_in_a_head_cannot_be_set():
    bad = ["a\\r\\nb", "a\\nb", "a\\0b", "a\\rb", " a", "a\\127"]
    values = ", ".join(f'"{value}"' for value in bad)
    config = CONFIG.replace("@OPTIONS@", "").replace("@GLOBAL@", "") + """
route "set" { listen = "front", path = "/set", handler = function(ctx)
  local raised = {}
  local function try(name, f) raised[name] = select(2, pcall(f)) ~= nil and not pcall(f) end
  for i, bad in ipairs { @VALUES@ } do
    try("header" .. i, function() ctx.req.headers["X-A"] = bad end)
    try("name" .. i, function() ctx.req.headers[bad] = "x" end)
    try("add" .. i, function() ctx.req:add_header("X-A", bad) end)
    try("method" .. i, function() ctx.req.method = bad end)
    try("path" .. i, function() ctx.req.path = "/" .. bad end)
    try("query" .. i, function() ctx.req.raw_query = bad end)
    try("host" .. i, function() ctx.req.host = bad end)
    try("redirect" .. i, function() error(tg.redirect("/" .. bad)) end)
  end
  for _, name in ipairs { "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Host", "TE", "Trailer", "Expect" } do
    try(name, function() ctx.req.headers[name] = "x" end)
  end
  for _, to in ipairs { "//evil", "/\\\\evil", "https://evil/", "javascript:x", "", "https://a@evil/" } do
    try("to " .. to, function() error(tg.redirect(to, { hosts = { "good" } })) end)
  end
  local failed = {}
  for name, ok in pairs(raised) do if not ok then failed[#failed + 1] = name end end
  return tg.respond(200, { failed = tg.json.array(failed) })
end }
route "cut" { listen = "front", path = "/cut/{n}", handler = function(ctx)
  local bad = ({ @VALUES@ })[tonumber(ctx.req.params.n)]
  return tg.respond(200, "x", ctx.req.query.list and { ["X-A"] = { "fine", bad } } or { ["X-A"] = bad })
end }
route "go" { listen = "front", path = "/go", handler = function(ctx) return tg.redirect(ctx.req.query.to, { hosts = { "good.example" } }) end }
"""
    with Gateway(config.replace("@VALUES@", values)) as gw:
        assert json.loads(get(gw, "/set").text) == {"failed": []}
        for n in range(1, len(bad) + 1):
            for path in (f"/cut/{n}", f"/cut/{n}?list=1"):
                answer = get(gw, path)
                assert answer.status == 500 and "X-A" not in answer.headers
        gw.wait_for("response header X-A")
        assert get(gw, "/go?to=/x").headers["Location"] == "/x"
        assert get(gw, "/go?to=https://good.example/x").status == 302
        assert get(gw, "/go?to=https://evil.example/").status == 500


HOARD = """
local hoarded = {}
route "hoard" { listen = "front", path = "/hoard/{n}", handler = function(ctx)
  for _ = 1, tonumber(ctx.req.params.n) do hoarded[#hoarded + 1] = ("x"):rep(1024 * 1024) .. #hoarded end
  return tg.respond(200)
end }
route "endless" { listen = "front", path = "/endless", handler = function()
  local list = {}
  while true do list[#list + 1] = ("x"):rep(100000) .. #list end
end }
route "litter" { listen = "front", path = "/litter", handler = function()
  for i = 1, 20 do local _ = ("x"):rep(1024 * 1024) .. i end
  return tg.respond(200)
end }
"""


def test_a_plugin_that_takes_memory_without_end_is_stopped():
    config = CONFIG.replace("@OPTIONS@", "").replace("@GLOBAL@", 'limits { lua_memory = "32MiB" }') + HOARD
    with Gateway(config, binary=RELEASE) as gw:
        for _ in range(3):
            assert get(gw, "/endless").status == 500
            assert get(gw, "/own/x").status == 200
        gw.wait_for("not enough memory", count=3)
        for _ in range(20):
            assert get(gw, "/litter").status == 200, "garbage is no hoard"
        assert len(gw.workers()) == 1 and "is replaced" not in gw.log()


def test_a_worker_whose_lua_does_not_shrink_is_replaced():
    config = CONFIG.replace("@OPTIONS@", "").replace("@GLOBAL@", 'limits { lua_memory = "32MiB" }') + HOARD
    with Gateway(config, binary=RELEASE) as gw:
        worker = gw.workers()[0]
        assert get(gw, "/hoard/40").status == 200
        gw.wait_for("more than lua_memory")
        answer = get(gw, "/own/x")
        assert answer.status == 503 and answer.headers["Retry-After"] == "1"
        gw.wait_for("this worker is replaced", seconds=12)
        for _ in range(100):
            if gw.workers() and gw.workers()[0] != worker and get(gw, "/own/x").status == 200:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(gw.log())
        gw.log_path.write_text(gw.log().replace("[warn]", "[expected]"))
