"""The HTTP client: the only place where requests leave for the API, and where HTTP becomes our outcomes."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import aiohttp
from msgspec import Struct
from msgspec.structs import replace
from multidict import CIMultiDict
from yarl import URL

from runner import __version__, jsontext
from runner.core.classify import classify_poll, classify_submit
from runner.core.http_headers import parse_http_date
from runner.core.model import Failure, FailureClass, Json
from runner.core.outcomes import (
    Ambiguous,
    Denied,
    NotSent,
    Polled,
    PollOutcome,
    Probed,
    SubmitOutcome,
    Transient,
)
from runner.core.settings import Timeouts
from runner.gateway.connector import ConnectFailed, StrictConnector
from runner.gateway.urls import gateway_root, task_url
from runner.network_errors import describe_network_error

POST_KEEPALIVE_S = 2.0
"""
How long an idle connection may serve another POST.

A server that closes an idle connection just as a POST leaves on it puts the job
in doubt for nothing. Servers commonly wait 5 s or more before they do, so nothing
older than 2 s is used: at a job a second and faster connections are reused, at
slower rates a fresh one costs two round trips and 0.3 ms that nobody notices.
"""

POLL_KEEPALIVE_S = 30.0
"""The same for queries, where a closed connection costs only a second try."""

LARGE_BODY_BYTES = 1024 * 1024
SLOWEST_UPLOAD_BYTES_PER_S = 100_000
"""A large body gets this much longer to leave, so that a slow line does not manufacture doubt."""

MOST_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

MOST_HEADER_BYTES = 64 * 1024
"""Of one header line: aiohttp's own bound of 8 KiB would put a job in doubt for a long cookie."""


class GatewayClient:
    """
    Submit, poll and probe over HTTP; network trouble comes back as an outcome, never as an exception.

    To be entered (``async with``) before the first call. One instance serves any
    number of calls at once, with any number of keys; it keeps no cookies, reads no
    ``.netrc``, and follows redirects only for queries and only within the
    gateway's own origin, so that a key never goes anywhere else.

    Args:
        base_url: With or without a trailing slash or ``/v1``.
        proxy: The http proxy to go through, or None for the direct way; see `address.proxy_for`.
        wall_clock: Seconds since 1970, for a Retry-After that is a date.

    Raises:
        UsageError: The base URL is not the address of a gateway.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        proxy: str | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        root = gateway_root(base_url)
        self._videos = URL(f"{root}/v1/videos", encoded=True)
        self._models = URL(f"{root}/v1/models", encoded=True)
        self._host = self._videos.host or ""
        self._timeouts = timeouts
        self._proxy = proxy
        self._wall_clock = wall_clock
        self._headers: dict[str, CIMultiDict[str]] = {}
        self._posts: aiohttp.ClientSession
        self._gets: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        # The system's resolver: it knows /etc/hosts, and is the same whatever else is installed.
        resolver = aiohttp.ThreadedResolver()
        connect_s = self._timeouts.connect_s
        # The time to connect comes on top, so that a time-out while connecting is told apart from
        # one after it: the first is "not sent", the second is doubt.
        self._posts = _session(POST_KEEPALIVE_S, resolver, connect_s, connect_s + self._timeouts.submit_s)
        self._gets = _session(POLL_KEEPALIVE_S, resolver, connect_s, connect_s + self._timeouts.poll_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._posts.close()
        await self._gets.close()

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        """
        POST a job, exactly once, and say what it came to.

        Cancelling this call may abandon a POST whose task is paid for: whoever
        cancels must shield it and wait for the outcome, or hold the job in doubt.
        """
        try:
            answer = await self._post(body, key)
        except ConnectFailed as error:
            return NotSent(self._trouble(FailureClass.UNAVAILABLE, error, self._timeouts.submit_s))
        except Exception as error:
            # Also what nobody foresaw: once a byte may have left, only an answer ends the doubt.
            return Ambiguous(self._trouble(FailureClass.UNCERTAIN_SUBMIT, error, self._timeouts.submit_s))
        return classify_submit(answer.status, answer.headers, answer.body, self._wall_clock(), secrets=(key,))

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        """Ask for a task."""
        try:
            answer = await self._get(task_url(self._videos, task_id), key)
        except (aiohttp.ClientError, OSError) as error:
            return Transient(self._trouble(FailureClass.UNAVAILABLE, error, self._timeouts.poll_s))
        return classify_poll(answer.status, answer.headers, answer.body, self._wall_clock(), secrets=(key,))

    async def probe(self, key: str) -> Probed:
        """Ask for the list of models, which is free, to learn whether the gateway answers and knows the key."""
        try:
            answer = await self._get(self._models, key)
        except (aiohttp.ClientError, OSError) as error:
            return Probed(
                False, failure=self._trouble(FailureClass.UNAVAILABLE, error, self._timeouts.poll_s)
            )
        return read_probe(answer, (key,))

    async def _post(self, body: bytes, key: str) -> HttpResponse:
        # aiohttp warns of large bytes, and writes a file-like body in pieces.
        large = len(body) > LARGE_BODY_BYTES
        response = await self._posts.post(
            self._videos,
            data=io.BytesIO(body) if large else body,
            headers=self._headers_for(key),
            allow_redirects=False,
            proxy=self._proxy,
            timeout=self._time_for(len(body)) if large else self._posts.timeout,
        )
        return await read_response(response)

    def _time_for(self, body_bytes: int) -> aiohttp.ClientTimeout:
        upload_s = body_bytes / SLOWEST_UPLOAD_BYTES_PER_S
        connect_s, submit_s = self._timeouts.connect_s, self._timeouts.submit_s
        # The wait for the answer is counted from the body's last byte.
        return aiohttp.ClientTimeout(
            total=connect_s + upload_s + submit_s, connect=connect_s, sock_read=submit_s
        )

    async def _get(self, url: URL, key: str) -> HttpResponse:
        for _ in range(MOST_REDIRECTS + 1):
            response = await self._gets.get(
                url, headers=self._headers_for(key), allow_redirects=False, proxy=self._proxy
            )
            answer = await read_response(response)
            target = _redirect(url, answer)
            if target is None:
                break
            url = target
        return answer

    def _headers_for(self, key: str) -> CIMultiDict[str]:
        """Build the one header that depends on the key, once a key; the session adds those of every request."""
        headers = self._headers.get(key)
        if headers is None:
            headers = self._headers[key] = CIMultiDict({"Authorization": f"Bearer {key}"})
        return headers

    def _trouble(self, cls: FailureClass, error: Exception, timeout_s: float) -> Failure:
        is_connecting = isinstance(error, ConnectFailed)
        message = describe_network_error(
            error.cause if isinstance(error, ConnectFailed) else error,
            self._host,
            connect_s=self._timeouts.connect_s,
            timeout_s=timeout_s,
            is_connecting=is_connecting,
        )
        return Failure(cls, message)


def _session(
    keepalive_s: float, resolver: aiohttp.ThreadedResolver, connect_s: float, total_s: float
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=StrictConnector(keepalive_s=keepalive_s, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Answers are small, and one that can't be compressed can't be a bomb.
            "Accept-Encoding": "identity",
            "User-Agent": user_agent(),
        },
        timeout=aiohttp.ClientTimeout(total=total_s, connect=connect_s),
        # Unpacked within bounds by `answer.unpack`.
        auto_decompress=False,
        max_line_size=MOST_HEADER_BYTES,
        max_field_size=MOST_HEADER_BYTES,
    )


def _redirect(url: URL, answer: HttpResponse) -> URL | None:
    """Say where a query goes on: only within its own origin, since the key goes with it."""
    if answer.status not in REDIRECTS or not (location := answer.headers.get("Location")):
        return None
    try:
        target = url.join(URL(location))
        return target if target.origin() == url.origin() else None
    except ValueError:
        return None


def user_agent() -> str:
    """Name the program and its version, as every request does."""
    return f"runner/{__version__}"


MOST_BYTES = 4 * 1024 * 1024
"""Of a body that is read, and of what is unpacked from it; the API's own answers have about one kilobyte."""


