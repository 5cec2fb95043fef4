"""A configuration that comes from elsewhere: gateways of a fleet converge, what is bad harms none, and a source that is away changes nothing."""
import json
import os
import re
import shutil
import subprocess
import time

import pytest
from gateway import RELEASE, Gateway, free_port
from source_servers import ConsulSource, EtcdSource, RedisSource
from test_upgrade import Upgradable, wait_until

SECRET = {"SOURCE_PASSWORD": "geheim"}
LOCAL = """
listen { address = "127.0.0.1", port = @PORT@ }
route "local" { path = "/local", handler = function() return tg.respond(200, "local") end }
"""
ROUTE = 'route "x" {{ path = "/x", handler = "say", }}\nconsumers {{ file = "people.json" }}\n-- {}\n'


def files(text):
    return {"gateway.lua": 'include "routes/*.lua"\n', "routes/x.lua": ROUTE.format(text), "people.json": "{}",
            "plugins/say.lua": f'return {{ handler = function() return tg.respond(200, "{text}") end }}'}


BAD = {**files("bad"), "routes/x.lua": 'route "x" {\n  path = '}


def says(gw, path="/x"):
    answer = gw.request(path)
    return answer.text.decode() if answer.status == 200 else answer.status


def all_say(gateways, text):
    wait_until(lambda: all(says(gw) == text for gw in gateways), f"all say {text}: {[says(gw) for gw in gateways]}")


def told(source):
    """What the gateways say that they are made of."""
    return {entry.get("source") for entry in source.fleet().values()}


def refusals(gw):
    return gw.log().count("reload refused")


@pytest.fixture(params=[RedisSource, EtcdSource, ConsulSource])
def source(request):
    one = request.param()
    one.start()
    yield one
    one.stop()
    one.remove()


def gateway(source, name, workers=1, **more):
    return Gateway(source.word(f'name = "{name}", every = "1s"') + LOCAL, workers=workers, env=SECRET, **more)


def test_a_fleet_converges_and_neither_what_is_bad_nor_a_source_that_is_away_harms_it(source):
    with gateway(source, "a", workers=2) as one, gateway(source, "b") as other:
        both = (one, other)
        assert [says(gw, "/local") for gw in both] == ["local", "local"] and says(one) == 404
        source.put(files("v1"))
        all_say(both, "v1")
        wait_until(lambda: len(told(source)) == 1 and None not in told(source), "the fleet tells that it has converged")
        good = source.fleet()["a"]["source"]
        assert set(source.fleet()) == {"a", "b"} and source.fleet()["a"]["generation"] in one.command("status").stdout

        source.put(BAD)
        wait_until(lambda: all("error" in entry for entry in source.fleet().values()), "the fleet tells why")
        assert "source:routes/x.lua:2" in source.fleet()["b"]["error"] and source.fleet()["b"]["source"] == good
        time.sleep(1.5)  # it is asked for again and again
        assert [refusals(gw) for gw in both] == [1, 1] and all(says(gw) == "v1" for gw in both)

        source.stop()
        for gw in both:
            gw.wait_for("goes on [plugin")
            assert says(gw) == "v1"
        one.write("gateway.lua", (one.folder / "gateway.lua").read_text().replace('"local")', '"lokal")'))
        assert one.command("reload").returncode == 0 and says(one, "/local") == "lokal" and says(one) == "v1"
        time.sleep(0.7)
        assert all(gw.log().count(" warn ") - gw.log().count("is not asked for a while") <= 3 for gw in both), one.log()
        source.start()
        source.put(files("v2"))
        all_say(both, "v2")
        wait_until(lambda: len(told(source)) == 1 and told(source) != {good} and "error" not in json.dumps(source.fleet()), "all is well")
        source.put(files("v1"))  # the whole fleet goes back
        all_say(both, "v1")
        wait_until(lambda: told(source) == {good}, "the fleet is where it was")


@pytest.fixture
def redis():
    one = RedisSource()
    one.start()
    yield one
    one.stop()
    one.remove()


