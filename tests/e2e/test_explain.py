"""tidegate explain and tidegate diff --traffic, which send nothing, and explanations of a live exchange."""
import hashlib
import hmac
import json
import socket
import subprocess
import time

from gateway import BINARY, Gateway

CONFIG = '''api = 1
listen { name = "public", port = 8080 }
listen { name = "inside", port = 8081 }
explain { secret = secret "file:nowhere" }
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
    for part in ('GET /orders/7 of "api.test" on public', "order gateway.lua:8", '{id} = "7"', 'beta gateway.lua:12 /orders/{id}: header X-Beta: found nothing, wanted "1"',
                 "authenticate key-auth gateway.lua:8", "acl gateway.lua:8 in shadow", "rate-limit gateway.lua:8 under a condition", "not evaluated offline",
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
    assert inside["route"]["name"] == "desk"
    assert [(use["phase"], use["name"]) for use in inside["uses"]] == [("rewrite", "explain"), ("rewrite", "correlation-id"), ("handler", "inline function"),
                                                                       ("response", "correlation-id"), ("response", "explain")]


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
        gw.write("routes.lua", 'print "read" route "r" { path = "/*", handler = function() end }')
        done = run("diff", "--traffic", "-", "--control", str(gw.control), generation, str(gw.folder / "gateway.lua"), text="GET /x\nHost: y\n\n")
        assert done.returncode == 1 and "- access mine" in done.stdout, done.stdout + done.stderr


def diff(folder, *words, text=None):
    done = run("diff", *words, text=text, cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    return done


def test_what_two_configurations_would_do_differently_with_recorded_requests(tmp_path):
    (tmp_path / "a.lua").write_text(CONFIG)
    (tmp_path / "b.lua").write_text(CONFIG.replace("limit = 10", "limit = 20").replace('path = "/files/*"', 'path = "/docs/*"').replace("10.0.0.2", "10.0.0.3"))
    lines = [{"method": "GET", "host": "h", "path": f"/orders/{i}"} for i in range(5)] + [{"method": "GET", "host": "h", "path": path} for path in ("/files/x", "/docs/x", "/none")]
    (tmp_path / "traffic").write_text("\n".join(json.dumps(line) for line in lines))
    assert diff(tmp_path, "--traffic", "traffic", "a.lua", "a.lua").returncode == 0
    done = diff(tmp_path, "--traffic", "traffic", "a.lua", "b.lua")
    assert done.returncode == 1 and "7 of 8 requests differ" in done.stdout and "nothing was sent" in done.stdout and "not known of 5: no response was recorded" not in done.stdout
    said = json.loads(diff(tmp_path, "--traffic", "-", "--json", "a.lua", "b.lua", text=(tmp_path / "traffic").read_text()).stdout)
    assert said["requests"] == 8 and said["differ"] == 7 and [group["count"] for group in said["groups"]] == [5, 1, 1]
    first = {change["what"]: (change["before"], change["after"]) for change in said["groups"][0]["changes"]}
    assert first["limits"] == ("rate-limit 10 in 60 s", "rate-limit 20 in 60 s") and "10.0.0.3" in first["targets"][1] and set(first) == {"limits", "targets"}
    gone = {group["example"]: {change["what"]: (change["before"], change["after"]) for change in group["changes"]} for group in said["groups"]}
    assert gone["GET h/files/x"]["route"] == ("files", "none") and gone["GET h/files/x"]["answer"] == ("by the route", "404 no route matches")
    assert gone["GET h/docs/x"]["answer"] == ("404 no route matches", "by the route") and "plugins" not in gone["GET h/docs/x"]
    for words, why in ((("--traffic", "none", "a.lua", "b.lua"), "No such file"), (("--traffic", "traffic", "a.lua"), "two configurations"), (("--json", "a.lua"), "belongs to --traffic"),
                       (("--traffic", "traffic", "a.lua", "c.lua", "--control", "x.sock"), "c.lua")):
        done = run("diff", *words, cwd=tmp_path)
        assert done.returncode == 2 and why in done.stderr, done.stderr


RUNS = '''api = 1
listen { name = "public", address = "127.0.0.1", port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:1" } }
upstream "b" { targets = { "http://127.0.0.1:2" } }
dict "d" { size = "1MiB" }
consumer "acme" { credentials = { key = "k1" } }
use { "correlation-id" }
route "x" { path = "/x/*", to = "a", use = { @USE@ } }
route "h" { path = "/h", handler = function() tg.sleep(0) end, use = { @USE@ } }
'''
RAN = {
    "adds": 'return { response = function(ctx) ctx.res.headers["X-Now"] = "1" end }',
    "hides": 'return { response = function(ctx) ctx.res.headers["X-Powered-By"] = nil ctx.res:add_header("Set-Cookie", "a=1") end }',
    "turns": 'return { response = function(ctx) if ctx.res.status == 404 then return tg.respond(410, "", { ["X-Gone"] = "1" }) end end }',
    "wraps": 'return { around = function(ctx) local res = ctx:next() res.headers["X-Was"] = tostring(res.status) end }',
    "asks": 'return { access = function() pcall(tg.http.get, "http://127.0.0.1:@PORT@/") end }',
    "counts": 'local d = tg.dict "d" return { access = function() d:incr "n" end }',
}


def ran(folder, use_a, use_b, *entries):
    """What differs of each group, by what it is and by header; why something is not known; all that was said."""
    for name, use in (("a.lua", use_a), ("b.lua", use_b)):
        (folder / name).write_text(RUNS.replace("@USE@", use))
    text = "\n".join(json.dumps({"method": "GET", "host": "h", "path": "/x/1", **entry}) for entry in entries or ({},))
    done = run("diff", "--traffic", "-", "--json", "a.lua", "b.lua", text=text, cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    changes = [{(change["what"], change.get("header")): (change["before"], change["after"]) for change in group["changes"]} for group in said["groups"]]
    for change in changes:
        change.pop(("uses", None), None)
    return changes, {gap["why"]: gap["count"] for gap in said["unknown"]}, done.stdout


def plugins_in(folder, **more):
    (folder / "plugins").mkdir()
    for name, text in {**RAN, **more}.items():
        (folder / "plugins" / f"{name}.lua").write_text(text)


ANSWERED = {"response": {"status": 404, "headers": {"X-Powered-By": "php", "Content-Type": "text/plain"}}}


def test_plugins_are_run_and_what_upstreams_and_clients_would_get_is_told(tmp_path):
    plugins_in(tmp_path)
    edit = 'function(ctx) ctx.req.headers["X-Set"] = "1" ctx.req.query.q = "2" ctx.upstream = "b" ctx.req.method = "PUT" ctx.req.path = "/y" end'
    cases = (
        ("", '"key-auth"', {}, {("plugins", None): ("let it pass", "answer 401")}),
        ('"key-auth"', '"key-auth", function(ctx) return tg.respond(403) end', {"headers": {"X-Api-Key": "k1"}}, {("plugins", None): ("let it pass", "answer 403")}),
        ("", edit, {"query": "q=1"}, {("goes to", None): ("a", "b"), ("method", None): ("GET", "PUT"), ("path", None): ("/x/1", "/y"), ("query", None): ("q=1", "q=2"),
                                        ("request", "x-set"): ("as it came", "1")}),
        ('function(ctx) ctx.req.headers["X-Set"] = nil end', "", {"headers": {"X-Set": "0"}}, {("request", "x-set"): ("removed", "as it came")}),
        ("", '"adds"', ANSWERED, {("response", "x-now"): ("none", "1")}),
        ("", '"adds"', {"status": 200}, {("response", "x-now"): ("none", "1")}),
        ("", '"hides"', ANSWERED, {("response", "x-powered-by"): ("php", "none"), ("response", "set-cookie"): ("none", "***")}),
        ("", '"turns"', ANSWERED, {("status", None): ("404", "410"), ("response", "x-gone"): ("none", "1"), ("response", "x-powered-by"): ("php", "none"),
                                   ("response", "content-type"): ("text/plain", "none")}),
        ("", '"wraps"', ANSWERED, {("response", "x-was"): ("none", "404")}),
        ("", '"wraps"', {"path": "/h", **ANSWERED}, {("response", "x-was"): ("none", "404")}),
        ("", 'function() error "oops" end', {}, {("plugins", None): ("let it pass", "raise: b.lua:8: oops")}),
        ("", '{ "ip-restriction", deny = { "10.0.0.0/8" } }', {"client": "10.1.2.3"}, {("plugins", None): ("let it pass", "answer 403")}),
        ("", '"adds"', {}, None),  # no response was recorded
        ("", '"adds"', {"status": 403, "source": "plugin"}, None),
        ('{ "rate-limit", limit = 1, per = "1m" }', '{ "rate-limit", limit = 1, per = "1m", name = "y" }, "adds"', {}, None),
    )
    for before, after, entry, wanted in cases:
        changes, gaps, text = ran(tmp_path, before, after, entry)
        found = changes[0] if changes else {}
        if wanted is None:
            assert all(what == "limits" for what, _ in found) and gaps == {"no response was recorded": 1}, (after, found, gaps)
        else:
            assert {key: value for key, value in found.items() if key[0] != "limits" and (len(wanted) > 1 or key in wanted)} == wanted, (after, text)
        assert "k1" not in text


def test_a_handler_is_run_as_far_as_it_only_computes(tmp_path):
    (tmp_path / "gateway.lua").write_text('''listen { port = 1 }
dict "d" { size = "1MiB" }
upstream "a" { targets = { "http://127.0.0.1:1" } }
route "computes" { path = "/computes", handler = function(ctx) return tg.respond(201, "x", { ["X-A"] = ctx.req.query.a }) end }
route "keeps" { path = "/keeps", handler = function() tg.dict("d"):incr("n") return tg.respond(200) end }
route "asks" { path = "/asks", handler = function() pcall(function() tg.upstream("a"):get("/") end) return tg.respond(200) end }
route "raises" { path = "/raises", handler = function() error "oops" end }
''')
    lines = [{"method": "GET", "host": "h", "path": "/computes", "query": "a=5"}, {"method": "GET", "host": "h", "path": "/keeps"}, {"method": "GET", "host": "h", "path": "/asks"},
             {"method": "GET", "host": "h", "path": "/raises"}, {"method": "GET", "host": "h", "path": "/keeps", "response": {"status": 404}}]
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("explain", "--run", "--json", "--config", str(tmp_path / "gateway.lua"), str(tmp_path / "log"))
    runs = [json.loads(line)["run"] for line in done.stdout.splitlines()]
    assert runs[0]["handler"] and runs[0]["response"] == {"status": 201, "headers": {"x-a": "5"}}, done
    assert runs[1]["unclear"] == runs[2]["unclear"] == "no response was recorded"
    assert "oops" in runs[3]["raised"] and runs[4]["response"]["status"] == 404


def test_values_of_credentials_are_compared_and_not_told(tmp_path):
    plugins_in(tmp_path)
    one, other = ('{ "headers", request = { set = { Authorization = "Bearer %s" } } }' % word for word in ("sesame", "simsalabim"))
    changes, _, text = ran(tmp_path, one, other)
    assert changes == [{("request", "authorization"): ("***", "***")}] and "sesame" not in text and "simsalabim" not in text
    assert ran(tmp_path, one, one + ', function() end')[0] == [{}]
    said = json.loads(run("explain", "--run", "--json", "--config", "a.lua", "-", text="GET /x/1\nHost: h\n\n", cwd=tmp_path).stdout)
    assert said["run"]["request"]["headers"] == {"authorization": "***"}


def test_what_only_a_worker_can_do_is_unknown_and_is_not_done(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plugins_in(tmp_path, asks=RAN["asks"].replace("@PORT@", str(listener.getsockname()[1])))
        entries = ({}, {"path": "/x/2"}, ANSWERED)
        for use, why in (('"asks"', "a plugin asks others"), ('"counts"', "a plugin keeps something in a dictionary"), ("function() tg.sleep(1) end", "a plugin waits, or asks others"),
                         ('function(ctx) tg.upstream("a"):get "/" end', "a plugin asks others")):
            changes, gaps, _ = ran(tmp_path, "", use, *entries)
            assert gaps == {why: 3} and len(changes) == 1 and changes[0][("plugins", None)] == ("let it pass", "unknown: " + why), (use, changes, gaps)
        listener.settimeout(0.1)
        try:
            listener.accept()
            raise AssertionError("something was sent")
        except TimeoutError:
            pass
    assert ran(tmp_path, "", 'function(ctx) ctx.req:text() end', {"method": "POST", "headers": {"Content-Length": "5"}})[1] == {"a plugin reads the body": 1}
    loops = ran(tmp_path, "", "function() while true do end end", {}, {"path": "/x/2"})[0]
    assert len(loops) == 1 and "budget" in loops[0][("plugins", None)][1]


def test_recorded_lines_that_are_wrong_are_no_reason_to_fail(tmp_path):
    plugins_in(tmp_path)
    wrong = ({"status": "moon"}, {"status": 99}, {"response": []}, {"response": {"status": 200, "headers": 7}}, {"response": {"headers": {}}}, {"client": "moon"}, {"client": 7},
             {"client": "10.0.0.0/8"}, {"headers": {"a b": "c"}}, {"response": {"status": 200, "headers": {"Set-Cookie": ["a=1", "b=2"], "X": True}}}, {"path": "/%2f"}, {"path": 7})
    assert ran(tmp_path, '"wraps", "adds"', '"wraps", "adds"', *wrong)[0] == []
    done = run("explain", "--run", "--config", "a.lua", "-", text="\n".join(json.dumps({"host": "h", "path": "/x/1", **line}) for line in wrong), cwd=tmp_path)
    assert done.returncode == 0 and "x-now: 1" in done.stdout and "x-was: 200" in done.stdout, done.stdout + done.stderr


LIVE = '''api = 1
listen { name = "public", address = "127.0.0.1", port = @PORT@ }
listen { name = "origin", address = "127.0.0.1", port = @PORT2@ }
explain { secret = secret "env:EXPLAIN_SECRET" }
upstream "origin" { targets = { "http://127.0.0.1:1", "http://127.0.0.1:@PORT2@" }, passive = false,
  retry = { on = { "connect" }, budget = 1, budget_min = 100 } }
consumer "acme" { credentials = { key = "k1" } }
route "origin" { listen = { "origin" }, path = "/*", handler = function(ctx)
  return tg.respond(200, ctx.req.headers["X-Tidegate-Explain"] and "seen" or "not seen")
end }
route "plain" { listen = { "public" }, path = "/plain/{x}", to = "origin" }
route "whole" { listen = { "public" }, path = "/whole", methods = { "GET" }, to = "origin", use = { "key-auth",
  { "acl", allow = { "gold" }, shadow = true }, { "rate-limit", limit = 2, per = "1h", key = "all" }, { "raiser", on_error = "skip" } } }
route "other" { listen = { "public" }, path = "/whole", methods = { "PUT" }, to = "origin" }
route "thrown" { listen = { "public" }, path = "/thrown", handler = function() return tg.respond(200) end,
  use = { "thrower", { "headers", response = { set = { ["X-By"] = "tidegate" } } } } }
'''
SECRET = "a secret of some length"


def sign(at=None, secret=SECRET):
    at = str(int(time.time()) if at is None else at)
    return {"X-Tidegate-Explain": f"{at}.{hmac.new(secret.encode(), at.encode(), hashlib.sha256).hexdigest()}"}


def live():
    plugins = {"raiser": 'return { access = function() error "oops" end }', "thrower": "return { access = function() error(tg.respond(418)) end }"}
    return Gateway(LIVE, plugins=plugins, env={"EXPLAIN_SECRET": SECRET})


def test_a_signed_request_is_told_what_became_of_it():
    with live() as gw:
        answer = gw.request("/whole", headers={**sign(), "X-Api-Key": "k1"})
        assert answer.status == 200 and answer.text == b"not seen", answer.text
        said = json.loads(answer.headers["X-Tidegate-Explain"])
        assert said["route"] == "whole" and said["consumer"] == "acme" and said["status"] == 200 and said["source"] == "upstream"
        assert said["near"] == [{"route": "other", "lacks": "method", "found": "GET", "wanted": "PUT"}]
        verdicts = {(step[0], step[1]): step[2] for step in said["steps"]}
        assert verdicts[("key-auth", "authenticate")] == "passed" and verdicts[("rate-limit", "access")] == "passed"
        assert verdicts[("acl", "access")] == "in shadow 403" and verdicts[("raiser", "access")] == "raised"
        assert all(step[3] >= 0 for step in said["steps"] if step[0] != "explain")
        assert said["limits"] == [{"name": "whole", "allowed": True, "limit": 2, "left": 1, "source": "local"}]
        assert [attempt["peer"] for attempt in said["attempts"]][-1] == f"127.0.0.1:{gw.port2}" and said["attempts"][-1]["result"] == 200
        denied = json.loads(gw.request("/whole", headers=sign()).headers["X-Tidegate-Explain"])
        assert denied["status"] == 401 and denied["attempts"] == [] and "consumer" not in denied
        gw.request("/whole", headers={"X-Api-Key": "k1"})
        limited = json.loads(gw.request("/whole", headers={**sign(), "X-Api-Key": "k1"}).headers["X-Tidegate-Explain"])
        assert limited["status"] == 429 and ["rate-limit", "access", 429] in [step[:3] for step in limited["steps"]]
        thrown = json.loads(gw.request("/thrown", headers=sign()).headers["X-Tidegate-Explain"])
        assert thrown["status"] == 418 and ["thrower", "access", 418] in [step[:3] for step in thrown["steps"]]
        assert ["headers", "response", "passed"] in [step[:3] for step in thrown["steps"]]
        lost = json.loads(gw.request("/wholes", headers=sign()).headers["X-Tidegate-Explain"])
        assert lost["status"] == 404 and lost["route"] is None and [entry["route"] for entry in lost["near"]] == ["whole"]


def test_who_has_not_signed_is_told_nothing_and_nothing_goes_upstream():
    wrong = (sign(secret="another secret of it"), sign(int(time.time()) - 100), sign(int(time.time()) + 100), {"X-Tidegate-Explain": "x"}, {"X-Tidegate-Explain": ""}, {})
    with live() as gw:
        for headers in wrong:
            answer = gw.request("/plain/x", headers=headers)
            assert answer.status == 200 and answer.text == b"not seen" and answer.headers["X-Tidegate-Explain"] is None, headers
        long = gw.request("/plain/" + "%C3%A4" * 1000, headers=sign()).headers["X-Tidegate-Explain"]
        assert len(long) <= 4096 and json.loads(long)["route"] == "plain"


def test_a_short_secret_is_refused(tmp_path):
    (tmp_path / "gateway.lua").write_text('api = 1\nlisten { port = 1 }\nexplain { secret = "short" }\nroute "r" { path = "/", handler = function() end }\n')
    done = run("check", str(tmp_path / "gateway.lua"))
    assert done.returncode == 1 and "gateway.lua:3" in done.stderr and "less than 16 bytes" in done.stderr, done.stderr
