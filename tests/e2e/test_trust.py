"""Who a request is from: the address that connected, what trusted proxies say, and the header of the PROXY protocol."""
import json
import socket
import struct

import pytest
from gateway import Gateway

CONFIG = """
api = 1
listen { name = "open", address = "127.0.0.1", port = @PORT@, @OPTIONS@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
route "echo" { listen = "back", path = "/*", handler = function(ctx)
  local fields = {}
  for name, value in ctx.req.headers() do fields[name:lower()] = value end
  return tg.respond(200, fields)
end }
route "who" { listen = "open", path = "/who", handler = function(ctx)
  return tg.respond(200, { ip = ctx.req.client.ip, scheme = ctx.req.scheme })
end }
route "all" { listen = "open", path = "/*", to = "back" }
"""
ALL = 'trusted_proxies = { "127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32" }'


def gateway(options):
    return Gateway(CONFIG.replace("@OPTIONS@", options))


def fields(gw, headers=None, path="/"):
    return json.loads(gw.request(path, headers={"Host": "shop.example", **(headers or {})}).text)


def test_what_nobody_trusted_says_is_replaced():
    with gateway("") as gw:
        sent = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil", "X-Forwarded-Port": "1",
                "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "Via": "1.1 evil"}
        got = fields(gw, sent)
        assert got["x-forwarded-for"] == got["x-real-ip"] == "127.0.0.1"
        assert got["x-forwarded-proto"] == "http" and got["x-forwarded-host"] == "shop.example"
        assert got["x-forwarded-port"] == str(gw.port)
        assert got["forwarded"] == 'for=127.0.0.1;host="shop.example";proto=http'
        assert got["via"] == "1.1 tidegate"
        assert fields(gw, sent, "/who") == {"ip": "127.0.0.1", "scheme": "http"}


@pytest.mark.parametrize("chain,client", [
    ("192.0.2.7", "192.0.2.7"),
    ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
    ("6.6.6.6, 192.0.2.7, 10.0.0.1, 10.9.9.9", "192.0.2.7"),
    ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
    ("192.0.2.7:1234", "192.0.2.7"),
    ("2001:db8::1, 2001:db9::5", "2001:db9::5"),
    ("[2001:db9::5]:443, 2001:db8::1", "2001:db9::5"),
    ("6.6.6.6, unknown", "127.0.0.1"),
    ("6.6.6.6, , 10.0.0.1", "10.0.0.1"),
    ("6.6.6.6, 999.1.1.1, 10.0.0.1", "10.0.0.1"),
    ("", "127.0.0.1"),
])
def test_behind_a_trusted_proxy_the_client_is_the_last_that_is_not(chain, client):
    with gateway(ALL) as gw:
        assert fields(gw, {"X-Forwarded-For": chain}, "/who")["ip"] == client
        got = fields(gw, {"X-Forwarded-For": chain, "Forwarded": "for=6.6.6.6"})
        assert got["x-real-ip"] == client
        assert got["x-forwarded-for"] == (chain + ", " if chain else "") + "127.0.0.1"
        assert "6.6.6.6" not in got["forwarded"], "the field that is not the trusted one"


def test_a_trusted_proxy_tells_of_the_scheme():
    with gateway(ALL) as gw:
        assert fields(gw, {"X-Forwarded-Proto": "https"}, "/who")["scheme"] == "https"
        got = fields(gw, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "outer", "X-Forwarded-Port": "443", "Via": "1.1 outer"})
        assert (got["x-forwarded-proto"], got["x-forwarded-host"], got["x-forwarded-port"]) == ("https", "outer", "443")
        assert got["via"] in ("1.1 outer, 1.1 tidegate", "1.1 tidegate"), "the last one, or both"
        assert got["forwarded"].endswith("proto=https")


@pytest.mark.parametrize("value,client", [
    ("for=192.0.2.7", "192.0.2.7"),
    ('for="192.0.2.7:80";proto=https, for=10.0.0.1', "192.0.2.7"),
    ('For="[2001:db9::5]:4711" ; host=x', "2001:db9::5"),
    ("for=6.6.6.6, for=_hidden, for=10.0.0.1", "10.0.0.1"),
    ("for=6.6.6.6, for=;x, for=10.0.0.1", "10.0.0.1"),
    ("for=6.6.6.6, proto=http", "127.0.0.1"),
    ('for="6.6.6.6', "127.0.0.1"),
    ('for=6.6.6.6, for="10.0.0.1\\""', "127.0.0.1"),
])
def test_the_standard_field_when_it_is_the_trusted_one(value, client):
    with gateway(ALL + ', trusted_header = "forwarded"') as gw:
        assert fields(gw, {"Forwarded": value, "X-Forwarded-For": "6.6.6.6"}, "/who")["ip"] == client
        got = fields(gw, {"Forwarded": value, "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"})
        assert got["x-forwarded-for"] == client and got["x-forwarded-proto"] == "http"
        assert got["forwarded"] == value + ', for=127.0.0.1;host="shop.example";proto=http'.replace(
            "proto=http", "proto=https" if value.endswith("proto=https") else "proto=http")


