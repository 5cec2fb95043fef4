#!/usr/bin/python3
"""Says each MESSAGE in the chat, and prints what is heard until nobody has spoken for half a second. Usage: say.py KEY MESSAGE..."""
import asyncio
import sys

import websockets


async def main(key, messages):
    async with websockets.connect(f"ws://127.0.0.1:8080/chat?key={key}") as connection:
        try:
            for message in messages:
                await connection.send(message)
            while True:
                print(await asyncio.wait_for(connection.recv(), 0.5))
        except asyncio.TimeoutError:
            pass
        except websockets.ConnectionClosed:
            print("closed", connection.close_code, connection.close_reason)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
