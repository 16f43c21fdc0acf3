"""
Drive all jobs: start every step that may be started now, and react to its outcome.

Nothing here waits for one job. A step is a coroutine only while its request is in progress; a task that waits for its
next poll is an entry in a heap. Whenever a step ends or a time comes, `_schedule_all` starts what has become possible,
so the limits are applied in one place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from math import inf

from msgspec.structs import replace

from runner.core.circuit_breaker import CircuitState
from runner.core.cost import Spend
from runner.core.estimate import estimate_duration
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.settings import Limits
from runner.core.stop import Drain, Stop, StopReason, stop_for_stall
from runner.core.units import format_count
from runner.engine.admission import Admission
from runner.engine.context import EngineContext, InputFiles
from runner.engine.downloads import Downloads
from runner.engine.events import Notice, Snapshot
from runner.engine.polls import Polls
from runner.engine.progress import JobTasks, RunProgress, stop_for_store_error, stop_for_uploads
from runner.engine.submissions import Submissions
from runner.errors import RunnerError
from runner.store import work_list
from runner.store.costs import attach_costs
from runner.store.writer import to_the_end

log = logging.getLogger(__name__)

DOWNLOAD_GRACE_S = 30.0
"""
How long downloads in progress may take after a signal: schedulers wait some 90 s before they kill, and nothing that
was received is lost.
"""

CLOCK_CHECK_S = 1.0
"""How often a run that waits checks whether it is to stop by the wall clock."""


class Engine:
    """
    One process's work on a run. Call `run` once.

    Attributes:
        name: The run's name.
        counts: Jobs by state.
        unsaved: After the run, tasks that were paid for and could not be saved, as pairs of job id and task id.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self.name = context.settings.name
        self._progress = progress = RunProgress(context, on_stop=self._schedule_all)
        self.counts: Mapping[State, int] = progress.counts
        self.governor = progress.governor
        tasks = partial(
            JobTasks,
            progress,
            on_step_end=self.schedule_soon,
            release_slot=lambda job: self.admission.release_slot(job.seq),
        )
        submitting, polling, downloading = tasks(), tasks(), tasks()
        self.admission: Admission = Admission(context.settings.limits, context.key_pool, self.governor)
        self.downloads = Downloads(context, progress, downloading)
        self.polls = Polls(
            context,
            progress,
            self.admission,
            polling,
            on_succeeded=self.downloads.add,
            takes_again=lambda job: self.submissions.take_again(job),
        )
        self.submissions = Submissions(
            context, progress, self.admission, submitting, on_accepted=self.polls.add
        )
        self._probe_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_schedule_due = False
        self._deadline: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._clock_check: asyncio.TimerHandle | None = None
        self._is_shut_down = asyncio.Event()
        self._is_outage_reported = False
        self.unsaved: list[tuple[str, str]] = []

    @property
    def stops(self) -> tuple[Stop, ...]:
        """Why nothing more is submitted, in the order in which the reasons came up."""
        return tuple(self._progress.stops)

    @property
    def spend(self) -> tuple[Spend, ...]:
        """What the attempts of the run cost, by currency."""
        return self._context.budget.spend

    def snapshot(self) -> Snapshot:
        """Return the state of the run now."""
        now = self._context.clock.now()
        counts, is_stopping = self.counts, bool(self._progress.stops)
        in_progress = counts[State.SUBMITTING] + counts[State.SUBMITTED] + counts[State.DOWNLOADING]
        limits = replace(self._context.settings.limits, submit_per_s=self.governor.pacer.per_s)
        pending = {} if is_stopping else self.submissions.left_by_model()
        return Snapshot(
            counts=dict(counts),
            downloads=self.downloads.active(),
            downloads_waiting=len(self.downloads.waiting),
            in_flight=self.admission.in_flight,
            max_in_flight=limits.in_flight,
            submit_per_s=limits.submit_per_s,
            accepted_per_s=self.governor.pacer.accepted_per_s(now),
            limited_by="" if is_stopping else self.submissions.limited_by,
            is_stopping=is_stopping,
            spend=self.spend,
            seconds_left=self._seconds_left(pending, limits, in_progress, now),
            pending_by_model=pending,
            in_flight_by_model=self.admission.in_flight_by_model(),
        )

    def _seconds_left(
        self, pending: Mapping[str, int], limits: Limits, in_progress: int, now: float
    ) -> float | None:
        is_out = self.governor.breaker.state is not CircuitState.CLOSED
        has_only_files = 0 < in_progress == self.counts[State.DOWNLOADING]
        # Nobody knows how long an outage lasts, and how long tasks took says nothing of files.
        has_pending = any(pending.values())
        if is_out if has_pending else has_only_files:
            return None
        newest_at = now if has_pending else max((job.waiting_since for job in self.polls.active), default=now)
        return estimate_duration(
            pending,
            limits,
            self.polls.durations_s(),
            first_poll_s=self._context.settings.poll.first_s,
            in_flight=in_progress,
            newest_task_s=now - newest_at,
            wait_s=max(0.0, self.governor.pacer.opens_at - now),
        ).known_s

    async def run(self) -> None:
        """Work until nothing is left that this process may do."""
        self._resume_jobs()
        reporting = asyncio.create_task(self._progress.report_ends(), name="results")
        run_s = self._context.run_s
        if run_s is not None and run_s <= 0:
            self._on_deadline()
        elif run_s is not None:
            self._deadline = asyncio.get_running_loop().call_later(run_s, self._on_deadline)
        self._check_clock()
        preparing = None
        if self._context.inputs is not None:
            preparing = asyncio.create_task(self._prepare_inputs(self._context.inputs), name="inputs")
        self._schedule_all()
        try:
            await self._is_shut_down.wait()
        except asyncio.CancelledError:
            # As after the first signal; another cancellation is as the second one.
            self._limit_downloads()
            raise
        finally:
            await to_the_end(partial(self._shut_down, preparing, reporting), on_cancel=self.abandon)
        if self.submissions.over_limit and not self._progress.stops:
            jobs = format_count(self.submissions.over_limit, "job")
            self.stop(
                Stop(StopReason.LIMIT, f"--limit {self._context.limit} was reached; not submitted: {jobs}")
            )

    def stop(self, stop: Stop) -> None:
        """Submit no more; the first stop of each reason is reported and kept."""
        self._progress.stop(stop)

    def abandon(self) -> None:
        """Stop now: requests in progress are canceled, which loses nothing that is on disk."""
        for part in (self.submissions, self.polls, self.downloads):
            part.tasks.cancel()
        self._is_shut_down.set()

    def _resume_jobs(self) -> None:
        """Continue with the jobs of earlier processes."""
        now = self._context.clock.now()
        store, budget = self._context.store, self._context.budget
        if not any(self.counts[state] for state in WITH_A_TASK):
            return
        jobs = list(
            work_list.jobs_in_states(
                store.reader, WITH_A_TASK, waiting_since=now, scope=self._context.job_filter
            )
        )
        attach_costs(store.reader, jobs)
        for job in jobs:
            budget.resume(job)
            if job.state.has_ended:
                self._progress.resume(job)
            if job.state is State.SUBMITTED:
                self.admission.reserve_slot(job.seq, job.model)
                self.polls.resume(job)
            else:
                self.downloads.add(job, None)

    async def _prepare_inputs(self, inputs: InputFiles) -> None:
        """Upload what the jobs need, while earlier tasks are polled; stop before anything is paid for if that fails."""
        try:
            await inputs.prepare()
        except RunnerError as error:
            self.stop(stop_for_uploads(error))
        except Exception as error:
            self._progress.stop_after(error)
        else:
            self.submissions.are_inputs_ready = True
        self._schedule_all()

    def schedule_soon(self) -> None:
        """Schedule once for all that changes in one iteration of the loop."""
        if not self._is_schedule_due:
            self._is_schedule_due = True
            asyncio.get_running_loop().call_soon(self._schedule_all)

    def _schedule_all(self) -> None:
        """Do what may be done now. A bug stops the run, because nothing else would reschedule."""
        self._is_schedule_due = False
        if self._is_shut_down.is_set():
            return
        try:
            self._start_ready()
        except Exception as error:
            if any(stop.reason is StopReason.INTERNAL for stop in self._progress.stops):
                self._is_shut_down.set()
            self._progress.stop_after(error)

    def _start_ready(self) -> None:
        """Start every step that may be started now, and set the timer for the next look."""
        now = self._context.clock.now()
        self._stop_if_late()
        self._stop_if_stalled(now)
        self._report_outage()
        drain = self._progress.drain
        backlog, at = None, inf
        if drain is Drain.IN_PROGRESS:
            self._limit_downloads()
        else:
            if self.downloads.waiting:
                backlog = self.downloads.schedule()
            if self.polls.waiting:
                at = self.polls.schedule(now)
        if drain is None:
            at = min(
                at, self.submissions.schedule(now, backlog=backlog), self.governor.stall_timer.expires_at
            )
            self._probe_if_due(now)
        if self._is_done(drain):
            self._is_shut_down.set()
        self._arm_timer(at, now)

    def _limit_downloads(self) -> None:
        """Give the downloads in progress a last while; what they received is kept for a later run."""
        if self._grace is None:
            self._context.deliverer.pauses.end()
            self._grace = asyncio.get_running_loop().call_later(DOWNLOAD_GRACE_S, self.downloads.tasks.cancel)
        if not self._grace.cancelled() and any(
            stop.reason is StopReason.DRAIN_ENDED for stop in self._progress.stops
        ):
            self._grace.cancel()
            self.downloads.tasks.cancel()

    def _stop_if_stalled(self, now: float) -> None:
        """Stop if the store can't be written, or the gateway has accepted nothing for too long."""
        store, stall_timer = self._context.store, self.governor.stall_timer
        if store.error is not None:
            self.stop(stop_for_store_error(store.error))
        elif store.is_disk_full:
            message = f"no space left for {store.run_dir}"
            self.stop(Stop(StopReason.DISK, message, "free some space, then resume the run"))
        elif not self._progress.stops and now >= stall_timer.expires_at and self.submissions.left > 0:
            self.stop(stop_for_stall(stall_timer.limit_s, stall_timer.last_message))

    def _report_outage(self) -> None:
        """Report once that the gateway is down, and once that it is back."""
        is_out = self.governor.breaker.state is not CircuitState.CLOSED
        if is_out == self._is_outage_reported:
            return
        self._is_outage_reported = is_out
        if is_out:
            message = self.governor.stall_timer.last_message
            self._context.observe(
                Notice("outage", f"gateway outage: submissions are paused until it recovers ({message})")
            )
        else:
            self._context.observe(Notice("recovered", "the gateway accepts jobs again"))

    def _is_done(self, drain: Drain | None) -> bool:
        if self.submissions.tasks.busy or self.downloads.tasks.busy:
            return False
        if drain is Drain.IN_PROGRESS:
            return True
        if self.polls.tasks.busy or self.polls.waiting or self.downloads.waiting:
            return False
        return drain is not None or self.submissions.left <= 0

    def _arm_timer(self, at: float, now: float) -> None:
        if at == inf or self._is_shut_down.is_set():
            return
        if self._timer is not None:
            if self._timer_at <= at:
                # Waking up too early does no harm, and a new timer each time is costly.
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule_all()

    async def _shut_down(self, preparing: asyncio.Task[None] | None, reporting: asyncio.Task[None]) -> None:
        # From here on nothing is started, even if `run` was canceled.
        self._is_shut_down.set()
        for each in (self._timer, self._deadline, self._clock_check, preparing, self._probe_task):
            if each is not None:
                each.cancel()
        self.polls.tasks.cancel()
        if preparing is not None:
            await asyncio.wait([preparing])
        for part in (self.submissions, self.polls, self.downloads):
            await part.tasks.wait()
        if self._grace is not None:
            self._grace.cancel()
        await self._collect_unsaved()
        self._progress.results.close()
        await asyncio.wait([reporting])

    async def _collect_unsaved(self) -> None:
        """Find the tasks whose ids could not be saved."""
        self.unsaved = list(self.submissions.unsaved)
        for job in self.polls.active:
            try:
                await self._context.store.durable(job.commit)
            except RunnerError:
                self.unsaved.append((job.job_id, job.task_id or ""))

    def _check_clock(self) -> None:
        """Look at the wall clock now and then: a timer knows nothing of a suspended machine or a clock that was set."""
        self._stop_if_late()
        if self._context.stop_at is not None and not self._progress.stops:
            self._clock_check = asyncio.get_running_loop().call_later(CLOCK_CHECK_S, self._check_clock)

    def _stop_if_late(self) -> None:
        stop_at = self._context.stop_at
        if stop_at is not None and self._context.clock.wall() >= stop_at:
            self._on_deadline()

    def _on_deadline(self) -> None:
        if any(stop.reason is StopReason.DEADLINE for stop in self._progress.stops):
            return
        self.stop(Stop(StopReason.DEADLINE, "the time limit for submissions was reached"))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._context.drain_s, self._on_drain_deadline)

    def _on_drain_deadline(self) -> None:
        self.stop(Stop(StopReason.DRAIN_ENDED, "the drain time is over"))

    def _probe_if_due(self, now: float) -> None:
        at = self.governor.breaker.probe_at
        if self._probe_task is None and at is not None and at <= now:
            self._probe_task = asyncio.create_task(self._probe(), name="probe")

    async def _probe(self) -> None:
        is_healthy = False
        try:
            is_healthy = await self._context.probe()
        except Exception:
            log.exception("a bug in runner ended a probe")
        self.governor.record_probe(self._context.clock.now(), is_healthy=is_healthy)
        self._probe_task = None
        self._schedule_all()
