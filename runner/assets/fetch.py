"""
Fetch assets: whole ones, from addresses that expire, over bad networks, from hosts that nobody trusts.

What an answer means is decided in `reply`, where one may connect to in `address`
and `connect`, how long to go on in `patience`; here they are carried out.
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
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from runner.assets.part_file import OverlapMismatch, PartFile, size_of
from runner.assets.receive import TooLarge, keep_small, receive, verify
from runner.assets.request import AssetRequest, Fetched, FetchFailure, NotFetched, PartMetadata, part_of
from runner.assets.resolver import ForbiddenAddress, GuardedResolver
from runner.assets.response import (
    OVERLAP_BYTES,
    RangeRequest,
    Redirected,
    Reply,
    ResponseBody,
    Restart,
    RetryLater,
    Unusable,
    interpret,
    invalid,
)
from runner.assets.url_policy import MAX_REDIRECTS, AddressRefused, Hop, UrlPolicy, display_url, origin
from runner.core.model import Failure, FailureClass
from runner.core.retry import DownloadTries
from runner.core.settings import AssetRules, RetryPolicy, Timeouts
from runner.disk import FREE_SPACE_HINT, write_error
from runner.errors import DiskFull
from runner.media import InvalidMedia
from runner.network_errors import describe_network_error

RESERVE_BYTES = 256 << 20
"""Room that a download leaves free, for the store and the results above all."""
_WRITERS = 2
"""Two take digests at 2 GB a second; more only wake each other, which was measured to cost a tenth of the rate."""
_READ_BUFFER_BYTES = 16 << 10


class Fetcher:
    """
    Fetches assets with a session of its own. Use it as an async context manager.

    How many downloads run at once is for the caller to bound; connections are reused.
    """

    def __init__(
        self,
        base_url: str,
        *,
        rules: AssetRules,
        retry: RetryPolicy,
        timeouts: Timeouts,
        user_agent: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random,
        clock: Callable[[], float] = time.time,
        free_bytes: Callable[[str], int] = lambda folder: disk_usage(folder).free,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._gate = UrlPolicy(origin(URL(base_url)), rules.hosts)
        self._max_bytes = rules.max_bytes
        self._retry = retry
        self._timeouts = timeouts
        self._user_agent = user_agent
        self._sleep = sleep
        self._draw = draw
        self._clock = clock
        self._free_bytes = free_bytes
        self._given_resolver = resolver
        self._promised_bytes = 0

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="asset-writer")
        self._resolver = GuardedResolver(self._gate.gateway, self._given_resolver)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, limit=0, ttl_dns_cache=600),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._timeouts.connect_s, sock_read=self._timeouts.stall_s
            ),
            headers={"User-Agent": self._user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._resolver.close()
        # Cancelled downloads may have a last lot in a thread; it is written in milliseconds.
        self._threads.shutdown(wait=True)

    async def fetch(
        self, wish: AssetRequest, remember: Remember = lambda facts: None
    ) -> Fetched | NotFetched:
        """
        Bring an asset whole to its part file, going on from what is there, and verify it.

        `remember` gets what the server says of a body that is not small, before the first byte of it
        is written, so that another process can go on with the part (`AssetWish.known`).

        Raises:
            DiskFull: There is no room for it.
            RunDirError: Its folder can't be written to.
        """
        download = Download(wish, remember)
        try:
            return await self._until_done(download)
        finally:
            download.part.close()

    async def _until_done(self, download: Download) -> Fetched | NotFetched:
        tries = DownloadTries(furthest_bytes=download.part.size)
        reply = await (self._verify(download) if download.may_be_whole else self._try_once(download))
        while not isinstance(reply, Fetched):
            if isinstance(reply, Unusable):
                return NotFetched(reply.reason, reply.failure)
            if isinstance(reply, RetryLater):
                tries = tries.add_failure(download.part.size)
                wait_s = tries.wait_s(self._retry, draw=self._draw(), retry_after_s=reply.retry_after_s)
                if wait_s is None:
                    return NotFetched(FetchFailure.EXHAUSTED, reply.failure)
                await self._sleep(wait_s)
            # No pause before starting over: the request that follows asks for no range, so it happens
            # at most once between two setbacks, and those are counted.
            download.must_restart = isinstance(reply, Restart)
            reply = await self._try_once(download)
        return reply

    async def _try_once(self, download: Download) -> Fetched | Reply:
        ask = download.next_range()
        if ask.offset and not download.part.is_hashed:
            # Before the request, since a body that comes meanwhile would be lost if its connection breaks.
            await asyncio.get_running_loop().run_in_executor(self._threads, download.part.digest)
        try:
            response, reply = await self._send(download, ask)
            async with response:
                return (
                    await self._take(download, reply, response) if isinstance(reply, ResponseBody) else reply
                )
        except AddressRefused as error:
            return refused(str(error))
        except OverlapMismatch:
            return Restart()
        except NETWORK_ERRORS as error:
            return translate(error, download.where, self._timeouts)

    async def _send(self, download: Download, ask: RangeRequest) -> tuple[aiohttp.ClientResponse, Reply]:
        """Ask for the asset, and follow redirects as far as they are permissible."""
        hop = self._gate.first(download.request.url)
        for _ in range(MAX_REDIRECTS + 1):
            download.where = display_url(hop.url)
            response, reply = await self._send_to(hop, download, ask)
            if not isinstance(reply, Redirected):
                return response, reply
            # This gives the connection back, or closes it where a body would have to be read first.
            response.release()
            hop = self._gate.follow(hop, reply.location)
        raise AddressRefused(f"{display_url(self._gate.first(download.request.url).url)} redirects too often")

    async def _send_to(
        self, hop: Hop, download: Download, ask: RangeRequest
    ) -> tuple[aiohttp.ClientResponse, Reply]:
        await self._resolver.policy.check_literal(hop.url.raw_host or "")
        headers = ask.headers()
        if hop.has_key and download.request.key is not None:
            headers["Authorization"] = f"Bearer {download.request.key}"
        response = await self._session.get(hop.url, headers=headers, allow_redirects=False)
        reply = interpret(
            ask,
            response.status,
            response.headers,
            where=download.where,
            max_bytes=self._max_bytes,
            at=self._clock(),
        )
        return response, reply

    async def _take(
        self, download: Download, body: ResponseBody, response: aiohttp.ClientResponse
    ) -> Fetched | Reply:
        """Bring a body to the disk and verify the file."""
        if body.is_small:
            content = await response.read()
            try:
                return keep_small(download.part.path, download.request.kind, content)
            except InvalidMedia as flaw:
                return invalid(f"{download.where} gave a file that {flaw}", response.status)
        download.learn(body.facts)
        promised = self._promise(download, body)
        try:
            await receive(
                response,
                download.part,
                self._threads,
                offset=body.offset,
                max_bytes=self._max_bytes,
            )
        except TooLarge:
            download.part.discard()
            return invalid(f"{download.where} sent more than the {self._max_bytes} bytes of assets.max_size")
        finally:
            self._promised_bytes -= promised
        return download.shortfall() or await self._verify(
            download, is_pieced=body.offset > 0, has_sure_end=body.has_sure_end
        )

    async def _verify(
        self, download: Download, *, is_pieced: bool = True, has_sure_end: bool = True
    ) -> Fetched | Reply:
        """
        Look at a file that has all its bytes.

        A flaw in one that was put together from several answers, or that may have been cut, is worth
        another try; in one that came in a single piece of the declared length it is the asset's own.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, verify, download.part, download.request.kind
            )
        except InvalidMedia as flaw:
            message = f"{download.where} gave a file that {flaw}"
        if is_pieced:
            return Restart()
        if not has_sure_end:
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))
        download.part.quarantine()
        return invalid(message)

    def _promise(self, download: Download, body: ResponseBody) -> int:
        """Make sure that there is room for a file and for all that are on their way beside it."""
        needed = max(0, (body.facts.total_bytes or 0) - download.part.size)
        folder = os.path.dirname(download.part.path)
        try:
            os.makedirs(folder, exist_ok=True)
            free = self._free_bytes(folder)
        except OSError as error:
            raise write_error(error, folder) from error
        if free < needed + self._promised_bytes + RESERVE_BYTES:
            raise DiskFull(
                f"{folder} has {free / 1e9:.1f} GB free; the downloads in progress need "
                f"{(needed + self._promised_bytes) / 1e9:.1f} GB and a reserve of {RESERVE_BYTES / 1e9:.1f} GB",
                hint=FREE_SPACE_HINT,
            )
        self._promised_bytes += needed
        return needed


