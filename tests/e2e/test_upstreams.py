"""Upstreams that survive their backends: balancers, health, breakers, retries, bulkheads, counted at real backends."""
import collections
import http.client
import re
import socket
import struct
import threading
import time

from backends import Backend
from gateway import Gateway, free_port, kill


def config(backends, extra="", targets=None, route=""):
    listed = targets or ", ".join(f'"{b.url}"' for b in backends)
    return f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ {listed} }}, {extra} }}
route "all" {{ path = "/*", to = "app", {route} }}
"""


def many(gw, count, clients=4, path="/", method="GET", headers=None):
    """statuses, names of the backends that answered; over kept connections."""
    statuses, names = collections.Counter(), collections.Counter()
    lock = threading.Lock()

    def run(n):
        connection = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)
        for _ in range(n):
            try:
                connection.request(method, path, headers=headers or {})
                answer = connection.getresponse()
                text = answer.read().decode()
                with lock:
                    statuses[answer.status] += 1
                    names[text] += answer.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                with lock:
                    statuses["broken"] += 1

    threads = [threading.Thread(target=run, args=(count // clients,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, names


def until(condition, seconds=8):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it does not come true"
        time.sleep(0.02)


def upstream_status(gw, name="app"):
    return gw.command("upstream", name).stdout


def test_weights_are_kept_within_2_percent_by_two_workers():
    with Backend("a") as a, Backend("b") as b, Backend("c") as c:
        targets = f'{{ url = "{a.url}", weight = 5 }}, {{ url = "{b.url}", weight = 3 }}, {{ url = "{c.url}", weight = 2 }}'
        for balance in ("round_robin", "least_conn"):
            with Gateway(config([], f'balance = "{balance}"', targets), workers=2) as gw:
                _, names = many(gw, 3000, clients=8)
        total = sum(names.values())
        assert total == 3000
        with Gateway(config([], "", targets), workers=2) as gw:
            _, names = many(gw, 3000, clients=8)
            for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
                assert abs(names[name] / 3000 - share) < 0.02, names


def test_least_conn_random_and_ewma_avoid_the_slow_peer():
    with Backend("fast") as fast, Backend("slow") as slow:
        slow.delay = 0.05
        for balance in ("least_conn", "random", "ewma"):
            with Gateway(config([fast, slow], f'balance = "{balance}"'), workers=2) as gw:
                _, names = many(gw, 800, clients=8)
                assert names["slow"] < 0.3 * names["fast"], (balance, names)


def test_a_hash_keeps_keys_and_moves_only_those_of_the_peer_that_goes():
    backends = [Backend(name) for name in "abcd"]
    try:
        for balance in ("hash", "maglev"):
            extra = f'balance = "{balance}", hash = "${{header.X-Key}}", passive = {{ consecutive = 1, eject = "60s" }}'
            with Gateway(config(backends, extra), workers=2, warns="ejected|upstream 127|") as gw:
                def owner(key):
                    return gw.request(headers={"X-Key": key}).text.decode()
                keys = [f"user-{i}" for i in range(200)]
                before = {key: owner(key) for key in keys}
                assert set(before.values()) == set("abcd")
                assert before == {key: owner(key) for key in keys}
                assert gw.command("upstream", "app", "down", backends[0].address).returncode == 0
                after = {key: owner(key) for key in keys}
                assert all(after[key] == before[key] for key in keys if before[key] != "a")
                assert "a" not in after.values()
                gw.command("upstream", "app", "up", backends[0].address)
                assert before == {key: owner(key) for key in keys}
    finally:
        for backend in backends:
            backend.stop()


def test_a_balancer_is_a_function_of_ten_lines():
    with Backend("a") as a, Backend("b") as b:
        choice = "balance = function(ctx, peers) return peers[ctx.req.query.n == '2' and 2 or 1] end"
        with Gateway(config([a, b], choice)) as gw:
            assert gw.request("/?n=1").text == b"a" and gw.request("/?n=2").text == b"b"


CHOOSES = """return { schema = {}, balance = function(ctx)
  local wanted = ctx.req.query.n
  if wanted == "table" then return ctx.peers[#ctx.peers] end
  if wanted == "name" then return ctx.peers[1].name end
  if wanted == "response" then return tg.respond(200, "no peer") end
  if wanted == "number" then return 1 end
end }"""


def test_a_plugin_chooses_the_peer_of_each_attempt():
    with Backend("a") as a, Backend("b") as b:
        text = config([a, b], 'retry = { on = { "connect" } }', route='use = { "chooses" }')
        with Gateway(text, plugins={"chooses": CHOOSES}, warns="chooses") as gw:
            assert {gw.request("/?n=table").text for _ in range(4)} == {b"b"} and {gw.request("/?n=name").text for _ in range(4)} == {b"a"}
            assert {gw.request("/").text for _ in range(4)} == {b"a", b"b"}
            for wrong in ("response", "number"):
                assert gw.request("/?n=" + wrong).status == 500
                assert f"chooses: balance must return one of ctx.peers or nothing, returned a {wrong}" in gw.log()
            b.stop()  # those at which the request has failed are not among them any more
            assert gw.request("/?n=table").text == b"a"


def test_a_cookie_binds_a_client_to_its_peer():
    with Backend("a") as a, Backend("b") as b:
        with Gateway(config([a, b], 'sticky = { secret = "s3cret-of-some-length" }'), workers=2) as gw:
            first = gw.request()
            cookie = first.getheader("Set-Cookie")
            assert cookie.startswith("tidegate_peer=") and "HttpOnly" in cookie and "SameSite=Lax" in cookie and "127" not in cookie
            value = cookie.split(";")[0]
            for _ in range(20):
                answer = gw.request(headers={"Cookie": value})
                assert answer.text == first.text and answer.getheader("Set-Cookie") is None
            forged = {gw.request(headers={"Cookie": "tidegate_peer=" + "A" * 32}).text for _ in range(20)}
            assert forged == {b"a", b"b"}
            # A drained peer keeps those that are bound to it, and gets nobody else; one that is down gets nobody.
            bound = a if first.text == b"a" else b
            gw.command("upstream", "app", "drain", bound.address)
            assert gw.request(headers={"Cookie": value}).text == first.text
            assert {gw.request().text for _ in range(10)} == {b"a", b"b"} - {first.text}
            gw.command("upstream", "app", "down", bound.address)
            moved = gw.request(headers={"Cookie": value})
            assert moved.text != first.text and moved.getheader("Set-Cookie")


def test_priorities_zones_and_panic():
    with Backend("first") as first, Backend("second") as second:
        targets = f'{{ url = "{first.url}" }}, {{ url = "{second.url}", priority = 1 }}'
        with Gateway(config([], "", targets)) as gw:
            assert {gw.request().text for _ in range(6)} == {b"first"}
            gw.command("upstream", "app", "down", first.address)
            assert {gw.request().text for _ in range(6)} == {b"second"}
            gw.command("upstream", "app", "down", second.address)
            answer = gw.request()
            assert answer.status == 503 and answer.getheader("Retry-After") == "1"
            gw.command("upstream", "app", "up", second.address)
            assert gw.request().text == b"second"
        targets = f'{{ url = "{first.url}", zone = "east" }}, {{ url = "{second.url}", zone = "west" }}'
        with Gateway(config([], 'zone = "west"', targets)) as gw:
            assert {gw.request().text for _ in range(6)} == {b"second"}
            gw.command("upstream", "app", "down", second.address)
            assert gw.request().text == b"first"
        health = 'panic = 0.6, health = { path = "/", every = "20ms", fall = 1 }'
        first.status = second.status = 404
        with Gateway(config([first, second], health), warns="unhealthy") as gw:
            gw.wait_for("peer unhealthy", count=2)
            assert gw.request().status == 404  # asked all the same


def test_one_of_four_that_fails_each_request_is_not_noticed():
    backends = [Backend(name) for name in "abcd"]
    try:
        backends[0].fail_every = 1
        extra = 'retry = { attempts = 3, on = { "connect", "reset", 503 }, budget = 0.5 }'
        for failure in ("503", "reset"):
            backends[0].failure = failure
            with Gateway(config(backends, extra), workers=2, warns="ejected|upstream 127") as gw:
                statuses, _ = many(gw, 4000, clients=8)
                assert statuses[200] >= 3996, statuses
    finally:
        for backend in backends:
            backend.stop()


def test_a_peer_that_dies_is_ejected_and_comes_back_and_a_reload_forgets_nothing():
    with Backend("a") as a, Backend("b") as b:
        port = b.port
        passive = 'passive = { consecutive = 3, eject = "2s" }'
        with Gateway(config([a, b], passive), workers=2, warns="ejected|upstream 127|worker") as gw:
            assert many(gw, 40)[1].keys() == {"a", "b"}
            b.stop()
            statuses, _ = many(gw, 100)
            assert statuses == {200: 100}
            assert "ejected for" in upstream_status(gw)
            gw.write("gateway.lua", config([a, b], passive) + 'route "more" { path = "/more", to = "app" }\n')
            assert gw.command("reload").returncode == 0
            assert "ejected for" in upstream_status(gw)
            kill(gw.workers()[0])
            until(lambda: len(gw.workers()) == 2)
            assert "ejected for" in upstream_status(gw)
            with Backend("b", port) as back:
                until(lambda: "ejected" not in upstream_status(gw))
                until(lambda: many(gw, 10) and back.requests > 0)


def test_active_checks_take_out_and_bring_back_and_end_with_their_configuration():
    with Backend("a") as a, Backend("b") as b:
        health = 'health = { path = "/ready", every = "50ms", rise = 2, fall = 2, timeout = "200ms" }'
        with Gateway(config([a, b], health), workers=2, warns="unhealthy") as gw:
            until(lambda: b.requests > 2)
            assert all("GET /ready " in head for head in b.heads)
            b.status = 500
            gw.wait_for("peer unhealthy")
            assert many(gw, 48) == ({200: 48}, {"a": 48})
            assert "unhealthy" in upstream_status(gw) and "1 of 2 peers up" in upstream_status(gw)
            b.status = 200
            gw.wait_for("peer healthy")
            until(lambda: "2 of 2 peers up" in upstream_status(gw))
            # One prober for the gateway: 20 a second, not 40.
            before = b.requests
            time.sleep(1)
            assert b.requests - before < 30
            b.delay = 1
            gw.wait_for("peer unhealthy", count=2)
            gw.write("gateway.lua", config([a, b]))
            assert gw.command("reload").returncode == 0
            time.sleep(0.3)
            before = b.requests
            time.sleep(0.5)
            assert b.requests == before
            assert "2 of 2 peers up" in upstream_status(gw)


def test_a_breaker_opens_and_lets_exactly_n_probes_through_with_two_workers():
    with Backend("a") as a:
        breaker = 'breaker = { errors = 0.5, min = 10, window = "2s", open = "500ms", open_max = "500ms", probes = 3 }, retry = false'
        with Gateway(config([a], breaker), workers=2, warns="circuit breaker") as gw:
            many(gw, 40)
            a.status = 500
            many(gw, 100, clients=8)
            gw.wait_for("circuit breaker open")
            until(lambda: many(gw, 8)[0][503] == 8, 2)
            assert "breaker open for" in upstream_status(gw)
            refused = gw.request()
            assert refused.status == 503 and int(refused.getheader("Retry-After")) >= 1
            # Half-open, and the probes hang: no more than three reach the backend, whatever comes.
            a.status, a.delay = 200, 1.0
            before = a.requests
            time.sleep(0.65)
            results = []
            threads = [threading.Thread(target=lambda: results.append(gw.request().status)) for _ in range(40)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            assert a.requests - before == 3
            for thread in threads:
                thread.join()
            assert sorted(results) == [200] * 3 + [503] * 37
            a.delay = 0
            gw.wait_for("circuit breaker closed")
            assert many(gw, 20)[0] == {200: 20}


def test_retries_stay_within_their_budget_when_all_is_down():
    backends = [Backend(name) for name in "ab"]
    try:
        for backend in backends:
            backend.fail_every = 1
        extra = 'passive = false, retry = { attempts = 5, on = { 503 }, backoff = "1ms", budget = 0.2, budget_min = 3 }'
        with Gateway(config(backends, extra), workers=2) as gw:
            statuses, _ = many(gw, 1000, clients=8)
            assert statuses == {503: 1000}
            total = sum(backend.requests for backend in backends)
            assert total <= 1000 * 1.2 + 3 + 8, total
            assert total > 1100
    finally:
        for backend in backends:
            backend.stop()


def test_what_may_be_repeated():
    with Backend("a") as a, Backend("b") as b:
        a.fail_every = b.fail_every = 2
        extra = 'passive = false, retry = { on = { "connect", "reset", 503 }, methods = { "PATCH" }, budget = 1, budget_min = 100 }'
        with Gateway(config([a], extra), warns="upstream 127") as gw:
            for method, body, total in (("GET", None, 20), ("PUT", b"x" * 1000, 20), ("PATCH", b"y" * 1000, 20)):
                for _ in range(total):
                    assert gw.request(method=method, body=body).status == 200, method
            assert {head.split("\r\n\r\n")[1] for head in a.heads if head.startswith("PUT")} == {"x" * 1000}
            statuses = collections.Counter(gw.request(method="POST", body=b"z").status for _ in range(20))
            assert statuses[503] > 5
            # One that is too large to be kept goes out once.
            statuses = collections.Counter(gw.request(method="PUT", body=b"z" * 100000).status for _ in range(10))
            assert statuses[503] > 2


def test_retry_after_is_honoured_and_a_try_has_its_own_time():
    with Backend("a") as a:
        a.fail_every, a.headers = 2, "Retry-After: 1\r\n"
        extra = 'passive = false, retry = { on = { 503 }, retry_after_max = "2s", budget = 1, budget_min = 100 }'
        with Gateway(config([a], extra)) as gw:
            gw.request()
            start = time.time()
            assert gw.request().status == 200
            assert 0.9 < time.time() - start < 2
            a.headers = "Retry-After: 60\r\n"
            gw.request()
            assert {gw.request().status for _ in range(2)} == {200, 503}
    with Backend("a") as a, Backend("b") as b:
        a.delay = 3
        extra = 'retry = { on = { "timeout" }, try_timeout = "200ms", budget = 1, budget_min = 100 }'
        with Gateway(config([a, b], extra), warns="upstream 127|ejected") as gw:
            for _ in range(6):
                start = time.time()
                assert gw.request().text == b"b"
                assert time.time() - start < 1


def test_a_bulkhead_bounds_what_is_in_flight_and_what_waits():
    with Backend("a") as a:
        a.delay = 0.2
        extra = 'bulkhead = { concurrency = 4, queue = 8, wait = "3s", order = "fifo" }'
        with Gateway(config([a], extra), workers=2) as gw:
            results = []
            threads = [threading.Thread(target=lambda: results.append(gw.request())) for _ in range(30)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            statuses = collections.Counter(answer.status for answer in results)
            assert a.most == 4
            assert statuses[200] == 12 and statuses[503] == 18, statuses
            assert all(answer.getheader("Retry-After") for answer in results if answer.status == 503)
            assert "in flight 0" in upstream_status(gw)
            # Of a route, and without a queue.
        with Gateway(config([a], route='bulkhead = { concurrency = 2 }'), workers=2) as gw:
            statuses, _ = many(gw, 40, clients=10)
            assert statuses[503] > 0 and statuses[200] > 0
        # A queue has an end for each that waits.
        a.delay = 1
        with Gateway(config([a], 'bulkhead = { concurrency = 1, queue = 10, wait = "200ms" }')) as gw:
            start = time.time()
            statuses, _ = many(gw, 5, clients=5)
            assert statuses == {200: 1, 503: 4}
            assert time.time() - start < 2


def test_room_is_given_back_when_clients_leave_and_workers_die():
    with Backend("a") as a:
        a.delay = 30
        with Gateway(config([a], 'bulkhead = { concurrency = 3, queue = 3, wait = "9s" }'), workers=2, warns="worker") as gw:
            clients = []
            for _ in range(6):
                client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)
                client.request("GET", "/")
                clients.append(client)
            until(lambda: "3 waiting" in upstream_status(gw))
            assert a.in_flight == 3
            for client in clients:  # a client that closes its half still gets its answer; one that resets is gone
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            until(lambda: "in flight 0" in upstream_status(gw) and "waiting" not in upstream_status(gw))
            for _ in range(3):
                client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)
                client.request("GET", "/")
                clients.append(client)
            until(lambda: "in flight 3" in upstream_status(gw))
            for pid in gw.workers():
                kill(pid)
            until(lambda: len(gw.workers()) == 2 and "in flight 0" in upstream_status(gw))
            a.delay = 0
            assert gw.request().status == 200


def test_an_adaptive_limit_finds_what_a_backend_bears():
    with Backend("a") as a:
        work = threading.Semaphore(4)  # four at a time are quick; more wait for each other
        plain = a.answer

        def answer(client, head, body):
            with work:
                time.sleep(0.02)
                return plain(client, head, body)
        a.answer = answer
        extra = 'bulkhead = { concurrency = 64, queue = 64, wait = "5s", adaptive = true, min = 2 }'
        with Gateway(config([a], extra)) as gw:
            end = time.time() + 6
            while time.time() < end:
                many(gw, 200, clients=40)
            status = upstream_status(gw)
            limit = int(status.split("limit ")[1].split(",")[0].split("\n")[0])
            assert 2 <= limit <= 40, status


def test_a_route_has_a_breaker_of_its_own_and_a_hook_hears_of_it():
    with Backend("a") as a:
        hook = 'breaker = { consecutive = 3, open = "30s", on_change = function(e) tg.log.info("hook " .. e.to) end }'
        with Gateway(config([a], "retry = false", route=hook) + 'route "other" { path = "/other", to = "app" }', warns="circuit") as gw:
            a.status = 500
            statuses, _ = many(gw, 6, clients=1)
            assert statuses == {500: 3, 503: 3}
            gw.wait_for("hook open")
            assert gw.request("/other").status == 500
            assert "route       all: breaker open" in gw.command("status").stdout
            a.status = 200
            assert gw.request("/").status == 503
            assert "breaker closed" in gw.command("route", "all", "close").stdout
            assert gw.request("/").status == 200
            assert gw.command("route", "all", "open").returncode == 0 and gw.request("/").status == 503
            assert gw.command("route", "nobody", "open").returncode == 1 and gw.command("route", "all", "ajar").returncode == 1


def test_the_deadline_is_passed_on():
    with Backend("a") as a:
        with Gateway(config([a], 'deadline_header = "X-Request-Deadline"', route='timeout = "5s"')) as gw:
            assert gw.request().status == 200
            value = a.heads[0].split("X-Request-Deadline: ")[1].split("\r\n")[0]
            assert 4 < float(value) - time.time() <= 5


def test_calls_from_lua_follow_the_policy_of_their_upstream():
    plugin = """return { api = 1, doc = "d", handler = function(ctx)
      local r, err = tg.upstream("app"):get("/x")
      return tg.respond(200, r and (r.status .. " " .. r.body) or err.code)
    end }"""
    with Backend("a") as a, Backend("b") as b:
        a.fail_every = 1
        extra = 'passive = false, breaker = { consecutive = 4, open = "30s" }, retry = { on = { "connect", 503 }, budget = 1, budget_min = 100 }'
        text = f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ "{a.url}", "{b.url}" }}, {extra} }}
route "call" {{ path = "/*", handler = "call" }}"""
        with Gateway(text, plugins={"call": plugin}, warns="circuit|upstream 127") as gw:
            for _ in range(20):
                assert gw.request().text == b"200 b"
            b.fail_every = 1
            texts = [gw.request().text for _ in range(6)]
            assert texts[0] == b"503 a" or texts[0] == b"503 b"
            assert texts[-1] == b"open"


def test_what_is_wrong_is_told_with_its_line():
    bad = """listen { port = @PORT@ }
upstream "a" { targets = { "http://127.0.0.1:1" }, balance = "best" }
upstream "b" { targets = { "http://127.0.0.1:1" }, bulkhead = { conc = 1 } }
upstream "c" { targets = { "http://127.0.0.1:1" }, health = { type = "grpc" } }
upstream "d" { targets = { "http://127.0.0.1:1" }, retry = { on = { "sometimes" } }, breaker = { errors = 2 }, health = 5 }
"""
    with Gateway(config([], targets=f'"http://127.0.0.1:{free_port()}"')) as gw:
        gw.write("gateway.lua", bad)
        answer = gw.command("reload")
        assert answer.returncode == 1
        for text in ("gateway.lua:2", "balance", "unknown", "conc", "needs http2 = true",
                     '"connect", "reset" or "timeout"', "breaker › errors", "expected  a table, or false"):
            assert text in answer.stderr + answer.stdout, (text, answer.stderr + answer.stdout)


def test_commands_that_name_nothing():
    with Backend("a") as a, Gateway(config([a])) as gw:
        assert gw.command("upstream", "nobody").returncode == 1
        assert gw.command("upstream", "app", "down", "1.2.3.4:5").returncode == 1
        assert gw.command("upstream", "app", "sideways", a.address).returncode == 1
        assert "1 of 1 peer up" in upstream_status(gw)


def test_a_unix_socket_is_a_peer():
    with Gateway(config([], targets='"unix:@DIR@/app.sock"'), warns="upstream /tmp") as gw:
        assert gw.request().status == 502
        with Backend("a", path=f"{gw.folder}/app.sock") as a:
            for _ in range(3):
                assert gw.request(headers={"Host": "example.com"}).text == b"a"
            assert "Host: example.com" in a.heads[-1] and a.accepted == 1
            assert f"peer unix:{gw.folder}/app.sock  up" in upstream_status(gw)


def test_a_connection_has_an_age_and_there_are_no_more_than_allowed():
    with Backend("a") as a:
        with Gateway(config([a], 'pool = { age = "300ms" }')) as gw:
            for _ in range(5):
                assert gw.request().status == 200
            assert a.accepted == 1
            time.sleep(0.4)
            assert gw.request().status == 200
            assert a.accepted == 2
        a.delay = 0.1
        a.most = 0
        before = a.accepted
        with Gateway(config([a], "pool = { connections = 3 }")) as gw:
            start = time.time()
            statuses, _ = many(gw, 30, clients=10)
            assert statuses == {200: 30}
            assert a.most == 3 and a.accepted - before == 3
            assert time.time() - start < 2.5
        with Gateway(config([a], 'pool = { connections = 1 }, connect_timeout = "150ms", retry = false'), warns="upstream 127") as gw:
            statuses, _ = many(gw, 8, clients=8)
            assert statuses[200] >= 1 and statuses[504] >= 1, statuses


def test_connections_are_there_before_somebody_needs_them():
    with Backend("a") as a:
        with Gateway(config([a], "pool = { min_idle = 4 }"), workers=2) as gw:
            until(lambda: a.accepted == 8)
            many(gw, 8, clients=2)
            time.sleep(1.2)
            assert a.accepted == 8


def test_a_call_is_hedged_after_a_quantile():
    plugin = """return { api = 1, doc = "d", handler = function(ctx)
      local r = assert(tg.upstream("app"):get("/x", { hedge = "p90" }))
      return tg.respond(200, r.body)
    end }"""
    with Backend("a") as a, Backend("b") as b:
        text = f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ "{a.url}", "{b.url}" }}, retry = {{ budget = 1 }} }}
