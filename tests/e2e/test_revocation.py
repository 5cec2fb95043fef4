"""revocation: what is put into a real Redis denies within a second, in all workers of all gateways, whatever becomes of connections and messages;
a Redis that dies or freezes denies, too."""
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time

import jwt
import pytest
from gateway import Gateway, free_port
from redis_servers import Redis, redis_word

SECRET = "s" * 32
TEXT = """listen { port = @PORT@ }
admin { socket = "@DIR@/admin.sock" }
consumer "ann" { credentials = { key = { { key = "a", id = "laptop" }, { key = "b", id = "phone" } } } }
route "key" { path = "/key", use = { "key-auth", { "revocation", redis = "main", timeout = "200ms" } }, handler = function() return tg.respond(200) end }
route "token" { path = "/token", use = { { "jwt", alg = "HS256", secret = "%s" }, { "revocation", redis = "main", timeout = "200ms" } },
  handler = function() return tg.respond(200) end }
route "open" { path = "/open", use = { "key-auth", { "revocation", redis = "main", timeout = "200ms", on_down = "allow" } },
  handler = function() return tg.respond(200) end }
""" % SECRET
TROUBLE = "revocation|redis|Redis|revoked"


def key(gw, value, path="/key"):
    return gw.request(path, headers={"X-Api-Key": value}).status


def token(jti):
    return jwt.encode({"sub": "bob", "jti": jti, "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")


def bearer(gw, jti):
    return gw.request("/token", headers={"Authorization": "Bearer " + token(jti)}).status


def revoke(redis, name, expires=0, log=True, tell=True):
    words = [f"ZADD revoked:ids {expires} {name}"]
    words += [f"XADD revoked:log MAXLEN ~ 10000 * id {name}"] if log else []
    words += [f"PUBLISH revoked:changed {name}"] if tell else []
    redis.cli("eval", "".join("redis.call(%s)" % ", ".join(repr(part) for part in word.split()) for word in words), "0")


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def asked(redis):
    """Commands that ask for a name, or change something, since the server has begun."""
    found = re.search(r"cmdstat_zscore:calls=(\d+)", redis.cli("info", "commandstats"))
    return int(found.group(1)) if found else 0


def ready(gw, workers):
    """All workers have read the set."""
    gw.wait_for("what is revoked was read", count=workers)


def in_all_workers(gw, value, status, path="/key", times=8):
    return {key(gw, value, path) for _ in range(times)} == {status}


def test_what_is_revoked_is_denied_within_a_second_by_all_gateways_and_nobody_else_costs_a_command():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, workers=2) as one, Gateway(redis_word("main", redis) + TEXT, workers=2) as two:
        for gw in (one, two):
            ready(gw, 2)
            for _ in range(8):
                assert key(gw, "a") == key(gw, "b") == bearer(gw, "t1") == bearer(gw, "t2") == 200
        before = asked(redis)
        for gw in (one, two):
            for _ in range(20):
                assert key(gw, "a") == bearer(gw, "t1") == 200
        assert asked(redis) == before
        revoke(redis, "credential:laptop")
        revoke(redis, "token:t1", int(time.time()) + 600)
        time.sleep(1)
        for gw in (one, two):
            for _ in range(8):
                assert key(gw, "a") == bearer(gw, "t1") == 401 and key(gw, "b") == bearer(gw, "t2") == 200
        revoke(redis, "consumer:ann")
        redis.cli("zrem", "revoked:ids", "token:t1")
        time.sleep(1.1)
        for gw in (one, two):
            for _ in range(8):
                assert key(gw, "b") == 401 and bearer(gw, "t1") == 200
        revoke(redis, "token:t1")
        time.sleep(1)
        assert {bearer(gw, "t1") for gw in (one, two) for _ in range(8)} == {401}


def test_a_message_is_heard_at_once_and_one_that_is_lost_costs_half_a_second():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT.replace('redis = "main"', 'redis = "main", lag = "10s"'), workers=2) as gw:
        ready(gw, 2)
        revoke(redis, "credential:laptop")
        time.sleep(0.5)
        assert in_all_workers(gw, "a", 401) and in_all_workers(gw, "b", 200)
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, workers=2) as gw:
        ready(gw, 2)
        revoke(redis, "credential:laptop", tell=False)
        time.sleep(1)
        assert in_all_workers(gw, "a", 401) and in_all_workers(gw, "b", 200)


