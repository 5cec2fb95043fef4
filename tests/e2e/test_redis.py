"""tg.redis against real Redis servers: one, a cluster, and one behind a sentinel; alive, dead, frozen, and changing."""
import concurrent.futures
import json
import os
import socket
import time

import pytest
from authority import Authority
from gateway import Gateway, free_port
from redis_servers import Redis, redis_word

HEAD = 'api = 1\nlisten { address = "127.0.0.1", port = @PORT@ }\n'


def route(name, body):
    return f'route "{name}" {{ path = "/{name}", handler = function(ctx)\n  local db = tg.redis "main"\n  {body}\nend }}\n'


CASES = {
    "types": """db:set("k", "v") db:hset("h", "a", 1, "b", "two") db:rpush("l", "x", "y")
      return tg.respond(200, { db:set("k", "v"), db:get "k", tostring(db:get "none"), db:incr "n", db:hgetall "h", db:hgetall "none", db:lrange("l", 0, -1),
        db:mget("k", "none"), db:exists "k", db:call("OBJECT", "ENCODING", "n"), db["type"](db, "k") })""",
    "integers": """db:set("big", "9007199254740992") local exact = db:incrby("big", 0) local text = db:incr "big"
      db:set("f", 0) return tg.respond(200, { exact == 2 ^ 53, type(exact), text, db:set("n", 2 ^ 53), db:get "n", db:set("n", 0.1), db:get "n", db:set("n", -7), db:get "n",
        db:incrbyfloat("f", 1e21), db:call("GETRANGE", "n", 0, -1) })""",
    "binary": """local bytes = "a\\0b\\r\\n$5\\r\\n\\255" db:set(bytes, bytes) return tg.respond(200, { db:get(bytes) == bytes, db:strlen(bytes), db:set("e", ""), db:get "e" })""",
    "many": """local words = {} for i = 1, 3000 do words[i] = "k" .. i % 100 end local list = db:mget(unpack(words)) return tg.respond(200, { #list, list[1] == tg.null })""",
    "errors": """db:set("s", "x") local v, err = db:lpush("s", 1) return tg.respond(200, { tostring(v), err.code, err.kind, err.status, tostring(err) })""",
    "uncaught": """db:set("s", "x") assert(db:lpush("s", 1))""",
    "pipeline": """local list = assert(db:pipeline(function(p) p:set("a", 1) p:incr "a" p:get "none" p:lpush("a", 1) p:call("GET", "a") end))
      return tg.respond(200, { list[1], list[2], list[3] == tg.null, list[4].code, list[5], #db:pipeline(function() end) })""",
    "long": """local list = assert(db:with { timeout = 5 }:pipeline(function(p) for i = 1, 5000 do p:set("p" .. i % 10, i) end end))
      return tg.respond(200, { #list, list[1], list[5000], db:get "p9" })""",
    "transaction": """local list = assert(db:transaction(function(t) t:set("t", 1) t:incr "t" t:lpush("t", 1) t:get "none" end))
      local bad, err = db:transaction(function(t) t:set("t", 5) t:call("NOSUCH", "t") end)
      return tg.respond(200, { list[1], list[2], list[3].kind, list[4] == tg.null, tostring(bad), err.code, err.kind, db:get "t" })""",
    "script": """local f = db:script "return { KEYS[1], ARGV[1], ARGV[2] + 1, false, redis.status_reply('FINE') }"
      local list = assert(f({ "key" }, { "x", 41 }))
      db:call("SCRIPT", "FLUSH")
      local again = assert(f({ "key" }, { "x", 42 }))
      local _, err = db:script("return redis.error_reply('MINE of my own')")()
      return tg.respond(200, { list[1], list[2], list[3], list[4] == tg.null, list[5], again[3], err.code, err.kind })""",
    "with": """local v, err = db:with { timeout = 0.02 }:call("DEBUG", "SLEEP", "0.1")
      return tg.respond(200, { tostring(v), err and err.code or "none", tostring(db:with { timeout = 1 }:get "k") })""",
}
EXPECTED = {
    "types": ["OK", "v", "nil", 1, {"a": "1", "b": "two"}, {}, ["x", "y"], ["v", None], 1, "int", "string"],
    "integers": [True, "number", "9007199254740993", "OK", "9007199254740992", "OK", "0.1", "OK", "-7", "1000000000000000000000", "-7"],
    "binary": [True, 10, "OK", ""], "many": [3000, True],
    "errors": ["nil", "redis", "WRONGTYPE", 500, "redis main: LPUSH: WRONGTYPE Operation against a key holding the wrong kind of value"],
    "pipeline": ["OK", 2, True, "redis", "2", 0], "long": [5000, "OK", "OK", "4999"],
    "transaction": ["OK", 2, "WRONGTYPE", True, "nil", "redis", "ERR", "2"], "script": ["key", "x", 42, True, "FINE", 43, "redis", "MINE"],
    "with": ["nil", "timeout", "nil"],
}


