"""A server for assets, on a real socket, that says exactly what a script tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from runner.assets.response import OVERLAP_BYTES


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    path: str
    headers: dict[str, str]

    @property
    def first(self) -> int:
        """The first byte asked for; 0 where all is asked for."""
        return int(self.headers.get("range", "bytes=0-")[6:-1])


@dataclass(frozen=True)
class Answer:
    """
    What the server answers.

    Attributes:
        length: The declared length; None for the body's own, "" to declare none.
        cut: Close the connection after so many bytes of the body.
        stall: Send no more after so many bytes of the body, and keep the connection open.
        chunked: Send the body in chunks, and declare no length.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: str | None = None
    cut: int | None = None
    stall: int | None = None
    chunked: bool = False


Follow = Callable[[int], Answer]
"""An answer that depends on the first byte that was asked for."""


def file(body: bytes, **also: object) -> Answer:
    """Answer with a video."""
    headers = {"Content-Type": "video/mp4", **also.pop("headers", {})}  # type: ignore[dict-item]
    return Answer(200, body, headers, **also)  # type: ignore[arg-type]


def rest(
    body: bytes,
    *,
    shift: int = 0,
    total: int | None = None,
    new: int | None = None,
    last: int | None = None,
    **also: object,
) -> Follow:
    """
    Answer with what a file has from the asked byte on.

    It may be made wrong: shifted from what was asked, or with another total; it may end
    early, with byte `last`; and with `new` the connection is closed after so many bytes
    behind those that the client has already.
    """

    def answer(first: int) -> Answer:
        start = first + shift
        end = len(body) if last is None else last + 1
        place = f"bytes {start}-{end - 1}/{len(body) if total is None else total}"
        headers = {"Content-Type": "video/mp4", "Content-Range": place, **also.get("headers", {})}  # type: ignore[dict-item]
        return Answer(206, body[start:end], headers, cut=None if new is None else OVERLAP_BYTES + new)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status, b"moved", {"Location": location})


class Server:
    """Gives its answers in turn, and keeps what it was asked and how many bytes of bodies it sent."""

    def __init__(self, answers: Sequence[Answer | Follow]) -> None:
        self.answers = list(answers)
        self.last: Answer | Follow = Answer(500, b"nothing left to say")
        self.answer_by_path: Callable[[str], Answer] | None = None
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self.port = 0

    def url(self, path: str = "/a.mp4", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its end."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                self.requests.append(_parsed(await reader.readuntil(b"\r\n\r\n")))
                answer = self._next(self.requests[-1])
                if not await self._say(answer, reader, writer):
                    break
        writer.close()

    def _next(self, request: Request) -> Answer:
        if self.answer_by_path is not None:
            return self.answer_by_path(request.path)
        answer = self.answers.pop(0) if self.answers else self.last
        return answer if isinstance(answer, Answer) else answer(request.first)

    async def _say(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(answer))
        end = min(x for x in (answer.cut, answer.stall, len(answer.body)) if x is not None)
        body = answer.body[:end]
        writer.write(b"%x\r\n%b\r\n" % (len(body), body) if answer.chunked and body else body)
        self.sent_bytes += len(body)
        if answer.stall is not None:
            await writer.drain()
            # Until the other side has lost its patience.
            await reader.read()
        if answer.chunked and answer.cut is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return answer.cut is None and answer.stall is None and (answer.length != "" or answer.chunked)


def _head(answer: Answer) -> bytes:
    headers = dict(answer.headers)
    if answer.chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif answer.length != "":
        headers["Content-Length"] = str(len(answer.body)) if answer.length is None else answer.length
    lines = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parsed(head: bytes) -> Request:
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(first.split()[1], headers)


@asynccontextmanager
async def serving(*answers: Answer | Follow) -> AsyncIterator[Server]:
    """Run a server on a port of the loopback."""
    server = Server(answers)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0)
