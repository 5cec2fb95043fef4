"""The admin interface: who gets in and from where, what it tells, what it changes, and what Prometheus makes of its metrics."""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from authority import Authority
from backends import Backend
from gateway import BINARY, RELEASE, Gateway, free_port
from redis_servers import Redis

TOKEN = "a-token-of-more-than-sixteen-bytes"
CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
admin { port = @PORT2@, ADMIN }
upstream "app" { targets = { "http://BACKEND" }, breaker = { consecutive = 100 } }
consumer "acme" { username = "Acme", groups = { "gold" }, credentials = { key = "the key of acme" } }
local counted = tg.metrics.counter("orders_total", { help = "Orders.", labels = { "kind" } })
local loads = tg.cache("things", { ttl = 60 }, function(key) return { key = key, n = tg.dict("cache"):incr "loads" } end)
route "app" { path = "/app/*", to = "app" }
route "here" { path = "/here", handler = function() counted:inc(1, { kind = "x" }) return tg.respond(200, "here") end }
route "cached" { path = "/cached", handler = function() return tg.respond(200, tostring(loads:get "a".n)) end }
route "wrong" { path = "/wrong", handler = function() error "a mistake" end }
"""
ADMIN = f'token = "{TOKEN}", hosts = {{ "gateway.internal" }}'
WARNS = "admin: |upstream|breaker"


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def ask(gw, path, method="GET", body=None, headers=None, token=TOKEN):
    headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    return gw.request(path, method, json.dumps(body) if body is not None else None, headers, port=gw.port2)


def read(gw, path):
    answer = ask(gw, path)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


@pytest.fixture(scope="module")
def gw():
    with Backend("a") as backend:
        text = CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", backend.address)
        with Gateway(text, workers=2, warns=WARNS) as running:
            running.backend = backend
            yield running


def test_only_who_has_the_token_gets_in(gw):
    assert ask(gw, "/status", token=None).status == 401
    assert ask(gw, "/status", token=None).headers["WWW-Authenticate"].startswith("Bearer")
    assert ask(gw, "/status", token=TOKEN + "x").status == 401
    assert ask(gw, "/status").status == 200
    assert ask(gw, "/nothing").status == 404 and ask(gw, "/status", "DELETE").status == 405
    assert gw.request("/status").status == 404  # no route of the data listener leads there


def test_a_foreign_page_commands_nothing(gw):
    assert ask(gw, "/status", headers={"Host": "rebound.example"}).status == 421
    assert ask(gw, "/status", headers={"Host": "gateway.internal"}).status == 200
    assert ask(gw, "/reload", "POST", {}, {"Origin": "http://elsewhere.example"}).status == 403
    assert ask(gw, "/reload", "POST", {}, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert ask(gw, "/reload", "POST", {}, {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{gw.port2}"}).status == 200


def test_a_browser_gets_a_session_that_cannot_be_made_up(gw):
    assert ask(gw, "/session", "PUT", {"token": "wrong"}, token=None).status == 401
    answer = ask(gw, "/session", "PUT", {"token": TOKEN}, token=None)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 204 and "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    value = cookie.split(";")[0]
    assert ask(gw, "/status", headers={"Cookie": value}, token=None).status == 200
    expires, signature = re.match(r"tidegate_admin=(\d+)\.(.*)", value).groups()
    for wrong in (f"{int(expires) + 1}.{signature}", f"{expires}.{signature[:-1]}", f"{expires}.", "1.x"):
        assert ask(gw, "/status", headers={"Cookie": f"tidegate_admin={wrong}"}, token=None).status == 401
    assert "Max-Age=0" in ask(gw, "/session", "DELETE", headers={"Cookie": value}, token=None).headers["Set-Cookie"]


def test_it_tells_what_there_is_and_what_was_counted(gw):
    for _ in range(5):
        assert gw.request("/here").status == 200 and gw.request("/app/x").status == 200
    until(lambda: sum(worker["requests"] for worker in read(gw, "/status")["workers"]) >= 10)
    status = read(gw, "/status")
    assert len(status["workers"]) == 2 and status["generations"][0]["live"] and status["totals"]["accepted"] >= 10
    routes = {route["name"]: route for route in read(gw, "/routes")["routes"]}
    assert routes["app"]["to"] == "app" and routes["app"]["path"] == ["/app/*"]
    assert routes["here"]["counts"]["requests"]["2xx"] >= 5 and routes["app"]["counts"]["upstream"]["p99"] > 0
    assert read(gw, "/routes/here")["name"] == "here" and ask(gw, "/routes/gone").status == 404
    up = read(gw, "/upstreams/app")
    assert up["breaker"] == "closed" and up["peers"][0]["state"] == "up" and up["peers"][0]["requests"] >= 5
    assert read(gw, "/consumers")["consumers"] == [{"id": "acme", "username": "Acme", "groups": ["gold"], "disabled": False}]
    everything = b"".join(ask(gw, path).text for path in ("/consumers", "/status", "/routes", "/openapi.json", "/memory", "/limits"))
    assert b"the key of acme" not in everything and TOKEN.encode() not in everything
    assert "admin" not in routes  # what operators ask is not traffic


def test_requests_without_a_route_have_the_gateway_s_own_uses_beside_it():
    text = CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1") + 'use { "correlation-id", { "access-log", path = "@DIR@/access.log" } }\n'
    with Gateway(text, warns=WARNS) as gw:
        assert gw.request("/nowhere").headers["X-Request-Id"]
        assert gw.raw(b"GET /<> HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert ask(gw, "/status").headers["X-Request-Id"] is None
        log = gw.folder / "access.log"
        until(lambda: log.read_text().count("\n") == 2)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["status"], line["route"], line["source"]) for line in lines] == [(404, None, "gateway"), (400, None, "gateway")]


def test_peers_and_breakers_are_changed_and_that_is_written_down(gw):
    peer = gw.backend.address
    assert ask(gw, f"/upstreams/app/peers/{peer}", "PUT", {"state": "down"}).status == 200
    assert read(gw, "/upstreams/app")["peers"][0]["state"] == "down"
    assert gw.request("/app/x").status == 503
    assert ask(gw, f"/upstreams/app/peers/{peer}", "PUT", {"state": "up"}).status == 200
    assert gw.request("/app/x").status == 200
    assert ask(gw, "/upstreams/app/breaker", "PUT", {"state": "open"}).status == 200
    assert gw.request("/app/x").status == 503
    assert ask(gw, "/upstreams/app/breaker", "PUT", {"state": "closed"}).status == 200
    assert gw.request("/app/x").status == 200
    assert ask(gw, "/upstreams/app/breaker", "PUT", {"state": "ajar"}).status == 400
    assert ask(gw, "/upstreams/gone/breaker", "PUT", {"state": "open"}).status == 409
    assert ask(gw, "/upstreams/app/peers/x%0Adrain", "PUT", {"state": "up"}).status in (400, 404)
    line = [line for line in gw.log().splitlines() if "admin: " in line and "/breaker" in line][0]
    assert '"who":"token"' in line and '"client":"127.0.0.1"' in line and TOKEN not in gw.log()


def test_bad_bodies_are_refused(gw):
    for body in ("[1]", "{", "null", '{"state":"up","state":"down"}'):
        answer = gw.request("/upstreams/app/breaker", "PUT", body, {"Authorization": f"Bearer {TOKEN}"}, port=gw.port2)
        assert answer.status == 400 and json.loads(answer.text)["status"] == 400, body
    assert ask(gw, "/rollback", "POST", {"id": "x y"}).status == 400
    assert ask(gw, "/rollback", "POST", {"id": "000000000000"}).status == 409


def test_a_body_that_is_too_large_is_not_taken_for_an_empty_one(gw):
    head = f"PUT /log HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {4 * 1024 * 1024 + 1}\r\n\r\n"
    answer = gw.raw(head.encode(), port=gw.port2)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in answer


@pytest.mark.parametrize("path, method, body, said", [
    ("/upstreams/app/breaker", "PUT", {"stat": "open"}, 'there is no field "stat": there is state'),
    ("/upstreams/app/breaker", "PUT", {}, "state is missing: one of open, closed"),
    ("/upstreams/app/breaker", "PUT", {"state": None}, "state is missing: one of open, closed"),
    ("/upstreams/app/peers/x", "PUT", {"state": ["up"]}, "state is one of up, down, drain"),
    ("/generations", "PUT", {"files": "text"}, "files is an object"),
    ("/reload", "POST", {"least": 1.5}, "least is an integer"),
    ("/reload", "POST", {"watch": "1s --detach"}, "watch has a value that no option has"),
    ("/tail?rout=app", "GET", None, 'there is no parameter "rout": there are client, method, path, route, status'),
    ("/profile?second=1", "GET", None, 'there is no parameter "second"'),
])
def test_what_is_not_understood_is_refused_by_its_name(gw, path, method, body, said):
    answer = ask(gw, path, method, body)
    assert answer.status == 400 and said in json.loads(answer.text)["detail"], answer.text


def test_the_document_says_what_is_there(gw):
    document = read(gw, "/openapi.json")
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) >= 29 and document["openapi"].startswith("3.0.")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = [one["name"] for one in operation.get("parameters", []) if one.get("in") == "path"]
            assert names == re.findall(r"{(\w+)}", path), path
            assert operation["summary"].endswith(".") and {"default", "429"} <= set(operation["responses"])
            if method == "get" and not names and path not in ("/tail", "/profile"):
                answer = ask(gw, path)
                assert answer.headers["Content-Type"].split(";")[0] in operation["responses"][str(answer.status)]["content"], path
            if "requestBody" in operation:
                refused = ask(gw, re.sub("{.*?}", "x", path), method.upper(), {"no such field": 1})
                assert refused.status == 400 and "400" in operation["responses"], (path, refused.text)
    state = document["paths"]["/upstreams/{name}/peers/{peer}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert state["properties"]["state"]["enum"] == ["up", "down", "drain"] and state["required"] == ["state"]
    assert ask(gw, "/session", "PUT", {"token": TOKEN}, token=None).status == 204  # the one that asks for no token, as it says
    assert [path for path, all_ in document["paths"].items() for one in all_.values() if one.get("security") == []] == ["/session"]


def test_failures_are_remembered_without_their_secrets(gw):
    gw.request("/wrong?key=secret-value")
    failures = read(gw, "/failures")["failures"]
    found = [failure for failure in failures if failure["path"] == "/wrong"][0]
    assert found["status"] == 500 and found["route"] == "wrong" and found["method"] == "GET" and found["reason"] == "failed"
    assert "secret-value" not in json.dumps(failures)


def test_a_cache_is_purged_for_all_workers(gw):
    assert {gw.request("/cached").text for _ in range(10)} == {b"1"}
    assert ask(gw, "/caches/things", "DELETE").status == 204
    assert {gw.request("/cached").text for _ in range(10)} == {b"2"}


def test_the_tail_shows_what_ends(gw):
    seen = []
    connection = http.client.HTTPConnection("127.0.0.1", gw.port2, timeout=10)
    connection.request("GET", "/tail?route=here&status=2", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"

    def follow():
        while len(seen) < 20 and (line := answer.fp.readline()):
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    end = time.monotonic() + 8
    while len(seen) < 20 and time.monotonic() < end:
        gw.request("/here")
        gw.request("/wrong")
        assert gw.raw(b"GET /<> HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400")
    thread.join(5)
    connection.close()
    assert len(seen) == 20 and {one["route"] for one in seen} == {"here"} and len({one["id"] for one in seen}) == 20


def test_a_profile_is_taken_beside_requests(gw):
    threading.Thread(target=lambda: [gw.request("/here") for _ in range(200)], daemon=True).start()
    answer = ask(gw, "/profile?seconds=1&worker=0")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    assert re.fullmatch(rb"(?:[^\n]+ \d+\n)*", answer.text), answer.text
    assert ask(gw, "/profile?seconds=soon").status == 400 and ask(gw, "/profile?seconds=90").status == 409
    assert ask(gw, "/profile?worker=7&seconds=1").status == 409


def test_promtool_finds_nothing_to_blame_and_openmetrics_ends(gw):
    gw.request("/here")
    text = ask(gw, "/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=20)
    assert checked.returncode == 0 and checked.stdout + checked.stderr == b"", checked
    assert b'tidegate_requests_total{route="here",upstream="",method="GET",status="2xx"}' in text
    assert b'orders_total{kind="x"}' in text
    answer = ask(gw, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text") and answer.text.endswith(b"# EOF\n")
    assert b"# TYPE orders counter\n" in answer.text


def test_the_log_level_changes_for_all_until_the_next_generation(gw):
    assert ask(gw, "/log", "PUT", {"level": "debug"}).status == 200
    until(lambda: gw.request("/here").status == 200 and "debug [worker" in gw.log())
    assert ask(gw, "/log", "PUT", {"level": "loud"}).status == 400
    assert ask(gw, "/log", "PUT", {"level": "info"}).status == 200


def test_generations_are_listed_compared_and_rolled_back():
    with Gateway(CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1"), workers=2, warns=WARNS) as gw:
        first = read(gw, "/generations")["generations"][0]["id"]
        text = (gw.folder / "gateway.lua").read_text()
        gw.write("gateway.lua", text.replace('"here") end', '"there") end'))
        assert "is live" in json.loads(ask(gw, "/reload", "POST", {}).text)["message"]
        assert gw.request("/here").text == b"there"
        generations = read(gw, "/generations")["generations"]
        assert [one["id"] for one in generations][1] == first and generations[0]["by"] == "token" and "gateway.lua" in generations[0]["change"]
        diff = ask(gw, f"/generations/{first}/diff/{generations[0]['id']}").text.decode()
        changed = [line for line in diff.splitlines() if line[0] in "+-" and line[:3] not in ("---", "+++")]
        assert len(changed) == 2 and '"here") end' in changed[0] and '"there") end' in changed[1]
        assert 'path = "/here"' in read(gw, f"/generations/{first}")["files"]["file:gateway.lua"]
        gw.write("gateway.lua", text + "nonsense {")
        refused = ask(gw, "/reload", "POST", {})
        assert refused.status == 409 and b"gateway.lua" in refused.text and gw.request("/here").text == b"there"
        assert "gateway.lua" in read(gw, "/status")["reload_error"]
        assert ask(gw, "/rollback", "POST", {"id": first[:6]}).status == 200
        assert gw.request("/here").text == b"here"
        history = gw.command("history").stdout
        assert history.splitlines()[0].startswith(first) and "rollback by token" in history.splitlines()[0]


def test_a_change_with_a_key_is_carried_out_once():
    with Gateway(CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1"), workers=2, warns=WARNS) as gw:
        text = (gw.folder / "gateway.lua").read_text()
        for word in ("two", "three"):
            gw.write("gateway.lua", text.replace('"here") end', f'"{word}") end'))
            assert ask(gw, "/reload", "POST", {}).status == 200
        answers = [ask(gw, "/rollback", "POST", {}, {"Idempotency-Key": "k-1"}) for _ in range(6)]  # of both workers
        assert len({answer.text for answer in answers}) == 1 and {answer.status for answer in answers} == {200}
        assert [answer.headers["Idempotency-Replayed"] for answer in answers] == [None] + ["true"] * 5
        assert gw.request("/here").text == b"two"
        assert ask(gw, "/reload", "POST", {}, {"Idempotency-Key": "k-1"}).status == 422
        assert ask(gw, "/rollback", "POST", {"id": "000000000000"}, {"Idempotency-Key": "k-1"}).status == 422
        assert ask(gw, "/rollback", "POST", {}, {"Idempotency-Key": "with a blank"}).status == 400
        assert ask(gw, "/rollback", "POST", {}, {"Idempotency-Key": "k-2"}).status == 200
        assert gw.request("/here").text == b"three"  # which was live before
        # What was refused has changed nothing, and is tried again.
        for _ in range(2):
            refused = ask(gw, "/rollback", "POST", {"id": "000000000000"}, {"Idempotency-Key": "k-3"})
            assert refused.status == 409 and refused.headers["Idempotency-Replayed"] is None


def test_the_audit_log_has_who_asked_for_what_and_what_came_of_it():
    with Gateway(CONFIG.replace("ADMIN", ADMIN + ', audit = "@DIR@/audit.log"').replace("BACKEND", "127.0.0.1:9"), workers=2, warns="upstream") as gw:
        peer = "/upstreams/app/peers/127.0.0.1:9"
        cookie = ask(gw, "/session", "PUT", {"token": TOKEN}, token=None).headers["Set-Cookie"].split(";")[0]
        changes = [ask(gw, peer, "PUT", {"state": "down"}), ask(gw, peer, "PUT", {"state": "up"}, {"Cookie": cookie}, token=None),
                   ask(gw, "/rollback", "POST", {"id": "000000000000"}), ask(gw, "/generations", "PUT", {"files": {"gateway.lua": "a secret {", "b.lua": ""}}),
                   ask(gw, "/caches/things", "DELETE")]
        ask(gw, "/status")
        ask(gw, peer, "PUT", {"state": "gone"})  # is no change, since nobody understands it
        log = gw.folder / "audit.log"
        until(lambda: log.exists() and log.read_text().count("\n") == 5)
        lines = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda line: line["time"])
        assert [line["status"] for line in lines] == [answer.status for answer in changes] == [200, 200, 409, 409, 204]
        assert [line.get("change") for line in lines] == [{"state": "down"}, {"state": "up"}, {"id": "000000000000"}, {"files": ["b.lua", "gateway.lua"]}, None]
        assert [line["who"] for line in lines] == ["token", "browser", "token", "token", "token"]
        assert {line["client"] for line in lines} == {"127.0.0.1"} and lines[0]["path"] == peer and lines[0]["method"] == "PUT"
        assert "a secret" not in log.read_text() and TOKEN not in log.read_text()
        # Who commands at the control socket stands in the error log.
        assert gw.command("upstream", "app", "drain", "127.0.0.1:9").returncode == 0
        assert re.search(r"info \[master\] uid \d+: upstream app drain 127.0.0.1:9", gw.log())


def test_counts_survive_reloads_and_the_death_of_a_worker():
    with Gateway(CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1"), workers=1, warns=WARNS + "|signal") as gw:
        for _ in range(7):
            gw.request("/here")
        gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + 'route "more" { path = "/more", to = "app" }\n')
        assert gw.command("reload").returncode == 0
        gw.request("/here")
        pid = gw.workers()[0]
        time.sleep(0.3)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        until(lambda: gw.workers() and gw.workers()[0] not in (0, pid))
        gw.request("/here")
        text = ask(gw, "/metrics").text.decode()
        assert 'tidegate_requests_total{route="here",upstream="",method="GET",status="2xx"} 9' in text and 'orders_total{kind="x"} 9' in text
        assert float(re.search(r"^tidegate_connections_total (\d+)", text, re.M)[1]) >= 8


def test_without_a_token_one_is_made_and_kept_in_a_file():
    text = CONFIG.replace("ADMIN", "public_metrics = true").replace("BACKEND", "127.0.0.1:1")
    with Gateway(text, workers=2, warns=WARNS) as gw:
        answer = gw.command("token")
        token = answer.stdout.strip()
        path = gw.folder / "control.sock.token"
        assert len(token) == 48 and path.read_text().strip() == token and path.stat().st_mode & 0o777 == 0o600
        assert ask(gw, "/status", token=token).status == 200 and ask(gw, "/status", token="x" * 48).status == 401
        assert ask(gw, "/metrics", token=None).status == 200 and ask(gw, "/routes", token=None).status == 401


def test_guessing_is_slowed_down():
    with Gateway(CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1"), workers=2, warns=WARNS) as gw:
        statuses = [ask(gw, "/status", token=f"guess-{i}").status for i in range(15)]
        assert 401 in statuses and statuses[-1] == 429
        assert ask(gw, "/status").status == 429  # from there, for a while, also with the right one


class ByPath(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask_by_path(path, target, method="GET", body=None, headers=None):
    connection = ByPath(path)
    try:
        connection.request(method, target, json.dumps(body) if body is not None else None, headers or {})
        answer = connection.getresponse()
        answer.text = answer.read()
        return answer
    finally:
        connection.close()


def test_it_listens_on_a_unix_socket_which_is_its_owner_s_alone():
    text = CONFIG.replace("port = @PORT2@, ADMIN", 'socket = "@DIR@/admin.sock", audit = "@DIR@/audit.log"').replace("BACKEND", "127.0.0.1:9")
    with Gateway(text, workers=2, warns="upstream|worker") as gw:
        path, peer = gw.folder / "admin.sock", "/upstreams/app/peers/127.0.0.1:9"
        assert stat.S_ISSOCK(path.stat().st_mode) and path.stat().st_mode & 0o777 == 0o600
        assert {ask_by_path(path, "/status").status for _ in range(8)} == {200}
        assert ask_by_path(path, peer, "PUT", {"state": "down"}).status == 200
        assert ask_by_path(path, "/session", "PUT", {"token": "x"}).status == 409
        until(lambda: (gw.folder / "audit.log").exists() and (gw.folder / "audit.log").read_text())
        line = json.loads((gw.folder / "audit.log").read_text())
        assert line["who"] == f"uid {os.getuid()}" and "client" not in line and line["change"] == {"state": "down"}
        # It stays over the death of a worker and a reload, and goes with the word.
        pid = gw.workers()[0]
        os.kill(pid, signal.SIGKILL)
        until(lambda: gw.workers() and gw.workers()[0] not in (0, pid))
        assert {ask_by_path(path, "/status").status for _ in range(8)} == {200}
        config = (gw.folder / "gateway.lua").read_text()
        gw.write("gateway.lua", config + "-- more\n")
        assert gw.command("reload").returncode == 0 and ask_by_path(path, "/status").status == 200
        gw.write("gateway.lua", config.replace('admin { socket = "', "-- "))
        assert gw.command("reload").returncode == 0 and not path.exists()
        gw.write("gateway.lua", config.replace("audit =", f'token = "{TOKEN}", audit ='))
        assert gw.command("reload").returncode == 0 and ask_by_path(path, "/status").status == 401
        assert ask_by_path(path, "/status", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
        folder = gw.folder
        second = subprocess.run([BINARY, "run", "--config", str(folder / "gateway.lua"), "--control", str(folder / "other.sock")],
                                capture_output=True, text=True, timeout=20)
        assert second.returncode == 1 and "admin.sock: Address already in use" in second.stderr and path.exists()
    assert not path.exists()


def test_a_socket_that_a_killed_master_has_left_is_taken_over(tmp_path):
    config, path = tmp_path / "gateway.lua", tmp_path / "admin.sock"
    config.write_text(CONFIG.replace("port = @PORT2@, ADMIN", f'socket = "{path}"').replace("@PORT@", str(free_port())).replace("BACKEND", "127.0.0.1:9"))
    command = [BINARY, "run", "--workers", "1", "--config", str(config), "--control", str(tmp_path / "control.sock")]

    def start():
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def worker(of):
        status = subprocess.run([BINARY, "status", "--json", "--control", str(tmp_path / "control.sock")], capture_output=True, text=True, timeout=20).stdout
        found = json.loads(status) if status.startswith("{") else {"master": {}}
        return found["workers"][0]["pid"] if found["master"].get("pid") == of.pid and found["workers"][0]["pid"] else None

    first, orphan, second = start(), None, None
    try:
        until(lambda: worker(first), 15)
        orphan = worker(first)
        first.kill()
        first.wait()
        second = start()
        until(lambda: worker(second), 15)
        assert json.loads(ask_by_path(path, "/status").text)["master"]["pid"] == second.pid
    finally:
        for process in (first, second):
            if process and process.poll() is None:
                process.terminate()
                process.wait(20)
        if orphan:
            os.kill(orphan, signal.SIGKILL)


def test_what_is_no_socket_is_not_removed(tmp_path):
    config, path = tmp_path / "gateway.lua", tmp_path / "precious"
    path.write_text("precious")
    config.write_text(f'listen {{ port = {free_port()} }}\nadmin {{ socket = "{path}" }}\n')
    done = subprocess.run([BINARY, "run", "--config", str(config), "--control", str(tmp_path / "control.sock")], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "Address already in use" in done.stderr and path.read_text() == "precious"


@pytest.mark.parametrize("admin, expected", [
    ('socket = "/run/x", port = 1', "a socket alone, or a port"),
    ('socket = "/run/x", tls = "self-signed"', "a socket alone, or a port"),
    ('socket = "relative"', 'found     "relative"'),
    ("", "a port, or a socket"),
])
def test_a_place_that_is_none_is_refused(admin, expected, tmp_path):
    path = tmp_path / "gateway.lua"
    path.write_text(CONFIG.replace("port = @PORT2@, ADMIN", admin).replace("BACKEND", "127.0.0.1:1").replace("@PORT@", str(free_port())))
    checked = subprocess.run([BINARY, "check", str(path)], capture_output=True, text=True, timeout=20)
    assert checked.returncode == 1 and expected in checked.stderr and "gateway.lua:3" in checked.stderr, checked.stderr


@pytest.mark.parametrize("admin, expected", [
    ('address = "0.0.0.0", ' + ADMIN, "which others can reach"),
    ('address = "0.0.0.0", tls = "self-signed"', "which others can reach"),
    ('token = "short"', "fewer than 16 bytes"),
    ('token = "with a blank in the middle"', "no bearer token"),
    ('hosts = { "UPPER" }', "hosts"),
])
def test_an_open_door_is_refused(admin, expected, tmp_path):
    text = CONFIG.replace("ADMIN", admin).replace("BACKEND", "127.0.0.1:1").replace("@PORT2@", str(free_port())).replace("@PORT@", str(free_port()))
    path = tmp_path / "gateway.lua"
    path.write_text(text)
    checked = subprocess.run([BINARY, "check", str(path)], capture_output=True, text=True, timeout=20)
    assert checked.returncode == 1 and expected in checked.stderr and "gateway.lua:3" in checked.stderr, checked.stderr


def test_a_client_certificate_is_enough_elsewhere(tmp_path):
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "DNS:localhost,IP:127.0.0.1")
    mine, my_key = authority.issue("operator", "DNS:operator")
    tls = f'address = "0.0.0.0", tls = {{ cert = "{cert}", key = "{key}", client_auth = "required", client_ca = "{authority.cert}" }}'
    with Gateway(CONFIG.replace("ADMIN", tls).replace("BACKEND", "127.0.0.1:1"), warns=WARNS) as gw:
        curl = ["curl", "-s", "--cacert", str(authority.cert), f"https://127.0.0.1:{gw.port2}/status"]
        assert "workers" in json.loads(subprocess.run([*curl, "--cert", str(mine), "--key", str(my_key)], capture_output=True, timeout=20).stdout)
        assert subprocess.run(curl, capture_output=True, timeout=20).returncode != 0


def test_usage_of_a_quota_is_read_set_and_reset():
    with Redis() as redis:
        text = CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1") + f"""