@pytest.fixture(scope="module")
def shared():
    with Redis() as server:
        yield server


@pytest.fixture
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def gw(shared):
    with Gateway(HEAD + redis_word("main", shared) + "".join(route(name, body) for name, body in CASES.items())) as running:
        yield running


@pytest.mark.parametrize("name", EXPECTED)
def test_commands_and_their_types(gw, shared, name):
    shared.cli("flushall")
    answer = gw.request("/" + name)
    assert answer.status == 200, gw.log()[-3000:]
    assert json.loads(answer.text) == EXPECTED[name]


def test_an_uncaught_refusal_is_an_error_of_ours(gw):
    assert gw.request("/uncaught").status == 500 and "WRONGTYPE" in gw.log()


def many(gw, path, n):
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda _: gw.request(path), range(n)))


def timed(gw, path):
    began = time.monotonic()
    answer = gw.request(path)
    return time.monotonic() - began, answer.status, answer.text.decode()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.02)
    return found


ERR = 'if err then return tg.respond(err.status, { code = err.code, message = tostring(err) }) end'
GET = route("get", f'local v, err = db:get "k" {ERR} return tg.respond(200, v or "nil")')
FAILS = "has failed 5 times"


def test_commands_of_many_requests_share_few_connections(redis):
    body = "local list = {} for i = 1, 20 do list[i] = assert(db:incr 'shared') end return tg.respond(200, tostring(#list))"
    with Gateway(HEAD + redis_word("main", redis, "connections = 2, timeout = '5s'") + route("count", body)) as gw:
        assert {answer.status for answer in many(gw, "/count", 40)} == {200}
        assert redis.cli("get", "shared") == "800"
        assert 1 <= len(redis.clients()) <= 2


def test_what_blocks_has_a_connection_of_its_own_and_holds_up_nobody(redis):
    text = HEAD + redis_word("main", redis, "connections = 1, timeout = '1s'") + GET
    text += route("pop", 'local v, err = db:blpop("list", 5) return tg.respond(200, { v or tg.null, err and err.code })')
    text += route("none", 'local v, err = db:blpop("list", 0.1) return tg.respond(200, { v == nil, err and tostring(err) })')
    text += route("read", 'local v = assert(db:xread("BLOCK", 5000, "STREAMS", "s", "$")) return tg.respond(200, v)')
    text += route("forever", 'local ok, err = pcall(db.blpop, db, "list", 0) return tg.respond(200, err)')
    text += route("inside", 'local ok, err = pcall(db.pipeline, db, function(p) p:blpop("list", 1) end) return tg.respond(200, err)')
    with Gateway(text) as gw, concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(gw.request, path) for path in ("/pop", "/pop", "/read")]
        until(lambda: redis.cli("info", "clients").count("blocked_clients:3"))
        assert timed(gw, "/get")[1:] == (200, "nil")
        assert len(redis.clients()) == 4
        redis.cli("rpush", "list", "a", "b")
        redis.cli("xadd", "s", "1-1", "f", "v")
        answers = sorted(answer.result().text.decode() for answer in waiting)
        assert answers == ['[["list","a"]]', '[["list","b"]]', '[["s",[["1-1",["f","v"]]]]]']
        assert json.loads(gw.request("/none").text) == [True]
        until(lambda: len(redis.clients()) == 1)
        assert "after which it gives up" in gw.request("/forever").text.decode()
        assert "does not go into others" in gw.request("/inside").text.decode()