route "call" {{ path = "/*", handler = "call" }}"""
        with Gateway(text, plugins={"call": plugin}) as gw:
            for _ in range(40):
                gw.request()
            a.delay = 1
            for _ in range(4):
                start = time.time()
                assert gw.request().text == b"b"
                assert time.time() - start < 0.5


def test_a_breaker_is_opened_and_closed_by_hand_and_metrics_tell():
    route = 'route "metrics" { path = "/metrics", handler = function() return tg.respond(200, tg.metrics.text()) end }\n'
    with Backend("a") as a, Gateway(config([a], "breaker = { consecutive = 5 }") + route, workers=2) as gw:
        assert gw.command("upstream", "app", "open").returncode == 0
        assert {gw.request().status for _ in range(10)} == {503}
        assert "breaker open" in upstream_status(gw)
        until(lambda: b'tidegate_upstream_breaker_state{upstream="app"} 1' in gw.request("/metrics").text)
        assert gw.command("upstream", "app", "close").returncode == 0
        assert {gw.request().status for _ in range(10)} == {200}
        labels = f'{{upstream="app",peer="{a.address}"}}'
        until(lambda: f"tidegate_upstream_peer_requests_total{labels} 10".encode() in gw.request("/metrics").text)
        text = gw.request("/metrics").text.decode()
        assert f"tidegate_upstream_peer_up{labels} 1" in text and 'tidegate_upstream_breaker_state{upstream="app"} 0' in text


def test_metrics_tell_of_the_breakers_of_routes_and_peers_and_of_bulkheads():
    with Backend("a") as a:
        text = f"""listen {{ address = "127.0.0.1", port = @PORT@ }}
