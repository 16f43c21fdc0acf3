"""
Drive all jobs: start every step that may be started now, and react to what comes of it.

Nothing here waits for one job. A step is a coroutine only while its request is
under way; a task that waits for its next query is an entry in a heap. Whenever a
step ends or a time comes, `_schedule_all` starts what has become possible, so the limits
are looked at in one place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from msgspec.structs import replace

from runner.core.circuit_breaker import CircuitState
from runner.core.estimate import seconds_left
from runner.core.lifecycle import Event, State, Step, next_step
from runner.core.model import Job
from runner.core.outcomes import RemoteTask
from runner.core.settings import Settings
from runner.core.stop import Drain, Stop, StopReason
from runner.core.units import format_duration
from runner.engine.admission import Admission
from runner.engine.context import (
    EngineContext,
    EngineOptions,
    JobCounts,
    Services,
    stop_for_error,
    stop_for_store_error,
)
from runner.engine.downloads import Downloads
from runner.engine.events import Notice, Snapshot
from runner.engine.polls import Polls
from runner.engine.submissions import Submissions
from runner.errors import RunnerError
from runner.store import query

log = logging.getLogger(__name__)


class SystemClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)


class Engine:
    """
    One process's work on a run. Call `run` once.

    Args:
        learned: Rates that an earlier run found to be allowed; see `Admission`.

    Attributes:
        stops: Why it submits no more, in the order in which that came up.
        unsaved: Once it has ended, tasks that were paid for and could not be written down: job id and task id.
    """

    def __init__(
        self, rooms: Services, settings: Settings, options: EngineOptions, *, learned: Mapping[str, float]
    ) -> None:
        self._services = rooms
        self._options = options
        self._context = EngineContext(
            rooms, settings, options, JobCounts(rooms, options, self.stop), self.stop
        )
        self.admission = Admission(
            settings.limits, rooms.key_pool, learned=learned, limit_s=settings.poll.timeout_s
        )
        self.downloads = Downloads(self._context, ended=self._schedule_soon)
        self.polls = Polls(
            self._context, self.admission, succeeded=self._succeeded, ended=self._schedule_soon
        )
        self.submissions = Submissions(
            self._context, self.admission, accepted=self._accepted, ended=self._schedule_soon
        )
        self._probing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_schedule_due = False
        self._deadline: asyncio.TimerHandle | None = None
        self._is_shut_down = asyncio.Event()
        self._is_outage_reported = False
        self.stops: list[Stop] = []
        self.unsaved: list[tuple[str, str]] = []

    @property
    def counts(self) -> Mapping[State, int]:
        """Jobs by state."""
        return self._context.job_counts.counts

    def snapshot(self) -> Snapshot:
        """Say where the run stands now."""
        now = self._services.clock.now()
        counts = self.counts
        under_way = counts[State.SUBMITTING] + counts[State.SUBMITTED] + counts[State.DOWNLOADING]
        limits = replace(self._context.settings.limits, submit_per_s=self.admission.pacer.per_s)
        pending = {} if self.stops else self.submissions.left_by_model()
        return Snapshot(
            counts=dict(counts),
            downloads=self.downloads.active(),
            downloads_waiting=len(self.downloads),
            in_flight=self.admission.in_flight,
            max_in_flight=limits.in_flight,
            submit_per_s=limits.submit_per_s,
            accepted_per_s=self.admission.pacer.accepted_per_s(now),
            limited_by="" if self.stops else self.submissions.limited_by,
            is_stopping=bool(self.stops),
            seconds_left=seconds_left(pending, under_way, limits, self.polls.seen_s()),
        )

    async def run(self) -> None:
        """Work until nothing is left that this process may do."""
        self._resume_jobs()
        feeding = asyncio.create_task(self._append_results(), name="results")
        if self._options.run_s is not None:
            self._deadline = asyncio.get_running_loop().call_later(self._options.run_s, self._on_deadline)
        self._schedule_all()
        try:
            await self._is_shut_down.wait()
        finally:
            await self._shut_down()
            self._services.results.close()
            await feeding

    def stop(self, stop: Stop) -> None:
        """Submit no more; the first of each reason is told and kept."""
        if any(known.reason is stop.reason for known in self.stops):
            return
        self.stops.append(stop)
        self._services.observe(Notice("stopping", stop.message, stop.hint))
        self._schedule_all()

    def abandon(self) -> None:
        """Stop now: requests under way are given up, which loses nothing that is on disk."""
        for part in (self.submissions, self.polls, self.downloads):
            part.tasks.cancel()
        self._is_shut_down.set()

    def _resume_jobs(self) -> None:
        """Go on with what earlier processes left."""
        states = [state for state in State if next_step(state) in (Step.POLL, Step.DOWNLOAD)]
        now = self._services.clock.now()
        for job in query.jobs_in_states(
            self._services.store.reader, states, waiting_since=now, scope=self._options.scope
        ):
            if job.state.has_ended:
                before = job.state
                job.transition(Event.RESUMED)
                self._context.job_counts.record_transition(before, job)
            if job.state is State.SUBMITTED:
                self.admission.reserve_slot(job.seq, job.model)
                self.polls.resume(job)
            else:
                self.downloads.add(job, None)

    def _accepted(self, job: Job) -> None:
        self.polls.add(job)

    def _succeeded(self, job: Job, task: RemoteTask) -> None:
        self.downloads.add(job, task)

    async def _append_results(self) -> None:
        try:
            await self._services.results.run()
        except Exception as error:
            self.stop(stop_for_error(error))

    def _schedule_soon(self) -> None:
        """Look once for all the steps that end in one turn of the loop."""
        if not self._is_schedule_due:
            self._is_schedule_due = True
            asyncio.get_running_loop().call_soon(self._schedule_all)

    def _schedule_all(self) -> None:
        """Do what may be done now. A bug on the way stops the run, since nobody else would ever look again."""
        self._is_schedule_due = False
        if self._is_shut_down.is_set():
            return
        try:
            self._start_ready()
        except Exception as error:
            if any(stop.reason is StopReason.INTERNAL for stop in self.stops):
                self._is_shut_down.set()
            self.stop(stop_for_error(error))

    def _start_ready(self) -> None:
        """Start every step that may be started now, and arrange to look again."""
        now = self._services.clock.now()
        self._stop_if_stalled(now)
        self._report_outage()
        drain = self._drain
        again: list[float | None] = []
        if drain is not Drain.IN_PROGRESS:
            self.downloads.schedule()
            again.append(self.polls.schedule(now))
        if drain is None:
            again.append(self.submissions.schedule(now, backlog=self.downloads.backlog))
            self._probe_if_due(now)
        if self._is_done(drain):
            self._is_shut_down.set()
        self._arm_timer(min((at for at in again if at is not None), default=None), now)

    def _stop_if_stalled(self, now: float) -> None:
        """Stop where the store takes nothing more, or the gateway has taken nothing for too long."""
        store, standstill = self._services.store, self.admission.stall_timer
        if store.error is not None:
            self.stop(stop_for_store_error(store.error))
        elif store.is_disk_full:
            self.stop(
                Stop(StopReason.DISK, f"no room is left for {store.run_dir}", "free some space, then go on")
            )
        elif not self.stops and self.submissions.left > 0 and standstill.has_expired(now):
            self.stop(
                Stop(
                    StopReason.UNAVAILABLE,
                    f"the gateway has taken nothing for {format_duration(standstill.limit_s)}; "
                    f"its last answer: {standstill.last_message}",
                    "see whether it is well (runner doctor), then go on",
                )
            )

    def _report_outage(self) -> None:
        """Tell once that the gateway is out, and once that it is back."""
        is_out = self.admission.breaker.state is not CircuitState.CLOSED
        if is_out == self._is_outage_reported:
            return
        self._is_outage_reported = is_out
        if is_out:
            words = self.admission.stall_timer.last_message
            self._services.observe(
                Notice("outage", f"the gateway is out, nothing is submitted until it is back: {words}")
            )
        else:
            self._services.observe(Notice("recovered", "the gateway takes jobs again"))

    @property
    def _drain(self) -> Drain | None:
        if any(stop.drain is Drain.IN_PROGRESS for stop in self.stops):
            return Drain.IN_PROGRESS
        return Drain.ALL if self.stops else None

    def _is_done(self, drain: Drain | None) -> bool:
        if self.submissions.tasks or self.downloads.tasks:
            return False
        if drain is Drain.IN_PROGRESS:
            return True
        if self.polls.tasks or self.polls or self.downloads:
            return False
        return drain is not None or self.submissions.left <= 0

    def _arm_timer(self, at: float | None, now: float) -> None:
        if at is None or self._is_shut_down.is_set():
            return
        if self._timer is not None:
            if self._timer_at <= at:
                # To look too early does no harm, and a new timer at every turn costs something.
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule_all()

    async def _shut_down(self) -> None:
        # From here on nothing is started, also where this coroutine was cancelled.
        self._is_shut_down.set()
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self.polls.tasks.cancel()
        if self._probing is not None:
            self._probing.cancel()
        for part in (self.submissions, self.polls, self.downloads):
            await part.tasks.wait()
        await self._collect_unsaved()

    async def _collect_unsaved(self) -> None:
        """Find the tasks whose ids the store did not take."""
        self.unsaved = list(self.submissions.unsaved)
        for job in self.polls.active:
            try:
                await self._services.store.durable(job.commit)
            except RunnerError:
                self.unsaved.append((job.job_id, job.task_id or ""))

    def _on_deadline(self) -> None:
        self.stop(Stop(StopReason.DEADLINE, "the time for submitting is over"))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._options.drain_s, self._on_drain_deadline)

    def _on_drain_deadline(self) -> None:
        self.stop(Stop(StopReason.DRAIN_ENDED, "the time for draining is over"))

    def _probe_if_due(self, now: float) -> None:
        at = self.admission.breaker.probe_at
        if self._probing is None and at is not None and at <= now:
            self._probing = asyncio.create_task(self._probe(), name="probe")

    async def _probe(self) -> None:
        is_well = False
        try:
            is_well = await self._services.probe()
        except Exception:
            log.exception("a bug in runner spoilt a probe")
        self.admission.breaker.record_probe(self._services.clock.now(), is_healthy=is_well)
        self._probing = None
        self._schedule_all()