def test_a_client_that_goes_away_ends_its_blocking_command(redis):
    with Gateway(HEAD + redis_word("main", redis) + route("pop", 'db:blpop("list", 60) return tg.respond(200)')) as gw:
        with socket.create_connection(("127.0.0.1", gw.port)) as s:
            s.sendall(b"GET /pop HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: "blocked_clients:1" in redis.cli("info", "clients"))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: "blocked_clients:0" in redis.cli("info", "clients"))


def test_users_databases_and_sockets(tmp_path):
    path = f"/tmp/tidegate-redis-{os.getpid()}.sock"
    with Redis("--requirepass", "secret", "--unixsocket", path) as server:
        server.cli("acl", "setuser", "reader", "on", ">word", "~k*", "+@read", "+select", "+client")
        server.cli("-n", "3", "set", "k", "of three")
        server.cli("set", "k", "of zero")
        env = {"REDIS_PASSWORD": "secret", "READER": "word"}
        for word, expected in (('address = "@" , password = secret "env:REDIS_PASSWORD"', (200, "of zero")),
                               (f'address = "unix:{path}", password = secret "env:REDIS_PASSWORD", db = 3', (200, "of three")),
                               ('address = "@", username = "reader", password = secret "env:READER", db = 3', (200, "of three"))):
            text = HEAD + f'redis "main" {{ {word.replace("@", server.address)} }}\n' + GET
            with Gateway(text, env=env) as gw:
                assert timed(gw, "/get")[1:] == expected
        text = HEAD + f'redis "main" {{ address = "{server.address}", username = "reader", password = secret "env:READER" }}\n'
        with Gateway(text + route("set", f'local v, err = db:set("k", 1) {ERR}'), env=env) as gw:
            _, status, answer = timed(gw, "/set")
            assert status == 500 and "NOPERM" in answer


@pytest.mark.parametrize("more, expected", [("", "NOAUTH"), ('password = secret "env:WRONG"', "WRONGPASS"), ("db = 99", "DB index")])
def test_a_server_that_refuses_us_costs_an_error_and_no_time(more, expected):
    with Redis("--requirepass", "secret") if "db" not in more else Redis() as server:
        with Gateway(HEAD + redis_word("main", server, more) + GET, env={"WRONG": "secreT"}, warns=FAILS) as gw:
            for _ in range(8):
                seconds, status, answer = timed(gw, "/get")
                assert status in (500, 503) and expected in answer and seconds < 0.3
            assert "secreT" not in gw.log()


def test_a_dead_server_costs_no_time_and_comes_back():
    with Redis() as server, Gateway(HEAD + redis_word("main", server) + GET, warns=FAILS) as gw:
        assert timed(gw, "/get")[1] == 200
        server.stop()
        for _ in range(60):
            seconds, status, answer = timed(gw, "/get")
            assert status in (502, 503) and json.loads(answer)["code"] in ("connect", "open"), answer
            assert seconds < 0.2
            time.sleep(0.01)
        assert json.loads(answer)["code"] == "open" and "Connection refused" in answer
        server.start()
        until(lambda: timed(gw, "/get")[1] == 200)
        assert "answers again" in gw.log()


def test_a_frozen_server_costs_its_timeout_five_times_and_then_nothing():
    with Redis() as server, Gateway(HEAD + redis_word("main", server, 'timeout = "50ms"') + GET, warns=FAILS) as gw:
        assert timed(gw, "/get")[1] == 200
        server.freeze()
        first = [timed(gw, "/get") for _ in range(5)]
        assert all(0.045 < seconds < 0.15 and "no answer in time" in answer for seconds, _, answer in first), first
        later = [timed(gw, "/get") for _ in range(20)]
        assert all(seconds < 0.045 and json.loads(answer)["code"] == "open" for seconds, _, answer in later), later
        server.thaw()
        until(lambda: timed(gw, "/get")[1] == 200)


def test_many_at_once_are_answered_when_the_server_freezes():
    with Redis() as server, Gateway(HEAD + redis_word("main", server, 'timeout = "50ms"') + GET, warns=FAILS) as gw:
        assert timed(gw, "/get")[1] == 200
        server.freeze()
        began = time.monotonic()
        answers = many(gw, "/get", 64)
        assert time.monotonic() - began < 2 and {answer.status for answer in answers} <= {503, 504}
        server.thaw()
        until(lambda: timed(gw, "/get")[1] == 200)


def test_a_gateway_starts_without_its_redis_and_finds_it_later():
    server = Redis(port=free_port())
    with Gateway(HEAD + redis_word("main", server) + GET, warns=FAILS) as gw:
        assert timed(gw, "/get")[1] in (502, 503)
        with server:
            until(lambda: timed(gw, "/get")[1] == 200)


def test_a_server_that_says_no_protocol_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        def talk_nonsense():
            for _ in range(3):
                with listener.accept()[0] as s:
                    s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        pool.submit(talk_nonsense)
        word = f'redis "main" {{ address = "127.0.0.1:{listener.getsockname()[1]}" }}\n'
        with Gateway(HEAD + word + GET, warns=FAILS) as gw:
            for _ in range(3):
                _, status, answer = timed(gw, "/get")
                assert status in (502, 503) and json.loads(answer)["code"] == "connect"
                time.sleep(0.2)


def test_replies_are_bounded(redis):
    text = HEAD + redis_word("main", redis, 'timeout = "5s"') + GET
    text += route("large", f'db:setrange("large", 17 * 2 ^ 20, "x") local v, err = db:get "large" {ERR} return tg.respond(200)')
    text += route("deep", f'local v, err = db:script("local t = 1 for i = 1, 12 do t = {{ t }} end return t")() {ERR} return tg.respond(200)')
    with Gateway(text, warns=FAILS) as gw:
        for path in ("/large", "/deep"):
            _, status, answer = timed(gw, path)
            assert status in (502, 503) and json.loads(answer)["code"] == "too_large", answer
            assert until(lambda: timed(gw, "/get")[1] == 200)


def test_a_reload_goes_on_with_the_same_connections(redis):
    text = HEAD + redis_word("main", redis) + GET
    with Gateway(text) as gw:
        timed(gw, "/get")
        before = [line.split()[0] for line in redis.clients()]
        gw.write("gateway.lua", text + "-- changed\n")
        assert gw.command("reload").returncode == 0
        timed(gw, "/get")
        assert [line.split()[0] for line in redis.clients()] == before
        gw.write("gateway.lua", text.replace("\"main\" {", "\"main\" { db = 1,"))
        assert gw.command("reload").returncode == 0
        timed(gw, "/get")
        until(lambda: len(redis.clients()) == 1 and " db=1 " in redis.clients()[0])


def test_subscriptions_hear_what_is_published_also_after_the_server_was_away():
    plugin = """return { start = function() tg.redis("main"):subscribe("news", function(message, channel)
      tg.dict("heard"):set("last", channel .. ": " .. message) end) end, access = function() end }"""
    text = HEAD + 'dict "heard" {}\n' + 'use { "listener" }\n'
    text += route("last", 'return tg.respond(200, tg.dict("heard"):get "last" or "nothing")')
    with Redis() as server, Gateway(text + redis_word("main", server), plugins={"listener": plugin}, warns=FAILS) as gw:
        until(lambda: server.cli("publish", "news", "first") == "1")
        until(lambda: timed(gw, "/last")[2] == "news: first")
        server.stop()
        server.start()
        until(lambda: server.cli("publish", "news", "second") == "1")
        until(lambda: timed(gw, "/last")[2] == "news: second")
        gw.write("gateway.lua", text.replace('use { "listener" }', "") + redis_word("main", server))
        assert gw.command("reload").returncode == 0
        until(lambda: server.cli("publish", "news", "third") == "0")


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    server_cert, server_key = authority.issue("redis.test", "DNS:redis.test,IP:127.0.0.1")
    client_cert, client_key = authority.issue("gateway", "DNS:gateway")
    with Redis("--requirepass", "secret", tls=(authority.cert, server_cert, server_key)) as server:
        yield server, authority, client_cert, client_key


def tls_word(server, tls):
    return f'redis "main" {{ address = "{server.address}", password = secret "env:REDIS_PASSWORD", timeout = "2s", tls = {tls} }}\n'


def test_tls_with_verification_and_a_certificate_of_our_own(secured):
    server, authority, cert, key = secured
    own = f'ca = "{authority.cert}", cert = "{cert}", key = secret "file:{key}"'
    many_ = route("many", """local list = assert(db:pipeline(function(p) for i = 1, 500 do p:set("t" .. i, ("x"):rep(2000)) p:get("t" .. i) end end))
      return tg.respond(200, tostring(#list[1000]))""")
    for tls in (f"{{ {own} }}", f'{{ {own}, name = "redis.test", min_version = "1.3" }}'):
        with Gateway(HEAD + tls_word(server, tls) + GET + many_, env={"REDIS_PASSWORD": "secret"}) as gw:
            server.cli("set", "k", "over TLS")
            assert timed(gw, "/get")[1:] == (200, "over TLS")
            assert {answer.text for answer in many(gw, "/many", 8)} == {b"2000"}


@pytest.mark.parametrize("tls, why", [
    ("true", "certificate"), ('{ OWN, name = "other.test" }', "mismatch"), ("{ ca = CA }", ""),
    ('{ OWN, pins = { "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" } }', "pinned"),
])
def test_who_is_not_trusted_gets_no_password(secured, tls, why):
    server, authority, cert, key = secured
    tls = tls.replace("OWN", f'ca = CA, cert = "{cert}", key = secret "file:{key}"').replace("CA", f'"{authority.cert}"')
    with Gateway(HEAD + tls_word(server, tls) + GET, env={"REDIS_PASSWORD": "secret"}, warns=FAILS) as gw:
        seconds, status, answer = timed(gw, "/get")
        assert status in (502, 503) and json.loads(answer)["code"] == "connect" and why in answer and seconds < 1, answer


def test_plain_text_where_tls_is_spoken_is_an_error(secured):
    server = secured[0]
    with Gateway(HEAD + redis_word("main", server) + GET, warns=FAILS) as gw:
        assert timed(gw, "/get")[1] in (502, 503)
