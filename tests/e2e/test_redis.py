"""tg.redis against real Redis servers: one, a cluster, and one behind a sentinel; alive, dead, frozen, and changing."""
import concurrent.futures
import json
import re
import time

import pytest
from gateway import Gateway, free_port
from redis_servers import Cluster, Redis, Sentinels, redis_word

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
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def gw(redis):
    with Gateway(HEAD + redis_word("main", redis) + "".join(route(name, body) for name, body in CASES.items())) as running:
        yield running


@pytest.mark.parametrize("name", EXPECTED)
def test_commands_and_their_types(gw, redis, name):
    redis.cli("flushall")
    answer = gw.request("/" + name)
    assert answer.status == 200, gw.log()[-3000:]
    assert json.loads(answer.text) == EXPECTED[name]


def test_an_uncaught_refusal_is_an_error_of_ours(gw):
    assert gw.request("/uncaught").status == 500 and "WRONGTYPE" in gw.log()
