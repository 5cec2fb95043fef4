"""access-log: what real receivers get: files that rotate, syslog and lines by UDP, TCP and UNIX sockets, HTTP, Redis; and all of them away under load."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from backends import Backend
from gateway import RELEASE, Gateway, free_port, free_ports
from redis_servers import Redis, redis_word

ROUTE = 'route "all" { path = "/*", handler = function() return tg.respond(200, "x") end }\n'
HEAD = 'listen { address = "127.0.0.1", port = @PORT@ }\n'
SYSLOG = re.compile(r'<(\d+)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ edge - access - (\{.*\})')


def wait_until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def log_to(options):
    return HEAD + f'use {{ {{ "access-log", {options} }} }}\n' + ROUTE


class Receiver:
    """A socket that keeps all it gets."""

    def __init__(self, kind, address=("127.0.0.1", 0)):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket, self.data, self.kind = socket.socket(family, kind), [], kind
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address)
        self.address = self.socket.getsockname()
        if kind == socket.SOCK_STREAM:
            self.socket.listen(8)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            if self.kind == socket.SOCK_DGRAM:
                while True:
                    self.data.append(self.socket.recv(65536))
            while True:
                client, _ = self.socket.accept()
                threading.Thread(target=self.read, args=(client,), daemon=True).start()
        except OSError:
            pass

    def read(self, client):
        while chunk := client.recv(65536):
            self.data.append(chunk)

    def lines(self):
        if self.kind == socket.SOCK_DGRAM:
            return [piece.decode() for piece in self.data]
        return b"".join(self.data).decode().splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def test_a_line_of_json_says_all_and_no_secret():
    options = ('path = "@DIR@/access.log", mask = { "X-Pin" }, show = { "code" }, extra = { agent = "${header.User-Agent}", auth = "${header.Authorization}", '
               'pin = "${header.X-Pin}", cookie = "${cookie.sid}", query = "${query}", both = "${method} ${query.token}", type = "${response.Content-Type}", '
               'made = function(ctx) return ctx.req.path .. "!\\n" end, broken = function() error "x" end }')
    with Gateway(log_to(options)) as gw:
        gw.raw(b"GET /a%22b?x=1&token=abc&code=7&%74oken=def HTTP/1.1\r\nHost: h\r\nConnection: close\r\nUser-Agent: a\"b\\c\xffd\r\nAuthorization: Bearer abc\r\n"
               b"X-Pin: 1234\r\nCookie: sid=abc\r\n\r\n")
        text = wait_until(lambda: (gw.folder / "access.log").read_text(), "a line")
        line = json.loads(text)
        assert text.count("\n") == 1 and "abc" not in text and "1234" not in text and "def" not in text
        expected = {"method": "GET", "path": '/a"b', "status": 200, "source": "plugin", "route": "all", "client": "127.0.0.1", "host": "h", "upstream": None,
                    "agent": 'a"b\\c\ufffdd', "auth": "***", "pin": "***", "cookie": "***", "query": "x=1&token=***&code=7&%74oken=***", "both": "GET ***",
                    "type": None, "made": '/a"b!\n', "broken": None, "bytes_out": 1, "aborted": False, "trace": None}
        assert {key: line[key] for key in expected} == expected
        assert re.fullmatch(r"[0-9a-f]{32}", line["id"]) and abs(line["time"] - time.time()) < 30 and line["duration"] >= 0


def test_the_core_alone_writes_what_lua_would_write():
    """A line with a member that is Lua's own takes the other way, and says the same; so does one that follows an exchange that is recorded."""
    members = ('members = { "time", "id", "trace.id", "span.id", "client.ip", "method", "host", "path", "status", "source", "route.name", "upstream", "peer.name",'
               ' "consumer.id", "generation", "aborted", "bytes_out", "scheme", "version", "attempts" }, extra = { agent = "${header.User-Agent}",'
               ' token = "${header.X-Api-Key}"')
    with Backend() as one, Backend() as two:
        config = HEAD + f"""admin {{ port = @PORT2@, public_metrics = true }}
upstream "one" {{ targets = {{ "{one.url}" }} }}
upstream "two" {{ targets = {{ "{two.url}" }} }}
upstream "dead" {{ targets = {{ "http://127.0.0.1:1" }}, passive = false }}
consumer "acme" {{ credentials = {{ key = "k" }} }}
use {{ {{ "tracing", upstream = "dead", ratio = 0 }}, "correlation-id", {{ "access-log", path = "@DIR@/core.log", {members} }} }},
  {{ "access-log", path = "@DIR@/lua.log", {members}, own = function() return "x" end }} }} }}
route "one" {{ path = "/one", to = "one" }}
route "two" {{ path = "/two", to = "one", use = {{ function(ctx) ctx.upstream = "two" end }} }}
route "dead" {{ path = "/dead", to = "dead" }}
route "known" {{ path = "/known", to = "one", use = {{ "key-auth" }} }}
"""
        with Gateway(config, warns="127.0.0.1:1|malformed|batch tracing") as gw:
            sampled = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            for _ in range(2):  # the second time it is known what they say
                for target, headers in (("/one", {"User-Agent": 'a"b', "X-Api-Key": "secret"}), ("/two", {}), ("/dead", {}), ("/known", {"X-Api-Key": "k"}), ("/known", {}),
                                        ("/nowhere", {}), ("/one", sampled), ("/one", {"traceparent": "00-zz", "X-Request-Id": "own"}), ("/one", {"X-Request-Id": "b d"})):
                    gw.request(target, headers=headers)
                gw.raw(b"GET /% HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            files = [gw.folder / "core.log", gw.folder / "lua.log"]
            wait_until(lambda: all(file.read_text().count("\n") == 20 for file in files), "twenty lines of each")
            core, lua = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
            assert all(line.pop("own") == "x" for line in lua) and core == lua
            said, again = ([(line["status"], line["route"], line["upstream"], line["peer"], line["consumer"]) for line in core[at:at + 10]] for at in (0, 10))
            assert said == again
            assert said == [(200, "one", "one", one.address, None), (200, "two", "two", two.address, None), (502, "dead", "dead", "127.0.0.1:1", None),
                            (200, "known", "one", one.address, "acme"), (401, "known", "one", None, None), (404, None, None, None, None),
                            (200, "one", "one", one.address, None), (200, "one", "one", one.address, None), (200, "one", "one", one.address, None),
                            (400, None, None, None, None)]
            assert core[0]["agent"] == 'a"b' and core[0]["token"] == "***" and (core[0]["scheme"], core[0]["version"]) == ("http", "1.1")
            assert core[6]["trace"] == "0af7651916cd43dd8448eb211c80319c" and core[6]["span"] != "b7ad6b7169203331"
            assert re.fullmatch("[0-9a-f]{32}", core[7]["trace"]) and core[7]["id"] == "own" and re.fullmatch("[0-9a-f-]{36}", core[8]["id"])
            heads = [head.lower() for head in one.heads]
            assert any(f"traceparent: 00-{core[7]['trace']}-{core[7]['span']}-00" in head for head in heads), heads
            assert any(f"x-request-id: {core[8]['id']}" in head for head in heads)
            answer = gw.request("/status", port=gw.port2)
            assert not answer.headers.get("X-Request-Id"), "the listener for operators is not theirs"


def test_lua_is_not_entered_for_what_each_exchange_has_alike():
    """Of calls of plugins one of 61 is measured: of those of the core, none."""
    uses = '{ "tracing", url = "http://127.0.0.1:1/", ratio = 0 }, "correlation-id", { "access-log", path = "@DIR@/access.log" }'
    with Backend() as one:
        config = HEAD + f"""admin {{ port = @PORT2@, public_metrics = true }}
http {{ allow = {{ "127.0.0.1" }} }}
upstream "one" {{ targets = {{ "{one.url}" }} }}
use {{ {uses} }}
route "all" {{ path = "/*", to = "one", use = {{ {{ "headers", request = {{ set = {{ ["X-A"] = "1" }} }}, response = {{ set = {{ ["X-B"] = "2" }} }} }} }} }}
route "other" {{ path = "/other", to = "one", use = {{ {{ "access-log", path = "@DIR@/other.log", extra = {{ f = function() return "x" end }} }} }} }}
"""
        with Gateway(config) as gw:
            def calls():
                text = gw.request("/metrics", port=gw.port2).text.decode()
                return {plugin for plugin in re.findall(r'tidegate_plugin_calls_total\{plugin="([^"]+)",phase="[^"]+"\} [1-9]', text)}
            for _ in range(65):
                answer = gw.request("/a")
                assert answer.headers["X-Request-Id"] and answer.headers["X-B"] == "2"
            assert "\r\nX-A: 1\r\n" in one.heads[-1]
            assert calls() == set()
            gw.request("/other")
            assert "access-log" in calls(), "a function of its own is Lua's"
            wait_until(lambda: (gw.folder / "access.log").read_text().count("\n") == 66, "a line for each")
            assert (gw.folder / "other.log").read_text().count('"f":"x"') == 1


def test_what_is_known_of_a_route_is_not_said_of_another():
    """Pieces of a line that say the same for most exchanges are remembered: there are more routes, peers and statuses than there is room for."""
    members = 'members = { "status", "source", "route.name", "upstream", "peer.name", "scheme", "version", "generation", "consumer.id", "aborted", "path" }'
    long = "long" * 15
    with Backend() as one, Backend() as two:
        config = HEAD + f"""upstream "{long}" {{ targets = {{ "{one.url}", "{two.url}" }} }}
use {{ {{ "access-log", path = "@DIR@/access.log", {members} }} }}
for i = 1, 40 do
  route("r" .. i) {{ path = "/r" .. i, handler = function(ctx) return tg.respond(200 + tonumber(ctx.req.headers["X-S"]), "x") end }}
end
route "{long}" {{ path = "/both", to = "{long}" }}
"""
        with Gateway(config) as gw:
            expected = []
            for turn in range(3):
                for i in range(1, 41):
                    gw.request(f"/r{i}", headers={"X-S": str((i + turn) % 2)})
                    expected.append((200 + (i + turn) % 2, "plugin", f"r{i}", None, f"/r{i}"))
                    gw.request("/both")
                    expected.append((200, "upstream", long, long, "/both"))
            file = gw.folder / "access.log"
            wait_until(lambda: file.read_text().count("\n") == len(expected), "a line for each")
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert [(line["status"], line["source"], line["route"], line["upstream"], line["path"]) for line in lines] == expected
            peers = {line["peer"] for line in lines if line["route"] == long}
            assert peers == {one.address, two.address} and {line["peer"] for line in lines if line["route"] != long} == {None}


def test_a_newline_of_a_format_is_a_blank():
    with Gateway(log_to('path = "@DIR@/access.log", format = "${method}\\n${path}"')) as gw:
        gw.request("/a")
        assert wait_until(lambda: (gw.folder / "access.log").read_text(), "a line") == "GET /a\n"


def test_a_format_is_one_line_whatever_is_in_it():
    options = 'path = "@DIR@/access.log", format = \'${client.ip} ${date} "${method} ${path}" ${status} ${header.User-Agent} ${header.None} ${query} ${vars.evil} ${trace.id}\''
    evil = 'use { function(ctx) ctx.vars.evil = "\\n\\27[2J\\0" end }\n'
    with Gateway(evil + log_to(options)) as gw:
        gw.raw(b'GET /a%22%c3%a9?q=%0a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nUser-Agent: x"y\\z\xe9\r\n'
               b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
        text = wait_until(lambda: (gw.folder / "access.log").read_text(), "a line")
        assert re.fullmatch(r'127\.0\.0\.1 \S+Z "GET /a\\x22\\xc3\\xa9" 200 x\\x22y\\x5cz\\xe9 - q=%0a \\x0a\\x1b\[2J\\x00 0af7651916cd43dd8448eb211c80319c\n', text), text


def test_what_is_sampled_away_is_logged_when_it_fails():
    text = log_to('path = "@DIR@/access.log", sample = 0, always = { status = 500, slower = "100ms" }') + """
route "bad" { path = "/bad", handler = function() return tg.respond(503) end }
route "slow" { path = "/slow", handler = function() tg.sleep(0.15) return tg.respond(200) end }
"""
    with Gateway(text) as gw:
        for path in ("/", "/bad", "/", "/slow"):
            gw.request(path)
        log = gw.folder / "access.log"
        wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
        assert [json.loads(line)["path"] for line in log.read_text().splitlines()] == ["/bad", "/slow"]


def test_a_condition_chooses_by_anything_that_is_known_at_the_end():
    text = log_to('path = "@DIR@/access.log", when = function(ctx) return (ctx.status or 0) >= 400 and ctx.req.method ~= "HEAD" end')
    text += 'route "bad" { path = "/bad", handler = function() return tg.respond(404) end }\n'
    with Gateway(text) as gw:
        for path, method in (("/", "GET"), ("/bad", "HEAD"), ("/bad", "GET"), ("/", "GET"), ("/bad", "POST")):
            gw.request(path, method)
        log = gw.folder / "access.log"
        wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
        assert [json.loads(line)["method"] for line in log.read_text().splitlines()] == ["GET", "POST"]


def test_a_file_is_rotated_by_its_size_by_all_workers_and_none_of_its_lines_is_lost():
    with Gateway(log_to('path = "@DIR@/access.log", rotate = "64KiB", keep = 50'), workers=2) as gw:
        done = subprocess.run(["wrk", "-t1", "-c4", "-d1", f"http://127.0.0.1:{gw.port}/"], capture_output=True, text=True, timeout=30, check=True).stdout
        requests = int(re.search(r"(\d+) requests in", done)[1])
        gw.process.send_signal(signal.SIGQUIT)
        gw.process.wait(15)
        files = sorted(gw.folder.glob("access.log*"))
        lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        assert len(files) > 2 and (len(lines) >= requests or len(files) == 51)
        assert len({line["id"] for line in lines}) == len(lines)


def test_lines_go_on_in_the_new_file_after_usr1():
    with Gateway(log_to('path = "@DIR@/access.log"')) as gw:
        log = gw.folder / "access.log"
        gw.request("/one")
        wait_until(log.read_text, "a line")
        log.rename(gw.folder / "old")
        os.kill(gw.process.pid, signal.SIGUSR1)
        wait_until(lambda: gw.request("/two").status == 200 and log.exists() and log.read_text(), "a new file")
        assert "/one" in (gw.folder / "old").read_text() and "/one" not in log.read_text()


@pytest.mark.parametrize("scheme, kind", [("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM), ("tcp+octets", socket.SOCK_STREAM)])
def test_syslog_gets_messages_of_rfc_5424(scheme, kind):
    with Receiver(kind) as receiver:
        options = f'path = "{scheme}://127.0.0.1:{receiver.address[1]}", syslog = {{ facility = "local3", app = "edge" }}'
        with Gateway(log_to(options) + 'route "bad" { path = "/bad", handler = function() return tg.respond(500) end }') as gw:
            gw.request("/a%22b")
            gw.request("/bad")
            if scheme == "tcp+octets":
                def messages():
                    rest, found = b"".join(receiver.data), []
                    while head := re.match(rb"(\d+) ", rest):
                        found.append(rest[head.end():head.end() + int(head[1])].decode())
                        rest = rest[head.end() + int(head[1]):]
                    return found
            else:
                messages = receiver.lines
            wait_until(lambda: len(messages()) == 2, "two messages")
            found = [SYSLOG.fullmatch(message) for message in messages()]
            assert [(int(one[1]), json.loads(one[2])["path"]) for one in found] == [(19 * 8 + 6, '/a"b'), (19 * 8 + 3, "/bad")]


@pytest.mark.parametrize("scheme, kind", [("unixgram", socket.SOCK_DGRAM), ("unix", socket.SOCK_STREAM)])
def test_lines_go_to_sockets_of_this_machine(scheme, kind):
    with tempfile.TemporaryDirectory() as folder, Receiver(kind, f"{folder}/log") as receiver:
        pathlib.Path(folder, "log").chmod(0o777)
        pathlib.Path(folder).chmod(0o755)
        with Gateway(log_to(f'path = "{scheme}:{folder}/log", format = "${{method}} ${{path}}"')) as gw:
            gw.request("/one")
            gw.request("/two", "POST")
            wait_until(lambda: len(receiver.lines()) == 2, "two lines")
            assert receiver.lines() == ["GET /one", "POST /two"]


def test_a_receiver_by_tcp_that_comes_late_and_goes_away_gets_the_lines():
    port = free_port()
    with Gateway(log_to(f'path = "tcp://127.0.0.1:{port}", format = "${{path}}"')) as gw:
        gw.request("/early")
        wait_until(lambda: "Connection refused" in gw.log(), "it is tried")
        with Receiver(socket.SOCK_STREAM, ("127.0.0.1", port)) as receiver:
            wait_until(lambda: receiver.lines() == ["/early"], "what has waited comes")
            gw.request("/late")
            wait_until(lambda: receiver.lines() == ["/early", "/late"], "more of it")


@pytest.mark.parametrize("encoding, by", [("ndjson", "upstream"), ("json", "url")])
def test_portions_go_by_http(encoding, by):
    with Backend() as sink:
        where = 'upstream = "sink", path = "/bulk"' if by == "upstream" else f'url = "{sink.url}/bulk"'
        text = f'upstream "sink" {{ targets = {{ "{sink.url}" }} }}\nhttp {{ allow = {{ "127.0.0.1" }} }}\n'
        text += log_to(f'http = {{ {where}, encoding = "{encoding}", every = "200ms", headers = {{ ["X-Key"] = "k" }} }}')
        with Gateway(text, warns="batch access-log") as gw:
            for i in range(3):
                gw.request(f"/{i}")
            head, body = wait_until(lambda: sink.heads and sink.heads[0], "a portion").split("\r\n\r\n", 1)
            lines = json.loads(body) if encoding == "json" else [json.loads(line) for line in body.splitlines()]
            assert [line["path"] for line in lines] == ["/0", "/1", "/2"] and "X-Key: k" in head and head.startswith("POST /bulk")
            sink.status = 503
            gw.request("/again")
            wait_until(lambda: len(sink.heads) >= 2, "it is sent")
            sink.status = 200
            wait_until(lambda: len(sink.heads) >= 3 and "/again" in sink.heads[-1], "it is sent again")


def test_lines_are_added_to_a_stream_of_bounded_length():
    with Redis() as redis:
        options = 'redis = { name = "main", stream = "logs", max_length = 100, every = "100ms" }'
        with Gateway(redis_word("main", redis) + log_to(options), warns="batch access-log|redis") as gw:
            gw.request("/one")
            entry = wait_until(lambda: redis.cli("xrange", "logs", "-", "+"), "an entry")
            assert '"path":"/one"' in entry and "line" in entry
            for i in range(1000):
                gw.request(f"/{i}")
            wait_until(lambda: '"path":"/999"' in redis.cli("xrevrange", "logs", "+", "-", "count", "1"), "the last one")
            assert int(redis.cli("xlen", "logs")) < 400
            redis.cli("del", "logs")
            redis.cli("set", "logs", "no stream")
            gw.request("/held")
            wait_until(lambda: "batch access-log main" in gw.log(), "it is told")
            redis.cli("del", "logs")
            assert '"path":"/held"' in wait_until(lambda: redis.cli("xrange", "logs", "-", "+"), "it comes later")


METRICS = """return { doc = "Shows the metrics.", handler = function() return tg.respond(200, tg.metrics.text()) end }"""


def memory(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", open(f"/proc/{pid}/status", encoding="ascii").read(), re.M)[1])


def test_all_receivers_away_under_load_cost_lines_and_nothing_else():
    ports = free_ports(5)
    uses = [f'path = "tcp://127.0.0.1:{ports[0]}"', f'path = "udp://127.0.0.1:{ports[1]}", syslog = {{}}', 'path = "unix:@DIR@/none"', 'path = "/dev/full"', f'path = "kafka://127.0.0.1:{ports[4]}/access"',
            f'http = {{ url = "http://127.0.0.1:{ports[2]}/", queue = 500, give_up = "2s" }}', 'redis = { name = "main", queue = 500, give_up = "2s" }']
    text = HEAD + f'redis "main" {{ address = "127.0.0.1:{ports[3]}" }}\nhttp {{ allow = {{ "127.0.0.1" }} }}\nuse {{ ' + ", ".join(
        f'{{ "access-log", extra = {{ pad = ("x"):rep(4000) }}, {use} }}' for use in uses) + ' }\n' + ROUTE + 'route "metrics" { path = "/metrics", handler = "metrics" }\n'
    with Gateway(text, plugins={"metrics": METRICS}, warns="batch access-log|redis|Redis") as gw:
        pid = gw.workers()[0]
        load = ["wrk", "-t1", "-c20", "-d2", f"http://127.0.0.1:{gw.port}/"]
        first = subprocess.run(load, capture_output=True, text=True, timeout=30, check=True).stdout
        before = memory(pid)
        second = subprocess.run(load, capture_output=True, text=True, timeout=30, check=True).stdout
        assert "Non-2xx" not in first + second and "Socket errors" not in first + second, first + second + gw.log()[-3000:]
        assert memory(pid) < before * 1.3 + 16384

        def counted():
            found = gw.request("/metrics").text.decode()
            of_sinks = re.findall(r'tidegate_log_dropped_total\{sink="([^"]+)"\} (\d+)', found)
            of_batches = re.findall(r'tidegate_batch_dropped_total\{batch="(access-log [^"]+)"\} (\d+)', found)
            return len([1 for _, n in of_sinks + of_batches if int(n) > 100]) >= 6  # nobody tells who sends by UDP
        wait_until(counted, "all that can know count what they drop")
        assert gw.workers() == [pid]


def loop_time(gw, requests):
    """Microseconds of the worker's own thread for each of so many requests."""
    pid = gw.workers()[0]

    def spent():
        return int(pathlib.Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1000
    before = spent()
    done = subprocess.run(["h2load", "--h1", "-n", str(requests), "-c", "8", "-t1", f"http://127.0.0.1:{gw.port}/"], capture_output=True, text=True, timeout=60)
    assert f"{requests} succeeded" in done.stdout, done.stdout
    return (spent() - before) / requests


def test_receivers_that_are_away_cost_requests_no_more_than_those_that_are_there():
    ports = free_ports(3)
    with Receiver(socket.SOCK_STREAM) as stream, Receiver(socket.SOCK_DGRAM) as datagrams, Backend() as sink:
        def text(tcp, udp, http):
            uses = ", ".join(f'{{ "access-log", {one} }}' for one in (f'path = "tcp://127.0.0.1:{tcp}"', f'path = "udp://127.0.0.1:{udp}"',
                                                                      f'http = {{ url = "http://127.0.0.1:{http}/" }}'))
            tracing = f'{{ "tracing", url = "http://127.0.0.1:{http}/v1/traces", ratio = 1 }}'
            return HEAD.replace("@PORT@", "@PORT@, keepalive_requests = 1000000") + f'http {{ allow = {{ "127.0.0.1" }} }}\nuse {{ {uses}, {tracing} }}\n' + ROUTE
        there = Gateway(text(stream.address[1], datagrams.address[1], sink.port), binary=RELEASE)
        away = Gateway(text(*ports), binary=RELEASE, warns="batch ")
        with there, away:
            for gw in (there, away):
                loop_time(gw, 10000)
            times = [(loop_time(there, 10000), loop_time(away, 10000)) for _ in range(3)]
            assert min(one for _, one in times) <= 1.01 * min(one for one, _ in times), times


def test_a_line_of_code_that_logs_with_each_request_is_cut_short_and_counted():
    text = HEAD + "log { rate = 10 }\n" + """use { { "correlation-id", generator = "hex" } }
route "noisy" { path = "/noisy", handler = function(ctx) tg.log.info("noise") return tg.respond(200) end }
route "raises" { path = "/raises", handler = function() error "boom" end }
route "other" { path = "/other", handler = function() tg.log.info("other line") return tg.respond(200) end }
"""
    with Gateway(text, warns="were left out") as gw:
        for _ in range(30):
            gw.request("/noisy")
            gw.request("/raises")
        gw.request("/other", headers={"X-Request-Id": "abc-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        gw.wait_for("other line")
        log = gw.log()
        assert log.count("noise [") == 10 and log.count("boom [") == 10
        assert re.search(r"other line \[plugin .*, route other, generation \w+, request abc-1, trace 0af7651916cd43dd8448eb211c80319c\]", log)
        wait_until(lambda: gw.request("/noisy") and re.search(r"\d+ more lines of \S+:\d+ were left out", gw.log()), "how many there were", 15)
        assert gw.log().count("noise [") <= 12


def test_the_id_of_a_request_goes_with_its_calls_and_into_its_line():
    with Backend() as users:
        text = HEAD + f"""upstream "users" {{ targets = {{ "{users.url}" }} }}
use {{ "correlation-id", {{ "access-log", path = "@DIR@/access.log" }} }}
route "all" {{ path = "/*", to = "users", use = {{ function() tg.upstream("users"):get("/call") end }} }}
"""
        with Gateway(text) as gw:
            made = gw.request("/made").headers["X-Request-Id"]
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
            assert gw.request("/given", headers={"X-Request-Id": "given-1"}).headers["X-Request-Id"] == "given-1"
            assert [re.findall(r"(?i)^x-request-id: (.*?)\r?$", head, re.M) for head in users.heads] == [[made], [made], ["given-1"], ["given-1"]]
            log = gw.folder / "access.log"
            wait_until(lambda: log.read_text().count("\n") == 2, "two lines")
            assert [json.loads(line)["id"] for line in log.read_text().splitlines()] == [made, "given-1"]
