"""The HTTP client of the API: requests out, outcomes back."""

from __future__ import annotations

import io
import time
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any, Self

import aiohttp
from msgspec.structs import replace
from multidict import CIMultiDict
from yarl import URL

from runner.connector import ConnectFailed, StrictConnector, forget_connection, used_connection
from runner.core.classify import classify_poll, classify_submit, excerpt
from runner.core.model import Failure, FailureClass, Json
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    Denied,
    NotSent,
    Polled,
    PollOutcome,
    Probed,
    SubmitOutcome,
    Transient,
    hide_keys,
)
from runner.core.retry import parse_http_date
from runner.core.settings import Timeouts
from runner.core.wire_errors import MESSAGE_CHARS
from runner.gateway.urls import gateway_root, task_url
from runner.jsontext import loads
from runner.network import (
    USER_AGENT,
    Deadline,
    HttpResponse,
    decompress,
    describe_network_error,
    read_bounded,
    salvage,
)

POST_KEEPALIVE_S = 0.5
"""
How long an idle connection may be reused for another POST, in seconds (fact F93).

A server that closes an idle connection just as a POST is sent on it makes the job
uncertain for nothing, and some do so after 1 s. Above two jobs per second connections
are reused, and at slower rates a new one costs two round trips that nobody notices.
"""

SURPLUS_WAIT_S = 0.1
"""How long to wait for more bytes behind an answer after which the POST may be sent again."""

POLL_KEEPALIVE_S = 30.0
"""The same for polls, where a closed connection costs only a second try."""

_LARGE_BODY_BYTES = 1024 * 1024
_MIN_UPLOAD_BYTES_PER_S = 100_000
"""A large body gets as much longer as it takes at this rate, so that a slow line does not make jobs uncertain."""

_MAX_RECENT_TASKS = 4096
"""Tasks whose ids are remembered, to notice an answer that arrives twice."""

_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_MAX_HEADER_BYTES = 64 * 1024
"""Of one header line: with aiohttp's own limit of 8 KiB a long cookie would make a job uncertain."""


