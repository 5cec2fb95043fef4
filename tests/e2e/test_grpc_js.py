"""gRPC with grpc-js on both sides, which shares no code with grpcio: all kinds of calls, health, retries, and reloads below open streams."""

import asyncio

import grpc
import node
import pytest
from authority import Authority
from gateway import Gateway, free_port, free_ports

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, tls = { cert = "@CA@/site.pem", key = "@CA@/site.key" } }
listen { address = "127.0.0.1", port = @PORT2@ }
upstream "origin" { targets = { "@ORIGIN@" }, http2 = true, tls = { ca = "@CA@/ca.pem" } }
route "echo" { path = "/echo.Echo/*", to = "origin" }
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:localhost,IP:127.0.0.1")
    return authority


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_calls_of_all_kinds(ca, way):
    port = free_port()
    files = [ca.folder / "site.pem", ca.folder / "site.key"] if way == "tls" else []
    origin = f"https://localhost:{port}" if way == "tls" else f"http://127.0.0.1:{port}"
    with node.Server("grpc_server", port, *files), Gateway(CONFIG.replace("@CA@", str(ca.folder)).replace("@ORIGIN@", origin)) as gw:
        address = [f"localhost:{gw.port}", ca.cert] if way == "tls" else [f"127.0.0.1:{gw.port2}"]
        assert node.run("grpc_client", *address) == "13 cases\n"


def note(number=0, text=b""):
    """A message of echo.proto, as bytes: number is field 2, text field 3."""
    return (b"\x10" + bytes([number]) if number else b"") + (b"\x1a" + bytes([len(text)]) + text if text else b"")


def test_health_and_retries_by_code():
    """With clients of grpcio."""
    ports = free_ports(2)
    targets = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    config = f"""listen {{ port = @PORT@ }}
upstream "app" {{ targets = {{ {targets} }}, http2 = true, passive = false,
  health = {{ type = "grpc", service = "echo.Echo", every = "50ms", fall = 1, rise = 1 }},
  retry = {{ attempts = 3, on = {{ "connect", "grpc:unavailable" }}, budget = 1, budget_min = 100 }} }}
route "all" {{ path = "/*", to = "app" }}"""
    with node.Server("grpc_server", ports[0], talks=True) as first, node.Server("grpc_server", ports[1], talks=True) as second:
        with Gateway(config, warns="peer unhealthy") as gw, grpc.insecure_channel(f"127.0.0.1:{gw.port}") as channel:
            call = channel.unary_unary("/echo.Echo/One")
            first.say("NOT_SERVING")
            gw.wait_for("peer unhealthy")
            assert f"{ports[0]}" in gw.log().split("peer unhealthy")[1].split("\n")[0]
            # The one that is left refuses two of three.
            assert [call(note(text=b"fickle"), timeout=5)[1] for _ in range(3)] == [3, 6, 9]
            first.say("SERVING")
            gw.wait_for("peer healthy")
            second.say("NOT_SERVING")
            gw.wait_for("peer unhealthy", count=2)
            assert call(note(text=b"fickle"), timeout=5)[1] == 3


STREAMS, SECONDS = 200, 10


async def ping(channel, stop, number):
    """One stream from before the first reload until after the last: how many messages went there and back."""
    call, count = channel.stream_stream("/echo.Echo/Chat")(), 0
    while not stop.is_set():
        await call.write(note(number))
        assert note(number + 1) in await asyncio.wait_for(call.read(), 10)  # between fields that are empty
        count += 1
        await asyncio.sleep(0.2)
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF and await call.code() == grpc.StatusCode.OK
    return count


async def ping_all(gw, config):
    # A channel each for fifty streams: those of one address would share a connection.
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{gw.port2}", [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]
    stop = asyncio.Event()
    streams = [asyncio.create_task(ping(channels[i % 4], stop, i % 100 + 1)) for i in range(STREAMS)]
    for i in range(SECONDS):
        await asyncio.sleep(1)
        gw.write("gateway.lua", config + f"-- {i}\n")
        done = await asyncio.to_thread(gw.command, "reload")
        assert done.returncode == 0, done.stderr
    stop.set()
    counts = await asyncio.gather(*streams)
    for channel in channels:
        await channel.close()
    return counts


def test_a_reload_each_second_loses_none_of_two_hundred_streams(ca):
    port = free_port()
    config = CONFIG.replace("@CA@", str(ca.folder)).replace("@ORIGIN@", f"http://127.0.0.1:{port}")
    with node.Server("grpc_server", port), Gateway(config, workers=2) as gw:
        counts = asyncio.run(ping_all(gw, config))
        assert len(counts) == STREAMS and min(counts) >= 2 * SECONDS, sorted(counts)[:5]
        assert gw.log().count("is live") == SECONDS + 1
