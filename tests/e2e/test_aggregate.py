"""One answer out of many services: dependencies, loops, shapes, what may be missing, what is said of it; against real upstreams."""
import json
import time

import pytest
from gateway import Gateway

BACK = """
api = 1
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
dict "seen" { size = "1MiB" }
for _, name in ipairs { "users", "orders", "stock" } do upstream(name) { targets = { "http://127.0.0.1:@PORT2@" } } end
upstream "dead" { targets = { "http://127.0.0.1:1" } }
local function back(name, path, f) route(name) { listen = "back", path = path, handler = f } end
back("user", "/users/{id}", function(ctx)
  local id = ctx.req.params.id
  tg.dict("seen"):incr "users"
  if id == "404" then return tg.respond(404, { error = "no such user" }) end
  return tg.respond(200, '{"id": "' .. id .. '", "name":"Ann", "password":"x","snow":1234567890123456789, "tags":[ ],"address":{"city":"Kiel","zip":"24103"}}',
    { ["Cache-Control"] = "private, max-age=60", ["Content-Type"] = "application/json" })
end)
back("orders", "/orders", function(ctx)
  local q = ctx.req.query
  if q.user == "slow" then tg.sleep(3) end
  return tg.respond(200, { data = { items = { { id = 1, sku = "a", price = 1.5, user = q.user }, { id = 2, sku = "b", price = 2 }, { id = 3, sku = "a", price = 3 } } } },
    { ["Cache-Control"] = "max-age=30, must-revalidate" })
end)
back("stock", "/stock/{sku}", function(ctx)
  local seen, sku = tg.dict "seen", ctx.req.params.sku
  seen:incr("stock-" .. sku)
  local now = seen:incr "now"
  seen:set("most", math.max(now, seen:get "most" or 0))
  tg.sleep(0.02)
  seen:incr("now", -1)
  if sku == "b" and ctx.req.headers["X-Fail"] then return tg.respond(500) end
  return tg.respond(200, { sku = sku, left = #sku * 7 })
end)
back("echo", "/echo", function(ctx)
  return tg.respond(200, { method = ctx.req.method, body = ctx.req:text(), type = ctx.req.headers["Content-Type"], lang = ctx.req.headers["Accept-Language"],
    x = ctx.req.headers["X-From"], query = ctx.req.raw_query })
end)
back("list", "/list/{name}", function(ctx) return tg.respond(200, "[\\"" .. ctx.req.params.name .. "\\", 2]") end)
back("bad", "/bad", function() return tg.respond(200, "{not json") end)
back("number", "/count", function() return tg.respond(200, tostring(tg.dict("seen"):incr "count")) end)
back("look", "/look", function() local d = tg.dict "seen" return tg.respond(200, { a = d:get "stock-a", b = d:get "stock-b", most = d:get "most" }) end)
back("copy", "/copy/{id}", function(ctx)
  tg.sleep(0.3)
  tg.dict("seen"):set("copy", ctx.req.params.id .. " " .. ctx.req.headers["X-From"] .. " " .. ctx.req:text())
  return tg.respond(500)
end)
back("copied", "/copied", function() return tg.respond(200, { copy = tg.dict("seen"):get "copy" }) end)
back("zip", "/zip", function() return tg.respond(200, "{\\"zip\\":true}") end)
"""