class GatewayClient:
    """
    Submits, polls and probes over HTTP; a network error is returned as an outcome, never raised.

    An async context manager, to be entered before the first call. One instance serves any
    number of calls at once, with any number of keys; it stores no cookies, reads no
    ``.netrc``, and follows redirects only for polls and only within the gateway's
    origin, so that a key goes nowhere else.

    Args:
        base_url: With or without a trailing slash or ``/v1``.
        proxy: The HTTP proxy to use, or None for a direct connection; see `runner.connector`.

    Raises:
        UsageError: The base URL is not the URL of a gateway.
    """

    def __init__(self, base_url: str, timeouts: Timeouts, *, proxy: str | None = None) -> None:
        root = gateway_root(base_url)
        self.root = root
        self._videos = URL(f"{root}/v1/videos", encoded=True)
        self._models = URL(f"{root}/v1/models", encoded=True)
        self._host = self._videos.host or ""
        self._timeouts = timeouts
        self._proxy = proxy
        self._recent_tasks: dict[str, None] = {}
        # By key: the keys that were sent, none of which may be stored if an answer repeats it.
        self._headers: dict[str, CIMultiDict[str]] = {}
        self._post_session: aiohttp.ClientSession
        self._get_session: aiohttp.ClientSession
        self._resolver: aiohttp.ThreadedResolver

    async def __aenter__(self) -> Self:
        # The system's resolver: it reads /etc/hosts, and is the same whatever else is installed.
        self._resolver = resolver = aiohttp.ThreadedResolver()
        posts = StrictConnector(
            keepalive_s=POST_KEEPALIVE_S, resolver=resolver, reuse_is_allowed=False, records=True
        )
        gets = StrictConnector(keepalive_s=POLL_KEEPALIVE_S, resolver=resolver, records=True)
        connect_s = self._timeouts.connect_s
        self._post_session, self._get_session = _session(posts, connect_s), _session(gets, connect_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._post_session.close()
        await self._get_session.close()

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        """
        POST a job, exactly once, and return its outcome.

        Canceling this call may abandon a POST whose task is paid for: the caller must
        shield it and wait for the outcome, or treat the job as uncertain.
        """
        forget_connection()
        try:
            response = await self._post(body, key)
        except ConnectFailed as error:
            return NotSent(self._failure(FailureClass.UNAVAILABLE, error, self._timeouts.submit_s))
        except Exception as error:
            # Unforeseen errors too: once a byte may have been sent, only a response makes it certain.
            failure = self._failure(FailureClass.UNCERTAIN_SUBMIT, error, self._timeouts.submit_s)
            return self._read_anyway(key) or Ambiguous(
                failure, excerpt(used_connection().received, self._headers)
            )
        outcome = self._classify_submit(response, key)
        if isinstance(outcome, Ambiguous):
            return outcome
        connection = used_connection()
        if isinstance(outcome, Accepted):
            if self._is_new(outcome.task.ids):
                connection.allow_reuse()
            else:
                # The answer to an earlier job: the answer to this one would be taken for that to the next.
                connection.close()
            return outcome
        has_surplus = await connection.has_surplus(SURPLUS_WAIT_S)
        # An id that arrives even later must not be taken for that of the next job.
        connection.close()
        if has_surplus:
            message = f"more bytes followed the answer, so the job may have a task: {outcome.failure.message}"
            return Ambiguous(
                replace(outcome.failure, cls=FailureClass.UNCERTAIN_SUBMIT, message=message[:MESSAGE_CHARS])
            )
        return outcome

    def _is_new(self, task_ids: tuple[str, ...]) -> bool:
        """Return whether no earlier answer had one of these ids; remember them."""
        is_new = self._recent_tasks.keys().isdisjoint(task_ids)
        self._recent_tasks.update(dict.fromkeys(task_ids))
        while len(self._recent_tasks) > _MAX_RECENT_TASKS:
            del self._recent_tasks[next(iter(self._recent_tasks))]
        return is_new

    def _classify_submit(self, response: HttpResponse, key: str) -> SubmitOutcome:
        outcome = classify_submit(
            response.status, response.headers, response.body, time.time(), secrets=(key,)
        )
        return hide_keys(outcome, self._headers)

    def _read_anyway(self, key: str) -> Accepted | None:
        """Read the task's id in a response that is not valid HTTP: the task is paid for."""
        response = salvage(used_connection().received)
        if response is None:
            return None
        outcome = self._classify_submit(response, key)
        return outcome if isinstance(outcome, Accepted) else None

    def poll(self, task_id: str, key: str) -> Coroutine[Any, Any, PollOutcome]:
        """GET a task."""
        return self._poll(self._get_session, task_id, key)

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        """GET a task on a new connection, where no answer to another request can be left."""
        connector = StrictConnector(keepalive_s=0.0, resolver=self._resolver, records=True)
        async with _session(connector, self._timeouts.connect_s) as session:
            return await self._poll(session, task_id, key)

    async def _poll(self, session: aiohttp.ClientSession, task_id: str, key: str) -> PollOutcome:
        forget_connection()
        try:
            response = await self._get(task_url(self._videos, task_id), key, session)
        except aiohttp.ClientResponseError as error:
            salvaged = salvage(used_connection().received)
            if salvaged is None:
                return Transient(self._failure(FailureClass.UNAVAILABLE, error, self._timeouts.poll_s))
            response = salvaged
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            # The latter two for addresses in redirects that the libraries do not foresee.
            return Transient(self._failure(FailureClass.UNAVAILABLE, error, self._timeouts.poll_s))
        outcome = classify_poll(
            response.status,
            response.headers,
            response.body,
            time.time(),
            secrets=(key,),
            base_url=self.root,
        )
        return hide_keys(outcome, self._headers)

    async def probe(self, key: str) -> Probed:
        """GET the list of models, which is free, to learn whether the gateway responds and accepts the key."""
        try:
            response = await self._get(self._models, key, self._get_session)
        except (aiohttp.ClientError, OSError) as error:
            return Probed(
                False, failure=self._failure(FailureClass.UNAVAILABLE, error, self._timeouts.poll_s)
            )
        return interpret_probe(response, (key,))

    async def _post(self, body: bytes, key: str) -> HttpResponse:
        # aiohttp warns of large bytes, and writes a file-like body in pieces.
        is_large = len(body) > _LARGE_BODY_BYTES
        request = self._post_session.post(
            self._videos,
            data=io.BytesIO(body) if is_large else body,
            headers=self._headers_for(key),
            allow_redirects=False,
            proxy=self._proxy,
        )
        upload_s = len(body) / _MIN_UPLOAD_BYTES_PER_S if is_large else 0.0
        return await self._exchange(request, upload_s + self._timeouts.submit_s)

    async def _get(self, url: URL, key: str, session: aiohttp.ClientSession) -> HttpResponse:
        for _ in range(_MAX_REDIRECTS + 1):
            request = session.get(
                url, headers=self._headers_for(key), allow_redirects=False, proxy=self._proxy
            )
            result = await self._exchange(request, self._timeouts.poll_s)
            target = _redirect_target(url, result)
            if target is None:
                break
            url = target
        return result

    async def _exchange(self, request: Awaitable[aiohttp.ClientResponse], response_s: float) -> HttpResponse:
        """Wait for a response, and read as much of it as arrives in time."""
        response: aiohttp.ClientResponse | None = None
        chunks: list[bytes] = []
        try:
            # The time to connect is added, so that a time-out while connecting can be told from one
            # after it: the first is "not sent", the second uncertain.
            with Deadline(self._timeouts.connect_s + response_s):
                response = await request
                await read_bounded(response.content, chunks)
        except (aiohttp.ClientError, OSError):
            # Once the head is here, what arrived is classified, though the body was closed early, badly
            # framed, or (TimeoutError is an OSError) too slow.
            if response is None:
                raise
        finally:
            # A body that was read to its end has given the connection back already.
            if response is not None and not response.closed:
                response.release()
        encoding = response.headers.get("Content-Encoding")
        body = b"".join(chunks)
        return HttpResponse(
            response.status, response.headers, decompress(body, encoding) if encoding else body
        )

    def _headers_for(self, key: str) -> CIMultiDict[str]:
        """Return the header that depends on the key, made once per key; the session adds the others."""
        headers = self._headers.get(key)
        if headers is None:
            headers = self._headers[key] = CIMultiDict({"Authorization": f"Bearer {key}"})
        return headers

    def _failure(self, cls: FailureClass, error: Exception, timeout_s: float) -> Failure:
        cause = error.cause if isinstance(error, ConnectFailed) else error
        message = describe_network_error(
            cause,
            self._host,
            connect_s=self._timeouts.connect_s,
            timeout_s=timeout_s,
            is_connecting=cause is not error,
        )
        return Failure(cls, message)


def _session(connector: StrictConnector, connect_s: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Responses are small, and one that is not compressed can't be a decompression bomb.
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        },
        # `_exchange` limits the rest.
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
        # `decompress` does it, with a limit.
        auto_decompress=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


def _redirect_target(url: URL, response: HttpResponse) -> URL | None:
    """Return where a redirect leads, if it is within the same origin, since the key is sent there too."""
    if response.status not in _REDIRECTS or not (location := response.headers.get("Location")):
        return None
    try:
        target = url.join(URL(location))
        return target if target.origin() == url.origin() else None
    except (ValueError, LookupError):
        # yarl raises an IndexError for http://[]@.
        return None


def interpret_probe(response: HttpResponse, secrets: tuple[str, ...] = ()) -> Probed:
    """
    Decide what the response to a probe shows.

    The gateway responds if it sends JSON with a status below 500: even a rejected
    key proves that it is back.
    """
    server_at = parse_http_date(response.headers.get("Date", ""))
    try:
        document = loads(response.body)
    except (ValueError, RecursionError):
        return Probed(False, server_at=server_at, failure=_not_json(response.status))
    if response.status == 200:
        return Probed(True, _model_ids(document), server_at)
    # The same refusals as for a poll; the clock matters only for its Retry-After.
    outcome = classify_poll(response.status, response.headers, response.body, 0.0, secrets=secrets)
    if isinstance(outcome, Polled):
        return Probed(False, server_at=server_at, failure=_not_json(response.status))
    failure = outcome.failure
    if not isinstance(outcome, Denied):
        failure = replace(failure, cls=FailureClass.UNAVAILABLE)
    return Probed(400 <= response.status < 500, server_at=server_at, failure=failure)


def _not_json(status: int) -> Failure:
    message = f"GET /v1/models returned HTTP {status} without a list of models; is the base URL right?"
    return Failure(FailureClass.UNAVAILABLE, message, http_status=status)


def _model_ids(document: Json) -> tuple[str, ...]:
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(model for model in ids if isinstance(model, str))