def test_a_rollback_holds_until_the_source_changes_and_a_refusal_until_the_local_files_do(redis):
    with gateway(redis, "a") as gw:
        for text in ("v1", "v2"):
            redis.put(files(text))
            all_say([gw], text)
        assert gw.command("rollback").returncode == 0 and says(gw) == "v1"
        time.sleep(1.3)
        assert says(gw) == "v1"
        redis.put({**files("v3"), "routes/x.lua": 'route "x" { path = "/x", handler = "say", to = secret "env:NEEDED" and nil }'})
        gw.wait_for("reload refused")
        assert says(gw) == "v1"
        redis.put(files("v4"))
        all_say([gw], "v4")
        redis.put({**files("v5"), "gateway.lua": 'include "routes/*.lua"\nroute "local" { path = "/other", handler = "say" }'})
        gw.wait_for("there is one of this name already at gateway.lua")
        gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text().replace('route "local"', 'route "own"'))
        assert gw.command("reload").returncode == 0
        all_say([gw], "v5")


def test_what_comes_from_a_source_is_tried_first_where_that_is_wanted(redis):
    with gateway(redis, "a", workers=2) as gw:
        redis.put(files("v1"))
        all_say([gw], "v1")
        canary = {"routes/canary.lua": 'canary { share = 1, watch = "1s" }'}
        redis.put({**files("v2"), **canary})
        gw.wait_for("went well")
        all_say([gw], "v2")
        redis.put({**files("v3"), **canary, "plugins/say.lua": "return { handler = function() error 'broken' end }"})
        gw.wait_for("is on trial", count=2)
        wait_until(lambda: says(gw) and "have failed" in gw.log(), "it is rolled back")
        wait_until(lambda: "have failed" in json.dumps(redis.fleet()), "the fleet knows")
        time.sleep(1.3)
        assert says(gw) == "v2" and refusals(gw) == 1 and gw.log().count("is on trial") == 2


def test_what_came_from_a_source_cannot_cut_the_gateway_off_from_it(redis):
    with gateway(redis, "a") as gw:
        redis.put(files("v1"))
        all_say([gw], "v1")
        source = redis.word("").replace('redis "config"', 'redis "other"').replace('redis = "config"', 'redis = "other"')
        for number, (more, said) in enumerate((
                ({"gateway.lua": source}, "source:gateway.lua:2  source"), ({"gateway.lua": 'include "/etc/hostname"'}, "not among the files of the source"),
                ({"gateway.lua": 'include "../gateway.lua"'}, "not among the files of the source"), ({"main.lua": ""}, "found     no gateway.lua"),
                ({"../gateway.lua": ""}, "leads elsewhere"))):
            redis.put(more if "main.lua" in more else {**files("bad"), **more})
            gw.wait_for("reload refused", count=number + 1)
            assert said in gw.log().rsplit("reload refused", 1)[1], gw.log()
        for number, wrong in enumerate(("[1]", "{", '{"gateway.lua": 1}', "{}", json.dumps({"gateway.lua": "\n" * (5 << 20)}))):
            redis.put_text(wrong)
            gw.wait_for("source redis: ", count=number + 2)
        assert says(gw) == "v1"
        redis.put({**files("v2"), "gateway.lua": 'include "routes/*.lua"', "gateway.yaml": "nonsense: true"})  # as local as it was
        all_say([gw], "v2")
        assert says(gw, "/local") == "local"


def test_a_restart_and_an_upgrade_need_no_source(redis, tmp_path):
    local = redis.word('name = "a", every = "1s"') + LOCAL
    with Upgradable(tmp_path, local, options=("--state", str(tmp_path / "state")), env=SECRET) as gw:
        redis.put(files("v1"))
        all_say([gw], "v1")
        redis.stop()
        shutil.rmtree(tmp_path / "state")
        gw.write("gateway.lua", local.replace('"local")', '"lokal")'))
        assert gw.command("upgrade").returncode == 0  # the master before gives it
        wait_until(lambda: says(gw, "/local") == "lokal", "the new one serves")
        assert says(gw) == "v1"
        wait_until(lambda: list((tmp_path / "state").glob("*.generation")), "it is kept")
        assert gw.command("stop").returncode == 0
        wait_until(lambda: not gw.pid_file.exists(), "it has ended")
        gw.link(RELEASE)  # a new version
        gw.process = subprocess.Popen(gw.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **SECRET})
        wait_until(lambda: gw.command("status").returncode == 0 and says(gw) == "v1", "it serves what it had")
        assert gw.command("diff", gw.command("history").stdout.split()[0]).returncode == 0
        redis.start()
        redis.put(files("v2"))
        all_say([gw], "v2")


