"""
The progress of a run: how many jobs are in each state, the steps that are in progress, why the run stops, and the reports
of jobs that ended.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runner.core.filenames import DB_NAME
from runner.core.governor import RunGovernor
from runner.core.lifecycle import Event, State, advance
from runner.core.model import Failure, FailureClass, Job
from runner.core.stop import Drain, Stop, StopReason
from runner.disk import write_error
from runner.engine.context import EngineContext
from runner.engine.events import Delivered, JobEnded, Notice, Observer
from runner.errors import DiskFull, ObjectStoreError, RunDirError, RunnerError
from runner.store import query, work_list
from runner.store.database import database_error
from runner.store.store import Store

if TYPE_CHECKING:
    from runner.engine.admission import Governor

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]

_BATCH_S = 0.1
"""How long ended jobs are collected before their lines are appended."""
_NOTHING = Delivered()


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
        results: Reports the jobs that ended.
    """

    def __init__(self, context: EngineContext, on_stop: Callable[[], None]) -> None:
        self._context = context
        self._on_stop = on_stop
        self.results = ResultsAppender(context.store, context.append, context.observe)
        self.counts = query.counts(context.store.reader)
        self.stops: list[Stop] = []
        self.drain: Drain | None = None
        self._resumed: dict[int, State] = {}
        settings, in_flight = context.settings, 0
        if settings.canary is not None:
            states = (State.SUBMITTED, State.DOWNLOADING)
            # The others of earlier processes do not end in this one.
            jobs = work_list.jobs_in_states(
                context.store.reader, states, waiting_since=0.0, scope=context.job_filter
            )
            in_flight = sum(1 for _ in jobs)
        self.governor: Governor = context.governor or RunGovernor(
            settings.limits,
            learned=context.learned,
            stall_s=settings.poll.timeout_s,
            limit=context.limit,
            max_failures=context.max_failures,
            canary=settings.canary,
            succeeded=self.counts[State.SUCCEEDED],
            in_flight=in_flight,
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

    def stop_after(self, error: Exception) -> None:
        """Submit no more because of an error that concerns more than one job."""
        self.stop(stop_for_error(error, self._context.store.run_dir))

    def resume(self, job: Job) -> None:
        """Continue with a job that ended without success in an earlier process."""
        before = job.state
        self._resumed[job.seq] = before
        job.state = advance(job.state, Event.RESUMED)
        self.record_transition(before, job)

    def record_transition(self, before: State, job: Job) -> None:
        """Count a job under its new state."""
        self.counts[before] -= 1
        self.counts[job.state] += 1

    def finish_unsuccessful(self, job: Job, event: Event, failure: Failure) -> None:
        """End a job without success, save it, and report it."""
        before = job.state
        job.state = advance(job.state, event)
        job.error = failure
        job.finished_at = self._context.clock.wall()
        self._context.store.save(job)
        self.record_transition(before, job)
        self.record_end(job)

    def record_end(self, job: Job) -> None:
        """Report a job that ended and was saved."""
        self.results.add(job)
        # One that ended like this before did not do so because of what this process submitted.
        is_own = self._resumed.pop(job.seq, None) is not job.state
        for stop in self.governor.record_end(job.state, pending=self.counts[State.PENDING], is_own=is_own):
            self.stop(stop)

    async def report_ends(self) -> None:
        """Report each job that ends, until `results` is closed; an error stops the run."""
        try:
            await self.results.run()
        except Exception as error:
            self.stop_after(error)


class JobTasks:
    """
    The steps of one kind that are in progress.

    A task that has ended its step waits for the next one: a new task for each took a tenth of a job's time.

    Args:
        on_step_end: Called after each step, however it ended.
        release_slot: Called with a job whose step a bug ended, to free its remote slot if it has one.

    Attributes:
        busy: The tasks that are in a step.
    """

    def __init__(
        self,
        progress: RunProgress,
        *,
        on_step_end: Callable[[], None],
        release_slot: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._progress = progress
        self._on_step_end = on_step_end
        self._release_slot = release_slot
        self.busy: set[asyncio.Task[None]] = set()
        self._idle: list[tuple[asyncio.Task[None], asyncio.Future[tuple[Step, Job]]]] = []
        self._has_none: asyncio.Future[None] | None = None

    def start(self, step: Step, job: Job) -> None:
        """Begin a step of a job."""
        if self._idle:
            task, given = self._idle.pop()
            given.set_result((step, job))
        else:
            task = asyncio.create_task(self._work((step, job)))
            # Not at the end of the coroutine: one that is cancelled before its first line has no end.
            task.add_done_callback(self._record_step_end)
        self.busy.add(task)

    def cancel(self) -> None:
        """Cancel every step in progress."""
        for task in self.busy:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is in progress, and end the tasks; nothing is started any more."""
        while self.busy:
            self._has_none = asyncio.get_running_loop().create_future()
            await self._has_none
        idle = [task for task, _ in self._idle]
        self._idle.clear()
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)

    async def _work(self, given: tuple[Step, Job]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        while True:
            step, job = given
            try:
                await step()
            except (DiskFull, RunDirError, ObjectStoreError, OSError, sqlite3.DatabaseError) as error:
                self._progress.stop_after(error)
            except asyncio.CancelledError:
                # A POST that was abandoned left its job uncertain; any other job stays as it is.
                if job.state is State.UNCERTAIN:
                    self._progress.record_end(job)
                raise
            except Exception as error:
                log.exception("a bug in runner ended job %s", job.job_id)
                self._record_crash(job, error)
            # The step may hold a large request.
            del given, step, job
            following: asyncio.Future[tuple[Step, Job]] = loop.create_future()
            self._idle.append((task, following))
            self._record_step_end(task)
            given = await following

    def _record_step_end(self, task: asyncio.Task[None]) -> None:
        if task not in self.busy:
            return
        self.busy.discard(task)
        if not self.busy and self._has_none is not None and not self._has_none.done():
            self._has_none.set_result(None)
        self._on_step_end()

    def _record_crash(self, job: Job, error: Exception) -> None:
        """End a job as its state allows, and nothing else of the run."""
        self._release_slot(job)
        if job.state.has_ended:
            self._progress.record_end(job)
            return
        failure = Failure(FailureClass.INTERNAL, f"a bug in runner: {type(error).__name__}: {error}"[:500])
        try:
            self._progress.finish_unsuccessful(job, Event.CRASHED, failure)
        except RunnerError as store_error:
            self._progress.stop(stop_for_store_error(store_error))


class ResultsAppender:
    """
    Appends the result line of each job that ended, in the background; a job is reported once its end is durable.

    Args:
        append: See `EngineContext`.
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


def stop_for_store_error(error: RunnerError) -> Stop:
    """Return the stop of a run that can't write to its store."""
    reason = StopReason.DISK if isinstance(error, DiskFull) else StopReason.STORE
    return Stop(reason, error.message, error.hint)


def stop_for_uploads(error: RunnerError) -> Stop:
    """Return the stop of a run that can't upload its inputs."""
    return Stop(StopReason.INPUTS, f"inputs can't be uploaded: {error.message}", error.hint)


def stop_for_error(error: Exception, run_dir: Path) -> Stop:
    """Return the stop of a run after an error that concerns more than one job."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError):
        error = database_error(error, run_dir / DB_NAME)
    if isinstance(error, DiskFull | RunDirError | ObjectStoreError):
        return stop_for_store_error(error)
    if isinstance(error, OSError):
        # The network's are handled where they occur: what is left is the disk's, or a lack of open files.
        return stop_for_store_error(write_error(error, error.filename or run_dir))
    log.error("a bug in runner stopped the run", exc_info=error)
    what = f"{type(error).__name__}: {error}"[:500]
    return Stop(
        StopReason.INTERNAL, f"a bug in runner stopped the run: {what}", "nothing is lost; resume the run"
    )