def test_a_set_that_changes_without_its_log_and_a_log_that_is_gone_are_read_anew():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT) as gw:
        ready(gw, 1)
        revoke(redis, "credential:laptop", log=False, tell=False)
        wait_until(lambda: key(gw, "a") == 401, 8)
        gw.wait_for("it has grown by more than its log tells")
        revoke(redis, "token:t0")
        time.sleep(0.7)
        redis.cli("del", "revoked:log")
        redis.cli("zadd", "revoked:ids", "0", "credential:phone")
        redis.cli("zrem", "revoked:ids", "token:t0")  # so that the number says nothing
        wait_until(lambda: key(gw, "b") == 401, 3)
        gw.wait_for("its log does not go back to what was read last")


def test_more_than_a_thousand_at_once_are_all_heard_of():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT) as gw:
        ready(gw, 1)
        revoke(redis, "token:t0")
        time.sleep(0.7)
        redis.cli("eval", "for i = 1, 3500 do redis.call('ZADD', 'revoked:ids', 0, 'token:m' .. i) "
                          "redis.call('XADD', 'revoked:log', '*', 'id', 'token:m' .. i) end", "0")
        time.sleep(1)
        assert {bearer(gw, f"m{i}") for i in (1, 999, 1000, 1001, 2000, 3499, 3500)} == {401} and bearer(gw, "m3501") == 200


@pytest.mark.parametrize("how", ["freeze", "stop"])
def test_a_redis_that_is_away_denies_in_time_and_is_followed_again(how):
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, warns=TROUBLE) as gw:
        ready(gw, 1)
        revoke(redis, "credential:phone")
        wait_until(lambda: key(gw, "b") == 401)
        assert key(gw, "a") == 200
        getattr(redis, how)()
        time.sleep(1.2)
        for _ in range(3):
            start = time.monotonic()
            assert key(gw, "a") == 503 and key(gw, "a", "/open") == 200
            assert time.monotonic() - start < 1
        assert gw.log().count("what is revoked is not followed") == 1
        if how == "freeze":
            redis.thaw()
        else:
            redis.start()
            revoke(redis, "credential:phone")
        wait_until(lambda: key(gw, "a") == 200 and key(gw, "b") == 401, 10)
        gw.wait_for("what is revoked is followed again")
        revoke(redis, "credential:laptop")
        wait_until(lambda: key(gw, "a") == 401, 1)


class Wire:
    """Between a gateway and Redis. One that is cut keeps all its connections open, and nothing goes through them any more."""

    def __init__(self, port):
        self.port, self.address = port, f"127.0.0.1:{free_port()}"
        self.cut, self.pairs, self.over = set(), [], False
        self.server = socket.create_server(("127.0.0.1", int(self.address.split(":")[1])))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self.pairs.append((client, server))
                threading.Thread(target=self.carry, args=(client, server), daemon=True).start()

    def carry(self, client, server):
        other = {client: server, server: client}
        with contextlib.suppress(OSError):
            while not self.over:
                ready_ones, _, _ = select.select([client, server], [], [], 0.05)
                for one in ready_ones:
                    if client in self.cut:
                        time.sleep(0.01)
                        continue
                    data = one.recv(65536)
                    if not data:
                        other[one].shutdown(socket.SHUT_WR)
                        return
                    other[one].sendall(data)

    def cut_all(self):
        self.cut.update(client for client, _ in self.pairs)

    def close(self):
        self.over = True
        self.server.close()


def test_connections_that_are_dead_without_a_word_deny_or_are_replaced():
    with Redis() as redis:
        wire = Wire(redis.port)
        with Gateway(f'redis "main" {{ address = "{wire.address}" }}\n' + TEXT, warns=TROUBLE) as gw:
            ready(gw, 1)
            assert key(gw, "a") == key(gw, "b") == 200
            wire.cut_all()
            revoke(redis, "credential:laptop")
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                key(gw, "a")
                time.sleep(0.05)
            assert key(gw, "a") in (401, 503)  # never let in from now on
            wait_until(lambda: key(gw, "b") == 200 and key(gw, "a") == 401, 10)
        wire.close()