redis "main" {{ address = "{redis.address}" }}
route "metered" {{ path = "/metered", handler = function() return tg.respond(200) end,
  use = {{ {{ "quota", group = "api", limit = 3, key = "${{query.k}}", redis = "main" }} }} }}
"""
        with Gateway(text, workers=2, warns=WARNS) as gw:
            assert [gw.request("/metered?k=a/b").status for _ in range(4)] == [200, 200, 200, 429]
            assert read(gw, "/plugins/quota/api/a/b")["used"] == 3
            assert ask(gw, "/plugins/quota/api/a/b", "DELETE").status == 200
            assert gw.request("/metered?k=a/b").status == 200
            assert ask(gw, "/plugins/quota/api/a/b", "PUT", {"used": 3}).status == 200
            assert gw.request("/metered?k=a/b").status == 429
            assert ask(gw, "/plugins/quota/other/a").status == 404 and ask(gw, "/plugins/gone/a").status == 404


MANY = """
local many = {}
for i = 1, 10 do many[i] = tg.metrics.counter("many_" .. i .. "_total", { labels = { "id" } }) end
route "fill" { path = "/fill", handler = function()
  for i = 1, 10 do for k = 1, 1100 do many[i]:inc(1, { id = k }) end tg.sleep(0) end return tg.respond(200) end }
