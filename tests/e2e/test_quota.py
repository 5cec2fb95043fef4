"""quota: units of a calendar's period, in a real Redis; its usage, its outage, its calendar."""
import calendar
import datetime
import json
import subprocess
import time

import pytest
from gateway import RELEASE, Gateway
from redis_servers import Redis, redis_word

HEAD = 'api = 1\nlisten { address = "127.0.0.1", port = @PORT@ }\n'
HEAD += 'consumer "a" { credentials = { key = "ka" } } consumer "b" { credentials = { key = "kb" }, groups = { "gold" } }\n'
DOWN = "cannot be counted|has failed 5 times"


def routes(fields, handler="return tg.respond(200)"):
    fields = 'group = "api", limit = 3, plans = { gold = 5 }, redis = "main"' + (", " + fields if fields else "")
    return f'''route "api" {{ path = "/api", use = {{ "key-auth", {{ "quota", {fields} }} }}, handler = function(ctx) {handler} end }}
route "usage" {{ path = "/usage/{{id}}", handler = {{ "quota", {fields}, key = "${{params.id}}" }} }}\n'''


def ask(gw, key="ka"):
    return gw.request("/api", headers={"X-Api-Key": key})


def usage(gw, who="a", method="GET", body=None):
    return json.loads(gw.request(f"/usage/{who}", method, body).text)


def test_a_quota_is_counted_told_reset_and_set():
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis, 'timeout = "2s"') + routes(""), workers=2) as gw:
        first = ask(gw)
        assert first.status == 200 and first.headers["RateLimit"].startswith('"api";r=2;t=')
        assert [ask(gw).status for _ in range(4)] == [200, 200, 429, 429]
        assert [ask(gw, "kb").status for _ in range(6)] == [200] * 5 + [429]
        answer = ask(gw)
        body = json.loads(answer.text)
        assert body["used"] == 3 and body["limit"] == 3 and body["period"] == "month"
        assert 0 < int(answer.headers["Retry-After"]) <= 31 * 86400
        assert usage(gw) == {**usage(gw), "used": 3, "remaining": 0}
        assert usage(gw, method="DELETE")["used"] == 0 and ask(gw).status == 200
        assert usage(gw, method="PUT", body='{"used": 2}')["used"] == 2
        assert [ask(gw).status for _ in range(2)] == [200, 429]
        assert gw.request("/usage/a", "PUT", '{"used": -1}').status == 400 and gw.request("/usage/a", "POST", "").status == 405
        assert int(redis.cli("ttl", redis.cli("keys", "*quota*a}*"))) > 35 * 86400


def test_what_passes_while_redis_is_away_is_charged_later():
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + routes(""), warns=DOWN) as gw:
        assert ask(gw).status == 200
        redis.freeze()
        began = time.monotonic()
        assert [ask(gw).status for _ in range(4)] == [200] * 4
        assert time.monotonic() - began < 1
        redis.thaw()
        end = time.monotonic() + 10
        while ask(gw).status != 429:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert usage(gw)["used"] >= 5
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + routes('on_down = "deny"'), warns=DOWN) as gw:
        redis.stop()
        assert ask(gw).status == 503


def test_usage_is_as_lasting_as_what_redis_keeps():
    with Redis("--appendonly", "yes", "--appendfsync", "always") as redis, Gateway(HEAD + redis_word("main", redis) + routes(""), warns=DOWN) as gw:
        assert [ask(gw).status for _ in range(2)] == [200, 200]
        redis.stop()
        redis.start()
        end = time.monotonic() + 10
        while "answers again" not in gw.log() and gw.request("/usage/a").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert usage(gw)["used"] == 2
        assert [ask(gw).status for _ in range(2)] == [200, 429]


def test_what_it_has_cost_in_the_end_is_what_counts():
    text = HEAD + routes("cost = 2, settle = function(ctx) return ctx.vars.tokens end", "ctx.vars.tokens = 0.5 return tg.respond(200)")
    with Redis() as redis, Gateway(text + redis_word("main", redis, 'timeout = "2s"')) as gw:
        for n in range(1, 4):
            assert ask(gw).status == 200
            time.sleep(0.05)
            assert usage(gw)["used"] == n / 2
        assert ask(gw).status == 429
        assert usage(gw)["used"] == 1.5


def month_with(year, month, day):
    month, year = (month - 1) % 12 + 1, year + (month - 1) // 12
    return datetime.date(year, month, min(day, calendar.monthrange(year, month)[1]))


def expected(period, anchor, today):
    """First day and first day of the next one, by Python's calendar."""
    if period == "day":
        return today, today + datetime.timedelta(1)
    if period == "week":
        first = today - datetime.timedelta((today - anchor).days % 7)
        return first, first + datetime.timedelta(7)
    if period == "month":
        month = today.month if today >= month_with(today.year, today.month, anchor.day) else today.month - 1
        return month_with(today.year, month, anchor.day), month_with(today.year, month + 1, anchor.day)
    year = today.year if today >= month_with(today.year, anchor.month, anchor.day) else today.year - 1
    return month_with(year, anchor.month, anchor.day), month_with(year + 1, anchor.month, anchor.day)


CASES = [(period, anchor, offset) for period, anchors in {
    "day": ["2024-01-01"], "week": ["2024-01-01", "2024-01-04", "1999-12-31"],
    "month": [f"2024-01-{day:02}" for day in range(1, 32)], "year": ["2024-01-01", "2024-02-29", "2023-12-31", "2020-07-15"],
}.items() for anchor in anchors for offset in (0, 13.5)]


def test_periods_are_those_of_the_calendar():
    text = HEAD
    for n, (period, anchor, offset) in enumerate(CASES):
        text += f'''route "u{n}" {{ path = "/{n}", handler = {{ "quota", group = "n", limit = 1, redis = "main", key = "k", period = "{period}",
          anchor = "{anchor}", utc_offset = {offset} }} }}\n'''
    with Redis() as redis, Gateway(text + redis_word("main", redis, 'timeout = "2s"')) as gw:
        for n, (period, anchor, offset) in enumerate(CASES):
            shift = datetime.timedelta(hours=offset)
            now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
            first, following = expected(period, datetime.date.fromisoformat(anchor), (now + shift).date())
            found = json.loads(gw.request(f"/{n}").text)
            for name, day in (("from", first), ("till", following)):
                moment = datetime.datetime.combine(day, datetime.time()) - shift
                assert found[name].startswith(moment.isoformat()[:19]), (period, anchor, offset, found, moment)


@pytest.mark.parametrize("fields, why", [('redis = "other"', "declared redis"), ('redis = "main", anchor = "soon"', "a date")])
def test_a_wrong_configuration_is_refused(fields, why, tmp_path):
    config = tmp_path / "gateway.lua"
    config.write_text('api = 1\nlisten { port = 8080 }\nredis "main" { address = "a:1" }\n'
                      f'route "r" {{ path = "/*", use = {{ {{ "quota", group = "n", limit = 1, {fields} }} }}, handler = function() end }}\n')
    out = subprocess.run([RELEASE, "check", str(config)], capture_output=True, text=True, timeout=20)
    assert out.returncode != 0 and why in out.stderr + out.stdout, out