def test_workers_that_die_and_reloads_forget_nothing():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, workers=2, warns="worker") as gw:
        ready(gw, 2)
        revoke(redis, "credential:laptop")
        wait_until(lambda: in_all_workers(gw, "a", 401))
        os.kill(gw.workers()[0], signal.SIGKILL)
        seen = set()
        for _ in range(100):
            with contextlib.suppress(OSError):
                seen.add(key(gw, "a"))
        assert seen == {401}
        gw.write("gateway.lua", redis_word("main", redis) + TEXT + 'log { level = "debug" }\n')
        done = threading.Event()

        def ask():
            while not done.is_set():
                with contextlib.suppress(OSError):
                    seen.add(key(gw, "a"))
        asking = threading.Thread(target=ask)
        asking.start()
        before = gw.log().count("what is revoked was read")
        assert gw.command("reload").returncode == 0
        time.sleep(0.5)
        done.set()
        asking.join()
        assert seen == {401} and in_all_workers(gw, "b", 200)
        assert gw.log().count("what is revoked was read") == before  # a generation goes on with what the one before has got
        revoke(redis, "credential:phone")
        wait_until(lambda: in_all_workers(gw, "b", 401), 1)
        gw.write("gateway.lua", redis_word("main", redis, "db = 1") + TEXT)
        assert gw.command("reload").returncode == 0
        wait_until(lambda: in_all_workers(gw, "a", 200))  # that is another list
        assert gw.log().count("what is revoked was read") == before + 2


def test_what_has_expired_leaves_the_set_by_the_clock_of_the_server():
    with Redis() as redis:
        now = int(time.time())
        for name, score in (("token:old", now - 700), ("token:late", now - 100), ("token:new", now + 100), ("token:ever", 0), ("token:before", -5)):
            redis.cli("zadd", "revoked:ids", score, name)
        with Gateway(redis_word("main", redis) + TEXT) as gw:
            wait_until(lambda: redis.cli("zscore", "revoked:ids", "token:old") == "")
            assert redis.cli("zcard", "revoked:ids") == "4"
            wait_until(lambda: bearer(gw, "old") == 200)
            assert {bearer(gw, name) for name in ("late", "new", "ever", "before")} == {401}


def test_lists_of_the_configuration_and_of_a_file_that_is_followed():
    text = """listen { port = @PORT@ }
consumer "ann" { credentials = { key = { { key = "a", id = "laptop" }, { key = "b", id = "phone" } } } }
route "one" { path = "/one", use = { "key-auth", { "revocation", ids = { "credential:laptop" }, file = "gone.txt" } },
  handler = function() return tg.respond(200) end }
route "two" { path = "/two", use = { "key-auth", { "revocation", file = "gone.txt" } }, handler = function() return tg.respond(200) end }
"""
    with Gateway(text, workers=2, files={"gone.txt": "# nobody\n\n"}, warns="reload refused") as gw:
        assert in_all_workers(gw, "a", 401, "/one") and in_all_workers(gw, "a", 200, "/two") and in_all_workers(gw, "b", 200, "/one")
        gw.write("gone.txt", "token:x y\r\n  credential:phone  \n")
        gw.wait_for("is live", count=2)
        assert in_all_workers(gw, "b", 401, "/one") and in_all_workers(gw, "b", 401, "/two") and in_all_workers(gw, "a", 200, "/two")
        gw.write("gone.txt", "credential:phone\nphone\n")
        gw.wait_for("reload refused")
        assert re.search(r'file, line 2\n\s+found +"phone"\n\s+expected +token:ID', gw.log())
        assert in_all_workers(gw, "b", 401, "/two")


def test_operators_revoke_and_restore():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, workers=2) as gw:
        ready(gw, 2)

        def ask(method, name, body=None, status="200"):
            ran = gw_curl(gw, method, name, body)
            assert ran[0] == status, ran
            return json.loads(ran[1])
        assert ask("GET", "credential:laptop")["revoked"] is False
        later = int(time.time()) + 500
        assert ask("PUT", "credential:laptop", {"expires": later})["revoked"] is True
        time.sleep(1)
        assert in_all_workers(gw, "a", 401) and in_all_workers(gw, "b", 200)
        assert ask("GET", "credential:laptop")["expires"] == later
        assert ask("DELETE", "credential:laptop")["revoked"] is False
        wait_until(lambda: in_all_workers(gw, "a", 200))
        assert "token:ID" in ask("PUT", "laptop", {}, "400")["detail"]
        ask("PUT", "token:1", {"expires": -1}, "400")


def gw_curl(gw, method, name, body):
    ran = subprocess.run(["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(gw.folder / "admin.sock"), "-X", method, "-H",
                          "Content-Type: application/json", *(["-d", json.dumps(body)] if body is not None else []),
                          "http://localhost/plugins/revocation/revoked/" + name], capture_output=True, text=True, timeout=20)
    text, status = ran.stdout.rsplit("\n", 1)
    return status, text