"""


def processor_time(pid):
    """Seconds."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_ten_thousand_series_are_read_beside_requests():
    with Gateway(CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1") + MANY, workers=1, warns=WARNS) as gw:
        assert gw.request("/fill").status == 200
        text = ask(gw, "/metrics").text.decode()
        assert len(re.findall(r"^many_\d+_total\{", text, re.M)) == 10010 and 'many_3_total{id="other"} 100' in text
        assert 'tidegate_metric_series_refused_total{metric="many_3_total"} 100' in text


def test_a_look_at_ten_thousand_series_takes_less_than_ten_milliseconds():
    text = CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1") + MANY
    with Gateway(text, workers=1, warns=WARNS, binary=RELEASE) as gw:
        assert gw.request("/fill").status == 200
        pid, times = gw.workers()[0], []
        for _ in range(40):
            before = processor_time(pid)
            assert len(ask(gw, "/metrics").text) > 200000
            times.append(processor_time(pid) - before)
        assert min(times[10:]) < 0.01, sorted(times)  # whoever else works on this machine makes it slower, and never faster


ROUTES = """
for i = 1, 175 do
  route("many" .. i) { path = "/many/" .. i, handler = function() return tg.respond(200, "x") end }
end
"""


def test_what_the_gateway_counts_of_many_routes_is_read_as_quickly():
    """Three histograms of each route are most of what a large gateway has."""
    text = CONFIG.replace("ADMIN", ADMIN).replace("BACKEND", "127.0.0.1:1") + ROUTES
    with Gateway(text, workers=1, warns=WARNS, binary=RELEASE) as gw:
        for i in range(1, 176):
            assert gw.request(f"/many/{i}").status == 200
        pid, times = gw.workers()[0], []
        for _ in range(60):
            before = processor_time(pid)
            found = ask(gw, "/metrics").text.decode()
            times.append(processor_time(pid) - before)
        assert len(re.findall(r"^[^#]", found, re.M)) > 10000
        bucket = re.findall(r'^tidegate_request_duration_seconds_bucket\{route="many7",le="([^"]+)"\} (\d+)$', found, re.M)
        assert [float(le) for le, _ in bucket] == sorted(float(le) for le, _ in bucket) and bucket[-1] == ("+Inf", "1")
        assert [int(n) for _, n in bucket] == sorted(int(n) for _, n in bucket)
        assert min(times[10:]) < 0.01, sorted(times)