Remember = Callable[[PartMetadata], None]


class Download:
    """
    What `Fetcher` carries from one try to the next.

    Attributes:
        must_restart: Whether the part on disk turned out to belong to another file.
        where: The address that was asked last, for messages, without its query.
    """

    __slots__ = ("known", "must_restart", "part", "remember", "request", "where")

    def __init__(self, wish: AssetRequest, remember: Remember) -> None:
        self.request = wish
        self.remember = remember
        path = part_of(wish.path)
        self.part = PartFile(path, size_of(path)) if wish.known is not None else PartFile(path)
        self.known = wish.known or PartMetadata()
        self.must_restart = False
        self.where = "the part file"

    @property
    def may_be_whole(self) -> bool:
        """Whether an earlier process died between the last byte and the final name."""
        return 0 < self.part.size == self.known.total_bytes

    def next_range(self) -> RangeRequest:
        """Say what to ask for: the rest and an overlap, or all where there is too little to go on from."""
        size, total = self.part.size, self.known.total_bytes
        is_too_long = total is not None and size > total
        if self.must_restart or is_too_long or size <= OVERLAP_BYTES:
            return RangeRequest()
        return RangeRequest(size - OVERLAP_BYTES, self.known)

    def learn(self, facts: PartMetadata) -> None:
        """Take in what an answer says of the whole file, and have it remembered where it is news."""
        if facts != self.known or not self.part.size:
            self.known = facts
            self.remember(facts)

    def shortfall(self) -> RetryLater | Restart | None:
        """Say what is missing of a file whose body has ended; None if nothing is, as far as lengths tell."""
        size, total = self.part.size, self.known.total_bytes
        if not self.part.is_caught_up or (total is not None and size > total):
            return Restart()
        if total is not None and size < total:
            message = f"{self.where} gave {size} of {total} bytes"
            return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))
        return None


NETWORK_ERRORS = (aiohttp.ClientError, OSError)
"""All that a request can raise; a time-out is an OSError too."""


def translate(error: Exception, where: str, timeouts: Timeouts) -> Reply:
    """
    Say what an error of the network means, about an address that is given without its query.

    The error's own text is not repeated, since it may hold a signed address.
    """
    if isinstance(error.__cause__, ForbiddenAddress):
        return refused(f"{where} is refused: {error.__cause__}")
    if isinstance(error, aiohttp.InvalidURL):
        return refused(f"{where} is not an address that can be fetched")
    message = describe_network_error(error, where, connect_s=timeouts.connect_s, timeout_s=timeouts.stall_s)
    return RetryLater(Failure(FailureClass.DOWNLOAD_FAILED, message))


def refused(message: str) -> Unusable:
    """Say that an address may not be fetched."""
    return Unusable(
        FetchFailure.REFUSED, Failure(FailureClass.DOWNLOAD_FAILED, message[:500], code="address_refused")
    )
