"""What broke HTTP/2 and TLS, each once: streams at every wrong moment, peers that say the wrong thing, and reloads all the while."""
import json
import select
import socket
import subprocess
import time

import h2.errors
import h2.events
import h2.settings
import pytest
from authority import Authority
from test_http2 import Client, curl, gateway

END_HEADERS, END_STREAM = 4, 1


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test,DNS:localhost,IP:127.0.0.1")
    return authority


def status_of(gw):
    return gw.command("status").stdout


# ------------------------------------------------------------------ clients


def test_an_idle_connection_is_kept_for_its_own_time_not_for_a_sweep(ca):
    with gateway(ca, "keepalive_timeout = '4s'") as gw, Client(gw) as client:
        assert client.answer(client.start())["body"] == b"ok 2"
        time.sleep(2.5)
        assert client.answer(client.start())["body"] == b"ok 2"
        began = time.time()
        assert client.goaway() == h2.errors.ErrorCodes.NO_ERROR
        assert 3 < time.time() - began < 6


def swallow_nothing(gw, streams=40):
    """A client with every window open that reads nothing: the gateway's side of the connection fills up."""
    client = Client(gw, window=2**31 - 1)
    client.h2.increment_flow_control_window(2**31 - 1 - 65535)
    for _ in range(streams):
        client.start("/big")
    time.sleep(1)
    return client


def test_who_reads_nothing_is_closed_when_its_time_is_over(ca):
    with gateway(ca, "send_timeout = '1s', keepalive_timeout = '1s'") as gw, swallow_nothing(gw):
        end = time.time() + 12
        while "connections 0" not in (out := connections(gw)):
            assert time.time() < end, out
            time.sleep(0.2)


def connections(gw):
    """Established ones at the port of plain text."""
    out = subprocess.run(["ss", "-tnH", "state", "established", f"( sport = :{gw.port2} )"], capture_output=True, text=True).stdout
    return f"connections {len(out.splitlines())}\n{out}"


def test_frames_that_carry_nothing_do_not_put_off_the_end_of_a_stalled_stream(ca):
    with gateway(ca, "send_timeout = '60s'") as gw, Client(gw, window=0) as client:
        stream = client.start("/big")
        end = time.time() + 36
        while client.responses.get(stream, {}).get("end") is None:
            assert time.time() < end
            while select.select([client.socket], [], [], 0)[0]:
                assert client.take()
            client.raw(6, 0, 0, b"12345678")
            time.sleep(0.6)
        assert client.responses[stream]["end"] == h2.errors.ErrorCodes.CANCEL
        assert "h2_stall reached" in status_of(gw)


def test_a_head_that_goes_on_after_its_time_gets_into_no_other_request(ca):
    """Its exchange serves another client by then."""
    more = """route "late" { path = "/late", handler = function(ctx)
      tg.sleep(1.5)
      local seen = {}
      for name in ctx.req.headers() do seen[#seen + 1] = name end
      return tg.respond(200, seen)
    end }"""
    with gateway(ca, "header_timeout = '1s', send_timeout = '20s'", more=more) as gw, swallow_nothing(gw) as slow:
        block = slow.h2.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/ok")])
        stream = slow.h2.get_next_available_stream_id()
        slow.raw(1, END_STREAM, stream, block)
        time.sleep(2)  # 408 waits behind what is not read
        with Client(gw) as other:
            late = other.start("/late")
            time.sleep(0.3)
            slow.raw(9, END_HEADERS, stream, slow.h2.encoder.encode([(f"x-evil-{i}", "1") for i in range(30)]))
            seen = json.loads(other.answer(late)["body"])
        assert not [name for name in seen if "evil" in name.lower()], seen
        assert curl(gw, ca, "/ok") == b"ok 2"


def test_a_request_that_was_reset_at_once_costs_nothing(ca):
    more = """dict "seen" { size = "64KiB" }
    route "seen" { path = "/seen", handler = function() tg.dict("seen"):incr("n", 1, 0) return tg.respond(200) end }
    route "count" { path = "/count", handler = function() return tg.respond(200, tostring(tg.dict("seen"):get("n") or 0)) end }"""
    with gateway(ca, more=more) as gw, Client(gw) as client:
        client.take()
        for _ in range(20):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/seen")], end_stream=True)
            client.h2.reset_stream(stream)
        client.flush()
        time.sleep(0.2)
        assert client.answer(client.start("/count"))["body"] == b"0"


def test_a_slow_reader_who_asked_for_short_records(ca):
    """OpenSSL holds one record of a write that blocks, not all of it (RFC 6066, section 4)."""
    more = """route "huge" { path = "/huge", handler = function()
      return tg.respond(200, function(write) for _ = 1, 100 do write(("0123456789"):rep(25000)) end end)
    end }"""
    with gateway(ca, more=more) as gw:
        reader = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-servername", "site.test", "-CAfile", str(ca.cert),
                                   "-maxfraglen", "512", "-quiet", "-no_ign_eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        reader.stdin.write(b"GET /huge HTTP/1.0\r\nHost: site.test\r\nConnection: close\r\n\r\n")
        reader.stdin.flush()
        time.sleep(1.5)  # its pipe is full, then the sockets are
        received = b""
        while piece := reader.stdout.read(65536):
            received += piece
        reader.stdin.close()
        reader.wait(10)
        assert received.partition(b"\r\n\r\n")[2] == b"0123456789" * 2500000, len(received)
