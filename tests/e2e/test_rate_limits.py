"""rate-limit and tg.limit: exact among workers and among gateways, and what happens when the Redis between them is away."""
import collections
import concurrent.futures
import contextlib
import json
import re
import time

import pytest
from gateway import Gateway
from redis_servers import Redis, redis_word

HEAD = 'api = 1\nlisten { address = "127.0.0.1", port = @PORT@ }\n'
DOWN = "cannot be counted in redis|has failed 5 times"


def limited(name, fields, handler='return tg.respond(200, "passed")'):
    return f'route "{name}" {{ path = "/{name}", use = {{ {{ "rate-limit", {fields} }} }}, handler = function(ctx) {handler} end }}\n'


def storm(gateways, path, n, clients=64, headers=None):
    """n requests by so many clients, among the gateways in turn: how many got which status."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        answers = pool.map(lambda i: gateways[i % len(gateways)].request(path, headers=headers).status, range(n))
        return collections.Counter(answers)


def timed(gw, path, **more):
    began = time.monotonic()
    answer = gw.request(path, **more)
    return time.monotonic() - began, answer


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.02)
    return found


ALGORITHMS = {
    "sliding": 'limit = 60, per = "1h"', "fixed": 'algorithm = "fixed", limit = 60, per = "1h"', "log": 'algorithm = "log", limit = 60, per = "1h"',
    "gcra": 'algorithm = "gcra", limit = 60, per = "1h", burst = 60', "leaky": 'algorithm = "leaky", limit = 60, per = "1h", delay = 0',
    "several": 'limits = { { limit = 60, per = "1h" }, { limit = 90, per = "2h", algorithm = "fixed" }, { limit = 1000, per = "1h", algorithm = "gcra" } }',
}
PASSES = {name: 1 if name == "leaky" else 60 for name in ALGORITHMS}


def test_all_workers_count_together():
    text = HEAD + "".join(limited(name, fields) for name, fields in ALGORITHMS.items())
    with Gateway(text, workers=2) as gw:
        for name in ALGORITHMS:
            assert storm([gw], f"/{name}", 150) == {200: PASSES[name], 429: 150 - PASSES[name]}


def test_several_limits_are_counted_together_or_not_at_all():
    text = HEAD + limited("both", 'limits = { { limit = 3, per = "1h" }, { limit = 5, per = "1h", key = "all", name = "all" } }, key = "${header.X-Key}"')
    with Gateway(text) as gw:
        def ask(key):
            answer = gw.request("/both", headers={"X-Key": key})
            return answer.status, answer.headers["RateLimit"], answer
        assert [ask("a")[0] for _ in range(5)] == [200, 200, 200, 429, 429]
        status, told, answer = ask("b")  # those refused to a were not counted for all
        assert status == 200 and re.fullmatch(r'"both-3600";r=2;t=\d+, "all";r=1;t=\d+', told)
        assert answer.headers["RateLimit-Policy"] == '"both-3600";q=3;w=3600, "all";q=5;w=3600'
        assert ask("b")[0] == 200
        status, told, answer = ask("b")
        assert status == 429 and '"both-3600";r=1' in told and '"all";r=0' in told
        assert json.loads(answer.text)["violated-policies"] == ["all"]
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_what_clients_are_told():
    text = HEAD + limited("kong", 'limits = { { limit = 5, per = "1s" }, { limit = 100, per = "1m" } }, headers = { "kong", "x-ratelimit" }')
    text += limited("body", 'limit = 1, per = "1h", status = 503, body = "later", content_type = "text/x"')
    text += limited("even", 'algorithm = "gcra", limit = 60, per = "1m", burst = 2')
    text += limited("cost", 'limit = 10, per = "1h", cost = "${header.X-Cost}"')
    text += limited("shadow", 'limit = 1, per = "1h", shadow = true')
    with Gateway(text) as gw:
        headers = gw.request("/kong").headers
        assert headers["X-RateLimit-Limit-Second"] == "5" and headers["X-RateLimit-Remaining-Minute"] == "99"
        assert headers["X-RateLimit-Limit"] == "5" and headers["X-RateLimit-Remaining"] == "4" and headers["RateLimit-Remaining"] == "4"
        gw.request("/body")
        answer = gw.request("/body")
        assert answer.status == 503 and answer.text == b"later" and answer.headers["Content-Type"] == "text/x" and 1 <= int(answer.headers["Retry-After"]) <= 3600
        assert [gw.request("/even").status for _ in range(3)] == [200, 200, 429]
        assert gw.request("/even").headers["Retry-After"] == "1"
        assert [gw.request("/cost", headers={"X-Cost": cost}).status for cost in ("6", "5", "4", "1", "x", "-1")] == [200, 429, 200, 429, 400, 400]
        assert gw.request("/cost", headers={"X-Cost": "11"}).headers["Retry-After"] is None
        assert [gw.request("/shadow").status for _ in range(3)] == [200, 200, 200]
        assert "a limit in shadow would have refused this" in gw.log()


def test_a_group_is_shared_by_routes_and_a_plan_has_its_own_limits():
    text = HEAD + 'consumer "a" { credentials = { key = "ka" }, meta = { plan = "gold" } } consumer "b" { credentials = { key = "kb" }, groups = { "silver" } }\n'
    text += 'consumer "c" { credentials = { key = "kc" } }\n'
    for name in ("one", "two"):
        text += f'''route "{name}" {{ path = "/{name}", use = {{ "key-auth", {{ "rate-limit", limit = 1, per = "1h", group = "api", key = "${{consumer.id}}",
          plans = {{ gold = {{ {{ limit = 4, per = "1h" }} }}, silver = {{ {{ limit = 2, per = "1h" }} }} }} }} }}, handler = function() return tg.respond(200) end }}\n'''
    with Gateway(text) as gw:
        for key, passes in (("ka", 4), ("kb", 2), ("kc", 1)):
            statuses = [gw.request(path, headers={"X-Api-Key": key}).status for path in ("/one", "/two") * 3]
            assert statuses == [200] * passes + [429] * (6 - passes)


def test_a_queue_delays_what_comes_too_early():
    with Gateway(HEAD + limited("queue", 'algorithm = "leaky", limit = 20, per = "1s", delay = "450ms"')) as gw:
        began = time.monotonic()
        assert storm([gw], "/queue", 12, clients=12) == {200: 10, 429: 2}
        assert 0.4 < time.monotonic() - began < 0.8


def test_places_are_free_again_when_an_exchange_ends_also_by_a_client_that_went_away():
    text = HEAD + limited("places", 'algorithm = "concurrency", limit = 3', "tg.sleep(0.4) return tg.respond(200)")
    with Gateway(text, workers=2) as gw:
        for _ in range(3):
            assert storm([gw], "/places", 8, clients=8) == {200: 3, 429: 5}
        for _ in range(5):
            gw.raw(b"GET /places HTTP/1.1\r\nHost: a\r\n\r\n", seconds=0.05)
        until(lambda: storm([gw], "/places", 3, clients=3) == {200: 3})


def test_what_it_has_cost_is_charged_afterwards():
    text = HEAD + limited("bytes", 'algorithm = "fixed", limit = 1000, per = "1h", cost = 0, settle = "response_bytes"', 'return tg.respond(200, ("x"):rep(400))')
    text += limited("tokens", 'limit = 10, per = "1h", cost = 5, settle = function(ctx) return ctx.vars.tokens end', "ctx.vars.tokens = 1 return tg.respond(200)")
    with Gateway(text) as gw:
        def ask(path):
            status = gw.request(path).status
            time.sleep(0.02)
            return status
        assert [ask("/bytes") for _ in range(4)] == [200, 200, 200, 429]
        assert [ask("/tokens") for _ in range(8)] == [200] * 6 + [429, 429]


# ---------------------------------------------------------------- Redis


@contextlib.contextmanager
def pair(text, redis, more="", **options):
    """Two gateways with one Redis."""
    text = HEAD + redis_word("main", redis, more) + text
    with Gateway(text, **options) as one, Gateway(text, **options) as two:
        yield [one, two]


def know_each_other(redis, n=2):
    until(lambda: redis.cli("zcard", "tidegate:gateways") == str(n))


def test_two_gateways_never_let_more_through_than_the_limit():
    text = "".join(limited(name, fields + ', store = "redis:main", timeout = "5s", key = "one"') for name, fields in ALGORITHMS.items())
    with Redis() as redis, pair(text, redis, 'timeout = "5s"', workers=2) as gateways:
        for name in ALGORITHMS:
            assert storm(gateways, f"/{name}", 200) == {200: PASSES[name], 429: 200 - PASSES[name]}
        for gw in gateways:
            answer = gw.request("/sliding")
            assert answer.status == 429 and 1 <= int(answer.headers["Retry-After"]) <= 7200 and '"sliding";r=0' in answer.headers["RateLimit"]


def test_places_are_shared_through_redis():
    text = limited("places", 'algorithm = "concurrency", limit = 5, store = "redis:main", timeout = "5s"', "tg.sleep(0.5) return tg.respond(200)")
    with Redis() as redis, pair(text, redis, 'timeout = "5s"') as gateways:
        for _ in range(2):
            assert storm(gateways, "/places", 12, clients=12) == {200: 5, 429: 7}
        until(lambda: redis.cli("keys", "*places*") == "")