ROUTES = {
    "home": """calls = {
        user = { upstream = "users", path = "/users/${params.id}", deny = { "password", "address.zip" } },
        orders = { upstream = "orders", path = "/orders", query = { user = "${answers.user.id}", skip = "${query.none}" }, target = "data.items" },
        stock = { upstream = "stock", path = "/stock/${item.sku}", each = "answers.orders", limit = 2 } }""",
    "splice": 'calls = { user = { upstream = "users", path = "/users/1" }, list = { upstream = "users", path = "/list/x" } }',
    "shape": """calls = {
        a = { upstream = "users", path = "/users/7", allow = { "name", "address.city" }, rename = { ["address.city"] = "town" }, flatten = { "address" } },
        b = { upstream = "orders", path = "/orders", target = "data.items", allow = { "sku", "price" }, rename = { sku = "article" }, group = "basket" },
        c = { upstream = "users", path = "/users/8", allow = { "id" }, group = "" }, d = { upstream = "users", path = "/list/one", concat = "all" },
        e = { upstream = "users", path = "/list/two", concat = "all" }, f = { upstream = "users", path = "/users/9", hidden = true } }""",
    "partial": """timeout = "2s", calls = {
        user = { upstream = "users", path = "/users/1", target = "name" },
        slow = { upstream = "orders", path = "/orders", query = { user = "slow" }, timeout = "100ms", optional = true },
        dead = { upstream = "dead", fallback = { none = true } }, bad = { upstream = "users", path = "/bad", optional = true },
        moved = { upstream = "dead", path = "/users/3", fallback_upstream = "users", target = "id" } }, partial_status = 206""",
    "needed": 'calls = { user = { upstream = "users", path = "/users/404" }, slow = { upstream = "orders", path = "/orders", query = { user = "slow" } } }',
    "status": 'pass_status = true, calls = { user = { upstream = "users", path = "/users/404" } }',
    "late": 'timeout = "100ms", calls = { slow = { upstream = "orders", path = "/orders", query = { user = "slow" } } }',
    "missing": 'calls = { user = { upstream = "users", path = "/users/${query.id}" } }',
    "absent": """calls = { user = { upstream = "users", path = "/users/1" }, x = { upstream = "users", path = "/users/${answers.user.nothing}" } }""",
    "no-list": 'calls = { user = { upstream = "users", path = "/users/1" }, x = { upstream = "users", path = "/${item}", each = "answers.user.name", optional = true } }',
    "loop-fails": """calls = { orders = { upstream = "orders", path = "/orders", target = "data.items", hidden = true },
        stock = { upstream = "stock", path = "/stock/${item.sku}", each = "answers.orders", headers = { ["X-Fail"] = "1" }, optional = true } }""",
    "post": """calls = { made = { upstream = "users", path = "/echo", method = "POST", body = '{"who":${header.X-Who},"all":${answers.user}}',
        headers = { ["X-From"] = "${header.X-Who}" }, forward = { "Accept-Language" }, query = { a = "b c", d = "${header.X-Who}" } },
        passed = { upstream = "users", path = "/echo", method = "PUT", pass_body = true }, user = { upstream = "users", path = "/list/u" } }""",
    "cached": 'calls = { n = { upstream = "users", path = "/count", cache = "10s", stale = "1m" } }',
    "climb": 'calls = { user = { upstream = "users", path = "/users/${params.id}" } }',
    "when": """calls = { user = { upstream = "users", path = "/users/${params.id}" },
        gift = { upstream = "users", path = "/list/gift", when = function(ctx, answer) return answer "user.id" == "5" and ctx.req.query.gift ~= nil end },
        after = { upstream = "users", path = "/list/${answers.gift.0}", optional = true },
        copy = { upstream = "orders", path = "/copy/${answers.user.id}", method = "PUT", body = '${answers.user.name}', forward = { "X-From" },
            mirror = true, when = function(_, answer) return answer "gift" ~= nil end } }""",
    "public": 'calls = { orders = { upstream = "orders", path = "/orders" } }',
}


@pytest.fixture(scope="module")
def gw():
    text = BACK + "".join(f'route "front-{name}" {{ listen = "front", path = "/{name}/{{id?}}", handler = {{ "aggregate", {conf} }} }}\n'
                          for name, conf in ROUTES.items())
    text += 'route "look-front" { listen = "front", path = "/look", to = "users" } route "copied-front" { listen = "front", path = "/copied", to = "users" }\n'
    with Gateway(text) as running:
        yield running


