"""Uses that a consumer has of his own: in place of the same ones of a route or behind them, for his requests alone."""
import hashlib
import json
import re
import subprocess
import time

from gateway import BINARY, Gateway
from redis_servers import Redis, redis_word

MARK = """return { schema = { say = t.string(), deny = t.boolean(false) },
  access = function(ctx, conf)
    ctx.req:add_header("X-Seen", conf.say)
    if conf.deny then return tg.problem(403, conf.say) end
  end,
  response = function(ctx, conf) ctx.res:add_header("X-Seen", conf.say) end,
  log = function(_, conf) tg.log.info("logged by " .. conf.say) end }
"""
OTHER = MARK.replace("X-Seen", "X-Other")
PLUGINS = {"mark": MARK, "other": OTHER}
HEAD = """listen { name = "front", port = @PORT@ }
listen { name = "back", port = @PORT2@ }
upstream "back" { targets = { "listener:back" } }
route "back" { path = "/*", listen = { "back" }, handler = function(ctx)
  local list = ctx.req.headers "X-Seen"
  return tg.respond(200, { seen = tg.json.array(list), other = tg.json.array(ctx.req.headers "X-Other") })
end }
"""
TEXT = HEAD + """
consumer "ann" { credentials = { key = "a" }, use = { { "mark", say = "ann" }, { "mark", say = "anna" }, { "other", say = "own" } } }
consumer "bob" { credentials = { key = "b" } }
consumer "eve" { credentials = { key = "e" }, use = { { "mark", name = "second", say = "eve", deny = true } } }
consumer "tom" { credentials = { key = "t" }, use = { { "mark", say = "tom", when = function(ctx) return ctx.req.query.x ~= nil end } } }
route "both" { path = "/both", listen = { "front" }, to = "back",
  use = { "key-auth", { "mark", say = "one" }, { "mark", say = "two" }, { "mark", name = "second", say = "three" } } }
route "none" { path = "/none", listen = { "front" }, to = "back", use = { "key-auth" } }
route "wrapped" { path = "/wrapped", listen = { "front" }, to = "back",
  use = { "key-auth", { "mark", say = "one" }, { "fallback", chain = { { status = 299, body = "-" } } } } }
route "anybody" { path = "/anybody", listen = { "front" }, to = "back", auth = "optional", use = { "key-auth", { "mark", say = "one" } } }
"""


def ask(gw, path, key=None):
    answer = gw.request(path, headers={"X-Api-Key": key} if key else {})
    seen = answer.headers.get_all("X-Seen") or []
    return answer.status, json.loads(answer.text).get("seen"), seen, json.loads(answer.text).get("other"), answer.headers.get_all("X-Other")


def test_they_stand_in_place_of_the_same_ones_and_otherwise_behind_all():
    with Gateway(TEXT, plugins=PLUGINS) as gw:
        assert ask(gw, "/both", "b") == (200, ["one", "two", "three"], ["three", "two", "one"], [], None)
        assert ask(gw, "/both", "a") == (200, ["ann", "anna", "three"], ["three", "anna", "ann"], ["own"], ["own"])
        assert ask(gw, "/none", "a") == (200, ["ann", "anna"], ["anna", "ann"], ["own"], ["own"])
        assert ask(gw, "/none", "b") == (200, [], [], [], None)
        assert ask(gw, "/wrapped", "a") == (200, ["ann", "anna"], ["anna", "ann"], ["own"], ["own"])
        assert ask(gw, "/wrapped", "b") == (200, ["one"], ["one"], [], None)
        # The name says which one of several it is.
        assert ask(gw, "/both", "e")[0] == 403 and ask(gw, "/both", "e")[2] == ["eve", "two", "one"]
        assert ask(gw, "/none", "e")[0] == 403
        # A condition is that of the consumer's: where it does not hold, nothing runs in that place.
        assert ask(gw, "/both?x=1", "t")[1] == ["tom", "three"] and ask(gw, "/both", "t")[1] == ["three"]
        assert ask(gw, "/anybody") == (200, ["one"], ["one"], [], None) and ask(gw, "/anybody", "a")[1] == ["ann", "anna"]
        assert gw.request("/both", headers={"X-Api-Key": "x"}).status == 401


def test_all_their_phases_run_once_and_nobody_elses():
    with Gateway(TEXT, plugins=PLUGINS) as gw:
        for _ in range(3):
            ask(gw, "/both", "a")
            ask(gw, "/both", "b")
        time.sleep(0.2)
        for word, count in (("ann", 3), ("anna", 3), ("own", 3), ("one", 3), ("two", 3), ("three", 6), ("eve", 0)):
            assert len(re.findall(rf"logged by {word} ", gw.log())) == count, (word, gw.log())


def test_one_that_raises_denies_and_limits_are_his():
    text = HEAD + """
consumer "ann" { credentials = { key = "a" }, use = { { "rate-limit", limit = 1, per = "1m", key = "${consumer.id}" } } }
consumer "bad" { credentials = { key = "x" }, use = { function() error("on purpose") end } }
consumer "bob" { credentials = { key = "b" } }
consumer "far" { credentials = { key = "f" }, use = { { "ip-restriction", deny = { "127.0.0.1" } } } }
route "a" { path = "/a", listen = { "front" }, to = "back", use = { "key-auth", { "rate-limit", limit = 100, per = "1m", key = "${consumer.id}" } } }
"""
    with Gateway(text) as gw:
        def status(key):
            return gw.request("/a", headers={"X-Api-Key": key}).status
        assert [status("a"), status("a"), status("b"), status("b"), status("x"), status("f")] == [200, 429, 200, 200, 500, 403]
        assert "on purpose" in gw.log()


