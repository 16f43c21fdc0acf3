"""
What runs in processes of a cluster, the governor of a run and the shards at work, and how shards reach the ledger of budgets.

The cluster repeats no call and restarts no shard: the driver starts another one, whose journal fences the old one. Keys come as arguments, since environments of a cluster's jobs are shown by its tools.

The ledger is a file of the driver's machine. A message to it is sent once. If its answer is lost, the ledger may have set
money aside that nobody spends, never the other way round; the shard stops, and its next start reports to the ledger all
that the shard's journal has.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec import Struct

from runner.api.journals import check_out, find_run
from runner.api.options import RunOptions
from runner.api.run import resume
from runner.api.run_facts import RunFacts, default_run_dir
from runner.api.run_ledger import ledger_path
from runner.api.run_result import Callbacks, RunResult
from runner.core.governor import RunGovernor
from runner.core.governor_messages import Message, Reply
from runner.core.settings import Settings
from runner.core.sharding import Shard
from runner.core.shared_governor import SharedBudget, SharedGovernor
from runner.core.stop import MaxFailures, Stop
from runner.engine.context import SystemClock
from runner.engine.events import ActiveRun, Notice, RunEvent, Snapshot
from runner.engine.governor_client import GovernorClient
from runner.engine.governor_service import GovernorService
from runner.errors import LedgerError, RunnerError, UsageError
from runner.store.costs import LedgerEntry
from runner.store.ledger import Exchange, Grant, Ledger, LedgerLimits

_NAME = "ledger"
_CALL_LIMIT_S = 120.0
"""Longer than the ledger waits for another program, since shards wait for each other's turn as well."""


def find_ledger(facts: RunFacts, manifest: Path, address: str | None) -> Path | None:
    """
    Return the path of the ledger of the run's budgets on this machine; None if no other run counts.

    Raises:
        UsageError: This machine is not one of the cluster's.
        LedgerError: The ledger can't be used.
    """
    budget = facts.settings.budget
    if budget is None:
        return None
    if address is not None and address.startswith("ray://"):
        if budget.day is None and budget.month is None:
            return None
        raise UsageError(
            "the ledger of budget.day and budget.month is on this machine, which the cluster does not reach",
            hint="start the run on a machine of the cluster, with --ray-address auto",
        )
    simulate = facts.origin.is_simulated
    path = ledger_path(budget, default_run_dir(manifest, facts.settings.name, simulate=simulate))
    Ledger(path).close()
    return path


@contextmanager
def serving_ledger(path: Path | None) -> Iterator[None]:
    """Serve a ledger to the shards of a run until the block ends, in a process on this machine."""
    if path is None:
        yield
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class = ray.remote(LedgerActor).options(
        name=_NAME, num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here
    )
    # It ends when nothing refers to it.
    actor = actor_class.remote(str(path))
    yield
    del actor


class LedgerActor:
    """
    Does to a ledger what shards ask for, one after the other.

    The process of a shard that was replaced is refused: what it would give back is its successor's by now.
    """

    def __init__(self, path: str) -> None:
        self._ledger = Ledger(Path(path))
        self._owners: dict[int, str] = {}

    def call(self, owner: str, name: str, *values: Any) -> Any:
        """Call a method of the ledger for a process; return what that returns, or the error."""
        try:
            if name == "open_run":
                run, is_due = self._ledger.open_run(*values)
                self._owners[run] = owner
                return run, is_due
            if self._owners.get(values[0]) != owner:
                return LedgerError("another process works on this shard", hint="let that process continue")
            return getattr(self._ledger, name)(*values)
        except LedgerError as error:
            return error


class RemoteLedger:
    """
    The ledger, as the process of one shard uses it; see `Ledger`. Its methods block, for a thread beside the event loop.

    Args:
        call: Calls the actor, as `LedgerActor.call`.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._actor_call = call
        self._owner = uuid4().hex

    def open_run(self, token: str, name: str, path: str) -> tuple[int, bool]:
        """Register that this process works on a shard, and no earlier one; return its key, and whether `sync_run` is due."""
        return self._call("open_run", token, name, path)  # type: ignore[no-any-return]

    def sync_run(self, run: int, entries: Iterable[LedgerEntry], *, replaced: Sequence[str] = ()) -> None:
        """Replace all that is known of a shard, which replaces no others."""
        self._call("sync_run", run, list(entries))

    def exchange(self, run: int, exchange: Exchange, limits: LedgerLimits) -> Grant:
        """Save what changed, give back what is not needed, and get a new allowance."""
        return self._call("exchange", run, exchange, limits)  # type: ignore[no-any-return]

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        """Save what changed, and free the allowance."""
        self._call("close_run", run, list(entries))

    def close(self) -> None:
        """Do nothing: the ledger is other shards', too."""

    def _call(self, name: str, *values: Any) -> Any:
        reply = self._actor_call(self._owner, name, *values)
        if isinstance(reply, LedgerError):
            raise reply
        return reply


