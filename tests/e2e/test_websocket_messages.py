"""Messages of WebSockets that plugins look at: what goes through, what they make of it, and how it ends."""
import asyncio
import contextlib
import os
import signal
import ssl
import threading
import time

import node
import pytest
import websockets
from authority import Authority
from gateway import Gateway, free_port
from websockets.exceptions import ConnectionClosed

CONFIG = """
api = 1
log { rate = 0 }
listen { port = @PORT@, address = "127.0.0.1", send_timeout = "2s" }
upstream "ws" { targets = { "http://127.0.0.1:@ORIGIN@" } }
route "ws" { path = "/ws/*", to = "ws", upgrade = "websocket", use = { "judge" } }
route "large" { path = "/large/*", to = "ws", upgrade = "websocket", max_message = "17MiB", use = { "judge" } }
route "small" { path = "/small/*", to = "ws", upgrade = "websocket", max_message = 1000, use = { "judge" } }
route "packed" { path = "/packed/*", to = "ws", upgrade = "websocket", message_deflate = true, use = { "judge" } }
route "idle" { path = "/idle/*", to = "ws", upgrade = "websocket", tunnel_timeout = "1s", use = { "judge" } }
route "two" { path = "/two/*", to = "ws", upgrade = "websocket", use = { "judge", { plugin = "judge", name = "second", mark = "2" } } }
route "skip" { path = "/skip/*", to = "ws", upgrade = "websocket", use = { { plugin = "judge", on_error = "skip" } } }
route "plain" { path = "/plain/*", to = "ws", upgrade = "websocket" }
"""
# Does what the message says.
JUDGE = """
return {
  api = 1, doc = "Does what messages say.",
  schema = { mark = t.string { default = "1", doc = "Who speaks." } },
  websocket = function(ctx, message, conf)
    local data = message.data
    if message.type == "close" then
      tg.log.info(("close to %s: %s %q."):format(message.direction, tostring(message.code), message.reason))
      return
    end
    if message.type ~= "text" or message.compressed then
      tg.log.info(("%s to %s: %d bytes%s."):format(message.type, message.direction, message.size, message.compressed and " compressed" or ""))
      return
    end
    if message.direction == "downstream" then
      if data == "hide" then return false end
      return data:find "^mark" and data .. " <" .. conf.mark or nil
    end
    if data:find "^mark" then return data .. " >" .. conf.mark end
    if data == "drop" then return false end
    if data == "reply" then
      message:reply "to you"
      message:reply("\\0\\1", "binary")
      return false
    end
    if data == "send" then message:send "before" end
    if data == "sleep" then tg.sleep(0.2) end
    if data == "close" then return message:close(4001, "not here") end
    if data == "raise" then error "as told" end
    if data == "number" then return 7 end
    if data == "bad text" then return "\\255" end
    if data == "flood" then
      local piece = ("x"):rep(100000)
      for _ = 1, 400 do assert(message:reply(piece)) end
      return "flooded"
    end
  end,
  log = function(ctx) tg.log.info(("ended %s in=%d out=%d error=%s."):format(ctx.status, ctx.bytes_in, ctx.bytes_out, tostring(ctx.error))) end,
}
"""


class Origin:
    """A WebSocket server that echoes, in a thread of its own. `closed` gets the code and the reason that each connection ends with."""

    def __init__(self, handler=None, **options):
        self.port, self.closed, self.paths = free_port(), [], []
        self.handler, self.options = handler or self.echo, {"max_size": None, "compression": None, "ping_interval": None, **options}

    async def echo(self, connection):
        async for message in connection:
            await connection.send(message)

    async def serve(self, connection, path):
        self.paths.append(path)
        try:
            await self.handler(connection)
        except ConnectionClosed:
            pass
        await connection.wait_closed()
        self.closed.append((connection.close_code, connection.close_reason))

    def run(self):
        async def forever():
            self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
            async with websockets.serve(self.serve, "127.0.0.1", self.port, **self.options):
                self.ready.set()
                await self.stop.wait()
        asyncio.run(forever())

    def __enter__(self):
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(20)

    def wait_closed(self, *expected):
        end = time.time() + 10
        while time.time() < end and len(self.closed) < len(expected):
            time.sleep(0.01)
        assert self.closed == list(expected)


@contextlib.contextmanager
def both(origin=None, **options):
    with origin or Origin() as server, Gateway(CONFIG.replace("@ORIGIN@", str(server.port)), plugins={"judge": JUDGE}, **options) as gw:
        yield server, gw


def connect(gw, path="/ws/x", **options):
    return websockets.connect(f"ws://127.0.0.1:{gw.port}{path}", **{"max_size": None, "compression": None, "ping_interval": None, **options})


