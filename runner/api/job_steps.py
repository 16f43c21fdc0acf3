"""The three steps of a job, connected with the gateway, the store and the disk; and the log of each."""

from __future__ import annotations

import logging
import random
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from msgspec import Struct

from runner.api.asset_store import keeps_local, open_uploader
from runner.api.config import RunConfig
from runner.assets.fetch import Fetcher
from runner.assets.publish import Publisher
from runner.connector import Proxies
from runner.core.lifecycle import State
from runner.core.model import Asset, Attempt, Failure, Job
from runner.core.outcomes import Polled, PollOutcome
from runner.core.settings import Settings
from runner.engine.context import SystemClock
from runner.gateway.client import GatewayClient
from runner.gateway.credentials import PooledKeys
from runner.gateway.urls import content_url
from runner.store.store import Store
from runner.worker.deliver import Deliverer, RetryPauses
from runner.worker.poll import Poller
from runner.worker.submit import Submitter, uptime


class JobSteps(Struct, frozen=True):
    """
    The three steps of a job, and what they share.

    Attributes:
        base_url: Of the gateway.
    """

    base_url: str
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
    Open the clients of the gateway and of the assets, and make the steps with them; they log if somebody listens.

    Args:
        stack: Closes what is opened.
    """
    keys, clock = PooledKeys(config.keys), SystemClock()
    proxies = Proxies.from_environ(config.environ)
    client = GatewayClient(base_url, settings.timeouts, proxy=proxies.for_url(base_url))
    await stack.enter_async_context(client)
    pauses = RetryPauses()
    fetcher = Fetcher(
        base_url,
        rules=settings.assets,
        retry=settings.retry,
        timeouts=settings.timeouts,
        sleep=pauses.sleep,
        proxies=proxies,
    )
    await stack.enter_async_context(fetcher)
    publisher = await stack.enter_async_context(Publisher())
    uploader, is_kept = None, True
    if (asset_store := config.origin.asset_store) is not None:
        uploader = await open_uploader(asset_store.url, config.environ, settings, pauses)
        is_kept = keeps_local(config)
    is_logged = log.isEnabledFor(logging.DEBUG)
    saving: Any = LoggedStore(store) if is_logged else store
    deliverer = Deliverer(
        client,
        keys,
        saving,
        clock,
        downloader=fetcher,
        publisher=publisher,
        run_dir=store.run_dir,
        retry=settings.retry,
        draw=random.random,
        content_url=partial(content_url, client.root),
        sharded=config.origin.sharded,
        max_download_s=settings.timeouts.download_s,
        pauses=pauses,
        uploader=uploader,
        keeps_local=is_kept,
    )
    submitter = Submitter(client, keys, saving, clock, None if store.journal is None else uptime)
    poller: Any = Poller(client, keys, store, clock)
    poller = LoggedPoller(poller) if is_logged else poller
    return JobSteps(base_url, client, keys, clock, submitter, poller, deliverer)


log = logging.getLogger("runner.jobs")


class LoggedStore:
    """A store that logs what is saved: an intent, the answer to a submission, the end of a delivery."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """Save a job, and log it."""
        if attempt is not None:
            _log_attempt(job, attempt)
        elif job.state is State.SUCCEEDED:
            files = [
                {"path": asset.path, "bytes": asset.bytes, "sha256": asset.sha256}
                | ({} if asset.url is None else {"url": asset.url})
                for asset in assets or ()
            ]
            _log("downloaded", job, seconds=job.download_s, files=files)
        else:
            _log("not_downloaded", job, **_error(job.error))
        number: int = self._store.save(job, attempt, assets)
        return number


class LoggedPoller:
    """A poller that logs the news of tasks: another status, and answers that show no task."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    async def poll(self, job: Job) -> PollOutcome:
        """Query a task, and log what is new."""
        status = job.remote_status
        outcome = await self._poller.poll(job)
        if not isinstance(outcome, Polled):
            _log("poll", job, outcome=type(outcome).__name__.lower(), **_error(outcome.failure))
        elif job.remote_status != status:
            _log(
                "poll",
                job,
                outcome="polled",
                status=job.remote_status,
                state=job.state.value,
                **_error(job.error),
            )
        return outcome


def _log_attempt(job: Job, attempt: Attempt) -> None:
    name = {"pending": "intent", "throttled": "throttle"}.get(attempt.outcome, "answer")
    fields: dict[str, Any] = {"attempt": attempt.number, "model": job.model, "key": attempt.key}
    if name != "intent":
        fields |= {"outcome": attempt.outcome, "http_status": attempt.http_status, **_error(attempt.error)}
    _log(name, job, **fields)


def _error(failure: Failure | None) -> dict[str, Any]:
    return {} if failure is None else {"error_class": failure.cls.value, "message": failure.message}


def _log(name: str, job: Job, **fields: Any) -> None:
    log.debug(name, extra={"fields": {"job_id": job.job_id, "task_id": job.task_id, **fields}})
