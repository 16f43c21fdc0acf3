"""What the parts of the engine share: the rooms it works with, what it was asked, and the running count."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from runner.core.key_pool import KeyPool
from runner.core.lifecycle import Event, State
from runner.core.model import Failure, Job
from runner.core.settings import Settings
from runner.core.stop import Stop, StopReason
from runner.engine.events import Observer
from runner.engine.results_appender import ResultsAppender
from runner.errors import DiskFull, RunDirError, RunnerError
from runner.store import query
from runner.store.query import JobFilter
from runner.store.store import Store
from runner.worker.deliver import Delivery
from runner.worker.poll import finish_unsuccessful
from runner.worker.ports import Api, Clock, Keys

log = logging.getLogger(__name__)


class EngineOptions(Struct, frozen=True, kw_only=True):
    """
    What one process is asked to do of a run.

    Attributes:
        scope: Which jobs it takes up.
        limit: Jobs that it submits at most.
        max_failures: Jobs that may become failed in this process before it stops; None for any number.
        run_s: How long it submits; None for as long as there is something to submit.
        drain_s: How long it goes on after that with what was paid for.
    """

    scope: JobFilter = JobFilter()
    limit: int | None = None
    max_failures: int | None = None
    run_s: float | None = None
    drain_s: float = 600.0


class Services(Struct, frozen=True, kw_only=True):
    """
    What the engine works with.

    Attributes:
        render: Makes the body of a request that names local files.
        probe: Asks the gateway something free, and says whether it answered.
        draw: A random draw from [0, 1).
    """

    store: Store
    api: Api
    keys: Keys
    key_pool: KeyPool
    delivery: Delivery
    clock: Clock
    render: Callable[[str], bytes]
    probe: Callable[[], Awaitable[bool]]
    draw: Callable[[], float]
    results: ResultsAppender
    observe: Observer


class JobCounts:
    """
    The count of jobs by state, and what happens when one comes to rest.

    Attributes:
        counts: Jobs by state, kept up to date without asking the store.
        failed: Jobs that became failed in this process.
    """

    def __init__(self, rooms: Services, options: EngineOptions, stop: Callable[[Stop], None]) -> None:
        self._rooms = rooms
        self._most = options.max_failures
        self._stop = stop
        self.counts = query.counts(rooms.store.reader)
        self.failed = 0

    def record_transition(self, before: State, job: Job) -> None:
        """Note that a job is no longer where it was."""
        self.counts[before] -= 1
        self.counts[job.state] += 1

    def finish_unsuccessful(self, job: Job, event: Event, failure: Failure) -> None:
        """Bring a job to rest without success, save it, and tell."""
        before = job.state
        finish_unsuccessful(job, event, failure, store=self._rooms.store, clock=self._rooms.clock)
        self.record_transition(before, job)
        self.record_end(job)

    def record_end(self, job: Job) -> None:
        """Tell of a job that came to rest and was saved."""
        self._rooms.results.add(job)
        if job.state is not State.FAILED:
            return
        self.failed += 1
        if self._most is not None and self.failed > self._most:
            self._stop(
                Stop(StopReason.FAILURES, f"{self.failed} jobs failed, more than --max-failures {self._most}")
            )


class EngineContext(Struct, frozen=True):
    """All of that, handed to each part."""

    services: Services
    settings: Settings
    options: EngineOptions
    job_counts: JobCounts
    stop: Callable[[Stop], None]


def stop_for_store_error(error: RunnerError) -> Stop:
    """Say why a run stops whose store can't be written."""
    reason = StopReason.DISK if isinstance(error, DiskFull) else StopReason.STORE
    return Stop(reason, error.message, error.hint)


def stop_for_error(error: Exception) -> Stop:
    """Say why a run stops that met an error which is no single job's."""
    if isinstance(error, DiskFull | RunDirError):
        return stop_for_store_error(error)
    log.error("a bug in runner stopped the run", exc_info=error)
    what = f"{type(error).__name__}: {error}"[:500]
    return Stop(
        StopReason.INTERNAL, f"a bug in runner stopped the run: {what}", "nothing is lost; go on with it"
    )
