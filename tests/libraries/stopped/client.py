"""A client with the package websockets that reconnects whenever its connection has ended.

    python client.py URL CA

It reports events as JSON lines, as the pages of the libraries do, and sends one message on each connection.
"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


async def main(url, ca):
    async for socket in connect(url, ssl=ssl.create_default_context(cafile=ca)):
        report("open")
        try:
            await socket.send("hello")
            async for message in socket:
                report("message", data=message)
        except ConnectionClosed:
            pass
        report("close", code=socket.close_code, reason=socket.close_reason)


asyncio.run(main(*sys.argv[1:]))
