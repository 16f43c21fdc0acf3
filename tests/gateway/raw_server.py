"""A server of raw bytes on loopback: each test decides what is sent, and checks what was received."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from runner.core.settings import Timeouts
from runner.gateway.client import GatewayClient

KEY = "sk-topsecret0123456789"
BODY = b'{"model":"wan2.7-i2v","prompt":"a kitten looks up"}'
QUICK = Timeouts(connect_s=0.3, submit_s=0.3, poll_s=0.3)


@dataclass
class RawServer:
    """
    What the server received.

    Attributes:
        requests: Heads of the requests, in order of arrival; also of those whose body did not arrive completely.
        bodies: Their bodies, as far as they arrived.
        connections: How many were accepted.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


class Connection:
    """One connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: RawServer) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self.number = server.connections

    async def head(self) -> str:
        """Read a request up to its empty line, and count it."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self._server.requests.append(head)
        self._server.bodies.append(b"")
        return head

    async def request(self) -> str:
        """Read a whole request, and count it."""
        head = await self.head()
        length = header(head, "Content-Length")
        if length:
            self._server.bodies[-1] = await self._reader.readexactly(int(length))
        return head

    async def read_body(self, count: int) -> None:
        self._server.bodies[-1] += await self._reader.readexactly(count)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hang(self) -> None:
        """Send nothing until the client closes the connection."""
        await self._reader.read()

    def reset(self) -> None:
        """Reset the connection."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Handler = Callable[[Connection], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Call the handler with each connection, and close the connection when it returns."""
    server = RawServer()
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        server.connections += 1
        try:
            await handler(Connection(reader, writer, server))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client closed the connection.
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        # What is still arriving is read and counted before a test looks at the counts.
        if handlers:
            await asyncio.wait(handlers, timeout=5)


@contextlib.asynccontextmanager
async def server_and_client(
    handler: Handler, timeouts: Timeouts = QUICK
) -> AsyncIterator[tuple[RawServer, GatewayClient]]:
    """Start a server, and a client of it."""
    async with serve(handler) as server, GatewayClient(server.url, timeouts) as gateway:
        yield server, gateway


def header(head: str, name: str) -> str | None:
    """Return the value of a header of a request."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a response with JSON."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def accepted(task_id: str) -> bytes:
    """Return the response to a POST that made a task."""
    return response("200 OK", b'{"id": "%s", "status": "queued"}' % task_id.encode())


async def run_event_loop(turns: int = 20) -> None:
    """Let the event loop handle what has arrived."""
    for _ in range(turns):
        await asyncio.sleep(0)
