"""The plugin websocket-limit in front of a real WebSocket server."""
import asyncio
import time

import pytest
import websockets
from gateway import Gateway
from test_websocket_messages import Origin, close_of, connect, converse

CONFIG = """
api = 1
listen { port = @PORT@, address = "127.0.0.1" }
upstream "ws" { targets = { "http://127.0.0.1:@ORIGIN@" } }
consumer "ann" { credentials = { key = { "ann-key" } } }
consumer "bob" { credentials = { key = { "bob-key" } } }
route "ws" { path = "/ws", to = "ws", upgrade = "websocket", auth = "optional", use = { { "key-auth", query = "apikey" }, { "websocket-limit", @LIMIT@ } } }
route "metrics" { path = "/metrics", handler = function() return tg.respond(200, tg.metrics.text()) end }
"""


def gateway(origin, limit, **options):
    return Gateway(CONFIG.replace("@ORIGIN@", str(origin.port)).replace("@LIMIT@", limit), **options)


@pytest.fixture(scope="module")
def origin():
    with Origin() as server:
        yield server


def wait_for_metrics(gw, *lines):
    end = time.monotonic() + 5
    while not all(line in gw.request("/metrics").text.decode() for line in lines):
        assert time.monotonic() < end, gw.request("/metrics").text.decode()
        time.sleep(0.05)


async def say(client, *messages):
    for message in messages:
        await client.send(message)
        assert await client.recv() == message


@pytest.mark.parametrize("limit,message,code,reason", [
    ("max_message = 10", "x" * 11, 1009, "size"),
    ('types = { "text", "ping", "pong" }', b"binary", 1003, "type"),
    ("messages = 0.01, burst = 100", "second", 1008, "messages"),
    ("bytes = 10, burst = 1", "second", 1008, "bytes"),
    ("consumer_messages = 0.01, burst = 100", "second", 1008, "consumer_messages"),
    ("consumer_bytes = 10, burst = 1", "second", 1008, "consumer_bytes"),
])
def test_what_is_over_a_limit_closes(origin, limit, message, code, reason):
    async def talk(client):
        await say(client, "1234567890")
        await client.send(message)
        return (await close_of(client))[0]

    with gateway(origin, limit) as gw:
        assert converse(gw, talk, "/ws") == code
        wait_for_metrics(gw, f'tidegate_websocket_limited_total{{route="ws",reason="{reason}"}} 1', 'tidegate_websocket_messages_total{route="ws",direction="upstream"} 2')


def test_a_bucket_fills_up_again(origin):
    async def talk(client):
        await say(client, *map(str, range(5)))
        await asyncio.sleep(0.25)
        await say(client, *map(str, range(4)))
        await client.send("one")
        await client.send("too many")
        await client.send("really")
        return (await close_of(client))[0]

    with gateway(origin, "messages = 20, burst = 0.25") as gw:
        assert converse(gw, talk, "/ws") == 1008


def test_messages_are_dropped_or_wait(origin):
    async def dropped(client):
        for i in range(20):
            await client.send(str(i))
        first = [await client.recv() for _ in range(3)]
        await client.close()
        return first + [message async for message in client]

    async def waits(client):
        start = time.monotonic()
        for i in range(15):
            await client.send(str(i))
        assert [await client.recv() for _ in range(15)] == [str(i) for i in range(15)]
        return time.monotonic() - start

    with gateway(origin, 'messages = 0.01, burst = 300, over = "drop"') as gw:
        assert converse(gw, dropped, "/ws") == ["0", "1", "2"]
        wait_for_metrics(gw, 'tidegate_websocket_limited_total{route="ws",reason="messages"} 17')
    with gateway(origin, 'consumer_messages = 20, burst = 0.25, over = "wait"') as gw:
        assert 0.4 < converse(gw, waits, "/ws") < 3


def test_each_consumer_has_places_of_its_own_and_gets_them_back(origin):
    async def talk(gw):
        async with connect(gw, "/ws?apikey=ann-key") as one, connect(gw, "/ws?apikey=ann-key") as two, connect(gw, "/ws?apikey=bob-key") as bob:
            with pytest.raises(websockets.exceptions.InvalidStatusCode) as refused:
                await connect(gw, "/ws?apikey=ann-key")
            assert refused.value.status_code == 429 and "Retry-After" in refused.value.headers
            await asyncio.gather(say(one, "1"), say(two, "2"), say(bob, "3"))
        for _ in range(100):  # the place is free when both ends have closed
            try:
                async with connect(gw, "/ws?apikey=ann-key") as again:
                    return await say(again, "4")
            except websockets.exceptions.InvalidStatusCode:
                await asyncio.sleep(0.02)
        raise AssertionError("no place comes free")

    with gateway(origin, "consumer_connections = 2", workers=2) as gw:
        asyncio.run(talk(gw))
        wait_for_metrics(gw, 'tidegate_websocket_limited_total{route="ws",reason="connections"}')


def test_what_an_upstream_says_is_limited_where_that_is_asked_for(origin):
    async def talk(client):
        await client.send("12345")
        assert await client.recv() == "12345"
        await client.send("123456")
        return (await close_of(client))[0]

    with gateway(origin, 'direction = "downstream", max_message = 5') as gw:
        assert converse(gw, talk, "/ws") == 1009