def converse(gw, talk, path="/ws/x", **options):
    async def run():
        async with connect(gw, path, **options) as client:
            return await asyncio.wait_for(talk(client), 60)
    return asyncio.run(run())


async def close_of(client):
    with pytest.raises(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code, client.close_reason


def test_a_use_in_shadow_is_asked_about_each_message_and_changes_none():
    said = ("mark 1", "drop", "reply", "send", "sleep", "close", "raise", "number", "bad text", "hide", "plain")
    config = CONFIG.split("route", 1)[0] + 'admin { port = @PORT2@, public_metrics = true }\nlog { level = "debug", rate = 0 }\n' + """
route "ws" { path = "/ws/*", to = "ws", upgrade = "websocket", use = { "looks", { "judge", shadow = true } } }
"""

    async def talk(client):
        for text in said:
            await client.send(text)
            assert await client.recv() == text
    with Origin() as server, Gateway(config.replace("log { rate = 0 }\n", "").replace("@ORIGIN@", str(server.port)), warns="in shadow it has raised",
                                     plugins={"judge": JUDGE, "looks": "return { websocket = function() end }"}) as gw:
        converse(gw, talk)
        server.wait_closed((1000, ""))
        text = gw.request("/metrics", port=gw.port2).text.decode()
        counts = {verdict: next((float(line.split()[-1]) for line in text.splitlines() if f'shadow_total{{plugin="judge",verdict="{verdict}"}}' in line), 0)
                  for verdict in ("changed", "raised", "passed")}
        # of 11 messages each way: the mark and "hide" are changed on the way back, the mark, drop, reply, send, close and "bad text" on the way there
        assert counts["raised"] == 2 and counts["changed"] == 8 and counts["passed"] >= 12, counts
        for note in ("held a message back", "changed a message", "answered a message", "sent a message of its own", "closed the connection with 4001"):
            assert f"in shadow it would have {note}" in gw.log(), note
        assert "websocket must return nothing, false or a string, returned a number" in gw.log() and "as told" in gw.log()


def test_what_nobody_changes_goes_through_both_ways():
    async def talk(client):
        for message in ("hello", "", "\u6f6e" * 1000, b"", os.urandom(1), os.urandom(125), os.urandom(126), os.urandom(65535), os.urandom(65536), os.urandom(1 << 20)):
            await client.send(message)
            assert await client.recv() == message

    with both() as (server, gw):
        converse(gw, talk)
        server.wait_closed((1000, ""))
        gw.wait_for('close to upstream: 1000 "".')
        gw.wait_for('close to downstream: 1000 "".')
        gw.wait_for("ended 101 ")


def test_a_plugin_replaces_drops_sends_and_replies():
    async def talk(client):
        async def say(message, *answers):
            await client.send(message)
            for answer in answers:
                assert await client.recv() == answer
        await say("mark", "mark >1 <1")
        await say("drop")
        await say("hide")
        await say("reply", "to you", b"\0\1")
        await say("send", "before", "send")
        await say("sleep", "sleep")
        await say("end", "end")

    with both() as (server, gw):
        converse(gw, talk)
        server.wait_closed((1000, ""))


def test_plugins_are_asked_in_order_and_back():
    async def talk(client):
        await client.send("mark")
        assert await client.recv() == "mark >1 >2 <2 <1"

    with both() as (_, gw):
        converse(gw, talk, "/two/x")


@pytest.mark.parametrize("path,code,reason", [("close", 4001, "not here"), ("raise", 1011, "a policy failed"), ("number", 1011, "a policy failed"),
                                              ("bad text", 1011, "a policy failed")])
def test_a_plugin_closes_both_sides_and_so_does_its_error(path, code, reason):
    async def talk(client):
        await client.send(path)
        return await close_of(client)

    with both() as (server, gw):
        assert converse(gw, talk) == (code, reason)
        server.wait_closed((code, reason))
        if code == 1011:
            gw.wait_for("plugin judge, route ws")
        assert converse(gw, alive) == "alive"


async def alive(client):
    await client.send("alive")
    return await client.recv()


def test_a_plugin_that_may_be_skipped_is():
    async def talk(client):
        await client.send("raise")
        return await client.recv()

    with both() as (_, gw):
        assert converse(gw, talk, "/skip/x") == "raise"
        gw.wait_for("as told")


def test_a_flood_of_replies_waits_for_its_reader():
    async def talk(client):
        await client.send("flood")
        await asyncio.sleep(0.3)  # nobody reads: the plugin must not go on making messages
        total = 0
        while (message := await client.recv()) != "flooded":
            total += len(message)
        return total

    with both() as (_, gw):
        assert converse(gw, talk, max_queue=1) == 40_000_000


def test_a_phase_that_waits_keeps_the_order_and_not_the_other_direction():
    async def greet(connection):
        await connection.recv()
        await connection.send("first")
        assert [await connection.recv() for _ in range(3)] == ["sleep", "two", "three"]
        await connection.send("all")

    async def talk(client):
        start = time.monotonic()
        await client.send("one")
        for message in ("sleep", "two", "three"):
            await client.send(message)
        assert await client.recv() == "first"
        assert time.monotonic() - start < 0.2
        assert await client.recv() == "all"
        assert time.monotonic() - start >= 0.2

    with both(Origin(greet)) as (server, gw):
        converse(gw, talk)
        server.wait_closed((1000, ""))


def test_16_mib_in_one_message_and_in_fragments():
    large = os.urandom(1 << 20) * 16

    async def pieces():
        for at in range(0, len(large), 1_000_003):
            yield large[at:at + 1_000_003]

    async def talk(client):
        for message in (large, pieces()):
            await client.send(message)
            assert await client.recv() == large

    with both() as (server, gw):
        converse(gw, talk, "/large/x")
        server.wait_closed((1000, ""))


@pytest.mark.parametrize("path,size", [("/small/x", 1001), ("/ws/x", (1 << 20) + 1)])
def test_a_message_over_its_limit_closes_1009(path, size):
    async def fragments():
        for _ in range(11):
            yield b"x" * (size // 11 + 1)

    async def talk(client):
        await client.send(b"x" * (size - 1))
        assert len(await client.recv()) == size - 1
        with contextlib.suppress(ConnectionClosed):
            await client.send(b"x" * size)
        return await close_of(client)

    async def talk_fragments(client):
        with contextlib.suppress(ConnectionClosed):
            await client.send(fragments())
        return await close_of(client)

    with both() as (server, gw):
        assert converse(gw, talk, path) == (1009, "a message that is too large")
        assert converse(gw, talk_fragments, path) == (1009, "a message that is too large")
        server.wait_closed(*[(1009, "a message that is too large")] * 2)
        wait_for_status(gw, "message reached 2 times")


def wait_for_status(gw, text):
    end = time.time() + 5
    while time.time() < end and text not in gw.command("status").stdout:
        time.sleep(0.05)
    assert text in gw.command("status").stdout


def test_an_upstream_is_held_to_the_same_limit():
    async def shout(connection):
        await connection.send("x" * 1001)
        await connection.wait_closed()

    with both(Origin(shout)) as (server, gw):
        assert converse(gw, close_of, "/small/x")[0] == 1009
        server.wait_closed((1009, "a message that is too large"))


def test_pings_and_pongs_go_through_and_are_seen():
    async def talk(client):
        for _ in range(3):
            await asyncio.wait_for(await client.ping(b"are you there"), 5)
        await client.send("still")
        assert await client.recv() == "still"

    with both() as (_, gw):
        converse(gw, talk)
        gw.wait_for("ping to upstream: 13 bytes.", count=3)
        gw.wait_for("pong to downstream: 13 bytes.", count=3)


def test_codes_and_reasons_of_either_side_reach_the_other():
    async def leave(connection):
        await connection.recv()
        await connection.close(4321, "\u6f6e out")

    async def talk_first(client):
        await client.close(3456, "bye")

    async def talk_last(client):
        await client.send("go")
        return await close_of(client)

    with both(Origin(leave)) as (server, gw):
        converse(gw, talk_first)
        server.wait_closed((3456, "bye"))
        assert converse(gw, talk_last) == (4321, "\u6f6e out")


def test_a_side_that_goes_without_a_word_is_told_of():
    async def vanish(connection):
        connection.transport.abort()

    async def gone(client):
        await client.send("one")
        await client.recv()
        client.transport.abort()

    with both(Origin(vanish)) as (_, gw):
        assert converse(gw, close_of) == (1011, "the upstream is gone")
    with both() as (server, gw):
        converse(gw, gone)
        server.wait_closed((1001, "the client is gone"))


def test_silence_closes_1001():
    with both() as (server, gw):
        start = time.monotonic()
        assert converse(gw, close_of, "/idle/x") == (1001, "nothing was said for too long")
        assert 0.8 < time.monotonic() - start < 5
        server.wait_closed((1001, "nothing was said for too long"))
        wait_for_status(gw, "tunnel_timeout reached 1 time")


def test_compression_is_offered_only_where_a_plugin_may_see_it():
    async def talk(client):
        extensions = [extension.name for extension in client.extensions]
        for message in ("mark" * 1000, "\u6f6e" * 500, "mark"):
            await client.send(message)
            answer = await client.recv()
        return extensions, answer

    with both(Origin(compression="deflate")) as (_, gw):
        assert converse(gw, talk, compression="deflate") == ([], "mark >1 <1")
        assert converse(gw, talk, "/plain/x", compression="deflate") == (["permessage-deflate"], "mark")
        assert "compressed" not in gw.log()
        assert converse(gw, talk, "/packed/x", compression="deflate") == (["permessage-deflate"], "mark")
        gw.wait_for("bytes compressed.")
        # Who does not ask for it gets plain text there, too.
        assert converse(gw, talk, "/packed/x") == ([], "mark >1 <1")


def test_a_thousand_closes_leave_nothing_behind():
    async def storm(gw):
        async def one(i):
            async with connect(gw) as client:
                await client.send(str(i))
                assert await client.recv() == str(i)
                await client.close(1000 if i % 2 else 3000 + i, "")
                assert client.close_code == (1000 if i % 2 else 3000 + i)
        for first in range(0, 1000, 50):
            await asyncio.gather(*(one(i) for i in range(first, first + 50)))

    with both() as (server, gw):
        asyncio.run(storm(gw))
        end = time.time() + 10
        while time.time() < end and len(server.closed) < 1000:
            time.sleep(0.01)
        assert sorted(code for code, _ in server.closed) == sorted(1000 if i % 2 else 3000 + i for i in range(1000))
        gw.wait_for("ended 101 ", count=1000)
        assert converse(gw, alive) == "alive"


def test_200_open_ones_lose_nothing_while_the_gateway_reloads_each_second():
    async def one(gw, stop):
        said = 0
        async with connect(gw) as client:
            while not stop.is_set():
                await client.send(f"mark {said}")
                assert await asyncio.wait_for(client.recv(), 20) == f"mark {said} >1 <1"
                said += 1
                await asyncio.sleep(0.1)
        return said, client.close_code

    async def run(gw, config):
        stop = asyncio.Event()
        talks = [asyncio.create_task(one(gw, stop)) for _ in range(200)]
        for i in range(4):
            await asyncio.sleep(1)
            gw.write("gateway.lua", config + f'route "new{i}" {{ path = "/new{i}", to = "ws" }}\n')
            done = await asyncio.to_thread(gw.command, "reload")
            assert done.returncode == 0, done.stderr
        stop.set()
        return await asyncio.gather(*talks)

    with both(workers=2) as (server, gw):
        results = asyncio.run(run(gw, CONFIG.replace("@ORIGIN@", str(server.port))))
        assert len(results) == 200 and all(said > 4 and code == 1000 for said, code in results)


@pytest.mark.parametrize("how", ["quit", "terminate"])
def test_who_is_there_at_the_end_is_told_1001(how):
    async def talk(gw, server):
        async with connect(gw) as client:
            await client.send("here")
            assert await client.recv() == "here"
            gw.process.send_signal(signal.SIGQUIT if how == "quit" else signal.SIGTERM)
            if how == "quit":  # until the end is near it goes on
                await client.send("still here")
                assert await client.recv() == "still here"
            return await asyncio.wait_for(close_of(client), 10)

    with both(options=("--drain-timeout", "3")) as (server, gw):
        assert asyncio.run(talk(gw, server)) == (1001, "the gateway ends")
        server.wait_closed((1001, "the gateway ends"))
        gw.process.wait(10)


def test_the_package_ws_on_both_sides():
    origin = free_port()
    with Gateway(CONFIG.replace("@ORIGIN@", str(origin)), plugins={"judge": JUDGE}) as gw:
        assert node.run("ws", gw.port, origin).splitlines() == [
            "extensions: none",
            "fragments: 100",
            "pongs in order: true",
            "closed: 4567 enough",
            "extensions: permessage-deflate",
            "closed: 1000 ",
            "closed: 1000 ",
            "refused: 1009",
            "storm: 500",
            "the server saw: 4567 enough, 1000, 1000, 1009 a message that is too large",
        ]


def test_the_same_over_tls(tmp_path):
    authority = Authority(tmp_path)
    authority.issue("site", "DNS:localhost,IP:127.0.0.1")
    context = ssl.create_default_context(cafile=authority.cert)

    async def talk():
        async with websockets.connect(f"wss://localhost:{gw.port}/ws/x", ssl=context, max_size=None, ping_interval=None) as client:
            for message in ("mark", "x" * 200_000):
                await client.send(message)
                assert await client.recv() == (message if message[0] == "x" else "mark >1 <1")
            await client.send("close")
            return await close_of(client)

    with Origin() as server:
        config = CONFIG.replace("@ORIGIN@", str(server.port)).replace("send_timeout", f'tls = {{ cert = "{tmp_path}/site.pem", key = "{tmp_path}/site.key" }}, send_timeout')
        with Gateway(config, plugins={"judge": JUDGE}) as gw:
            assert asyncio.run(talk()) == (4001, "not here")
            server.wait_closed((4001, "not here"))
