"""revocation: what is put into a real Redis denies within a second, in all workers; a Redis that dies or freezes denies, too."""
import os
import signal
import time

import jwt
from gateway import Gateway
from redis_servers import Redis, redis_word

SECRET = "s" * 32
TEXT = """listen { port = @PORT@ }
consumer "ann" { credentials = { key = { { key = "a", id = "laptop" }, { key = "b", id = "phone" } } } }
route "key" { path = "/key", use = { "key-auth", { "revocation", redis = "main", timeout = "200ms" } }, handler = function() return tg.respond(200) end }
route "token" { path = "/token", use = { { "jwt", alg = "HS256", secret = "%s" }, { "revocation", redis = "main", timeout = "200ms" } },
  handler = function() return tg.respond(200) end }
route "open" { path = "/open", use = { "key-auth", { "revocation", redis = "main", timeout = "200ms", on_down = "allow" } },
  handler = function() return tg.respond(200) end }
""" % SECRET


def key(gw, value, path="/key"):
    return gw.request(path, headers={"X-Api-Key": value}).status


def test_what_is_revoked_is_denied_within_a_second():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, workers=2) as gw:
        token = jwt.encode({"sub": "bob", "jti": "t1", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")
        other = jwt.encode({"sub": "bob", "jti": "t2", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")

        def bearer(value):
            return gw.request("/token", headers={"Authorization": "Bearer " + value}).status
        for _ in range(8):
            assert key(gw, "a") == key(gw, "b") == bearer(token) == bearer(other) == 200
        redis.cli("set", "revoked:credential:laptop", "1")
        redis.cli("set", "revoked:token:t1", "1", "EX", "600")
        time.sleep(1.1)
        for _ in range(8):
            assert key(gw, "a") == bearer(token) == 401 and key(gw, "b") == bearer(other) == 200
        redis.cli("set", "revoked:consumer:ann", "1")
        redis.cli("del", "revoked:token:t1")
        time.sleep(1.1)
        for _ in range(8):
            assert key(gw, "b") == 401 and bearer(token) == 200


def test_a_redis_that_is_away_denies_in_time():
    with Redis() as redis, Gateway(redis_word("main", redis) + TEXT, warns="revocation|redis|Redis") as gw:
        assert key(gw, "a") == 200
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            time.sleep(1.1)
            for _ in range(3):
                start = time.monotonic()
                assert key(gw, "a") == 503 and key(gw, "a", "/open") == 200
                assert time.monotonic() - start < 1
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        end = time.monotonic() + 8
        while key(gw, "a") != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
