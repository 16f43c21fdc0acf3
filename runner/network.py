"""
What requests have in common: their header, errors in words, responses of the API, and a limit of time.

The text of the HTTP library's exceptions is never passed on: it may quote a signed URL, or a response that repeats the key
that was sent. Responses are bounded, decompressed, and read even if they are not valid HTTP.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import ssl
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Self

import aiohttp
from msgspec import Struct

from runner import __version__
from runner.core.units import format_duration

USER_AGENT = f"runner/{__version__}"
"""The header of every request to the gateway, and for assets."""


class UnsolicitedData(aiohttp.ClientError):
    """The server sent bytes before it was sent a request."""


def describe_network_error(
    error: Exception, target: str, *, connect_s: float, timeout_s: float, is_connecting: bool = False
) -> str:
    """
    Return a clause that says what went wrong between here and a server.

    Args:
        target: The server, as a host or as a URL that may be shown.
        connect_s: How long the connection could take.
        timeout_s: How long the server could send nothing.
        is_connecting: Whether there was no connection yet, where the error itself does not tell.

    >>> describe_network_error(TimeoutError(), "api.powertokens.ai", connect_s=10, timeout_s=120)
    'no response from api.powertokens.ai within 2m'
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or is_connecting:
        return _describe_connect_error(error, target, connect_s)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return f"no data from {target} for {format_duration(timeout_s)}"
    if isinstance(error, TimeoutError):
        return f"no response from {target} within {format_duration(timeout_s)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{target} closed the connection without a response"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the connection to {target} was closed before the end of the response"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the response from {target} is not valid HTTP"
    if isinstance(error, OSError):
        return f"the connection to {target} failed: {_reason(error)}"
    return f"the request to {target} failed ({type(error).__name__})"


def _describe_connect_error(error: Exception, target: str, connect_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {target} within {format_duration(connect_s)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no connection to {target}: its host name could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {target} is not trusted: {_reason(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS could not be set up with {target}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy could not be reached: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused the connection to {target} (HTTP {error.status})"
    if isinstance(error, UnsolicitedData):
        return f"{target} is not an HTTP server: it sent data before any request"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {target}: {_reason(error.os_error)}"
    return f"no connection to {target} ({type(error).__name__})"


def _reason(error: Exception) -> str:
    """Return the operating system's or the TLS library's reason, which holds nothing that a server wrote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or type(error).__name__).replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return type(error).__name__


MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a response that is read, and of what is decompressed from it; the API's own responses have about one kilobyte."""


class HttpResponse(Struct, frozen=True):
    """
    A response as it was received.

    Attributes:
        headers: Without regard to the case of their names.
        body: Decompressed, and possibly truncated.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\n]*)?\r?\n(?:[^\r\n][^\n]*\n)*\r?\n")

_CHUNK_SIZE = re.compile(rb"\A[^\r\n{\[]{1,40}\r\n(?=[{\[])")
"""In front of a body whose chunks could not be read."""


def salvage(received: bytes) -> HttpResponse | None:
    r"""
    Read a response that is not valid HTTP, such as one with two lengths, or with more bytes than its length.

    Its body is whatever follows its head. None if there is no head of a final response.

    >>> salvage(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}").body
    b'{}'
    """
    while head := _HEAD.match(received):
        received = received[head.end() :]
        if not head[1].startswith(b"1"):
            return HttpResponse(int(head[1]), {}, _CHUNK_SIZE.sub(b"", received))
    return None


async def read_bounded(content: aiohttp.StreamReader, chunks: list[bytes]) -> None:
    """Read a body, piece by piece, up to `MAX_BODY_BYTES`."""
    left = MAX_BODY_BYTES
    while left > 0 and not content.at_eof() and (chunk := await content.readany()):
        chunks.append(chunk[:left])
        left -= len(chunk)


def decompress(body: bytes, encoding: str) -> bytes:
    """
    Decompress a body that was compressed though that was not requested, up to `MAX_BODY_BYTES`.

    A body that can't be decompressed is returned as it is.

    >>> decompress(zlib.compress(b'{"id": "task_1"}'), "deflate")
    b'{"id": "task_1"}'
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        # 32 + 15: the header shows whether it is gzip or zlib.
        return zlib.decompressobj(wbits=47).decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return body


_TURNS = 8
"""Turns of the event loop after the time is over: enough to read a response that is in the socket already."""


class Deadline:
    """
    Cancels the block after some seconds, and raises TimeoutError from it. A context manager in a task.

    It differs from `asyncio.timeout` when the event loop itself wakes up late, because the process was stopped or
    the machine was suspended: timers run before sockets are read, so a response that arrived long ago would count
    as missing. Here the sockets are read first.

    Each request has one, and hardly any expires. So all those of a task share a timer, which stays armed when they
    end: with a timer for each, they took 3 % of a job's time.

    Args:
        seconds: From the entry on.

    Attributes:
        at: When it is over, on the clock of the event loop.
        has_expired: Whether it has canceled its task.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = math.inf
        self.has_expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        timer = _TIMER.get()
        if timer is None or timer.task is not task:
            # A task begins with the variables of the one that made it.
            timer = _TaskTimer(task)
            _TIMER.set(timer)
        self._timer = timer
        self._requests = task.cancelling()
        self.at = timer.loop.time() + self._seconds
        timer.deadlines.append(self)
        if self.at < timer.fires_at:
            timer.arm(self.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.deadlines.remove(self)
        # Somebody else may have canceled the task as well; that goes first.
        is_own = self.has_expired and self._timer.task.uncancel() <= self._requests
        if is_own and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


class _TaskTimer:
    """
    The timer of a task's deadlines, which are those of its blocks that have not ended.

    Attributes:
        fires_at: When it checks them; infinity if it is not armed.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.loop = task.get_loop()
        self.deadlines: list[Deadline] = []
        self.fires_at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, at: float) -> None:
        """Look at the deadlines at a time, and no longer at a later one."""
        if self._handle is not None:
            self._handle.cancel()
        self.fires_at = at
        self._handle = self.loop.call_at(at, self._check, _TURNS)

    def _check(self, turns: int) -> None:
        now = self.loop.time()
        running = [deadline for deadline in self.deadlines if not deadline.has_expired]
        if turns and any(deadline.at <= now for deadline in running):
            self.loop.call_soon(self._check, turns - 1)
            return
        for deadline in running:
            if deadline.at <= now:
                deadline.has_expired = True
                self.task.cancel()
        self._handle, self.fires_at = None, math.inf
        following = min((deadline.at for deadline in running if not deadline.has_expired), default=None)
        if following is not None:
            self.arm(following)


_TIMER: ContextVar[_TaskTimer | None] = ContextVar("deadline_timer", default=None)
