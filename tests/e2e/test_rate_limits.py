"""rate-limit and tg.limit: exact among workers and among gateways, and what happens when the Redis between them is away."""
import base64
import collections
import concurrent.futures
import contextlib
import hmac
import json
import os
import re
import signal
import socket
import threading
import time

import pytest
from gateway import RELEASE, Gateway, kill
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
    text += limited("blind", 'limit = 1, per = "1h", shadow = true, key = "${header.X-None}"')
    text += limited("unknown", 'limit = 1, per = "1h", shadow = true, cost = "${header.X-None}"')
    text += limited("slow", 'algorithm = "leaky", limit = 1, per = "1s", delay = "10s", shadow = true')
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
        for path in ("/blind", "/unknown"):
            assert gw.request(path).status == 200, "what would be refused for another reason"
        for _ in range(4):
            assert timed(gw, "/slow")[0] < 0.4, "nothing waits in shadow"
        assert "in shadow it would have answered 429 (access)" in gw.log()


def test_what_is_told_stands_where_the_response_phase_of_the_use_would():
    """Responses meet the last use first: what a use before it removes is gone, what one behind it removes was another's."""
    limit, remove = '{ "rate-limit", limit = 5, per = "1h", name = "%s", group = "%s" }', '{ "headers", response = { remove = { "RateLimit" } } }'
    reader = '{ "reader" }'
    uses = {
        "behind": f'{remove}, {limit % ("l", "g")}', "before": f'{limit % ("l", "g")}, {remove}', "two": f'{limit % ("a", "first")}, {limit % ("b", "second")}',
        "read": f'{reader}, {limit % ("l", "g")}', "when": f'{{ "rate-limit", limit = 5, per = "1h", group = "g", when = function() return true end }}',
        "both": '{ "rate-limit", limit = 5, per = "1h", group = "g", headers = { "x-ratelimit", "draft" }, settle = function() return 1 end }',
        "refused": f'{limit % ("l", "g2")}, {{ "refuser" }}', "plan": '{ "rate-limit", limit = 5, per = "1h", group = "g", plan = "p", plans = { p = { { limit = 3, per = "1h", algorithm = "gcra" } } } }',
    }
    text = HEAD + 'upstream "back" { targets = { "http://127.0.0.1:@PORT@" } }\n'
    text += 'route "back" { path = "/back/*", handler = function() return tg.respond(200, "b", { ["RateLimit"] = "upstream", ["RateLimit-Policy"] = "upstream" }) end }\n'
    for name, use in uses.items():
        text += f'route "{name}" {{ path = "/{name}", to = "back", use = {{ {{ "path", to = "/back/" }}, {use} }} }}\n'
    plugins = {
        "path": 'return { schema = { to = t.string() }, access = function(ctx, conf) ctx.req.path = conf.to end }',
        "reader": 'return { response = function(ctx) ctx.res.headers["X-Read"] = ctx.res.headers["RateLimit"] end }',
        "refuser": 'return { access = function() return tg.respond(403) end }',
    }
    with Gateway(text, plugins=plugins) as gw:
        told = {name: gw.request(f"/{name}") for name in uses}
        policy = '"g";q=5;w=3600'
        assert told["behind"].headers["RateLimit"] is None and told["behind"].headers["RateLimit-Policy"] == policy
        assert re.fullmatch(r'"g";r=\d;t=\d+', told["before"].headers["RateLimit"])
        assert told["two"].headers["RateLimit"].startswith('"first";r=4') and told["two"].headers["RateLimit-Policy"] == '"first";q=5;w=3600'
        assert told["read"].headers["X-Read"] == told["read"].headers["RateLimit"] and told["read"].headers["RateLimit"].startswith('"g"')
        for name in ("when", "both"):
            assert told[name].headers["RateLimit"].startswith('"g";r='), name
        assert told["both"].headers["X-RateLimit-Limit"] == "5" and 0 < int(told["both"].headers["X-RateLimit-Reset"]) <= 3600
        assert told["refused"].status == 403 and told["refused"].headers["RateLimit"].startswith('"g2";r=4')
        assert told["plan"].headers["RateLimit-Policy"] == '"g";q=3;w=3600'
        for answer in told.values():
            assert sum(name.lower() == "ratelimit-policy" for name, _ in answer.headers.items()) == 1


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


