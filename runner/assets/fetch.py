"""
Fetch assets: complete ones, from URLs that expire, over bad networks, from untrusted hosts.

What a response means is decided in `response`, where to connect in `url_policy`, when to try again in `core.retry`;
this module does it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from random import random
from shutil import disk_usage
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from runner.assets.part_file import OverlapMismatch
from runner.assets.receive import TooLarge, TooSlow, arriving, receive, verify, write_small
from runner.assets.request import AssetRequest, Fetched, FetchFailure, NotFetched
from runner.assets.response import (
    OVERLAP_BYTES,
    Decision,
    Download,
    RangeRequest,
    Redirect,
    ResponseBody,
    Restart,
    RetryLater,
    SaveMetadata,
    Unusable,
    interpret,
    invalid,
)
from runner.assets.url_policy import (
    MAX_REDIRECTS,
    ForbiddenAddress,
    GuardedResolver,
    Hop,
    UrlPolicy,
    UrlRefused,
    display_url,
    origin,
)
from runner.connector import NO_PROXIES, ConnectFailed, Proxies, StrictConnector
from runner.core.model import Failure, FailureClass
from runner.core.retry import DownloadTries
from runner.core.settings import AssetRules, RetryPolicy, Timeouts
from runner.core.units import format_size
from runner.disk import FREE_SPACE_HINT, reserve_bytes, write_error
from runner.errors import DiskFull
from runner.media import InvalidMedia
from runner.network import USER_AGENT, Deadline, describe_network_error

_WRITER_THREADS = 2
"""Two hash 2 GB/s; with more, which only contend, the rate was a tenth lower."""
_READ_BUFFER_BYTES = 16 << 10
_MAX_HEADER_BYTES = 64 << 10
"""Of one header line: content policies and signed locations are longer than aiohttp's limit of 8 KiB."""
_KEEPALIVE_S = 15.0

_T = TypeVar("_T")


