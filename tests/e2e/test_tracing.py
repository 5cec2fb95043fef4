"""tracing: what a real OTLP receiver reads by OpenTelemetry's own definitions; a receiver that refuses, and one that is away under load."""
import collections
import json
import re
import signal
import subprocess
import time
import urllib.request

import node
import pytest
from backends import Backend
from gateway import Gateway, free_port
from redis_servers import Redis, redis_word

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, CLIENT, INTERNAL = 2, 3, 1

WAITS = """return { doc = "Waits, in spans.", access = function(ctx)
  tg.span("outer", function()
    tg.span.set("answer", 42)
    tg.fetch_all {
      a = function() return tg.span("inner", function() return tg.upstream("users"):get("/a?token=x").status end) end,
      b = { upstream = "users", path = "/b", result = true },
    }
  end)
  tg.redis("main"):incr "n"
  tg.redis("main"):pipeline(function(p) p:get "n" p:get "n" end)
end }
"""


class Collector(node.Server):
    def __init__(self):
        self.port = free_port()
        super().__init__("otlp-receiver", self.port)

    def ask(self, path, data=None):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=10) as answer:
            return answer.read()

    def state(self):
        return json.loads(self.ask("/spans"))

    def spans(self, count, seconds=10):
        end = time.monotonic() + seconds
        while True:
            spans = self.state()["spans"]
            if len(spans) >= count:
                return spans
            assert time.monotonic() < end, spans
            time.sleep(0.02)


def config(collector, users, use="", redis=""):
    return redis + f"""api = 1
listen {{ address = "127.0.0.1", port = @PORT@ }}
upstream "collector" {{ targets = {{ "http://127.0.0.1:{collector}" }} }}
upstream "users" {{ targets = {{ "http://127.0.0.1:{users}" }} }}
use {{ {{ "tracing", upstream = "collector", headers = {{ ["X-Key"] = "k" }}, every = "50ms", ratio = 1, {use} }} }}
"""


def tree(spans):
    """name -> name of its parent."""
    names = {span["id"]: span["name"] for span in spans}
    return sorted((span["name"], names.get(span["parent"])) for span in spans)


@pytest.mark.parametrize("protocol", ["protobuf", "json"])
def test_all_that_waits_is_in_the_trace(protocol):
    with Collector() as collector, Backend() as users, Redis() as redis:
        text = config(collector.port, users.port, f'protocol = "{protocol}", service = "edge", resource = {{ ["host.name"] = "h1" }}, '
                      'attributes = { tenant = "${header.X-Tenant}" }, query = true', redis_word("main", redis))
        text += 'route "home" { path = "/home/{id}", to = "users", use = { "waits" } }\n'
        with Gateway(text, plugins={"waits": WAITS}) as gw:
            answer = gw.request("/home/7?a=1&token=secret", headers={"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "v=1", "X-Tenant": "blü".encode(),
                                                                   "User-Agent": "tests"})
            assert answer.status == 200
            spans = collector.spans(9)
        assert tree(spans) == [("GET", "GET /home/{id}"), ("GET", "inner"), ("GET", "outer"), ("GET /home/{id}", None), ("INCR", "waits"),
                               ("PIPELINE", "waits"), ("inner", "outer"), ("outer", "waits"), ("waits", "GET /home/{id}")]
        assert {span["trace"] for span in spans} == {TRACE} and {span["state"] for span in spans} == {"v=1"}
        by_name = collections.defaultdict(list)
        for span in spans:
            by_name[span["name"]].append(span)
            assert int(span["start"]) <= int(span["end"]) and abs(int(span["start"]) / 1e9 - time.time()) < 30
            assert span["resource"]["service.name"] == "edge" and span["resource"]["host.name"] == "h1" and span["scope"] == "tidegate"
        server = by_name["GET /home/{id}"][0]
        assert (server["parent"], server["kind"], server["failed"]) == (SPAN, SERVER, False)
        assert protocol == "protobuf" or server["flags"] == 0x301  # their definitions of protobuf do not have it yet
        expected = {"http.request.method": "GET", "url.path": "/home/7", "url.query": "a=1&token=***", "url.scheme": "http", "http.route": "/home/{id}",
                    "http.response.status_code": 200, "server.address": "127.0.0.1", "server.port": gw.port, "client.address": "127.0.0.1",
                    "network.protocol.version": "1.1", "user_agent.original": "tests", "tidegate.route": "home", "tenant": "blü"}
        assert {key: server["attributes"].get(key) for key in expected} == expected
        assert by_name["outer"][0]["attributes"]["answer"] == 42
        assert by_name["INCR"][0]["attributes"] == {"db.system.name": "redis", "db.operation.name": "INCR", "tidegate.redis": "main"}
        assert all(span["attributes"]["http.response.status_code"] == 200 for span in by_name["GET"])
        assert not any("token" in span["attributes"]["url.full"] for span in by_name["GET"])
        parents = set(re.findall(r"traceparent: 00-(\w+)-(\w+)-01", "\n".join(users.heads)))
        assert parents == {(TRACE, span["id"]) for span in by_name["GET"]}, users.heads