def token_of(claims):
    def part(text):
        return base64.urlsafe_b64encode(text).rstrip(b"=")
    signed = part(b'{"alg":"HS256"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(b"k" * 32, signed, "sha256").digest())).decode()


def bearer(**claims):
    return {"Authorization": "Bearer " + token_of({"sub": "ann", "jti": "1", **claims})}


# key -> two requests that are counted together, and one that is not
KEYED = {
    '"${client.network}"': ({"X-Forwarded-For": "2001:db8::1"}, {"X-Forwarded-For": "2001:db8::ffff:1"}, {"X-Forwarded-For": "2001:db8:0:1::1"}),
    '"${client.ip}"': ({"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.9, 192.0.2.1"}, {"X-Forwarded-For": "192.0.2.9"}),
    '"${header.X-Key}"': ({"X-Key": "a"}, {"x-key": "a"}, {"X-Key": "b"}),
    '"${cookie.session}"': ({"Cookie": "a=1; session=x"}, {"Cookie": "session=x"}, {"Cookie": "session=y"}),
    '"${consumer.id}"': (bearer(), bearer(jti="2"), bearer(sub="bob")),
    '"${credential.id}"': (bearer(), bearer(sub="bob"), bearer(jti="2")),
    '"${consumer.meta.org}"': (bearer(org="x"), bearer(org="x", sub="bob"), bearer(org="y")),
    '"${consumer.id}/${header.X-Key}"': ({**bearer(), "X-Key": "a"}, {**bearer(), "X-Key": "a"}, {**bearer(), "X-Key": "b"}),
    'function(ctx) return ctx.req.headers["X-Key"]:lower() end': ({"X-Key": "a"}, {"X-Key": "A"}, {"X-Key": "b"}),
}


def test_what_is_counted_by():
    text = HEAD.replace("listen {", 'listen { trusted_proxies = { "127.0.0.1" },')
    for n, key in enumerate(KEYED):
        text += f'''route "r{n}" {{ path = "/{n}", use = {{ {{ "jwt", alg = "HS256", secret = ("k"):rep(32), require = {{}} }},
          {{ "rate-limit", limit = 2, per = "1h", key = {key} }} }}, auth = "optional", handler = function() return tg.respond(200) end }}\n'''
    text += '''route "capture" { path = "/capture/{org}/*", use = { { "rate-limit", limit = 2, per = "1h", key = "${params.org}" } }, handler = function() return tg.respond(204) end }
      route "route" { path = "/route/*", use = { { "rate-limit", limit = 2, per = "1h", key = "${route.name}" } }, handler = function() return tg.respond(204) end }
      route "long" { path = "/long", use = { { "rate-limit", limit = 2, per = "1h", key = "${header.X-Key}" } }, handler = function() return tg.respond(204) end }\n'''
    with Gateway(text) as gw:
        for n, (key, (one, same, other)) in enumerate(KEYED.items()):
            found = [gw.request(f"/{n}", headers=headers).status for headers in (one, same, one, other)]
            assert found == [200, 200, 429, 200], key
        assert [gw.request(f"/capture/{path}").status for path in ("x/1", "x/2", "x/3", "y/1")] == [204, 204, 429, 204]
        assert [gw.request(f"/route/{path}").status for path in "123"] == [204, 204, 429]
        keys = [end.rjust(3000, "k") for end in "aaab"]  # hashed, so they need not fit
        assert [gw.request("/long", headers={"X-Key": key}).status for key in keys] == [204, 204, 429, 204]


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
    time.sleep(2.2)  # each asks every 2 s


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


def calls(redis):
    return sum(int(n) for n in re.findall(r"cmdstat_(?:evalsha|eval):calls=(\d+)", redis.cli("info", "commandstats")))


@pytest.mark.parametrize("fields, least", [
    ('algorithm = "fixed", limit = 400, per = "1h"', 350), ('algorithm = "sliding", limit = 400, per = "1h"', 350),
    ('limits = { { limit = 400, per = "1h" }, { limit = 3000, per = "1d", algorithm = "fixed" } }', 350),
])
def test_leases_never_let_more_through_and_ask_less(fields, least):
    text = limited("one", fields + ', store = "redis:main", mode = "lease", timeout = "5s", key = "one"')
    with Redis() as redis, pair(text, redis, 'timeout = "5s"', workers=2) as gateways:
        know_each_other(redis)
        before = calls(redis)
        found = storm(gateways, "/one", 1200, clients=32)
        assert set(found) == {200, 429} and least <= found[200] <= 400
        assert calls(redis) - before < 600
        time.sleep(1.2)  # no longer blocked: what there is goes to whoever asks
        found += storm(gateways, "/one", 200, clients=32)
        assert least <= found[200] <= 400


@pytest.mark.parametrize("fields", ['algorithm = "fixed", limit = 50000, per = "1m"', 'limit = 50000, per = "1m"', 'algorithm = "gcra", limit = 50000, per = "1m"'])
def test_a_hot_key_on_lease_costs_redis_a_few_commands_a_second(fields):
    text = limited("hot", fields + ', store = "redis:main", mode = "lease", timeout = "5s", key = "one"')
    with Redis() as redis, pair(text, redis, 'timeout = "5s"') as gateways:
        know_each_other(redis)
        storm(gateways, "/hot", 200, clients=16)  # portions grow with what was needed
        before, began, n = calls(redis), time.monotonic(), 0
        while time.monotonic() < began + 3:
            assert storm(gateways, "/hot", 200, clients=16) == {200: 200}
            n += 200
        asked = calls(redis) - before - 2 * 2  # each tells every 2 s that it is there
        assert n > 500 and asked <= 2 * 10 * (time.monotonic() - began), (asked, n)


def test_leases_of_a_rate_never_let_more_through_in_any_time():
    """The moments are those of the backend: the rate of 200/s and a burst of 100 hold there, too."""
    text = limited("rate", 'algorithm = "gcra", limit = 200, per = "1s", burst = 100, store = "redis:main", mode = "lease", timeout = "5s", key = "one"',
                   'tg.dict("moments"):set(ctx.id, tg.now()) return tg.respond(200, tostring(tg.now()))')
    text = 'dict "moments" { size = "4MiB" }\n' + text
    with Redis() as redis, pair(text, redis, 'timeout = "5s"', workers=2) as gateways:
        know_each_other(redis)
        before, moments = calls(redis), []
        began = time.monotonic()

        def client(i):
            while time.monotonic() < began + 3:
                answer = gateways[i % 2].request("/rate")
                assert answer.status in (200, 429)
                if answer.status == 200:
                    moments.append(float(answer.text))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(client, range(16)))
        moments.sort()
        span = moments[-1] - moments[0]
        assert 0.5 * (200 * span) <= len(moments) <= 100 + 200 * span + 1, (len(moments), span)
        for n, window in ((100, 0.05), (200, 0.5), (400, 1.5)):  # 20 ms is what clocks of loops may be wrong by
            assert all(later - sooner >= (n - 100) / 200 - 0.02 for sooner, later in zip(moments, moments[n:])), (n, window)
        assert calls(redis) - before < len(moments)


