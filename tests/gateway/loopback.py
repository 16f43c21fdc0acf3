"""A server of raw bytes on loopback: each test says what goes over the wire, and counts what came."""

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
class Server:
    """
    What the server saw.

    Attributes:
        requests: Heads of the requests, in order of arrival; also of those whose body did not come whole.
        bodies: Their bodies, as far as they came.
        connections: How many were accepted.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


class Wire:
    """One connection, from the server's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
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

    async def some(self, count: int) -> None:
        self._server.bodies[-1] += await self._reader.readexactly(count)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hang(self) -> None:
        """Say nothing until the client goes away."""
        await self._reader.read()

    def reset(self) -> None:
        """Break the connection at once, without a farewell."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Play the script on each connection; its end closes the connection."""
    seen = Server()
    players: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        players.add(task)
        seen.connections += 1
        try:
            await script(Wire(reader, writer, seen))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client went away.
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    listener = await asyncio.start_server(play, "127.0.0.1", 0, ssl=tls)
    seen.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        listener.close()
        # What is still on its way is read and counted before anybody looks at the counts.
        if players:
            await asyncio.wait(players, timeout=5)


@contextlib.asynccontextmanager
async def meet(script: Script, timeouts: Timeouts = QUICK) -> AsyncIterator[tuple[Server, GatewayClient]]:
    """Start a server and a client that knows it."""
    async with serve(script) as server, GatewayClient(server.url, timeouts) as gateway:
        yield server, gateway


def header(head: str, name: str) -> str | None:
    """Find a header in a request as it came."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Write an answer of JSON."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def accepted(task_id: str) -> bytes:
    """Write the answer to a POST that made a task."""
    return answer("200 OK", b'{"id": "%s", "status": "queued"}' % task_id.encode())


async def turn(turns: int = 20) -> None:
    """Let the event loop handle what has arrived."""
    for _ in range(turns):
        await asyncio.sleep(0)