class HttpResponse(Struct, frozen=True):
    """
    What came back.

    Attributes:
        headers: Found by any spelling of their names.
        body: Unpacked, and possibly cut short.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


async def read_response(response: aiohttp.ClientResponse) -> HttpResponse:
    """Read what there is of an answer, and let go of its connection. A cancellation passes through."""
    try:
        body = await _read_bounded(response.content)
    finally:
        # Reuses the connection where the body was read to its end, and closes it where it was not.
        response.release()
    encoding = response.headers.get("Content-Encoding")
    return HttpResponse(response.status, response.headers, unpack(body, encoding) if encoding else body)


async def _read_bounded(content: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    room = MOST_BYTES
    try:
        while room > 0 and (chunk := await content.readany()):
            chunks.append(chunk[:room])
            room -= len(chunk)
    except (aiohttp.ClientError, OSError):
        # Broken off, badly framed, or (TimeoutError is an OSError) too slow: what arrived is judged.
        pass
    return b"".join(chunks)


def unpack(body: bytes, encoding: str) -> bytes:
    """
    Unpack a body that was compressed although nobody asked for it, up to `MOST_BYTES`.

    A body that can't be unpacked comes back as it is.

    >>> unpack(zlib.compress(b'{"id": "task_1"}'), "deflate")
    b'{"id": "task_1"}'
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        # 32 + 15: the header says whether it is gzip or zlib.
        return zlib.decompressobj(wbits=47).decompress(body, MOST_BYTES)
    except zlib.error:
        return body


def read_probe(answer: HttpResponse, secrets: tuple[str, ...] = ()) -> Probed:
    """
    Say what the answer to a probe shows.

    The gateway answers when it sends JSON with a status below 500: even a refused
    key proves that it is back.
    """
    server_at = parse_http_date(answer.headers.get("Date", ""))
    try:
        document = jsontext.loads(answer.body)
    except (ValueError, RecursionError):
        return Probed(False, server_at=server_at, failure=_not_json(answer.status))
    if answer.status == 200:
        return Probed(True, _model_ids(document), server_at)
    # The same refusals as for a query; the clock matters only for its Retry-After.
    outcome = classify_poll(answer.status, answer.headers, answer.body, 0.0, secrets=secrets)
    if isinstance(outcome, Polled):
        return Probed(False, server_at=server_at, failure=_not_json(answer.status))
    failure = outcome.failure
    if not isinstance(outcome, Denied):
        failure = replace(failure, cls=FailureClass.UNAVAILABLE)
    return Probed(400 <= answer.status < 500, server_at=server_at, failure=failure)


def _not_json(status: int) -> Failure:
    message = f"GET /v1/models answered HTTP {status} without a list of models; is the base URL right?"
    return Failure(FailureClass.UNAVAILABLE, message, http_status=status)


def _model_ids(document: Json) -> tuple[str, ...]:
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(model for model in ids if isinstance(model, str))