upstream "app" {{ targets = {{ "{a.url}", "http://127.0.0.1:1" }}, retry = {{ attempts = 2 }}, passive = false, breaker = {{ scope = "peer", consecutive = 1, open = "1m", open_max = "1m" }} }}
upstream "plain" {{ targets = {{ "{a.url}" }} }}
route "metrics" {{ path = "/metrics", handler = function() return tg.respond(200, tg.metrics.text()) end }}
route "b" {{ path = "/b", to = "app", breaker = {{ consecutive = 5 }} }}
route "a" {{ path = "/a", to = "plain", breaker = {{ consecutive = 5 }}, bulkhead = {{ concurrency = 1, queue = 5 }} }}
route "none" {{ path = "/none", to = "plain" }}
"""
        with Gateway(text, workers=2, warns="circuit breaker|127.0.0.1:1") as gw:
            def samples(family):
                return re.findall(rf"^tidegate_{family}\{{(.*)\}} (\S+)$", gw.request("/metrics").text.decode(), re.M)
            assert samples("route_breaker_state") == [('route="a"', "0"), ('route="b"', "0")]
            assert gw.command("route", "b", "open").returncode == 0
            assert samples("route_breaker_state") == [('route="a"', "0"), ('route="b"', "1")] and gw.request("/b").status == 503
            assert gw.command("route", "b", "close").returncode == 0
            for _ in range(4):
                gw.request("/b")
            assert samples("upstream_peer_breaker_state") == [(f'upstream="app",peer="{a.address}"', "0"), ('upstream="app",peer="127.0.0.1:1"', "1")]
            a.delay = 1
            threads = [threading.Thread(target=gw.request, args=("/a",)) for _ in range(3)]
            for thread in threads:
                thread.start()
            until(lambda: samples("route_requests_waiting") == [('route="a"', "2")])
            assert samples("route_requests_in_flight") == [('route="a"', "1")]
            for thread in threads:
                thread.join()
            assert samples("route_requests_in_flight") == [('route="a"', "0")]


def test_a_peer_that_comes_back_gets_its_share_little_by_little():
    with Backend("a") as a, Backend("b") as b:
        with Gateway(config([a, b], 'slow_start = "4s"'), workers=2) as gw:
            gw.command("upstream", "app", "down", b.address)
            many(gw, 100)
            assert b.requests == 0
            gw.command("upstream", "app", "up", b.address)
            _, names = many(gw, 400)
            assert 0 < names["b"] < 120, names
            time.sleep(4.2)
            _, names = many(gw, 400)
            assert abs(names["b"] - 200) < 20, names


def test_checks_by_tcp_and_by_what_a_body_says():
    with Backend("a") as a, Backend("b") as b:
        with Gateway(config([a, b], 'health = { type = "tcp", every = "50ms", fall = 2 }'), warns="unhealthy") as gw:
            time.sleep(0.3)
            assert a.requests == 0 and a.accepted > 2
            b.stop()
            gw.wait_for("peer unhealthy")
            assert many(gw, 20)[1] == {"a": 20}
    with Backend("ready") as a, Backend("warming") as b:
        with Gateway(config([a, b], 'health = { body = "^ready$", every = "50ms", fall = 1 }'), warns="unhealthy") as gw:
            gw.wait_for("peer unhealthy")
            assert many(gw, 20)[1] == {"ready": 20}
