"""A WebSocket whose messages a plugin looks at, while the n-th allocation fails: the right answers, a close with its code, or a refused handshake."""
import asyncio
import errno

import pytest
import websockets
from faults import CUT, FAILED, MALLOC, RIGHT, Faulty, descriptors, wait_until
from test_websocket_messages import CONFIG, JUDGE, Origin, connect

LARGE = b"tide" * 60_000


@pytest.fixture(scope="module")
def gw(shim, tmp_path_factory):
    with Origin() as origin, Faulty(CONFIG.replace("@ORIGIN@", str(origin.port)), shim, tmp_path_factory.mktemp("plan"),
                                    plugins={"judge": JUDGE}, warns="upstream 127") as running:
        assert ask(running) == RIGHT
        yield running
        running.plan.disarm()


async def pieces():
    for at in range(0, len(LARGE), 50_000):
        yield LARGE[at:at + 50_000]


async def talk(gw):
    try:
        async with connect(gw, open_timeout=10, close_timeout=10) as client:
            await client.send("mark")
            assert await client.recv() == "mark >1 <1"
            await client.send("reply")
            assert [await client.recv(), await client.recv()] == ["to you", b"\0\1"]
            for message in (LARGE, pieces()):
                await client.send(message)
                assert await client.recv() == LARGE
            await asyncio.wait_for(await client.ping(), 10)
            await client.close(4000)
            return RIGHT if client.close_code == 4000 else FAILED
    except websockets.ConnectionClosed as closed:
        assert closed.code in (1006, 1011), closed
        return CUT if closed.code == 1006 else FAILED
    except websockets.InvalidStatusCode as refused:
        assert refused.status_code in (500, 502, 503), refused
        return FAILED
    except (websockets.InvalidMessage, ConnectionResetError):
        return CUT


def ask(gw):
    return asyncio.run(asyncio.wait_for(talk(gw), 60))


def test_each_allocation_of_a_conversation_fails_once(gw):
    worker, = gw.workers()
    before = descriptors(worker)
    gw.plan.arm(MALLOC, errno.ENOMEM, worker, chance=0)
    assert ask(gw) == RIGHT
    count = gw.plan.disarm()[0]
    assert count > 20
    outcomes = []
    for n in range(1, min(count, 80) + 1):
        gw.plan.arm(MALLOC, errno.ENOMEM, worker, first=n, times=1)
        outcomes.append(ask(gw))
        gw.plan.disarm()
        assert gw.workers() == [worker], f"allocation {n}: {gw.log()}"
    assert outcomes.count(FAILED) > 3
    assert ask(gw) == RIGHT
    wait_until(lambda: descriptors(worker) <= before + 8, "no descriptor is left")