def test_portions_outlive_reloads_and_workers_and_are_never_spent_twice():
    text = limited("one", 'algorithm = "fixed", limit = 400, per = "1h", store = "redis:main", mode = "lease", timeout = "5s", key = "one"')
    with Redis() as redis, pair(text, redis, 'timeout = "5s"', workers=2, warns="killed by signal 9|was killed|lost") as gateways:
        know_each_other(redis)
        found = storm(gateways, "/one", 150, clients=16)
        assert found == {200: 150}
        gateways[0].write("gateway.lua", HEAD + redis_word("main", redis, 'timeout = "5s"') + text + "-- changed\n")
        assert gateways[0].command("reload").returncode == 0
        victim = gateways[1].workers()[0]
        kill(victim)
        until(lambda: len(gateways[1].workers()) == 2 and victim not in gateways[1].workers())
        found += storm(gateways, "/one", 700, clients=16)
        time.sleep(1.2)  # no longer blocked
        found += storm(gateways, "/one", 100, clients=16)
        assert set(found) == {200, 429} and 350 <= found[200] <= 400, found


OTHER = limited("other", 'limit = 100, per = "1h", store = "redis:main", key = "${query.k}"')


def ask_redis_again(redis, gateways):
    for i, gw in enumerate(gateways):
        until(lambda: gw.request(f"/other?k={i}").status == 200 and f"{{{i}}}:other" in redis.cli("keys", "*other*"))


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "log", "gcra"])
def test_without_redis_each_goes_on_with_its_share_and_owes_what_it_let_through(algorithm):
    text = OTHER + limited("one", f'algorithm = "{algorithm}", limit = 100, per = "1h", store = "redis:main", key = "one"')
    with Redis() as redis, pair(text, redis, warns=DOWN) as gateways:
        know_each_other(redis)
        assert storm(gateways, "/one", 40, clients=4) == {200: 40}
        redis.freeze()
        found = storm(gateways, "/one", 200, clients=8)
        assert set(found) == {200, 429} and 50 <= found[200] <= 64, found  # about 30 of each share are left
        redis.thaw()
        ask_redis_again(redis, gateways)
        later = storm(gateways, "/one", 100, clients=8)
        # Each brings its debt with its first request: those that were on their way with it may have passed.
        assert set(later) <= {200, 429} and found[200] + later[200] <= 60 + 12, (found, later)


