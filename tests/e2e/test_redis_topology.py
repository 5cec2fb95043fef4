"""tg.redis and limits with a cluster and with sentinels: keys on many servers, slots that move, masters that die."""
import collections
import concurrent.futures
import contextlib
import json
import re
import threading
import time

import pytest
from gateway import Gateway
from redis_servers import Cluster, Sentinels

HEAD = 'api = 1\nlisten { address = "127.0.0.1", port = @PORT@ }\n'
WARNS = "has failed 5 times|cannot be counted in redis|CLUSTER SLOTS"
ERR = 'if err then return tg.respond(err.status, { code = err.code, kind = err.kind, message = tostring(err) }) end'


def route(name, body):
    return f'route "{name}" {{ path = "/{name}", handler = function(ctx)\n  local db = tg.redis "main"\n  {body}\nend }}\n'


ROUTES = route("set", f'local v, err = db:set(ctx.req.query.k, ctx.req.query.v) {ERR} return tg.respond(200, v)')
ROUTES += route("get", f'local v, err = db:get(ctx.req.query.k) {ERR} return tg.respond(200, v or "nil")')


def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.05)
    return found


def status(gw, path):
    began = time.monotonic()
    answer = gw.request(path)
    assert time.monotonic() - began < 2
    return answer.status


def storm(gateways, path, n, clients=32):
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return collections.Counter(pool.map(lambda i: gateways[i % len(gateways)].request(path).status, range(n)))


LIMITED = """route "limit" { path = "/limit", handler = function() return tg.respond(200) end,
  use = { { "rate-limit", limit = 1000000, store = "redis:main", timeout = "50ms", key = "${query.k}" } } }\n"""


@contextlib.contextmanager
def hammered(gw):
    """All the time a limit is asked for, by many keys: it always answers, and never waits much longer than it may."""
    found, over = [], threading.Event()

    def ask():
        n = 0
        while not over.is_set():
            n += 1
            began = time.monotonic()
            found.append((gw.request(f"/limit?k={n % 200}").status, time.monotonic() - began))
            time.sleep(0.005)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in found} == {200} and len(found) > 100
    assert max(seconds for _, seconds in found) < 0.25, sorted(found, key=lambda one: -one[1])[:5]


# ---------------------------------------------------------------- cluster


@pytest.fixture(scope="module")
def cluster():
    with Cluster(3, replicas=1) as servers:
        yield servers


def cluster_word(servers, more=""):
    """One seed is enough."""
    return f'redis "main" {{ mode = "cluster", nodes = {{ "{servers.servers[1].address}" }}, timeout = "500ms", {more} }}\n'


def test_keys_are_found_wherever_they_are(cluster):
    text = HEAD + cluster_word(cluster) + ROUTES
    text += route("many", """local list = assert(db:pipeline(function(p) for i = 1, 300 do p:set("many" .. i, i) p:get("many" .. i) end end))
      local sum = 0 for i = 2, 600, 2 do sum = sum + tonumber(list[i]) end return tg.respond(200, { #list, sum })""")
    text += route("one-slot", """local list = assert(db:transaction(function(t) t:set("{a}1", "x") t:append("{a}1", "y") t:get("{a}1") end))
      local both = assert(db:script("return { KEYS[1], redis.call('GET', KEYS[2]) }")({ "{a}2", "{a}1" }))
      return tg.respond(200, { list[3], both })""")
    text += route("two-slots", """local _, err = db:mget("a", "b") local ok1, misuse = pcall(db:script "return 1", { "a", "b" })
      local ok2, other = pcall(db.transaction, db, function(t) t:set("a", 1) t:set("b", 1) end)
      return tg.respond(200, { err.kind, ok1, misuse:match "different slots" or misuse, ok2, other:match "different slots" or other })""")
    with Gateway(text) as gw:
        for i in range(100):
            assert gw.request(f"/set?k=key{i}&v=v{i}").status == 200
        for i in range(100):
            assert gw.request(f"/get?k=key{i}").text == f"v{i}".encode()
        assert json.loads(gw.request("/many").text) == [600, 300 * 301 / 2]
        assert json.loads(gw.request("/one-slot").text) == ["xy", ["{a}2", "xy"]]
        assert json.loads(gw.request("/two-slots").text) == ["CROSSSLOT", False, "different slots", False, "different slots"]


