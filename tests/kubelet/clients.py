"""WebSocket clients and a steady load of requests, without any library for either.

Prints {"websockets": N} as soon as all are connected, and at the line "report" on standard input what they have seen:
closes [time, code, seconds until the client was connected again], failed attempts to connect, and requests. Code 1006 is the
end of a connection without a Close, as browsers report it. Times are those of CLOCK_MONOTONIC.
"""

import argparse
import asyncio
import asyncio.sslproto
import base64
import json
import os
import random
import ssl
import struct
import sys
import time

# The buffer of each TLS connection is 256 KiB otherwise.
asyncio.sslproto.SSLProtocol.max_size = 16 * 1024
# Handshakes at the same time.
ABREAST = 32
TIMEOUT = 30

OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG = 8, 9, 10


class Clients:
    def __init__(self, arguments):
        self.host, port = arguments.address.split(":")
        self.port = int(port)
        self.tls = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
        self.name = "localhost"
        # Without TLS an ingress stands before the Service, which has terminated it.
        self.forwarded = "" if self.tls else "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        self.gate = asyncio.Semaphore(ABREAST)
        self.open, self.closes, self.refused = 0, [], []
        self.requests, self.failed, self.retried = 0, [], 0
        # The loop alone would not keep a task alive.
        self.tasks = set()

    async def connect(self):
        """Opens a connection."""
        opening = asyncio.open_connection(
            self.host, self.port, ssl=self.tls, server_hostname=self.name if self.tls else None, limit=1 << 14
        )
        return await asyncio.wait_for(opening, TIMEOUT)

    async def upgrade(self):
        """Opens a WebSocket."""
        async with self.gate:
            reader, writer = await self.connect()
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET /ws HTTP/1.1\r\nHost: {self.name}\r\nOrigin: https://localhost\r\n{self.forwarded}Upgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            if not head.startswith(b"HTTP/1.1 101 "):
                writer.transport.abort()
                raise OSError(head.split(b"\r\n")[0].decode())
            return reader, writer

    async def connected(self):
        """Opens a WebSocket, and tries again until it succeeds."""
        while True:
            try:
                return await self.upgrade()
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                self.refused.append([time.monotonic(), f"{type(error).__name__}: {error}"])
                await asyncio.sleep(random.uniform(0.05, 0.2))

    async def websocket(self, stubborn):
        """One client, which connects again after each close; a stubborn one never answers a Close, nor leaves."""
        reader, writer = await self.connected()
        while True:
            self.open += 1
            code = await self.listen(reader, writer)
            at = time.monotonic()
            self.open -= 1
            close = [at, code, None]
            self.closes.append(close)
            if stubborn:
                await asyncio.Event().wait()
            writer.transport.abort()
            # As long as a page takes to connect again.
            await asyncio.sleep(random.uniform(0.0, 0.3))
            reader, writer = await self.connected()
            close[2] = time.monotonic() - at

    async def listen(self, reader, writer):
        """Reads frames until the end; returns the code of the Close, which it answers, or 1006."""
        try:
            while True:
                head = await reader.readexactly(2)
                opcode, length = head[0] & 15, head[1] & 127
                if length == 126:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                payload = await reader.readexactly(length)
                if opcode == OPCODE_PING:
                    await send(writer, OPCODE_PONG, payload)
                elif opcode == OPCODE_CLOSE:
                    if not self.stubborn:
                        await send(writer, OPCODE_CLOSE, payload[:2])
                        # The server ends the connection, RFC 6455, 7.1.1.
                        await asyncio.wait_for(reader.read(), TIMEOUT)
                    return struct.unpack("!H", payload[:2])[0] if payload else 1005
        except (OSError, EOFError, asyncio.TimeoutError):
            return 1006

    async def new_connections(self, rate):
        """Requests at this rate, each on a connection of its own."""
        while True:
            task = asyncio.create_task(self.request_alone())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(1 / rate)

    async def request_alone(self):
        try:
            reader, writer = await self.connect()
            status, _ = await self.exchange(reader, writer, "close")
            self.count(status)
            writer.transport.abort()
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.count(f"{type(error).__name__}: {error}")

    async def kept_connection(self, rate):
        """Requests at this rate on one connection. As browsers do (RFC 9110, 9.2.2), it repeats a request once when a used
        connection ends without a byte of a response, which the server may have closed meanwhile."""
        connection = None
        while True:
            for repeated in (False, True):
                used, keep = connection is not None, False
                try:
                    connection = connection or await self.connect()
                    status, keep = await self.exchange(*connection, "keep-alive")
                    self.count(status)
                    repeat = False
                except (OSError, EOFError, asyncio.TimeoutError) as error:
                    repeat = used and not repeated and not getattr(error, "partial", b"")
                    if repeat:
                        self.retried += 1
                    else:
                        self.count(f"{type(error).__name__}: {error}")
                if not keep and connection:
                    connection[1].transport.abort()
                    connection = None
                if not repeat:
                    break
            await asyncio.sleep(1 / rate)

    async def exchange(self, reader, writer, connection):
        """Sends a request and reads the response, which has a length; returns its status, and whether the connection stays."""
        writer.write(f"GET / HTTP/1.1\r\nHost: {self.name}\r\n{self.forwarded}Connection: {connection}\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        await asyncio.wait_for(reader.readexactly(int(fields.get("content-length", 0))), TIMEOUT)
        return int(head.split()[1]), fields.get("connection") != "close"

    def count(self, status):
        self.requests += 1
        if status != 200:
            self.failed.append([time.monotonic(), status])


async def send(writer, opcode, payload):
    """Writes a masked frame of at most 125 bytes."""
    mask = os.urandom(4)
    writer.write(bytes([128 | opcode, 128 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
    await writer.drain()


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca")
    parser.add_argument("--websockets", type=int, default=0)
    parser.add_argument("--requests", type=float, default=0, help="per second")
    parser.add_argument("--stubborn", action="store_true")
    arguments = parser.parse_args()

    clients = Clients(arguments)
    clients.stubborn = arguments.stubborn
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(clients.websocket(arguments.stubborn)) for _ in range(arguments.websockets)]
    deadline = time.monotonic() + 2 * TIMEOUT
    while clients.open < arguments.websockets:
        assert time.monotonic() < deadline, f"{clients.open} of {arguments.websockets} connected: {clients.refused[-2:]}"
        await asyncio.sleep(0.02)
    if arguments.requests:
        tasks += [loop.create_task(clients.new_connections(arguments.requests / 2))]
        tasks += [loop.create_task(clients.kept_connection(arguments.requests / 2))]
    print(json.dumps({"websockets": clients.open, "refused": len(clients.refused)}), flush=True)

    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while await commands.readline():
        print(json.dumps(vars(clients), default=lambda _: None), flush=True)
    # The connections end with the process.
    os._exit(0)


asyncio.run(main())