def test_a_redis_that_lost_everything_is_charged_what_it_did_not_see():
    text = OTHER + limited("one", 'algorithm = "fixed", limit = 100, per = "1h", store = "redis:main", key = "one"')
    with Redis() as redis, pair(text, redis, warns=DOWN) as gateways:
        know_each_other(redis)
        gateways[0].request("/one"), gateways[1].request("/one")
        redis.stop()
        assert storm(gateways, "/one", 200, clients=8)[200] in (98, 99, 100)
        redis.start()
        ask_redis_again(redis, gateways)
        assert storm(gateways, "/one", 20, clients=4)[200] <= 4


def test_the_share_is_known_and_owed_for_a_limit_with_a_dictionary_of_its_own_and_beside_one_of_short_windows():
    text = 'dict "own" { size = "1MiB" }\n' + OTHER + limited("one", 'algorithm = "fixed", limit = 100, per = "1h", store = "redis:main", key = "one", dict = "own"')
    text += limited("short", 'algorithm = "fixed", limit = 100, per = "1s", store = "redis:main", key = "short", dict = "own"')
    with Redis() as redis, pair(text, redis, warns=DOWN) as gateways:
        know_each_other(redis)
        redis.stop()
        assert storm(gateways, "/one", 200, clients=8)[200] in (98, 99, 100)
        for gw in gateways:
            gw.request("/short")
        time.sleep(11)  # the debts of short windows are forgotten
        redis.start()
        ask_redis_again(redis, gateways)
        assert storm(gateways, "/one", 20, clients=4)[200] <= 4


def test_a_body_of_ones_own_is_for_what_is_refused_not_for_what_cannot_be_counted():
    text = limited("one", 'limit = 1, per = "1h", store = "redis:main", on_down = "deny", body = "later", key = "one"')
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + text, warns=DOWN) as gw:
        assert [gw.request("/one").status for _ in range(2)] == [200, 429]
        redis.stop()
        answer = gw.request("/one")
        assert answer.status == 503 and b"cannot be counted" in answer.text and answer.headers["Retry-After"] == "1"


class Pretender:
    """What speaks the protocol of Redis and says `reply` to each command, after `delay` seconds."""

    def __init__(self, reply, delay=0):
        self.reply, self.delay = reply, delay
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.asked, self.open = 0, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.open.append(client)
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                commands = len(re.findall(rb"(?:^|\r\n)\*\d+\r\n", data))
                self.asked += data.count(b"EVALSHA") + data.count(b"EVAL\r\n")
                time.sleep(self.delay)
                client.sendall(self.reply * commands)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in (self.listener, *self.open):
            s.close()


