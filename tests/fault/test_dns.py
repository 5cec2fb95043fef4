"""Name servers that are silent, wrong, hostile or gone: only requests that need the name wait, and never for long."""
import socket
import struct
import threading
import time

import pytest
from backends import Backend
from faults import descriptors, wait_until
from gateway import Gateway
from nameserver import A, AAAA, CNAME, NXDOMAIN, SERVFAIL, SRV, TRUNCATED, NameServer, address, encode, message, record

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
listen { name = "other", address = "127.0.0.2", port = @PORT2@ }
resolver { servers = { "127.0.0.1:%(port)d" } }
upstream "named" { targets = { "http://origin.test:@PORT2@" }, pool = { idle_timeout = "50ms" }, connect_timeout = "2s" }
route "one" { listen = "back", path = "/*", handler = function() return tg.respond(200, "one") end }
route "two" { listen = "other", path = "/*", handler = function() return tg.respond(200, "two") end }
defaults { timeout = "4s" }
route "local" { listen = "front", path = "/local", handler = function() return tg.respond(200, "local") end }
route "call" { listen = "front", path = "/call", handler = function()
  local result = assert(tg.upstream("named"):get("/"))
  return tg.respond(200, result.body)
end }
route "all" { listen = "front", path = "/*", to = "named" }
"""


def gateway(server):
    return Gateway(CONFIG % {"port": server.port})


def only_a(*records, **more):
    """These for A, nothing for AAAA."""
    return lambda question, query: message(question, records if question.kind == A else (), **more)


ONE = address("127.0.0.1")


def long_name_loop(question, _):
    return message(question, [record(CNAME, b"\xc0\x0c"), ONE])


def pointer_loop(question, _):
    at = 12 + len(question.section)
    return message(question, [struct.pack(">H", 0xc000 | at) + struct.pack(">HHIH", A, 1, 1, 4) + b"\x7f\0\0\1"])


WRONG = {
    "silence": lambda question, query: None,
    "servfail": only_a(code=SERVFAIL),
    "nxdomain": only_a(code=NXDOMAIN),
    "no-addresses": only_a(),
    "another-id": lambda question, query: message(question, [ONE], id=question.id ^ 1),
    "another-question": lambda question, query: message(question, [ONE], section=encode("other.test") + struct.pack(">HH", question.kind, 1)),
    "from-another-port": lambda question, query: (message(question, [ONE]),),
    "another-owner": only_a(address("127.0.0.1", name=encode("other.test"))),
    "an-empty-packet": lambda question, query: b"",
    "a-short-packet": lambda question, query: message(question, [ONE])[:11],
    "the-query-itself": lambda question, query: query,
    "a-cut-record": lambda question, query: message(question, [ONE])[:-2],
    "a-length-beyond-the-packet": lambda question, query: message(question, [b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 1, 60000) + b"\x7f"]),
    "an-address-of-three-bytes": only_a(record(A, b"\x7f\0\0")),
    "a-pointer-to-itself": pointer_loop,
    "a-cname-to-itself": lambda question, query: message(question, [record(CNAME, b"\xc0\x0c")]),
    "counts-without-records": lambda question, query: message(question)[:6] + b"\xff\xff" + message(question)[8:],
    "junk": lambda question, query: bytes(range(256)),
    "truncated-and-no-tcp": only_a(flags=TRUNCATED),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_a_clear_status_and_nobody_else_s_wait(answer):
    with NameServer(answer, lambda question, query: None if answer is WRONG["truncated-and-no-tcp"] else answer(question, query)) as server, \
            gateway(server) as gw:
        worker = gw.workers()
        before = descriptors(worker[0])
        found = []
        clients = [threading.Thread(target=lambda path=path: found.append(gw.request(path).status)) for path in ("/", "/call", "/") * 4]
        for client in clients:
            client.start()
        for _ in range(20):
            start = time.monotonic()
            assert gw.request("/local").text == b"local" and time.monotonic() - start < 1
        for client in clients:
            client.join(10)
        assert len(found) == len(clients) and set(found) <= {502, 503, 504}, found
        assert gw.workers() == worker, gw.log()
        wait_until(lambda: descriptors(worker[0]) <= before + 2, "no descriptor is left")


RIGHT = {
    "one": only_a(ONE),
    "after-others-that-are-wrong": lambda question, query: [message(question, [ONE], id=question.id ^ 1), b"x", (message(question),), message(question, [ONE])]
    if question.kind == A else message(question),
    "a-thousand": only_a(*[address("127.0.0.1")] * 25),
    "by-a-cname": lambda question, query: message(question, [record(CNAME, encode("real.test")), address("127.0.0.1", name=encode("real.test"))])
    if question.kind == A else message(question),
    "no-time-to-live": only_a(address("127.0.0.1", 0)),
    "the-longest-time-to-live": only_a(address("127.0.0.1", 2 ** 32 - 1)),
    "an-address-of-each-family": lambda question, query: message(question, [ONE] if question.kind == A else [record(AAAA, bytes(15) + b"\1")]),
    "the-first-address-is-dead": only_a(address("127.0.0.3"), ONE),
}


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT.keys())
def test_a_right_answer_is_used(answer):
    with NameServer(answer) as server, gateway(server) as gw:
        for path in ("/", "/call"):
            found = gw.request(path)
            assert (found.status, found.text) == (200, b"one"), gw.log()


def test_what_does_not_fit_into_a_packet_comes_by_tcp():
    records = [address("127.0.0.1")] * 300
    with NameServer(only_a(flags=TRUNCATED), only_a(*records)) as server, gateway(server) as gw:
        assert gw.request("/").text == b"one", gw.log()


def test_a_name_that_changes_is_followed_without_a_reload_and_its_server_may_go_away():
    where = ["127.0.0.1"]
    down = threading.Event()

    def answer(question, query):
        return None if down.is_set() else only_a(address(where[0], 1))(question, query)

    with NameServer(answer) as server, gateway(server) as gw:
        assert gw.request("/").text == b"one"
        where[0] = "127.0.0.2"
        wait_until(lambda: gw.request("/").text == b"two", "the new address is used", 5)
        down.set()
        end = time.monotonic() + 3
        while time.monotonic() < end:  # the last good addresses go on
            start = time.monotonic()
            assert gw.request("/").text == b"two" and time.monotonic() - start < 1, gw.log()
            time.sleep(0.05)


def test_an_answer_that_comes_too_late_is_of_use_to_the_next():
    ask_again = threading.Event()

    def answer(question, query):
        if question.kind == A and not ask_again.is_set():
            ask_again.wait(10)
        return only_a(ONE)(question, query)

    with NameServer(answer) as server, gateway(server) as gw:
        start = time.monotonic()
        assert gw.request("/").status in (502, 504) and time.monotonic() - start < 6
        ask_again.set()
        wait_until(lambda: gw.request("/").status == 200, "the name is known", 10)


def test_a_name_that_nobody_knows_is_not_asked_for_with_each_request():
    with NameServer(only_a(code=NXDOMAIN)) as server, gateway(server) as gw:
        for _ in range(50):
            assert gw.request("/").status == 502
        assert len(server.asked) <= 4, server.asked


SERVICES = """
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
resolver { servers = { "127.0.0.1:%(port)d" } }
upstream "named" { targets = { "http+srv://_http._tcp.orders.test" }, connect_timeout = "2s" }
route "all" { listen = "front", path = "/*", to = "named" }
"""


def service(host, port, priority=0, weight=1, ttl=1):
    return record(SRV, struct.pack(">HHH", priority, weight, port) + encode(host), ttl)


def test_services_are_found_by_srv_and_followed():
    with Backend("a") as a, Backend("b") as b, Backend("c") as c:
        records = [[service("one.test", a.port, weight=3), service("one.test", b.port), service("one.test", c.port, priority=5)]]

        def answer(question, query):
            if question.kind == SRV:
                return message(question, records[0]) if records[0] else message(question, code=SERVFAIL)
            return only_a(ONE)(question, query)

        with NameServer(answer) as server, Gateway(SERVICES % {"port": server.port}, workers=2, warns="services|resolve|upstream") as gw:
            names = [gw.request("/").text for _ in range(80)]
            assert 50 <= names.count(b"a") <= 70 and names.count(b"b") == 80 - names.count(b"a"), names
            records[0] = [service("one.test", b.port), service("one.test", c.port, priority=5)]
            wait_until(lambda: {gw.request("/").text for _ in range(6)} == {b"b"}, "the one that has gone is asked no more", 5)
            assert "127" not in gw.command("upstream", "named").stdout and f"one.test:{b.port}" in gw.command("upstream", "named").stdout
            records[0] = []  # the name server fails: the last answer goes on
            time.sleep(2.5)
            assert {gw.request("/").text for _ in range(6)} == {b"b"}
            gw.command("upstream", "named", "down", f"one.test:{b.port}")
            assert {gw.request("/").text for _ in range(6)} == {b"c"}


def test_a_service_that_nobody_has_is_a_clear_status():
    with NameServer(lambda question, query: message(question, code=NXDOMAIN)) as server:
        with Gateway(SERVICES % {"port": server.port}, warns="services") as gw:
            start = time.monotonic()
            answer = gw.request("/")
            assert answer.status == 503 and answer.getheader("Retry-After") and time.monotonic() - start < 4
            gw.wait_for("services")


def test_an_address_that_is_silent_costs_a_quarter_of_a_second():
    """Happy eyeballs: nobody waits for the whole time to connect when there is another address."""
    with Backend("a") as a:
        silent = socket.socket()
        silent.bind(("127.0.0.2", a.port))
        silent.listen(0)
        fillers = []
        for _ in range(4):  # the queue is full: what comes is dropped
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", a.port))
            fillers.append(filler)
        time.sleep(0.2)
        config = CONFIG.replace("@PORT2@", str(a.port)).replace("route \"one\"", "--").replace("route \"two\"", "--")
        config = "\n".join(line for line in config.split("\n") if not line.startswith(("--", "listen { name = \"back\"", "listen { name = \"other\"")))
        with NameServer(only_a(address("127.0.0.2"), address("127.0.0.1"))) as server, Gateway(config % {"port": server.port}) as gw:
            for path in ("/", "/call"):
                start = time.monotonic()
                assert gw.request(path, headers={"Connection": "close"}).text == b"a", gw.log()
                assert time.monotonic() - start < 1.5
                time.sleep(0.1)  # kept connections are closed
        for filler in fillers:
            filler.close()
        silent.close()
