"""An HTTP server for assets, on a real socket, that sends exactly the responses that a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from runner.assets.response import OVERLAP_BYTES


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    path: str
    headers: dict[str, str]

    @property
    def offset(self) -> int:
        """The first byte requested; 0 for the whole body."""
        return int(self.headers.get("range", "bytes=0-")[6:-1])


_TURNS = 20
"""Turns of the event loop before a response: a limit of time that is over is noticed in fewer."""


@dataclass(frozen=True)
class Response:
    """
    A response to send.

    Attributes:
        length: The declared length; None for the body's own, "" to declare none.
        close_after: Close the connection after this many bytes of the body.
        stall_after: Send no more after this many bytes of the body, and keep the connection open.
        chunked: Send the body in chunks, and declare no length.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: str | None = None
    close_after: int | None = None
    stall_after: int | None = None
    chunked: bool = False


RangeHandler = Callable[[int], Response]
"""Makes the response to a request by its offset."""

VIDEO_TYPE = {"Content-Type": "video/mp4"}


def video(
    body: bytes,
    *,
    headers: Mapping[str, str] = VIDEO_TYPE,
    length: str | None = None,
    close_after: int | None = None,
    stall_after: int | None = None,
    chunked: bool = False,
) -> Response:
    """Return a response with a whole video."""
    return Response(200, body, {**VIDEO_TYPE, **headers}, length, close_after, stall_after, chunked)


def video_range(
    body: bytes,
    *,
    headers: Mapping[str, str] = VIDEO_TYPE,
    shift: int = 0,
    total: int | None = None,
    last: int | None = None,
    new: int | None = None,
) -> RangeHandler:
    """
    Return a handler that sends the part of a file from the requested offset on.

    Args:
        shift: Start this many bytes after the requested offset.
        total: State this length of the file instead of its own.
        last: End with this byte instead of the file's last one.
        new: Close the connection after this many bytes that the client does not have yet.
    """

    def handle(offset: int) -> Response:
        start = offset + shift
        end = len(body) if last is None else last + 1
        content_range = f"bytes {start}-{end - 1}/{len(body) if total is None else total}"
        return Response(
            206,
            body[start:end],
            {**VIDEO_TYPE, "Content-Range": content_range, **headers},
            close_after=None if new is None else OVERLAP_BYTES + new,
        )

    return handle


def redirect(location: str, status: int = 302) -> Response:
    return Response(status, b"moved", {"Location": location})


class Server:
    """Sends its responses in turn, and records the requests and how many bytes of bodies it sent."""

    def __init__(self, responses: Sequence[Response | RangeHandler]) -> None:
        self.responses = list(responses)
        self.default_response: Response | RangeHandler = Response(500, b"no response left")
        self.response_by_path: Callable[[str], Response] | None = None
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self.port = 0

    def url(self, path: str = "/a.mp4", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its end."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                request = _parse(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                response = self._next(request)
                if not await self._send(response, reader, writer):
                    break
        writer.close()

    def _next(self, request: Request) -> Response:
        if self.response_by_path is not None:
            return self.response_by_path(request.path)
        response = self.responses.pop(0) if self.responses else self.default_response
        return response if isinstance(response, Response) else response(request.offset)

    async def _send(
        self, response: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send a response; return whether the connection stays open."""
        writer.write(_head(response))
        ends = (response.close_after, response.stall_after, len(response.body))
        body = response.body[: min(end for end in ends if end is not None)]
        writer.write(b"%x\r\n%b\r\n" % (len(body), body) if response.chunked and body else body)
        self.sent_bytes += len(body)
        if response.stall_after is not None:
            await writer.drain()
            # Until the client has timed out.
            await reader.read()
        if response.chunked and response.close_after is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        is_whole = response.close_after is None and response.stall_after is None
        return is_whole and (response.length != "" or response.chunked)


def _head(response: Response) -> bytes:
    headers = dict(response.headers)
    if response.chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif response.length != "":
        headers["Content-Length"] = str(len(response.body)) if response.length is None else response.length
    lines = [
        f"HTTP/1.1 {response.status} Reason",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parse(head: bytes) -> Request:
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(first.split()[1], headers)


@asynccontextmanager
async def serving(*responses: Response | RangeHandler) -> AsyncIterator[Server]:
    """Run a server on a port of the loopback interface."""
    server = Server(responses)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0)
