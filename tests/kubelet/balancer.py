"""A load balancer of TCP: new connections go to the known endpoints in turn, and open ones stay where they are.

Reads endpoints from standard input, one JSON object a line: {"address:port": ["address:port", ...]}, and prints each as soon
as it is in force.
"""

import asyncio
import itertools
import json
import os
import sys

endpoints = {}
turn = itertools.count()
# The loop alone would not keep a task alive that waits for one of its connections.
tasks = set()


async def accept(listen, reader, writer):
    tasks.add(asyncio.current_task())
    try:
        await relay(listen, reader, writer)
    finally:
        tasks.discard(asyncio.current_task())


async def relay(listen, reader, writer):
    known = endpoints[listen]
    if not known:
        writer.transport.abort()
        return
    host, port = known[next(turn) % len(known)].split(":")
    try:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))


async def copy(reader, writer):
    """Carries bytes, a half-close, and a reset."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def main():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    servers = {}
    while line := await commands.readline():
        endpoints.update(json.loads(line))
        for listen in endpoints.keys() - servers.keys():
            host, port = listen.split(":")
            handler = lambda reader, writer, listen=listen: accept(listen, reader, writer)
            servers[listen] = await asyncio.start_server(handler, host, int(port), backlog=4096)
        print(json.dumps(endpoints), flush=True)
    # The connections end with the process.
    os._exit(0)


asyncio.run(main())