KINDS = {
    "exact": "limit = 3", "lease": 'limit = 3, mode = "lease"', "places": 'algorithm = "concurrency", limit = 3',
    "several": 'limits = { { limit = 3, per = "1h" }, { limit = 9, per = "2h" } }',
}


@pytest.mark.parametrize("reply", [b"+OK\r\n", b":1\r\n", b"*0\r\n", b"*-1\r\n", b"$-1\r\n", b"*2\r\n+a\r\n*0\r\n", b"*1\r\n:1\r\n", b"%1\r\n", b"HTTP/1.1 400\r\n"],
                         ids=lambda reply: repr(reply)[2:-1])
def test_what_is_no_answer_of_our_scripts_is_as_none(reply):
    text = "".join(limited(name, fields + f', store = "redis:main", key = "{name}"') for name, fields in KINDS.items())
    with Pretender(reply) as redis, Gateway(HEAD + redis_word("main", redis) + text, warns=DOWN + "|redis main") as gw:
        for name in KINDS:
            found = [timed(gw, f"/{name}") for _ in range(5)]
            assert {answer.status for _, answer in found} <= {200, 429} and found[0][1].status == 200
            assert max(seconds for seconds, _ in found) < 0.2
        assert "[error]" not in gw.log()


@pytest.mark.parametrize("mode", ["exact", "lease"])
def test_however_often_a_slow_redis_is_asked_all_of_it_takes_no_longer_than_the_timeout(mode):
    """It says that it does not know the script, so the source is sent; that is too late."""
    text = limited("one", f'limit = 1000, per = "1h", store = "redis:main", mode = "{mode}", timeout = "200ms", key = "one"')
    refusal = b"-NOSCRIPT No matching script\r\n"
    with Pretender(refusal, 0.15) as redis, Gateway(HEAD + redis_word("main", redis, 'timeout = "200ms"') + text, warns=DOWN) as gw:
        time.sleep(0.5)
        before = redis.asked
        seconds, answer = timed(gw, "/one")
        assert answer.status == 200 and 0.19 < seconds < 0.28 and redis.asked - before >= 2, seconds


ROOMY = {
    **{name: f'algorithm = "{name}", limit = 1000, per = "1h"' for name in ("sliding", "fixed", "log", "gcra", "concurrency")},
    "leaky": 'algorithm = "leaky", limit = 1000, per = "1s"',
    "several": 'limits = { { limit = 1000, per = "1h" }, { limit = 2000, per = "2h", algorithm = "fixed" } }',
    **{f"leased-{name}": f'algorithm = "{name}", limit = 1000, per = "1h", mode = "lease"' for name in ("sliding", "fixed", "gcra")},
}


@pytest.mark.parametrize("on_down, status", [("allow", 200), ("deny", 503), ("local", 200)])
def test_what_a_dead_or_frozen_redis_costs_and_means(on_down, status):
    """Of each algorithm and mode: no request waits longer than the timeout, and few wait at all."""
    more = f', store = "redis:main", on_down = "{on_down}", timeout = "50ms", key = "${{header.X-Key}}"'
    text = "".join(limited(name, fields + more) for name, fields in ROOMY.items())
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + text, warns=DOWN) as gw:
        def ask(n, name="sliding"):
            return [timed(gw, f"/{name}", headers={"X-Key": f"{n}-{i}"}) for i in range(n)]
        for name in ROOMY:
            assert ask(1, name)[0][1].status == 200, name
        for how, restart in (("frozen", redis.thaw), ("killed", redis.start)):
            redis.freeze() if how == "frozen" else redis.stop()
            for name in ROOMY:
                found = ask(12, name)
                assert {answer.status for _, answer in found} == {status}, (how, name)
                assert max(seconds for seconds, _ in found) < 0.15 and sum(seconds for seconds, _ in found) < 1.5, (how, name)
            restart()
            until(lambda: "answers again" in gw.log())
            for name in ROOMY:
                until(lambda name=name: ask(1, name)[0][1].status == 200)
        assert "[error]" not in gw.log()


