"""What the parts of the engine share: what it is given, the real time, the progress of the run, and the reports of ended jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from runner.core.governor import RunGovernor
from runner.core.key_pool import KeyPool
from runner.core.lifecycle import Event, State
from runner.core.model import Failure, Job
from runner.core.settings import Settings
from runner.core.stop import Drain, MaxFailures, Stop, StopReason
from runner.disk import write_error
from runner.engine.budget import RunBudget
from runner.engine.events import Delivered, JobEnded, Notice, Observer
from runner.errors import DiskFull, ObjectStoreError, RunDirError, RunnerError
from runner.store import query
from runner.store.store import Store
from runner.store.work_list import JobFilter
from runner.worker.deliver import Deliverer
from runner.worker.poll import Poller
from runner.worker.ports import Clock
from runner.worker.submit import Submitter

if TYPE_CHECKING:
    from runner.engine.admission import Governor

log = logging.getLogger(__name__)

_BATCH_S = 0.1
"""How long ended jobs are collected before their lines are appended."""
_NOTHING = Delivered()


class InputFiles(Protocol):
    """Local files that requests name, and that are uploaded before them."""

    async def prepare(self) -> None:
        """
        Upload the files of the jobs to submit.

        Raises:
            RunnerError: Nothing can be uploaded.
        """

    async def body(self, text: str, timeout_s: float) -> bytes:
        """
        Make the body of a request.

        Args:
            timeout_s: How long its addresses must hold.

        Raises:
            FileChanged, InputRefused: The job can't be submitted.
            RunnerError: Nothing can be uploaded.
        """


class ResultsAppender:
    """
    Appends the result line of each job that ended, in the background; a job is reported once its end is durable.

    Args:
        append: Writes the lines of some jobs, given by job id with their keys in the store, and returns their files by
            job id; called in a thread.
    """

    def __init__(
        self,
        store: Store,
        append: Callable[[Mapping[str, int]], Mapping[str, Delivered]],
        observe: Observer,
    ) -> None:
        self._store = store
        self._append = append
        self._observe = observe
        self._ended: list[Job] = []
        self._wake_up = asyncio.Event()
        self._is_closing = False

    def add(self, job: Job) -> None:
        """Add a job that ended and was saved."""
        # What happens to it from here on may not be in its line.
        self._store.changed.line_follows(job.seq)
        self._ended.append(job)
        self._wake_up.set()

    def close(self) -> None:
        """Let `run` return once every job is reported."""
        self._is_closing = True
        self._wake_up.set()

    async def run(self) -> None:
        """
        Append the lines of jobs and report them, until closed.

        Raises:
            RunnerError: The store can't be written; nothing more is reported as ended.
        """
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            if not self._is_closing:
                await asyncio.sleep(_BATCH_S)
            ended, self._ended = self._ended, []
            if ended:
                await self._report(ended)
            if self._is_closing and not self._ended:
                return

    async def _report(self, ended: list[Job]) -> None:
        # Copied first: a job may have been resumed by the time it is durable.
        ends = [(job.job_id, job.model, job.state, job.error, job.task_id) for job in ended]
        await self._store.durable(max(job.commit for job in ended))
        files = await asyncio.to_thread(self._append, {job.job_id: job.seq for job in ended})
        for end in ends:
            self._observe(JobEnded(*end, *files.get(end[0], _NOTHING)))


class EngineContext(Struct, frozen=True, kw_only=True):
    """
    All that the engine is given for one process's work on a run.

    Attributes:
        learned: Rates that an earlier run found to be allowed, by model; under "" for the whole run.
        job_filter: Which jobs it works on.
        limit: Jobs that it submits at most; None for any number.
        max_failures: Jobs that may end without a video in this process before it stops; see `FailureGuard`.
        run_s: How long it submits; None for as long as there is something to submit.
        stop_at: When the wall clock shows this, it submits no more, however that came; None for no such time.
        drain_s: How long it continues to poll and download after that.
        inputs: Uploads the local files that requests name; None if these are sent inside the requests.
        probe: Sends the gateway a free request, and returns whether it answered.
        draw: A random draw from [0, 1).
        budget: Says whether there is money for a job.
        observe: Gets the run's events.
        governor: The limits of a run that other processes work on, too; None if this one works on the whole of it.
        on_success: Gets each job that succeeded and was saved.
    """

    settings: Settings
    learned: Mapping[str, float]
    job_filter: JobFilter
    limit: int | None
    max_failures: MaxFailures
    run_s: float | None
    stop_at: float | None
    drain_s: float
    store: Store
    key_pool: KeyPool
    submitter: Submitter
    poller: Poller
    deliverer: Deliverer
    clock: Clock
    inputs: InputFiles | None
    probe: Callable[[], Awaitable[bool]]
    draw: Callable[[], float]
    results: ResultsAppender
    budget: RunBudget
    observe: Observer
    governor: Governor | None = None
    on_success: Callable[[Job], None] = lambda job: None


class RunProgress:
    """
    How many jobs are in each state, what happens when one ends, and why the run stops.

    Args:
        on_stop: Called when there is a reason to stop.

    Attributes:
        counts: Jobs by state, kept up to date without querying the store.
        stops: Why nothing more is submitted, in the order in which the reasons came up.
        drain: What is still finished; None as long as jobs are submitted.
        governor: The limits of the whole run.
    """

    def __init__(self, context: EngineContext, on_stop: Callable[[], None]) -> None:
        self._context = context
        self._on_stop = on_stop
        self.counts = query.counts(context.store.reader)
        self.stops: list[Stop] = []
        self.drain: Drain | None = None
        self._resumed: dict[int, State] = {}
        counts, settings = self.counts, context.settings
        self.governor: Governor = context.governor or RunGovernor(
            settings.limits,
            learned=context.learned,
            stall_s=settings.poll.timeout_s,
            limit=context.limit,
            max_failures=context.max_failures,
            canary=settings.canary,
            succeeded=counts[State.SUCCEEDED],
            in_flight=counts[State.SUBMITTED] + counts[State.DOWNLOADING],
        )

    def stop(self, stop: Stop) -> None:
        """Submit no more; the first stop of each reason is reported and kept."""
        if any(known.reason is stop.reason for known in self.stops):
            return
        self.stops.append(stop)
        if self.drain is not Drain.IN_PROGRESS:
            self.drain = stop.drain
        self._context.observe(Notice("stopping", stop.message, stop.hint))
        self.governor.record_stop(stop)
        self._context.budget.stop()
        self._on_stop()

    def resume(self, job: Job) -> None:
        """Continue with a job that ended without success in an earlier process."""
        before = job.state
        self._resumed[job.seq] = before
        job.transition(Event.RESUMED)
        self.record_transition(before, job)

    def record_transition(self, before: State, job: Job) -> None:
        """Count a job under its new state."""
        self.counts[before] -= 1
        self.counts[job.state] += 1

    def finish_unsuccessful(self, job: Job, event: Event, failure: Failure) -> None:
        """End a job without success, save it, and report it."""
        before = job.state
        job.transition(event)
        job.error = failure
        job.finished_at = self._context.clock.wall()
        self._context.store.save(job)
        self.record_transition(before, job)
        self.record_end(job)

    def record_end(self, job: Job) -> None:
        """Report a job that ended and was saved."""
        self._context.results.add(job)
        # One that ended like this before did not do so because of what this process submitted.
        is_own = self._resumed.pop(job.seq, None) is not job.state
        for stop in self.governor.record_end(job.state, pending=self.counts[State.PENDING], is_own=is_own):
            self.stop(stop)


def stop_for_store_error(error: RunnerError) -> Stop:
    """Return the stop of a run that can't write to its store."""
    reason = StopReason.DISK if isinstance(error, DiskFull) else StopReason.STORE
    return Stop(reason, error.message, error.hint)


def stop_for_uploads(error: RunnerError) -> Stop:
    """Return the stop of a run that can't upload its inputs."""
    return Stop(StopReason.INPUTS, f"inputs can't be uploaded: {error.message}", error.hint)


def stop_for_error(error: Exception) -> Stop:
    """Return the stop of a run after an error that concerns more than one job."""
    if isinstance(error, DiskFull | RunDirError | ObjectStoreError):
        return stop_for_store_error(error)
    if isinstance(error, OSError):
        # The network's are handled where they occur: what is left is the disk's, or a lack of open files.
        return stop_for_store_error(write_error(error, error.filename or "a file of the run"))
    log.error("a bug in runner stopped the run", exc_info=error)
    what = f"{type(error).__name__}: {error}"[:500]
    return Stop(
        StopReason.INTERNAL, f"a bug in runner stopped the run: {what}", "nothing is lost; resume the run"
    )


class SystemClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)