class Fetcher:
    """
    Downloads assets, with an HTTP session of its own. An async context manager.

    The caller limits how many downloads run at once; connections are reused.
    """

    def __init__(
        self,
        base_url: str,
        *,
        rules: AssetRules,
        retry: RetryPolicy,
        timeouts: Timeouts,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random,
        clock: Callable[[], float] = time.time,
        free_bytes: Callable[[str], int] = lambda folder: disk_usage(folder).free,
        resolver: AbstractResolver | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._base_url = base_url
        self._rules = rules
        self._retry = retry
        self._timeouts = timeouts
        self._sleep = sleep
        self._draw = draw
        self._clock = clock
        self._free_bytes = free_bytes
        self._given_resolver = resolver
        self._proxies = proxies
        self._reserved_bytes = 0

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_WRITER_THREADS, thread_name_prefix="asset-writer")
        is_proxied = self._proxies.for_url(self._base_url) is not None
        gateway = origin(URL(self._base_url))
        self._url_policy = UrlPolicy(gateway, self._rules.hosts)
        self._resolver = GuardedResolver(gateway, self._given_resolver, is_proxied=is_proxied)
        connector = StrictConnector(keepalive_s=_KEEPALIVE_S, resolver=self._resolver)
        # Resolves nothing but the names of proxies, which are on private addresses.
        to_proxy = StrictConnector(keepalive_s=_KEEPALIVE_S, resolver=aiohttp.ThreadedResolver())
        self._session, self._proxy_session = self._open_session(connector), self._open_session(to_proxy)
        return self

    def _open_session(self, connector: StrictConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            # The rest is limited by `_send_hop` and `receive`.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect_s),
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._proxy_session.close()
        await self._resolver.close()
        # Canceled downloads may have a last batch in a thread; it is written in milliseconds.
        self._threads.shutdown(wait=True)

    async def fetch(
        self, request: AssetRequest, save_metadata: SaveMetadata = lambda metadata: None
    ) -> Fetched | NotFetched:
        """
        Download an asset completely to its part file, resuming what is there, and verify it.

        `save_metadata` gets what the server says of a body that is not small, before its first byte
        is written, so that another process can resume the part (`AssetRequest.metadata`).

        Raises:
            DiskFull: There is no space for it.
            RunDirError: Its folder can't be written.
        """
        download = Download(request, save_metadata)
        tries = DownloadTries(furthest_bytes=download.part.size)
        try:
            result = await (self._verify(download) if download.may_be_complete else self._try(download))
            while not isinstance(result, Fetched):
                if isinstance(result, Unusable):
                    return NotFetched(result.reason, result.failure, result.may_become_ready)
                if isinstance(result, RetryLater):
                    tries = tries.add_failure(download.part.size, is_too_slow=result.is_too_slow)
                    wait_s = tries.wait_s(self._retry, draw=self._draw(), retry_after_s=result.retry_after_s)
                    if wait_s is None:
                        return NotFetched(FetchFailure.EXHAUSTED, result.failure)
                    await self._sleep(wait_s)
                # No pause before a restart: its request has no range, so there is at most one between
                # two failures, and those are counted.
                download.must_restart = isinstance(result, Restart)
                result = await self._try(download)
            return result
        finally:
            download.part.close()

    async def _try(self, download: Download) -> Fetched | Decision:
        requested = download.next_range()
        if requested.offset and not download.part.is_hashed:
            # Before the request: a body that arrives meanwhile would be lost if its connection breaks.
            await self._in_thread(download.part.digest)
        # Without a validator nothing but the overlap will show whether the rest belongs to what is there.
        is_unsure = requested.offset > 0 and requested.metadata.validator is None
        if is_unsure and not await self._in_thread(download.part.has_distinctive_end, OVERLAP_BYTES):
            requested = RangeRequest()
        try:
            response, decision = await self._send(download, requested)
            try:
                if isinstance(decision, ResponseBody):
                    return await self._receive(download, decision, response)
                return decision
            finally:
                response.release()
        except UrlRefused as error:
            return _refused(str(error))
        except OverlapMismatch:
            return Restart()
        except TooSlow:
            least = format_size(round(self._timeouts.least_bytes_per_s))
            message = (
                f"{download.shown_url} sent less than {least} per second over a minute (timeouts.least_speed)"
            )
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message), is_too_slow=True)
        except (aiohttp.ClientError, OSError) as error:
            return _interpret_error(error, download.shown_url, self._timeouts)

    async def _in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def _send(
        self, download: Download, requested: RangeRequest
    ) -> tuple[aiohttp.ClientResponse, Decision]:
        """Request the asset, and follow redirects that are allowed."""
        hop = self._url_policy.start(download.request.url)
        for _ in range(MAX_REDIRECTS + 1):
            download.shown_url = display_url(hop.url)
            response, decision = await self._send_hop(hop, download, requested)
            if not isinstance(decision, Redirect):
                return response, decision
            # The connection is reused, or closed if a body would have to be read first.
            response.release()
            hop = self._url_policy.follow(hop, decision.location)
        raise UrlRefused(f"more than {MAX_REDIRECTS} redirects, the last one from {download.shown_url}")

    async def _send_hop(
        self, hop: Hop, download: Download, requested: RangeRequest
    ) -> tuple[aiohttp.ClientResponse, Decision]:
        headers = requested.headers()
        if hop.sends_key and download.request.key is not None:
            headers["Authorization"] = f"Bearer {download.request.key}"
        proxy = self._proxies.for_url(str(hop.url))
        session = self._session if proxy is None else self._proxy_session
        # Without the wait for a connection, this is how long a head may take; nothing limits its single bytes.
        with Deadline(self._timeouts.connect_s + self._timeouts.stall_s):
            if proxy is None:
                await self._resolver.policy.check_literal(hop.url.raw_host or "")
            else:
                await self._resolver.policy.check_unresolved(hop.url.raw_host or "")
            try:
                response = await session.get(hop.url, headers=headers, allow_redirects=False, proxy=proxy)
            except (LookupError, ValueError, TypeError) as error:
                # What the libraries do not foresee in an address, such as a host that has no IDNA form.
                if isinstance(error, aiohttp.ClientError | OSError):
                    raise
                raise UrlRefused(
                    f"{display_url(hop.url)} can't be requested ({type(error).__name__})"
                ) from error
        decision = interpret(
            requested,
            response.status,
            response.headers,
            url=download.shown_url,
            max_bytes=self._rules.max_bytes,
            at=self._clock(),
            has_key="Authorization" in headers,
        )
        return response, decision

    async def _receive(
        self, download: Download, body: ResponseBody, response: aiohttp.ClientResponse
    ) -> Fetched | Decision:
        """Write a body to the disk and verify the file."""
        if body.is_small:
            if response.content.is_eof():
                # All of it came with the head, as of most small bodies: there is nothing to wait for.
                content = response.content.read_nowait()
            else:
                content = b"".join([chunk async for chunk in arriving(response, self._timeouts)])
            try:
                return write_small(download.part.path, download.request.kind, content)
            except InvalidMedia as error:
                return invalid(f"{download.shown_url} sent a file that {error}", response.status)
        download.update_metadata(body.metadata)
        reserved = self._reserve_space(download, body)
        try:
            await receive(
                response,
                download.part,
                self._threads,
                offset=body.offset,
                max_bytes=self._rules.max_bytes,
                timeouts=self._timeouts,
                check_space=lambda: self._check_space(download),
                is_compressed=body.is_compressed,
            )
        except InvalidMedia as error:
            download.part.discard()
            return invalid(f"{download.shown_url} sent a file that {error}", response.status)
        except NoSpace as error:
            # The file may have no end: it is given up, so that the disk has space for other jobs.
            download.part.discard()
            return invalid(f"{download.shown_url} sent {error}", response.status)
        except TooLarge:
            download.part.discard()
            return invalid(
                f"{download.shown_url} sent more than the {self._rules.max_bytes} bytes that assets.max_size allows"
            )
        finally:
            self._reserved_bytes -= reserved
        return download.check_length() or await self._verify(
            download, is_pieced=body.offset > 0, shows_truncation=body.shows_truncation
        )

    async def _verify(
        self, download: Download, *, is_pieced: bool = True, shows_truncation: bool = True
    ) -> Fetched | Decision:
        """
        Check a file that has all its bytes.

        Damage in a file that was put together from several responses, or that may be truncated, is worth
        another try; in one that arrived in one piece of the declared length it is the asset's own.
        """
        try:
            return await self._in_thread(verify, download.part, download.request.kind)
        except InvalidMedia as error:
            message = f"{download.shown_url} sent a file that {error}"
        if is_pieced:
            return Restart()
        if not shows_truncation:
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))
        is_empty = not download.part.size
        if (kept := download.part.quarantine()) is not None:
            message += f"; it is kept as {kept}"
        return invalid(message, may_become_ready=is_empty)

    def _reserve_space(self, download: Download, body: ResponseBody) -> int:
        """Check that there is space for a file beside all downloads in progress; return the bytes reserved."""
        needed = max(0, (body.metadata.total_bytes or 0) - download.part.size)
        folder = os.path.dirname(download.part.path)
        try:
            os.makedirs(folder, exist_ok=True)
            free, reserve = self._free_bytes(folder), reserve_bytes(folder)
        except OSError as error:
            raise write_error(error, folder) from error
        if free < needed + self._reserved_bytes + reserve:
            raise DiskFull(
                f"{folder} has {format_size(free)} free; the downloads in progress need "
                f"{format_size(needed + self._reserved_bytes)} and a reserve of {format_size(reserve)}",
                hint=FREE_SPACE_HINT,
            )
        self._reserved_bytes += needed
        return needed

    def _check_space(self, download: Download) -> None:
        """Check that a body without a declared length leaves the reserve free; for others that is certain."""
        if download.metadata.total_bytes is not None:
            return
        folder = os.path.dirname(download.part.path)
        if self._free_bytes(folder) < reserve_bytes(folder):
            size = format_size(download.part.size)
            raise NoSpace(f"{size} without declaring a length, and there is no space for more in {folder}")


class NoSpace(Exception):
    """A body without a declared length does not fit the disk."""


def _interpret_error(error: aiohttp.ClientError | OSError, url: str, timeouts: Timeouts) -> Decision:
    """Decide what a failed request means. The error's own text is not repeated, since it may have a signed URL."""
    is_connecting = isinstance(error, ConnectFailed)
    if isinstance(error, ConnectFailed):
        if not isinstance(error.cause, aiohttp.ClientError | OSError):
            # Such as a host that has no IDNA form: the resolver is the first to look.
            return _refused(f"{url} can't be requested ({type(error.cause).__name__})")
        error = error.cause
    if isinstance(error.__cause__, ForbiddenAddress):
        return _refused(f"{url} is not allowed: {error.__cause__}")
    if isinstance(error, aiohttp.InvalidURL):
        return _refused(f"{url} is not a valid URL")
    message = describe_network_error(
        error,
        url,
        connect_s=timeouts.connect_s,
        timeout_s=timeouts.stall_s,
        is_connecting=is_connecting,
    )
    return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))


def _refused(message: str) -> Unusable:
    return Unusable(
        FetchFailure.REFUSED, Failure(FailureClass.DOWNLOAD_FAILED, message[:500], code="address_refused")
    )