def test_a_gateway_that_knows_nothing_yet_waits_for_its_source(redis):
    with Gateway(redis.word('every = "1s", entry = "site/start.yaml"'), env=SECRET) as gw:
        port = free_port()
        redis.put({"site/start.yaml": f"listen: {{ port: {port} }}\ninclude: routes/*.json\n", "routes/x.json": json.dumps(
            {"route": {"x": {"path": "/x", "handler": "say"}}}), "plugins/say.lua": files("yaml")["plugins/say.lua"]})
        gw.wait_for("is live", count=2)
        gw.port = port
        assert says(gw) == "yaml"
        status = gw.command("history").stdout
        assert "push by source:redis" in status and "added source:site/start.yaml" in status


def test_what_is_no_source_is_told():
    for text, said in (('source {}', "no place, or several"), ('source { etcd = "http://a", consul = "http://b" }', "no place, or several"),
                       ('source { redis = "x" }', "the name of a declared redis"), ('source { etcd = "ftp://a" }', r"source › etcd"),
                       ('source { etcd = "http://a", key = "x" }', r"source › key\n.*is not for etcd"),
                       ('source { consul = "http://a", prefix = "x/", fleet = "x/fleet/" }', "not below `prefix`"),
                       ('source { etcd = "http://a", username = "x" }', "belong together"), ("source { etdc = 1 }", 'did you mean "etcd"'),
                       ('source { etcd = "http://a" } source { etcd = "http://a" }', "there is one already")):
        with pytest.raises(AssertionError) as failed, Gateway(f"listen {{ port = @PORT@ }}\n{text}"):
            pass
        assert re.search(said, str(failed.value)), str(failed.value)


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words], cwd=folder, check=True, capture_output=True, timeout=30)


def lives(gw):
    return gw.log().count("is live")


@pytest.mark.parametrize("place", [".git", "elsewhere"])  # of a submodule, and of a further work tree, it is elsewhere
def test_a_work_tree_of_git_is_followed_by_whole_changes(tmp_path, place):
    first = LOCAL + 'include "routes/*.lua"\n'
    with Gateway(first, watch=True) as gw:
        place = tmp_path / place if place == "elsewhere" else gw.folder / place
        git(gw.folder, "init", "-b", "main", *([] if place.name == ".git" else ["--separate-git-dir", str(place)]))
        (gw.folder / ".gitignore").write_text("log\n*.sock*\n")
        git(gw.folder, "add", ".")
        git(gw.folder, "commit", "-m", "first")
        git(tmp_path, "clone", str(gw.folder), "other")
        assert gw.command("reload").returncode == 0  # from now on it is known that Git is there
        before, other = lives(gw), tmp_path / "other"
        (other / "routes").mkdir()
        for i in range(50):  # a folder that was not there, and files that need each other: "x" is two routes in between
            (other / f"routes/{i}.lua").write_text(f'route "x{i}" {{ path = "/x{i}", handler = function() return tg.respond(200, "one") end }}')
        git(other, "add", ".")
        git(other, "commit", "-m", "second")
        git(gw.folder, "pull", str(other), "main")
        wait_until(lambda: gw.request("/x49").status == 200, "the new files are live")
        assert lives(gw) == before + 1 and says(gw, "/x0") == "one"

        (place / "index.lock").touch()  # as Git does while it writes
        gw.write("routes/0.lua", "half a fi")
        gw.write("routes/new.lua", 'route "new" { path = "/new", handler = function() return tg.respond(200, "new") end }')
        time.sleep(0.5)
        assert lives(gw) == before + 1 and refusals(gw) == 0
        (gw.folder / "routes/0.lua").unlink()
        (place / "index.lock").unlink()
        wait_until(lambda: says(gw, "/new") == "new", "Git is done")
        assert refusals(gw) == 0 and gw.request("/x0").status == 404