def find_remote_ledger(namespace: str) -> RemoteLedger:
    """Return the ledger that the driver of a run serves."""
    import ray

    actor = ray.get_actor(_NAME, namespace=namespace)

    def call(*values: Any) -> Any:
        try:
            return ray.get(actor.call.remote(*values), timeout=_CALL_LIMIT_S)
        except ray.exceptions.RayError as error:
            message = f"the ledger on the driver's machine can't be reached: {error}"
            return LedgerError(message, hint="run the same command again")

    return RemoteLedger(call)


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


class Assignment(Struct, frozen=True, kw_only=True):
    """
    A shard that a process is to work on.

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


class ShardFailed(Struct, frozen=True):
    """A shard could not begin, or not end, for a reason that a person can fix."""

    message: str
    hint: str | None


class ShardStatus(Struct, frozen=True):
    """What the driver sees of a shard at work; None before its engine begins."""

    snapshot: Snapshot | None
    events: tuple[RunEvent, ...]


class GovernorActor:
    """The governor of a run; after a crash it starts over, and its shards report what it must know."""

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

    async def forget(self, shard: int, has_ended: bool) -> None:
        """Record that a shard's process has died, or that the work on the shard has ended."""
        self._service.forget(shard, has_ended=has_ended)


class ShardActor:
    """
    A process that works on one shard after another.

    Args:
        environ: Keys and credentials.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        os.environ.update(environ)
        self._engine: ActiveRun | None = None
        self._stops: list[Stop] = []
        self._is_abandoned = False
        self._events: deque[RunEvent] = deque(maxlen=_MAX_EVENTS)

    async def run(self, assignment: Assignment) -> RunResult | ShardFailed:
        """Work on a shard until nothing is left to do, or the run stops."""
        try:
            return await self._run(assignment)
        except RunnerError as error:
            return ShardFailed(error.message, error.hint)
        finally:
            self._engine = None

    async def status(self) -> ShardStatus:
        """Return what has happened since the last time."""
        events = tuple(self._events)
        self._events.clear()
        return ShardStatus(None if self._engine is None else self._engine.snapshot(), events)

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

    async def _run(self, assignment: Assignment) -> RunResult:
        # What this does before its first message is that the log is fenced: from here on, no earlier owner submits.
        found = await asyncio.to_thread(_check_out, assignment)
        governor = GovernorClient(
            _Caller(assignment.namespace),
            shard=assignment.shard.index,
            clock=SystemClock(),
            at_once=assignment.at_once,
            ledger=find_remote_ledger(assignment.namespace) if assignment.has_ledger else None,
        )
        callbacks = Callbacks(self._observe, on_started=self._started)
        return await resume(found, callbacks, options=assignment.options, governor=governor)

    def _observe(self, event: RunEvent) -> None:
        # The driver tells where the run is, and why it stops.
        if not (
            isinstance(event, Notice)
            and event.kind in ("run_dir", "stopping", "checking", "writing", "gateway")
        ):
            self._events.append(event)

    def _started(self, engine: ActiveRun) -> None:
        self._engine = engine
        for stop in self._stops:
            engine.stop(stop)
        if self._is_abandoned:
            engine.abandon()


def _check_out(assignment: Assignment) -> Path:
    folder = Path(assignment.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return check_out(find_run(assignment.url, os.environ), shard=assignment.shard, folder=folder)[0]


class _Caller:
    """Sends messages to the governor, which is found by its name, since it may have started over."""

    def __init__(self, namespace: str) -> None:
        import ray

        self._governor = ray.get_actor(GOVERNOR_NAME, namespace=namespace)

    async def __call__(self, message: Message) -> Reply:
        reply: Reply = await self._governor.call.remote(message)
        return reply