def test_a_slot_that_moves_is_followed(cluster):
    both = route("both", 'local list, err = db:mget("{move}1", "{move}2") return tg.respond(200, list or tg.json.raw(tg.json.encode(err.kind)))')
    with Gateway(HEAD + cluster_word(cluster) + ROUTES + both) as gw:
        assert gw.request("/set?k=%7Bmove%7D1&v=here").status == 200
        slot = int(cluster.servers[0].cli("cluster", "keyslot", "{move}1"))
        source = cluster.owner(slot)
        target = next(server for server in cluster.servers if server is not source and "role:master" in server.cli("info", "replication"))
        target.cli("cluster", "setslot", slot, "importing", cluster.id_of(source))
        source.cli("cluster", "setslot", slot, "migrating", cluster.id_of(target))
        assert gw.request("/get?k=%7Bmove%7D1").text == b"here"
        assert gw.request("/set?k=%7Bmove%7D2&v=there").status == 200  # ASK: it is not here yet, so it belongs there
        # TRYAGAIN: one is here, the other there. It is tried again for a while, and then an error.
        assert json.loads(gw.request("/both").text) == "TRYAGAIN"
        assert int(re.search(r"errorstat_TRYAGAIN:count=(\d+)", source.cli("info", "errorstats"))[1]) >= 3
        source.cli("migrate", "127.0.0.1", target.port, "{move}1", 0, 1000)
        assert gw.request("/get?k=%7Bmove%7D1").text == b"here" and gw.request("/get?k=%7Bmove%7D2").text == b"there"
        for server in (target, source):
            server.cli("cluster", "setslot", slot, "node", cluster.id_of(target))
        assert json.loads(gw.request("/both").text) == ["here", "there"]
        for i in (1, 2):  # MOVED, and then no more
            assert gw.request(f"/get?k=%7Bmove%7D{i}").status == 200
        moved = source.cli("info", "errorstats")
        for _ in range(5):
            assert gw.request("/get?k=%7Bmove%7D1").text == b"here"
        assert source.cli("info", "errorstats") == moved


def reads(server):
    found = re.search(r"cmdstat_get:calls=(\d+)", server.cli("info", "commandstats"))
    return int(found[1]) if found else 0


REPLICA = """return { setup = function() return tg.redis("main"):with { replica = true, timeout = 0.5 } end, handler = function(ctx, _, db)
  local v, err = db:get(ctx.req.query.k) if err then return tg.respond(err.status, tostring(err)) end
  local list = assert(db:pipeline(function(p) p:get(ctx.req.query.k) end))
  return tg.respond(200, { v, list[1], (pcall(db.transaction, db, function(t) t:get "k" end)) }) end }"""


def test_reads_go_to_replicas_when_they_are_asked_for(cluster):
    text = HEAD + cluster_word(cluster) + ROUTES + 'route "replica" { path = "/replica", handler = "replica" }\n'
    with Gateway(text, plugins={"replica": REPLICA}, warns=WARNS) as gw:
        assert gw.request("/set?k=r&v=1").status == 200
        master = cluster.owner(int(cluster.servers[0].cli("cluster", "keyslot", "r")))
        def spares_the_master():  # which is asked until a replica is known
            before = reads(master)
            return json.loads(gw.request("/replica?k=r").text) == ["1", "1", False] and reads(master) == before
        until(spares_the_master, 30)
        before = reads(master)
        for _ in range(10):
            assert gw.request("/replica?k=r").status == 200
        assert reads(master) == before
        assert gw.request("/get?k=r").text == b"1" and reads(master) == before + 1


def test_reads_go_to_the_replica_that_sentinels_know_and_to_the_master_when_it_dies():
    with Sentinels(1) as group:
        text = HEAD + sentinel_word(group) + ROUTES + 'route "replica" { path = "/replica", handler = "replica" }\n'
        with Gateway(text, plugins={"replica": REPLICA}, warns=WARNS) as gw:
            assert gw.request("/set?k=r&v=1").status == 200
            until(lambda: group.replica.cli("get", "r") == "1")
            known = reads(group.replica)  # a sentinel asks every 10 s whether a replica follows
            until(lambda: gw.request("/replica?k=r").status == 200 and reads(group.replica) > known, 30)
            before = reads(group.master)
            for _ in range(10):
                assert gw.request("/replica?k=r").status == 200
            assert reads(group.master) == before
            group.replica.stop()
            until(lambda: gw.request("/replica?k=r").status == 200)
            until(lambda: reads(group.master) > before)