def test_who_is_not_in_the_list_is_not_believed():
    with gateway('trusted_proxies = { "10.0.0.0/8" }') as gw:
        assert fields(gw, {"X-Forwarded-For": "192.0.2.7"}, "/who")["ip"] == "127.0.0.1"


# ---- PROXY protocol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
V2 = SIGNATURE + bytes([0x21, 0x11]) + struct.pack(">H", 12) + socket.inet_aton("192.0.2.9") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 1, 2)
LOCAL = SIGNATURE + bytes([0x20, 0x00]) + struct.pack(">H", 0)
REQUEST = b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PROXY = "proxy_protocol = true, " + ALL.replace("127.0.0.0/8", "127.0.0.0/8", 1)


@pytest.mark.parametrize("header,client", [
    (V1, "192.0.2.7"), (V2, "192.0.2.9"), (LOCAL, "127.0.0.1"), (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (b"PROXY TCP6 2001:db9::1 ::1 1 2\r\n", "2001:db9::1"),
], ids=["v1", "v2", "local", "unknown", "v6"])
@pytest.mark.parametrize("pieces", [1, 0], ids=["whole", "bytes"])
def test_the_proxy_protocol_tells_the_client(header, client, pieces):
    with gateway(PROXY) as gw:
        with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = header + REQUEST
            for piece in [data] if pieces else [data[i:i + 1] for i in range(len(data))]:
                s.sendall(piece)
            received = b""
            while chunk := s.recv(65536):
                received += chunk
        assert json.loads(received.partition(b"\r\n\r\n")[2])["ip"] == client


@pytest.mark.parametrize("header", [
    b"", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 443\r\n", b"PROXY TCP4 a b 1 2\r\n", SIGNATURE + b"\x11\x11\0\0",
    SIGNATURE + bytes([0x21, 0x11]) + struct.pack(">H", 60000), V1[:-2] + b"\n",
], ids=["none", "short", "zero", "names", "version", "length", "bare LF"])
def test_without_a_good_header_the_connection_ends_without_an_answer(header):
    with gateway(PROXY) as gw:
        assert gw.raw(header + REQUEST) == b""
        assert b'"192.0.2.7"' in gw.raw(V1 + REQUEST), "others are served"


def test_a_second_header_is_no_request():
    with gateway(PROXY) as gw:
        assert gw.raw(V1 + V1 + REQUEST).startswith(b"HTTP/1.1 400 ")


def test_a_stranger_may_not_announce_anybody():
    with gateway('proxy_protocol = true, trusted_proxies = { "10.0.0.0/8" }') as gw:
        assert gw.raw(V1 + REQUEST) == b""


def test_a_header_that_does_not_come_ends_in_time():
    with gateway(PROXY + ', header_timeout = "500ms"') as gw:
        assert gw.raw(V1[:10], seconds=4) == b""


def test_the_listener_must_know_whom_to_trust(tmp_path):
    with gateway("") as gw:
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", "proxy_protocol = true"))
        refused = gw.command("reload")
        assert refused.returncode == 1 and "trusted_proxies" in refused.stderr
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", 'trusted_proxies = { "10.0.0.1/8" }'))
        refused = gw.command("reload")
        assert refused.returncode == 1 and "10.0.0.0/8" in refused.stderr


def test_a_reload_changes_whom_is_trusted():
    with gateway("") as gw:
        assert fields(gw, {"X-Forwarded-For": "192.0.2.7"}, "/who")["ip"] == "127.0.0.1"
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", ALL))
        assert gw.command("reload").returncode == 0
        assert fields(gw, {"X-Forwarded-For": "192.0.2.7"}, "/who")["ip"] == "192.0.2.7"
        gw.write("gateway.lua", CONFIG.replace("@OPTIONS@", ""))
        assert gw.command("reload").returncode == 0
        assert fields(gw, {"X-Forwarded-For": "192.0.2.7"}, "/who")["ip"] == "127.0.0.1"