SCANT = {
    **{name: f'algorithm = "{name}", limit = 3, per = "1h"' for name in ("sliding", "fixed", "log", "gcra")},
    "leaky": 'algorithm = "leaky", limit = 3, per = "1h", delay = 0', "concurrency": 'algorithm = "concurrency", limit = 3',
    **{f"leased-{name}": f'algorithm = "{name}", limit = 3, per = "1h", mode = "lease"' for name in ("sliding", "fixed", "gcra")},
}
TROUBLES = {
    "type": lambda redis, key: redis.cli("hset", key, "a", "b"), "foreign": lambda redis, key: redis.cli("set", key, "short"),
    "memory": lambda redis, _: (redis.cli("config", "set", "maxmemory-policy", "noeviction"), redis.cli("config", "set", "maxmemory", "1")),
    "password": lambda *_: None,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_redis_in_trouble_is_as_one_that_is_away(trouble):
    """Of each algorithm and mode."""
    passes = {"leaky": 1, "concurrency": 6}
    text = "".join(limited(name, fields + ', store = "redis:main", key = "k"') for name, fields in SCANT.items())
    options = ["--requirepass", "right"] if trouble == "password" else []
    more = 'password = secret "env:WRONG"' if trouble == "password" else ""
    with Redis(*options) as redis, Gateway(HEAD + redis_word("main", redis, more) + text, warns=DOWN, env={"WRONG": "wrong"}) as gw:
        for name in SCANT:
            tag = "concurrency" if name == "concurrency" else f"{name.removeprefix('leased-')}3600"
            TROUBLES[trouble](redis, f"tidegate:{{k}}:{name}:{tag}")
        for name in SCANT:
            found, n = [timed(gw, f"/{name}") for _ in range(6)], passes.get(name, 3)
            assert [answer.status for _, answer in found] == [200] * n + [429] * (6 - n), name
            assert max(seconds for seconds, _ in found) < 0.2, name
            if trouble != "password":  # of which the Redis client has told
                counts = trouble == "memory" and name in ("log", "concurrency")  # whose scripts begin by taking something away
                assert (f"limit {name} cannot be counted in redis" in gw.log()) != counts, name
        assert "[error]" not in gw.log()


def test_windows_hold_at_their_edges():
    """Counted by the time of the decisions: fixed never more than 50 in a second of Redis's clock, log in no second at all, and sliding around
    the end of one no more than are left of it, where fixed lets twice as many through."""
    text = ""
    for algorithm in ("fixed", "log", "sliding"):
        text += limited(algorithm, f'algorithm = "{algorithm}", limit = 50, per = "1s", store = "redis:main", timeout = "5s", key = "one"',
                        "return tg.respond(200, tostring(tg.now()))")
    with Redis() as redis, pair(text, redis, 'timeout = "5s"', workers=2) as gateways:
        for algorithm in ("fixed", "log", "sliding"):
            moments, began = [], time.monotonic()

            def client(i, algorithm=algorithm, moments=moments, began=began):
                while time.monotonic() < began + 3:
                    answer = gateways[i % 2].request(f"/{algorithm}")
                    assert answer.status in (200, 429)
                    if answer.status == 200:
                        moments.append(float(answer.text))
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                list(pool.map(client, range(16)))
            moments.sort()
            assert 100 < len(moments) <= 200
            if algorithm == "log":
                assert all(later - sooner > 0.97 for sooner, later in zip(moments, moments[50:]))
            elif algorithm == "sliding":
                for second in {int(moment) for moment in moments}:
                    assert sum(second - 0.2 < moment < second + 0.2 for moment in moments) <= 50 * 1.2 + 3, moments
                    assert sum(second + 0.02 < moment < second + 0.98 for moment in moments) <= 50, moments
            else:
                assert all(moments[i + 100] - moments[i] > 0.97 for i in range(len(moments) - 100))


def test_memory_of_the_local_store_is_bounded_with_ten_million_keys():
    text = 'dict "small" { size = "1MiB" }\n' + limited("keys", 'limit = 5, per = "1h", dict = "small", key = "${header.X-Key}"')
    text += '''local limiter = tg.limit.gcra { name = "fill", rate = 1, per = 3600, dict = "small" }
    route "fill" { path = "/fill", handler = function(ctx)
      for i = 1, 1000000 do assert(limiter:take(ctx.req.query.n .. ":" .. i)) if i % 1000 == 0 then tg.sleep(0) end end return tg.respond(200) end }\n'''
    with Gateway(HEAD + text, binary=RELEASE) as gw:
        def resident():
            with open(f"/proc/{gw.workers()[0]}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * 4096
        for n in range(5):
            assert gw.request(f"/fill?n={n}").status == 200
        before = resident()
        for n in range(5, 10):
            assert gw.request(f"/fill?n={n}").status == 200
        assert resident() - before < 64 * 2**20  # what the collector has not come to yet
        assert gw.request("/keys", headers={"X-Key": "new"}).status == 200


def test_decisions_are_counted_and_the_keys_that_are_refused_most():
    text = HEAD + limited("one", 'limit = 2, per = "1h", key = "${query.k}"')
    text += 'route "metrics" { path = "/metrics", handler = function() return tg.respond(200, tg.metrics.text()) end }\n'
    text += 'route "status" { path = "/status", handler = function() return tg.respond(200, tg.limit.status "one") end }\n'
    with Gateway(text, workers=2) as gw:
        for _ in range(50):
            gw.request("/one?k=worst")
        for i in range(300):
            gw.request(f"/one?k={i % 100}")
        found = until(lambda: (status := json.loads(gw.request("/status").text))["denied"] == 148 and status)
        assert found["allowed"] == 202 and found["fallen"] == 0
        told = until(lambda: "rate limit  one: denied 148" in (out := gw.command("status").stdout) and out)
        assert "rate limit  one: allowed 202" in told
        assert {"limit": "one", "decision": "denied", "count": 148} in json.loads(gw.command("status", "--json").stdout)["limits"]
        assert found["top"][0]["key"] == "worst" and 48 <= found["top"][0]["denied"] < 60 and len(found["top"]) == 32
        until(lambda: 'tidegate_limit_decisions_total{limit="one",decision="denied"} 148' in gw.request("/metrics").text.decode())


def test_redis_is_measured():
    text = limited("one", 'limit = 2, per = "1h", store = "redis:main"')
    text += 'route "metrics" { path = "/metrics", handler = function() return tg.respond(200, tg.metrics.text()) end }\n'
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + text, warns=DOWN) as gw:
        time.sleep(0.2)
        for _ in range(20):
            gw.request("/one")

        def metric(name):
            found = re.search(rf"^{re.escape(name)} (\S+)$", gw.request("/metrics").text.decode(), re.M)
            return float(found[1]) if found else 0
        until(lambda: metric('tidegate_redis_commands_total{redis="main"}') >= 20)
        assert metric('tidegate_redis_connections_total{redis="main"}') >= 1
        assert 0 <= metric('tidegate_redis_seconds_total{redis="main"}') < 1
        redis.stop()
        gw.request("/one")
        until(lambda: metric('tidegate_redis_failures_total{redis="main",code="connect"}') >= 1)


def test_several_limits_of_a_response_wait_for_one_timeout_together():
    limits = ", ".join(f'l{i} = {{ limit = 100, per = "1h" }}' for i in range(5))
    text = f'route "r" {{ path = "/", use = {{ {{ "response-rate-limit", limits = {{ {limits} }}, key = "k", store = "redis:main", timeout = "150ms" }} }}, '
    text += 'handler = function() return tg.respond(200) end }\n'
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis, 'timeout = "2s"') + text, warns=DOWN) as gw:
        assert gw.request("/").status == 200
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            assert gw.request("/").status == 200
            assert time.monotonic() - start < 0.5
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