def check(tmp_path, text):
    (tmp_path / "plugins").mkdir(exist_ok=True)
    for name, plugin in PLUGINS.items():
        (tmp_path / "plugins" / f"{name}.lua").write_text(plugin)
    (tmp_path / "gateway.lua").write_text("listen { port = 1 }\n" + text + "\n")
    ran = subprocess.run([BINARY, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 1 and "Sanitizer" not in ran.stderr
    return ran.stderr


def test_what_cannot_be_a_consumers_is_refused_with_its_place(tmp_path):
    for use, said in (('"key-auth"', r"its `authenticate` runs before anybody knows"), ('{ "cors", origins = "*" }', r"its `rewrite` runs before"),
                      ('{ "mark", say = "x", shadow = true }', "in shadow"), ('"access-log"', "the core does for all"),
                      ('{ "fallback", chain = { { status = 299, body = "" } } }', "goes around"), ('{ "mark", sai = "x" }', 'did you mean "say"'),
                      ('"nothing"', "there is no plugin file"), ("5", "a plugin: ")):
        text = check(tmp_path, 'consumer "ann" { use = { %s } }' % use)
        assert re.search(r'gateway\.lua:2  consumer "ann" › use\[1\]', text) and re.search(said, text), (use, text)
    assert "a list of plugins" in check(tmp_path, 'consumer "ann" { use = "mark" }')
    (tmp_path / "people.json").write_text('{ "ann": { "use": [ { "plugin": "mark", "sai": "x" } ] } }')
    assert re.search(r'people\.json  consumer "ann" › use\[1\] mark › sai', check(tmp_path, 'consumers { file = "people.json" }'))


def test_consumers_of_a_file_have_some_and_those_of_redis_none():
    route = 'route "a" { path = "/a", listen = { "front" }, to = "back", use = { "key-auth", { "mark", say = "one" } } }\n'
    people = {"ann": {"credentials": {"key": "a"}, "use": [{"plugin": "mark", "say": "file"}]}, "bob": {"credentials": {"key": "b"}}}
    with Gateway(HEAD + 'consumers { file = "people.json" }\n' + route, plugins=PLUGINS, files={"people.json": json.dumps(people)}) as gw:
        assert ask(gw, "/a", "a")[1] == ["file"] and ask(gw, "/a", "b")[1] == ["one"]
        people["bob"]["use"] = [{"plugin": "mark", "say": "bob"}]
        del people["ann"]["use"]
        gw.write("people.json", json.dumps(people))
        gw.wait_for("is live", count=2)
        assert ask(gw, "/a", "a")[1] == ["one"] and ask(gw, "/a", "b")[1] == ["bob"]
    with Redis() as redis, Gateway(HEAD + redis_word("main", redis) + 'consumers { redis = "main", timeout = "1s" }\n' + route, plugins=PLUGINS,
                                   warns="looked up") as gw:
        redis.cli("set", "tidegate:credential:key:" + hashlib.sha256(b"a").hexdigest(), json.dumps({"consumer": "ann"}))
        redis.cli("set", "tidegate:consumer:ann", json.dumps({"use": [{"plugin": "mark", "say": "x"}]}))
        assert gw.request("/a", headers={"X-Api-Key": "a"}).status == 503
        assert "`use` is for consumers of the configuration" in gw.log()


def test_explain_tells_them_and_a_rehearsal_runs_them(tmp_path):
    (tmp_path / "request.http").write_text("GET /both HTTP/1.1\r\nHost: x\r\nX-Api-Key: a\r\n\r\n")
    (tmp_path / "plugins").mkdir()
    for name, plugin in PLUGINS.items():
        (tmp_path / "plugins" / f"{name}.lua").write_text(plugin)
    (tmp_path / "gateway.lua").write_text(TEXT.replace("@PORT@", "1").replace("@PORT2@", "2"))
    command = [BINARY, "explain", "--config", str(tmp_path / "gateway.lua"), "--listen", "front"]
    text = subprocess.run([*command, str(tmp_path / "request.http")], capture_output=True, text=True, timeout=30).stdout
    assert re.search(r"consumers +ann +mark +.*gateway\.lua:\d+  in place of .*gateway\.lua:\d+\n", text)
    assert re.search(r"ann +other +.*gateway\.lua:\d+  behind the route's\n", text) and re.search(r"tom +mark .*, under a condition\n", text)
    text = subprocess.run([*command, "--run", str(tmp_path / "request.http")], capture_output=True, text=True, timeout=30).stdout
    assert re.search(r"x-other: own", text) and "ann" in text and "x-seen: one" not in text, text


def test_a_generation_with_many_of_them_is_made_and_serves():
    consumers = "".join(f'consumer "c{i}" {{ credentials = {{ key = "k{i}" }}, use = {{ {{ "mark", say = "c{i}" }} }} }}\n' for i in range(2000))
    with Gateway(TEXT + consumers, plugins=PLUGINS, workers=2) as gw:
        assert [ask(gw, "/both", f"k{i}")[1] for i in (0, 999, 1999)] == [[f"c{i}", "three"] for i in (0, 999, 1999)]
        assert ask(gw, "/both", "b")[1] == ["one", "two", "three"]