def test_limits_hold_in_a_cluster(cluster):
    text = HEAD + cluster_word(cluster)
    fields = {
        "exact": 'limits = { { limit = 60, per = "1h" }, { limit = 90, per = "2h", algorithm = "fixed" } }, key = "k"',
        "keys": 'limits = { { limit = 60, per = "1h", key = "x", name = "x" }, { limit = 90, per = "1h", key = "y", name = "y" } }',
        "lease": 'limit = 60, per = "1h", algorithm = "fixed", mode = "lease"', "lease-sliding": 'limit = 60, per = "1h", mode = "lease"',
        "lease-gcra": 'limit = 60, per = "1h", algorithm = "gcra", mode = "lease"',
        "gcra": 'limit = 60, per = "1h", algorithm = "gcra"', "log": 'limit = 60, per = "1h", algorithm = "log"',
        "leaky": 'limit = 60, per = "1h", algorithm = "leaky", delay = "40s"', "places": 'limit = 5, algorithm = "concurrency"',
    }
    for name, more in fields.items():
        text += f'route "{name}" {{ path = "/{name}", use = {{ {{ "rate-limit", store = "redis:main", timeout = "2s", {more} }} }}, handler = function() return tg.respond(200) end }}\n'
    with Gateway(text, workers=2) as one, Gateway(text, workers=2) as two:
        assert storm([one, two], "/exact", 150) == {200: 60, 429: 90}
        assert storm([one, two], "/keys", 150) == {200: 60, 429: 90}
        for name in ("gcra", "log"):
            assert storm([one, two], f"/{name}", 150) == {200: 60, 429: 90}, name
        assert storm([one, two], "/leaky", 20) == {200: 1, 429: 19}, "a queue of 40 s has no place for one a minute"
        assert storm([one, two], "/places", 12, clients=1) == {200: 12}
        for name, least in (("lease", 52), ("lease-sliding", 52), ("lease-gcra", 45)):
            assert least <= storm([one, two], f"/{name}", 150)[200] <= 60, name


def test_a_master_that_dies_is_replaced_without_a_restart(cluster):
    with Gateway(HEAD + cluster_word(cluster) + ROUTES + LIMITED, warns=WARNS) as gw:
        assert gw.request("/set?k=dies&v=1").status == 200
        slot = int(cluster.servers[0].cli("cluster", "keyslot", "dies"))
        master = cluster.owner(slot)
        time.sleep(0.2)
        with hammered(gw):
            master.stop()
            assert until(lambda: status(gw, "/set?k=dies&v=2") == 200)
        assert gw.request("/get?k=dies").text == b"2"
        master.start()
        cluster.wait()
        for i in range(50):
            assert status(gw, f"/set?k=after{i}&v=x") == 200


def test_the_whole_cluster_away_is_an_error_and_comes_back():
    with Cluster(3) as servers:
        text = HEAD + cluster_word(servers) + ROUTES
        text += 'route "limit" { path = "/limit", use = { { "rate-limit", limit = 1000, store = "redis:main" } }, handler = function() return tg.respond(200) end }\n'
        with Gateway(text, warns=WARNS) as gw:
            assert gw.request("/set?k=a&v=1").status == 200
            for server in servers.servers:
                server.stop()
            for _ in range(10):
                assert status(gw, "/get?k=a") in (502, 503, 504)
                assert status(gw, "/limit") == 200
            for server in servers.servers:
                server.start()
            until(lambda: status(gw, "/set?k=a&v=3") == 200)


# ---------------------------------------------------------------- sentinels


def sentinel_word(group, more=""):
    places = ", ".join(f'"{sentinel.address}"' for sentinel in group.sentinels)
    return f'redis "main" {{ mode = "sentinel", sentinels = {{ {places} }}, master = "main", timeout = "500ms", {more} }}\n'


@pytest.mark.parametrize("how", ["killed", "frozen", "asked"])
def test_a_failover_needs_no_restart(how):
    with Sentinels(3) as group:
        with Gateway(HEAD + sentinel_word(group) + ROUTES + LIMITED, warns=WARNS) as gw:
            assert gw.request("/set?k=a&v=1").status == 200
            until(lambda: group.replica.cli("get", "a") == "1")
            with hammered(gw):
                if how == "killed":
                    group.master.stop()
                elif how == "frozen":
                    group.master.freeze()
                else:
                    until(lambda: group.sentinels[0].cli("sentinel", "failover", "main") == "OK")
                until(lambda: gw.log().count("the master is") == 2)  # what is told the old one in between is lost, as with any client
            until(lambda: status(gw, "/set?k=a&v=2") == 200)
            assert group.replica.cli("get", "a") == "2"


def test_sentinels_that_are_away_or_do_not_know_the_master():
    with Sentinels(1) as group:
        dead = 'sentinels = { "127.0.0.1:1", "' + group.sentinels[0].address + '" }'
        with Gateway(HEAD + f'redis "main" {{ mode = "sentinel", {dead}, master = "main", timeout = "2s" }}\n' + ROUTES, warns=WARNS) as gw:
            assert gw.request("/set?k=a&v=1").status == 200  # waits until the other one was asked
        with Gateway(HEAD + sentinel_word(group).replace('"main", timeout', '"other", timeout') + ROUTES, warns=WARNS) as gw:
            answer = gw.request("/get?k=a")
            assert answer.status in (502, 503) and b"no server is known yet" in answer.text
