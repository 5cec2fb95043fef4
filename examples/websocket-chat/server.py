#!/usr/bin/python3
"""A room: what one says, all hear. Usage: server.py PORT"""
import asyncio
import sys

import websockets

present = set()


async def listen(connection, _path):
    present.add(connection)
    try:
        async for message in connection:
            websockets.broadcast(present, message)
    finally:
        present.remove(connection)


async def main(port):
    async with websockets.serve(listen, "127.0.0.1", port):
        print("the room is open", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))
