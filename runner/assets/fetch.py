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

from runner.assets.address import MAX_REDIRECTS, AddressRefused, Gatekeeper, Hop, origin, shown
from runner.assets.body import TooLarge, keep_small, receive, verify
from runner.assets.connect import GuardedResolver
from runner.assets.download import Download, Remember
from runner.assets.failing import NETWORK_ERRORS, refused, translate
from runner.assets.inflow import Buffers
from runner.assets.part import OverlapMismatch, refuse
from runner.assets.patience import Tries, after_setback, wait_before_next
from runner.assets.reply import (
    Ask,
    Body,
    Redirected,
    Refusal,
    Reply,
    Setback,
    StartOver,
    invalid,
    judge,
)
from runner.assets.wish import AssetWish, Fetched, NotFetched, Reason
from runner.core.model import Failure, FailureClass
from runner.core.settings import AssetRules, RetryPolicy, Timeouts
from runner.errors import DiskFull
from runner.media import Flawed

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
        self._gate = Gatekeeper(origin(URL(base_url)), rules.hosts)
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
        self._buffers = Buffers()

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

    async def fetch(self, wish: AssetWish, remember: Remember = lambda facts: None) -> Fetched | NotFetched:
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
        tries = Tries(furthest_bytes=download.part.size)
        reply = await (self._verify(download) if download.may_be_whole else self._try_once(download))
        while not isinstance(reply, Fetched):
            if isinstance(reply, Refusal):
                return NotFetched(reply.reason, reply.failure)
            if isinstance(reply, Setback):
                tries = after_setback(tries, download.part.size)
                wait_s = wait_before_next(
                    self._retry, tries, retry_after_s=reply.retry_after_s, draw=self._draw()
                )
                if wait_s is None:
                    return NotFetched(Reason.EXHAUSTED, reply.failure)
                await self._sleep(wait_s)
            # No pause before starting over: the request that follows asks for no range, so it happens
            # at most once between two setbacks, and those are counted.
            download.must_start_over = isinstance(reply, StartOver)
            reply = await self._try_once(download)
        return reply

    async def _try_once(self, download: Download) -> Fetched | Reply:
        ask = download.next_ask()
        if ask.offset and not download.part.is_hashed:
            # Before the request, since a body that comes meanwhile would be lost if its connection breaks.
            await asyncio.get_running_loop().run_in_executor(self._threads, download.part.digest)
        try:
            response, reply = await self._send(download, ask)
            async with response:
                return await self._take(download, reply, response) if isinstance(reply, Body) else reply
        except AddressRefused as error:
            return refused(str(error))
        except OverlapMismatch:
            return StartOver()
        except NETWORK_ERRORS as error:
            return translate(error, download.where, self._timeouts)

    async def _send(self, download: Download, ask: Ask) -> tuple[aiohttp.ClientResponse, Reply]:
        """Ask for the asset, and follow redirects as far as they are permissible."""
        hop = self._gate.first(download.wish.url)
        for _ in range(MAX_REDIRECTS + 1):
            download.where = shown(hop.url)
            response, reply = await self._send_to(hop, download, ask)
            if not isinstance(reply, Redirected):
                return response, reply
            # This gives the connection back, or closes it where a body would have to be read first.
            response.release()
            hop = self._gate.follow(hop, reply.location)
        raise AddressRefused(f"{shown(self._gate.first(download.wish.url).url)} redirects too often")

    async def _send_to(self, hop: Hop, download: Download, ask: Ask) -> tuple[aiohttp.ClientResponse, Reply]:
        await self._resolver.neighbourhood.check_literal(hop.url.raw_host or "")
        headers = ask.headers()
        if hop.has_key and download.wish.key is not None:
            headers["Authorization"] = f"Bearer {download.wish.key}"
        response = await self._session.get(hop.url, headers=headers, allow_redirects=False)
        reply = judge(
            ask,
            response.status,
            response.headers,
            where=download.where,
            max_bytes=self._max_bytes,
            at=self._clock(),
        )
        return response, reply

    async def _take(
        self, download: Download, body: Body, response: aiohttp.ClientResponse
    ) -> Fetched | Reply:
        """Bring a body to the disk and verify the file."""
        if body.is_small:
            content = await response.read()
            try:
                return keep_small(download.part.path, download.wish.kind, content)
            except Flawed as flaw:
                return invalid(f"{download.where} gave a file that {flaw}", response.status)
        download.learn(body.facts)
        promised = self._promise(download, body)
        try:
            await receive(
                response,
                download.part,
                self._threads,
                self._buffers,
                offset=body.offset,
                max_bytes=self._max_bytes,
                stall_s=self._timeouts.stall_s,
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
                self._threads, verify, download.part, download.wish.kind
            )
        except Flawed as flaw:
            message = f"{download.where} gave a file that {flaw}"
        if is_pieced:
            return StartOver()
        if not has_sure_end:
            return Setback(Failure(FailureClass.DOWNLOAD_FAILED, message))
        download.part.set_aside()
        return invalid(message)

    def _promise(self, download: Download, body: Body) -> int:
        """Make sure that there is room for a file and for all that are on their way beside it."""
        needed = max(0, (body.facts.total_bytes or 0) - download.part.size)
        folder = os.path.dirname(download.part.path)
        try:
            os.makedirs(folder, exist_ok=True)
            free = self._free_bytes(folder)
        except OSError as error:
            refuse(error, folder)
        if free < needed + self._promised_bytes + RESERVE_BYTES:
            raise DiskFull(
                f"{folder} has {free / 1e9:.1f} GB free, and the assets on their way need "
                f"{(needed + self._promised_bytes) / 1e9:.1f} GB and a reserve of {RESERVE_BYTES / 1e9:.1f} GB",
                hint="free some space, then run the same command again; nothing that was paid for is lost",
            )
        self._promised_bytes += needed
        return needed
