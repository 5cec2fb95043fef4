"""Consumers in a file that is followed, and in a real Redis: what changes there is so within a second; what is wrong or away denies."""
import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import time

from gateway import BINARY, Gateway
from redis_servers import Redis, redis_word

ROUTE = """route "in" { path = "/in", use = { "key-auth", { "acl", allow = { "gold", "silver" } } }, handler = function(ctx)
  return tg.respond(200, { ctx.consumer.id, ctx.consumer.plan or "", ctx.credential.id or "", ctx.consumer.meta.team or "" }) end }
route "basic" { path = "/basic", use = { { "basic-auth", attempts = 1000 } }, handler = function(ctx) return tg.respond(200, ctx.consumer.id) end }
"""
FILE = 'listen { port = @PORT@ }\nconsumers { file = "consumers.json" }\n' + ROUTE
ANN = {"groups": ["gold"], "plan": "large", "meta": {"team": "a"}, "credentials": {"key": [{"key": "k1", "id": "laptop"}]}}


def get(gw, key, path="/in"):
    return gw.request(path, headers={"X-Api-Key": key})


def basic(gw, user, password):
    return gw.request("/basic", headers={"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}).status


def wait_until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_file_of_consumers_is_followed_without_watch():
    with Gateway(FILE, workers=2, files={"consumers.json": json.dumps({"ann": ANN})}, warns="reload refused") as gw:
        assert json.loads(get(gw, "k1").text) == ["ann", "large", "laptop", "a"] and get(gw, "k2").status == 401
        gw.write("consumers.json", json.dumps({"ann": ANN, "bob": {"groups": ["tin"], "credentials": {"key": "k2"}}}))
        wait_until(lambda: get(gw, "k2").status == 403)
        for text, said in (("{", r"consumers\.json:1"), ('{"ann": 1}', r'consumers\.json  consumer "ann"'),
                           ("[1]", r"expected  an object of names"), ('{"bob": {"plam": "x"}}', r'plam\n.*did you mean "plan"'),
                           ('{"a": {"credentials": {"key": "k"}}, "b": {"credentials": {"key": "k"}}}', "have the same key")):
            before = gw.log().count("reload refused")
            gw.write("consumers.json", text)
            gw.wait_for("reload refused", count=before + 1)
            assert re.search(said, gw.log().rsplit("reload refused", 1)[1]), gw.log()
            assert get(gw, "k1").status == 200 and get(gw, "k2").status == 403
        os.remove(gw.folder / "consumers.json")
        gw.wait_for("which cannot be read")
        assert get(gw, "k1").status == 200
        gw.write("consumers.json", json.dumps({"bob": {"groups": ["gold"], "credentials": {"key": "k2"}}}))
        wait_until(lambda: get(gw, "k1").status == 401 and get(gw, "k2").status == 200)
        gw.write("gateway.lua", "broken")  # only what is said to be live is
        time.sleep(0.2)
        assert "broken" not in gw.log()


def test_who_asks_for_a_reload_hears_that_a_file_that_is_followed_was_faster():
    with Gateway(FILE, files={"consumers.json": json.dumps({"ann": ANN})}) as gw:
        assert gw.command("reload").stdout.endswith("nothing has changed\n")
        gw.write("consumers.json", json.dumps({"bob": ANN}))
        gw.wait_for("is live", count=2)
        assert re.search(r"nothing has changed since it became so \d+ s ago \(changed consumers.json\)\n$", gw.command("reload").stdout)
        assert json.loads(get(gw, "k1").text)[0] == "bob"
        assert re.search(r"  a file that was saved  changed consumers.json  \(live\)", gw.command("history").stdout)


def test_what_is_no_source_of_consumers_is_told(tmp_path):
    for text, said in (("consumers {}", "both or neither"), ('consumers { file = "none.json" }', "none.json, which cannot be read"),
                       ('consumers { redis = "none" }', "the name of a declared redis")):
        (tmp_path / "gateway.lua").write_text("listen { port = 1 }\n" + text + "\n")
        ran = subprocess.run([BINARY, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=20)
        assert ran.returncode == 1 and said in ran.stderr and "gateway.lua:2" in ran.stderr, ran.stderr


STORED = 'listen { port = @PORT@ }\nconsumers { redis = "main", ttl = "%s", negative = "%s", timeout = "200ms" }\n' + ROUTE


def put(redis, name, value):
    redis.cli("set", "tidegate:" + name, json.dumps(value))


def add(redis, consumer, key, **fields):
    put(redis, "consumer:" + consumer, {"groups": ["gold"], "plan": "large", "meta": {"team": "a"}})
    put(redis, "credential:key:" + hashlib.sha256(key.encode()).hexdigest(), {"consumer": consumer, "id": "laptop", **fields})


def test_consumers_in_redis_are_found_and_revoked_within_a_second():
    with Redis() as redis, Gateway(redis_word("main", redis) + STORED % ("60s", "60s"), workers=2, warns="looked up") as gw:
        add(redis, "ann", "k1")
        add(redis, "bob", "k2")
        add(redis, "old", "k3", expires="2020-01-31")
        add(redis, "off", "k4", disabled=True)
        for _ in range(8):
            assert json.loads(get(gw, "k1").text) == ["ann", "large", "laptop", "a"] and get(gw, "k2").status == 200
            assert {get(gw, key).status for key in ("k3", "k4", "k5", "k" * 8000)} == {401}
        digest = hashlib.sha256(b"k1").hexdigest()
        assert get(gw, digest).status == get(gw, "sha256:" + digest).status == 401
        asked = int(re.search(r"cmdstat_get:calls=(\d+)", redis.cli("info", "commandstats")).group(1))
        for _ in range(20):
            assert get(gw, "k1").status == 200 and get(gw, "k5").status == 401
        assert int(re.search(r"cmdstat_get:calls=(\d+)", redis.cli("info", "commandstats")).group(1)) == asked
        redis.cli("del", "tidegate:credential:key:" + digest)
        add(redis, "eve", "k5")
        redis.cli("publish", "tidegate:changed", "ann")
        time.sleep(1)
        for _ in range(8):
            assert get(gw, "k1").status == 401 and get(gw, "k2").status == get(gw, "k5").status == 200
        put(redis, "consumer:bob", {"groups": ["tin"]})
        redis.cli("publish", "tidegate:changed", "*")
        time.sleep(1)
        assert {get(gw, "k2").status for _ in range(8)} == {403}
        put(redis, "consumer:bob", {"groups": "gold"})
        redis.cli("publish", "tidegate:changed", "bob")
        wait_until(lambda: get(gw, "k2").status == 503)
        put(redis, "credential:basic:ann", {"consumer": "ann", "password": "right"})
        assert (basic(gw, "ann", "right"), basic(gw, "ann", "wrong"), basic(gw, "bob", "right")) == (200, 401, 401)


def test_a_redis_that_is_away_denies_whom_nobody_knows_and_lets_the_known_go_on():
    with Redis() as redis, Gateway(redis_word("main", redis) + STORED % ("2s", "1s"), warns="looked up|redis") as gw:
        add(redis, "ann", "k1")
        add(redis, "bob", "k2")
        assert get(gw, "k1").status == 200
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            known = time.monotonic()
            start = time.monotonic()
            assert get(gw, "k2").status == 503 and time.monotonic() - start < 1
            assert get(gw, "k1").status == 200
            wait_until(lambda: get(gw, "k1").status == 503)
            assert time.monotonic() - known < 4
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        wait_until(lambda: get(gw, "k1").status == get(gw, "k2").status == 200, 10)


def test_what_changed_while_the_subscription_was_away_is_asked_again():
    with Redis() as redis, Gateway(redis_word("main", redis) + STORED % ("1h", "60s"), warns="looked up|redis") as gw:
        add(redis, "ann", "k1")
        assert get(gw, "k1").status == 200
        redis.cli("del", "tidegate:consumer:ann")
        redis.cli("client", "kill", "type", "pubsub")
        wait_until(lambda: get(gw, "k1").status == 401)