def test_each_attempt_is_a_span_of_its_own():
    with Collector() as collector, Backend() as users:
        users.fail_every, users.failure = 2, "503"
        text = config(collector.port, users.port).replace(f'"http://127.0.0.1:{users.port}" }}', f'"http://127.0.0.1:{users.port}" }}, '
                                                          'passive = false, retry = { on = { 503 }, attempts = 3, backoff = "10ms" }')
        with Gateway(text + 'route "all" { path = "/*", to = "users" }') as gw:
            assert [gw.request("/").status for _ in range(2)] == [200, 200]
            spans = collector.spans(5)
        attempts = [span for span in spans if span["kind"] == CLIENT]
        assert sorted(span["attributes"]["http.response.status_code"] for span in attempts) == [200, 200, 503]
        failed = next(span for span in attempts if span["failed"])
        second = next(span for span in attempts if span["attributes"].get("http.request.resend_count"))
        assert second["parent"] == failed["parent"] and second["id"] != failed["id"] and second["attributes"]["http.request.resend_count"] == 1
        assert failed["attributes"]["error.type"] == "503" and int(failed["end"]) <= int(second["start"])
        sent = set(re.findall(r"traceparent: 00-\w+-(\w+)-01", "\n".join(users.heads)))
        assert sent == {span["id"] for span in attempts}


def test_what_is_refused_for_a_while_comes_later_and_what_is_refused_for_good_is_dropped():
    with Collector() as collector, Backend() as users:
        with Gateway(config(collector.port, users.port) + 'route "all" { path = "/*", to = "users" }', warns="batch tracing") as gw:
            collector.ask("/answer?status=503&times=2", b"")
            gw.request("/later")
            spans = collector.spans(2)
            assert {span["attributes"].get("url.path") for span in spans} == {"/later", None} and collector.state()["refused"] == 2
            collector.ask("/answer?status=400&times=1", b"")
            gw.request("/never")
            end = time.monotonic() + 5
            while collector.state()["refused"] < 3:
                assert time.monotonic() < end
                time.sleep(0.02)
            gw.request("/after")
            spans = collector.spans(4)
            assert "/never" not in {span["attributes"].get("url.path") for span in spans}


def test_the_end_of_a_generation_sends_what_waits():
    with Collector() as collector, Backend() as users:
        with Gateway(config(collector.port, users.port, 'every = "60s",').replace('every = "50ms", ', "") + 'route "all" { path = "/*", to = "users" }') as gw:
            gw.request("/")
            assert collector.state()["spans"] == []
            gw.write("gateway.lua", (gw.folder / "gateway.lua").read_text() + "-- other\n")
            assert gw.command("reload").returncode == 0
            collector.spans(2)
            gw.request("/")
            gw.process.send_signal(signal.SIGQUIT)
            gw.process.wait(15)
            assert len(collector.state()["spans"]) == 4


