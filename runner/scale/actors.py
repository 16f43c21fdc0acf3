"""
What runs in processes of a cluster: the governor of a run, and the shards at work.

Neither class is run again by the cluster in the middle of its work: the driver starts another shard, whose journal fences
the old one. Keys come as arguments, since environments of a cluster's jobs are shown by its tools.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from runner.api.journal_runs import check_out, find_run
from runner.api.options import RunOptions
from runner.api.run import resume
from runner.api.run_result import RunResult
from runner.core.failure_guard import MaxFailures
from runner.core.governor import RunGovernor
from runner.core.leases import Message, Reply
from runner.core.settings import Settings
from runner.core.sharding import Shard
from runner.core.shared_budget import SharedBudget
from runner.core.shared_governor import SharedGovernor
from runner.core.stop import Stop
from runner.engine.context import SystemClock
from runner.engine.engine import Engine
from runner.engine.events import Notice, RunEvent, Snapshot
from runner.engine.governor_service import GovernorService
from runner.engine.leased_governor import LeasedGovernor
from runner.errors import RunnerError
from runner.scale.remote_ledger import find_remote_ledger

GOVERNOR_NAME = "governor"
_MAX_EVENTS = 1000
"""Events that wait for the driver; of more, the oldest are forgotten."""


class GovernorPlan(Struct, frozen=True, kw_only=True):
    """
    The limits of a run.

    Attributes:
        run: The budget of the run, in billionths, or None; ``process`` is that of the command.
        spent: What each shard has spent of it.
    """

    settings: Settings
    shards: int
    limit: int | None
    max_failures: MaxFailures
    run: int | None
    process: int | None
    spent: Mapping[int, int]


class Work(Struct, frozen=True, kw_only=True):
    """
    One shard to work on.

    Attributes:
        folder: Where its directory is made, on the machine where it is worked on.
        at_once: How many shards are at work at once.
        namespace: Where the governor is found, and the ledger.
        has_ledger: Whether there is one.
    """

    url: str
    shard: Shard
    folder: str
    options: RunOptions
    at_once: int
    namespace: str
    has_ledger: bool = False


class Failed(Struct, frozen=True):
    """A shard could not begin, or not end, for a reason that a person can fix."""

    message: str
    hint: str | None


class Glance(Struct, frozen=True):
    """What the driver sees of a shard at work; None before its engine begins."""

    snapshot: Snapshot | None
    events: tuple[RunEvent, ...]


class GovernorActor:
    """The governor of a run; after a crash it starts over, and its shards tell it what it must know."""

    def __init__(self, plan: GovernorPlan) -> None:
        settings = plan.settings
        governor = RunGovernor(
            settings.limits,
            learned={},
            stall_s=settings.poll.timeout_s,
            limit=plan.limit,
            max_failures=plan.max_failures,
            canary=settings.canary,
        )
        shared = SharedGovernor(
            settings.limits,
            governor,
            session=uuid4().hex,
            shards=plan.shards,
            limit=plan.limit,
            budget=SharedBudget(run=plan.run, process=plan.process, spent=plan.spent),
        )
        self._service = GovernorService(shared, time.monotonic)

    async def call(self, message: Message) -> Reply:
        """Answer a shard."""
        return await self._service.call(message)

    async def forget(self, shard: int) -> None:
        """Record that a shard's process has died, or has ended."""
        self._service.forget(shard)


class ShardActor:
    """
    A process that works on one shard after another.

    Args:
        environ: Keys and credentials.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        os.environ.update(environ)
        self._engine: Engine | None = None
        self._stops: list[Stop] = []
        self._is_abandoned = False
        self._events: deque[RunEvent] = deque(maxlen=_MAX_EVENTS)

    async def run(self, work: Work) -> RunResult | Failed:
        """Work on a shard until nothing is left to do, or the run stops."""
        try:
            return await self._run(work)
        except RunnerError as error:
            return Failed(error.message, error.hint)
        finally:
            self._engine = None

    async def glance(self) -> Glance:
        """Return what has happened since the last time."""
        events = tuple(self._events)
        self._events.clear()
        return Glance(None if self._engine is None else self._engine.snapshot(), events)

    async def stop(self, stop: Stop) -> None:
        """Submit nothing more."""
        self._stops.append(stop)
        if self._engine is not None:
            self._engine.stop(stop)

    async def abandon(self) -> None:
        """Stop now."""
        self._is_abandoned = True
        if self._engine is not None:
            self._engine.abandon()

    async def _run(self, work: Work) -> RunResult:
        # What this does before its first message is that the log is fenced: from here on, no earlier owner submits.
        found = await asyncio.to_thread(_check_out, work)
        governor = LeasedGovernor(
            _Caller(work.namespace),
            shard=work.shard.index,
            clock=SystemClock(),
            at_once=work.at_once,
            ledger=find_remote_ledger(work.namespace) if work.has_ledger else None,
        )
        return await resume(
            found,
            options=work.options,
            observe=self._observe,
            on_started=self._started,
            governor=governor,
        )

    def _observe(self, event: RunEvent) -> None:
        # The driver tells where the run is, and why it stops.
        if not (isinstance(event, Notice) and event.kind in ("run_dir", "stopping", "writing", "gateway")):
            self._events.append(event)

    def _started(self, engine: Engine) -> None:
        self._engine = engine
        for stop in self._stops:
            engine.stop(stop)
        if self._is_abandoned:
            engine.abandon()


def _check_out(work: Work) -> Path:
    folder = Path(work.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return check_out(find_run(work.url, os.environ), shard=work.shard, folder=folder)[0]


class _Caller:
    """Sends messages to the governor, which is found by its name, since it may have started over."""

    def __init__(self, namespace: str) -> None:
        import ray

        self._governor = ray.get_actor(GOVERNOR_NAME, namespace=namespace)

    async def __call__(self, message: Message) -> Reply:
        reply: Reply = await self._governor.call.remote(message)
        return reply
