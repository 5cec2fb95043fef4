"""tidegate explain and tidegate diff --traffic, which send nothing, and explanations of a live exchange."""
import json
import subprocess

from gateway import BINARY, Gateway

CONFIG = '''api = 1
listen { name = "public", port = 8080 }
listen { name = "inside", port = 8081 }
upstream "orders" { targets = { "http://10.0.0.1:8082", { url = "http://10.0.0.2:8082", weight = 2 } } }
consumer "acme" { credentials = { key = { secret "env:NOWHERE_TO_BE_FOUND" } } }
use { "correlation-id" }
route "order" {
  path = "/orders/{id}", methods = { "GET" }, to = "orders", timeout = "5s",
  use = { "key-auth", { "acl", allow = { "gold" }, shadow = true }, { "rate-limit", limit = 10, per = "1m", when = function() return true end } },
}
route "beta" { path = "/orders/{id}", headers = { ["X-Beta"] = "1" }, to = "orders" }
route "files" { path = "/files/*", to = "orders", strip_path = true }
route "desk" { path = "/desk", listen = { "inside" }, handler = function() return tg.respond(204) end }
'''


def run(*words, text=None, cwd=None):
    return subprocess.run([BINARY, *words], input=text, capture_output=True, text=True, timeout=60, cwd=cwd)


def explain(folder, text, *options):
    done = run("explain", "--json", "--config", str(folder / "gateway.lua"), *options, "-", text=text)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_request_in_a_file_is_explained_offline(tmp_path):
    (tmp_path / "gateway.lua").write_text(CONFIG)
    (tmp_path / "request.http").write_text("GET /orders/7?x=1\nHost: api.test\n\n")
    done = run("explain", "request.http", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for part in ('GET /orders/7 of "api.test" on public', "order gateway.lua:7", '{id} = "7"', 'beta gateway.lua:11 /orders/{id}: header X-Beta: found nothing, wanted "1"',
                 "authenticate key-auth gateway.lua:7", "acl gateway.lua:7 in shadow", "rate-limit gateway.lua:7 under a condition", "not evaluated offline",
                 "rate-limit: 10 in 60 s", "5 s in all", "http://10.0.0.2:8082 weight 2"):
        assert part in text, (part, done.stdout)


def test_what_the_gateway_would_refuse_or_not_find_is_told(tmp_path):
    (tmp_path / "gateway.lua").write_text(CONFIG)
    found = explain(tmp_path, "POST /orders/7\nHost: x\n\n###\nGET /ordrs/7\nHost: x\n\n###\nGET /a%2fb\nHost: x\n\n###\nGET /../x HTTP/1.1\nHost: x\n\n###\nGET / HTTP/1.1\n\n"
                    "###\n> GET /files/a/./b HTTP/2\n> host: x\n> \n")
    assert [one.get("status") for one in found] == [405, 404, 400, 400, 400, None]
    assert found[0]["allow"] == "GET, HEAD" and found[0]["near"][0]["what"] == "method"
    assert [one["route"] for one in found[1]["near"]] == ["order"] and found[1]["near"][0]["wanted"] == "/orders/{id}"
    assert found[5]["route"]["name"] == "files" and found[5]["upstream_path"] == "/a/b"
    assert explain(tmp_path, "GET /desk\nHost: x\n\n")[0]["status"] == 404
    inside = explain(tmp_path, '{"method":"GET","host":"x","path":"/desk"}\n', "--listen", "inside")[0]
    assert inside["route"]["name"] == "desk" and [use["phase"] for use in inside["uses"]] == ["rewrite", "handler", "response"]


def test_what_explain_cannot_read_is_told(tmp_path):
    (tmp_path / "gateway.lua").write_text("api = 1\nlisten { port = 1 }\nroute \"r\" { pathh = '/' }\n")
    for words, status, why in ((("r.http",), 1, "No such file"), ((), 2, "a file with a request"), (("-", "--wrong"), 2, "unknown option --wrong"),
                               (("-", "--generation", "abc", "--control", str(tmp_path / "none")), 1, "no gateway answers"), (("-",), 1, "pathh")):
        done = run("explain", "--config", str(tmp_path / "gateway.lua"), *words, text="GET /\n\n")
        assert done.returncode == status and why in done.stderr, done.stderr


def test_a_generation_that_a_gateway_keeps_is_explained():
    plugin = "return { access = function() return tg.respond(403) end }"
    text = 'api = 1\nlisten { address = "127.0.0.1", port = @PORT@ }\ninclude "routes.lua"\n'
    with Gateway(text, plugins={"mine": plugin}, files={"routes.lua": 'route "r" { path = "/*", use = { "mine" }, handler = function() end }'}) as gw:
        generation = json.loads(gw.command("status", "--json").stdout)["generations"][0]["id"]
        done = run("explain", "--json", "--generation", generation, "--control", str(gw.control), "-", text="GET /x\nHost: y\n\n")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["route"] == {"name": "r", "at": "routes.lua:1"} and said["uses"][0]["name"] == "mine"