def test_buckets_name_the_last_trace_that_was_recorded(tmp_path):
    """As Prometheus itself reads it, which asks for OpenMetrics."""
    with Collector() as collector, Backend() as users:
        text = config(collector.port, users.port, "errors = true,").replace("ratio = 1", "ratio = 0") + (
            'admin { port = @PORT2@, public_metrics = true }\nroute "all" { path = "/*", to = "users" }\n'
            'route "bad" { path = "/bad", handler = function() return tg.respond(503) end }\n')
        with Gateway(text) as gw:
            gw.request("/", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
            gw.request("/", headers={"traceparent": f"00-{TRACE[::-1]}-{SPAN}-00"})  # is not recorded
            gw.request("/bad")
            failed = next(span["trace"] for span in collector.spans(3) if span["attributes"].get("url.path") == "/bad")
            classic = gw.request("/metrics", port=gw.port2).text
            assert TRACE.encode() not in classic
            (tmp_path / "prometheus.yml").write_text(f"""
scrape_configs:
  - {{ job_name: gateway, scrape_interval: 1s, static_configs: [ {{ targets: [ "127.0.0.1:{gw.port2}" ] }} ] }}
""")
            port = free_port()
            server = subprocess.Popen(["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                                       f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=error"])
            try:
                found = {}
                end = time.monotonic() + 30
                while len(found) < 3:
                    assert time.monotonic() < end and server.poll() is None, found
                    time.sleep(0.2)
                    query = f"/api/v1/query_exemplars?start={time.time() - 60}&end={time.time()}&query="
                    for name in ("request", "upstream"):
                        try:
                            with urllib.request.urlopen(f"http://127.0.0.1:{port}{query}tidegate_{name}_duration_seconds_bucket", timeout=10) as answer:
                                for series in json.load(answer)["data"]:
                                    found[name, series["seriesLabels"]["route"]] = {one["labels"]["trace_id"] for one in series["exemplars"]}
                        except OSError:
                            pass  # it starts
                assert found == {("request", "all"): {TRACE}, ("upstream", "all"): {TRACE}, ("request", "bad"): {failed}}
            finally:
                server.terminate()
                server.wait(20)


METRICS = """return { doc = "Shows the metrics.", handler = function() return tg.respond(200, tg.metrics.text()) end }"""


def memory(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", open(f"/proc/{pid}/status", encoding="ascii").read(), re.M)[1])


def test_a_receiver_that_is_away_under_load_costs_spans_and_nothing_else():
    with Backend() as users:
        text = config(free_port(), users.port, "queue = 500, give_up = '2s'") + (
            'route "all" { path = "/*", handler = function() return tg.respond(200, "x") end }\n'
            'route "metrics" { path = "/metrics", handler = "metrics" }\n')
        with Gateway(text, plugins={"metrics": METRICS}, warns="batch tracing") as gw:
            pid = gw.workers()[0]
            load = ["wrk", "-t1", "-c20", "-d2", f"http://127.0.0.1:{gw.port}/"]
            first = subprocess.run(load, capture_output=True, text=True, timeout=30, check=True).stdout
            before = memory(pid)
            second = subprocess.run(load, capture_output=True, text=True, timeout=30, check=True).stdout
            assert "Non-2xx" not in first + second and "Socket errors" not in first + second, first + second
            assert memory(pid) < before * 1.3 + 8192
            requests = sum(int(n) for n in re.findall(r"(\d+) requests in", first + second))
            end = time.monotonic() + 5
            while True:
                dropped = re.search(r'tidegate_batch_dropped_total\{batch="tracing"\} (\d+)', gw.request("/metrics").text.decode())
                if dropped and int(dropped[1]) >= requests - 1000:
                    break
                assert time.monotonic() < end, (requests, dropped and dropped[1])
                time.sleep(0.05)
            assert gw.log().count("batch tracing") <= 2, "not a line for each portion"


def test_calls_carry_the_trace_of_the_client_where_nothing_is_traced():
    with Backend() as users:
        text = f"""listen {{ address = "127.0.0.1", port = @PORT@ }}
upstream "users" {{ targets = {{ "http://127.0.0.1:{users.port}" }} }}
route "all" {{ path = "/*", handler = function() return tg.respond(200, tg.upstream("users"):get("/x").body) end }}
"""
        with Gateway(text) as gw:
            gw.request("/", headers={"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "v=1"})
            gw.request("/", headers={"traceparent": "nonsense"})
        assert f"traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: v=1" in users.heads[0] and "traceparent" not in users.heads[1]


PARENT = f"00-{TRACE}-{SPAN}-01"
MANY = [f"bar{i}=1" for i in range(33)]

# Fields of the request, whether its trace goes on, and the tracestate that goes with it: the cases of the W3C's own suite for the recommendation.
CASES = {
    "both are missing": ([], False, None),
    "only a state": ([("tracestate", "foo=1")], False, None),
    "only a parent": ([("traceparent", PARENT)], True, None),
    "both": ([("traceparent", PARENT), ("tracestate", "foo=1,bar=2")], True, "foo=1,bar=2"),
    "names in any case": ([("TraceParent", PARENT), ("TraceState", "foo=1")], True, "foo=1"),
    "a parent twice": ([("traceparent", PARENT), ("traceparent", PARENT)], False, None),
    "a name that is only like it": ([("trace-parent", PARENT)], False, None),
    "blanks around it": ([("traceparent", f" \t{PARENT} \t")], True, None),
    "version 00 with more": ([("traceparent", PARENT + "-what-the-future-will-be-like")], False, None),
    "version cc with more": ([("traceparent", "cc" + PARENT[2:] + "-what-the-future-will-be-like")], True, None),
    "version cc with a dot": ([("traceparent", "cc" + PARENT[2:] + ".what-the-future-will-be-like")], False, None),
    "version ff": ([("traceparent", "ff" + PARENT[2:])], False, None),
    "a version that is no number": ([("traceparent", ".0" + PARENT[2:])], False, None),
    "a trace of zeros": ([("traceparent", f"00-{'0' * 32}-{SPAN}-01")], False, None),
    "a trace in capitals": ([("traceparent", f"00-{TRACE.upper()}-{SPAN}-01")], False, None),
    "a trace that is too long": ([("traceparent", f"00-{TRACE}0-{SPAN}-01")], False, None),
    "a span of zeros": ([("traceparent", f"00-{TRACE}-{'0' * 16}-01")], False, None),
    "a span that is too short": ([("traceparent", f"00-{TRACE}-{SPAN[1:]}-01")], False, None),
    "flags of one digit": ([("traceparent", f"00-{TRACE}-{SPAN}-1")], False, None),
    "flags that are no number": ([("traceparent", f"00-{TRACE}-{SPAN}-.1")], False, None),
    "a parent that is void": ([("traceparent", "nonsense"), ("tracestate", "foo=1")], False, None),
    "states in two fields": ([("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "bar=2")], True, "foo=1,bar=2"),
    "an empty state": ([("traceparent", PARENT), ("tracestate", "")], True, None),
    "empty fields among them": ([("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "")], True, "foo=1"),
    "blanks between members": ([("traceparent", PARENT), ("tracestate", "foo=1 \t , \t bar=2")], True, "foo=1,bar=2"),
    "a vendor of a tenant": ([("traceparent", PARENT), ("tracestate", "fw529a3039@dt=FfffffCC9j0jMF")], True, "fw529a3039@dt=FfffffCC9j0jMF"),
    "a key that is none": ([("traceparent", PARENT), ("tracestate", "foo =1")], True, None),
    "a key twice": ([("traceparent", PARENT), ("tracestate", "foo=1,foo=1")], True, None),
    "32 members": ([("traceparent", PARENT), ("tracestate", ",".join(MANY[:32]))], True, ",".join(MANY[:32])),
    "33 members": ([("traceparent", PARENT), ("tracestate", ",".join(MANY))], True, None),
}


def test_the_cases_of_the_recommendation():
    with Backend() as users:
        text = config(free_port(), users.port, "queue = 500, give_up = '1s'") + 'route "all" { path = "/*", to = "users" }\n'
        with Gateway(text, warns="batch tracing") as gw:
            for name, (fields, goes_on, state) in CASES.items():
                lines = "".join(f"{field}: {value}\r\n" for field, value in fields)
                answer = gw.raw(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n".encode())
                assert answer.startswith(b"HTTP/1.1 200"), (name, answer)
                head = users.heads[-1]
                parents = re.findall(r"^traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]\r?$", head, re.M | re.I)
                assert len(parents) == 1 and (parents[0][0] == TRACE) is goes_on and parents[0][1] != SPAN, (name, head)
                states = re.findall(r"^tracestate: ([^\r\n]*)\r?$", head, re.M | re.I)
                assert states == ([state] if state else []), (name, head)
