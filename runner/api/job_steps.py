"""The three steps of a job, connected with the gateway, the store and the disk."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial

from msgspec import Struct

from runner.api.asset_store import keeps_local, open_uploader
from runner.api.config import RunConfig
from runner.assets.fetch import Fetcher
from runner.assets.publish import Publisher
from runner.connector import Proxies
from runner.core.settings import Settings
from runner.engine.context import SystemClock
from runner.gateway.client import GatewayClient, user_agent
from runner.gateway.credentials import PooledKeys
from runner.gateway.urls import content_url, gateway_root
from runner.jsontext import dumps, loads
from runner.manifest.local_files import render_request
from runner.store.store import Store
from runner.worker.deliver import Deliverer, RetryPauses
from runner.worker.poll import Poller
from runner.worker.submit import PromptApi, Submitter


class InlineFiles:
    """Local files are sent inside the requests."""

    async def prepare(self) -> None:
        """Do nothing."""

    async def body(self, text: str, timeout_s: float) -> bytes:
        """Put each local file into the request as a data URI."""
        return await asyncio.to_thread(lambda: dumps(render_request(loads(text))))


class JobSteps(Struct, frozen=True):
    """The three steps of a job, and what they share."""

    client: GatewayClient
    keys: PooledKeys
    clock: SystemClock
    submitter: Submitter
    poller: Poller
    deliverer: Deliverer

    async def probe(self) -> bool:
        """Return whether the gateway answers a request that is free."""
        probed = await self.client.probe(self.keys.secret(self.keys.for_task(None)[0]))
        return probed.is_reachable


async def open_steps(
    stack: AsyncExitStack, store: Store, config: RunConfig, settings: Settings, base_url: str
) -> JobSteps:
    """
    Open the clients of the gateway and of the assets, and make the steps with them.

    Args:
        stack: Closes what is opened.
    """
    root = gateway_root(base_url)
    proxies = Proxies.from_environ(config.environ)
    client = GatewayClient(base_url, settings.timeouts, proxy=proxies.for_url(root))
    await stack.enter_async_context(client)
    pauses = RetryPauses()
    fetcher = Fetcher(
        base_url,
        rules=settings.assets,
        retry=settings.retry,
        timeouts=settings.timeouts,
        user_agent=user_agent(),
        sleep=pauses.sleep,
        proxies=proxies,
    )
    uploader = await open_uploader(config, settings, pauses)
    keys, clock = PooledKeys(config.keys), SystemClock()
    deliverer = Deliverer(
        client,
        keys,
        store,
        clock,
        downloader=await stack.enter_async_context(fetcher),
        publisher=await stack.enter_async_context(Publisher()),
        run_dir=store.run_dir,
        retry=settings.retry,
        draw=random.random,
        content_url=partial(content_url, root),
        sharded=config.origin.sharded,
        max_download_s=settings.timeouts.download_s,
        pauses=pauses,
        uploader=uploader,
        keeps_local=keeps_local(config),
    )
    api = client if store.journal is None else PromptApi(client)
    submitter, poller = Submitter(api, keys, store, clock), Poller(client, keys, store, clock)
    return JobSteps(client, keys, clock, submitter, poller, deliverer)