def get(gw, path, method="GET", body=None, **headers):
    answer = gw.request(path, method, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return answer, json.loads(answer.text)


def test_answers_are_used_by_later_calls_and_loops_ask_once(gw):
    answer, value = get(gw, "/home/5")
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
    assert value["user"] == {"id": "5", "name": "Ann", "snow": 1234567890123456789, "tags": [], "address": {"city": "Kiel"}}
    assert [order["sku"] for order in value["orders"]] == ["a", "b", "a"] and value["orders"][0]["user"] == "5"
    assert value["stock"] == [{"sku": "a", "left": 7}, {"sku": "b", "left": 7}, {"sku": "a", "left": 7}]
    assert json.loads(gw.request("/look").text) == {"a": 1, "b": 1, "most": 2}
    assert answer.headers["X-Completed"] == "true" and answer.headers["X-Missing"] is None


def test_what_nobody_looks_into_comes_byte_by_byte(gw):
    answer, _ = get(gw, "/splice")
    assert b'"user":{"id": "1", "name":"Ann", "password":"x","snow":1234567890123456789, "tags":[ ],' in answer.text
    assert b'"list":["x", 2]' in answer.text


def test_a_call_is_made_when_it_is_wanted_and_nobody_waits_for_a_mirror(gw):
    start = time.time()
    answer, value = get(gw, "/when/5?gift=1", X_From="me")
    assert time.time() - start < 0.3
    end = time.time() + 5
    while (seen := json.loads(gw.request("/copied").text)) != {"copy": '5 me "Ann"'}:
        assert time.time() < end, seen
        time.sleep(0.05)
    assert value["gift"] == ["gift", 2] and value["after"] == ["gift", 2] and answer.headers["X-Completed"] == "true"
    answer, value = get(gw, "/when/6?gift=1")
    assert list(value) == ["user"] and answer.headers["X-Missing"] == "after"
    time.sleep(0.5)
    assert json.loads(gw.request("/copied").text) == {"copy": '5 me "Ann"'}


def test_shapes(gw):
    _, value = get(gw, "/shape")
    assert value == {"a": {"name": "Ann", "town": "Kiel"}, "basket": [{"article": "a", "price": 1.5}, {"article": "b", "price": 2}, {"article": "a", "price": 3}],
                     "id": "8", "all": ["one", 2, "two", 2]}


def test_what_may_be_missing_is_and_is_said(gw):
    start = time.time()
    answer, value = get(gw, "/partial")
    assert time.time() - start < 1.5
    assert answer.status == 206 and value == {"user": "Ann", "dead": {"none": True}, "moved": "3"}
    assert answer.headers["X-Completed"] == "false" and answer.headers["X-Missing"] == "bad, dead, slow"
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_must_be_there_fails_the_whole_at_once(gw):
    start = time.time()
    answer, value = get(gw, "/needed")
    assert (answer.status, value["cause"]) == (502, "status") and time.time() - start < 1
    assert get(gw, "/status")[0].status == 404
    answer, value = get(gw, "/late")
    assert (answer.status, value["cause"]) == (504, "timeout")
    answer, value = get(gw, "/missing")
    assert answer.status == 400 and value["detail"] == "calls.user: a variable of its path has no value"
    assert get(gw, "/missing?id=4")[1]["user"]["id"] == "4"
    assert get(gw, "/absent")[0].status == 502
    answer, value = get(gw, "/no-list")
    assert answer.status == 200 and answer.headers["X-Missing"] == "x" and list(value) == ["user"]


def test_an_item_of_a_loop_may_fail_by_itself(gw):
    answer, value = get(gw, "/loop-fails")
    assert value == {"stock": [{"sku": "a", "left": 7}, None, {"sku": "a", "left": 7}]} and answer.headers["X-Missing"] == "stock"


def test_bodies_headers_and_queries_are_escaped(gw):
    _, value = get(gw, "/post", "POST", b"the body", X_Who='a"b', Accept_Language="de", Content_Type="text/plain")
    assert value["made"] == {"method": "POST", "body": '{"who":"a\\"b","all":["u", 2]}', "type": "application/json", "lang": "de", "x": 'a"b',
                             "query": "a=b%20c&d=a%22b"}
    assert value["passed"]["body"] == "the body" and value["passed"]["type"] == "text/plain" and value["passed"]["method"] == "PUT"


def test_a_capture_cannot_climb_out_of_its_path(gw):
    assert get(gw, "/climb/a%20b%3Fx")[1]["user"]["id"] == "a b?x"
    assert gw.request("/climb/..%2f..%2fcount").status == 400


def test_answers_are_kept_for_all(gw):
    assert [get(gw, "/cached")[1]["n"] for _ in range(3)] == [1, 1, 1]


def test_cache_directives_are_the_least_of_all(gw):
    assert get(gw, "/public")[0].headers["Cache-Control"] == "must-revalidate, max-age=30"
    assert get(gw, "/splice")[0].headers["Cache-Control"] == "private, no-cache"


def test_mistakes_of_the_configuration_are_named(tmp_path):
    for conf, message in {
        "calls = {}": "needs at least one call",
        'calls = { a = { upstream = "users", path = "/${answer.x}" } }': 'did you mean "answers"',
        'calls = { a = { upstream = "user" } }': 'did you mean "users"?',
        'calls = { a = { upstream = "users", each = "answers.b.c" } }': 'there is no "b"',
        'calls = { a = { upstream = "users", stale = "1s" } }': "needs `cache`",
        'calls = { a = { upstream = "users", optinal = true } }': 'did you mean "optional"?',
        'calls = { a = { upstream = "users", path = "/a/../${params.x}" } }': 'a path with a segment "." or ".."',
    }.items():
        with pytest.raises(AssertionError) as failure:
            with Gateway(BACK + f'route "x" {{ listen = "front", path = "/", handler = {{ "aggregate", {conf} }} }}\n'):
                pass
        assert message in str(failure.value), (conf, str(failure.value))
