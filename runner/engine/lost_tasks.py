"""Ask once more for lost tasks, before anything else: a task that is known again must not be paid for again."""

from __future__ import annotations

from runner.core.lifecycle import Event, State
from runner.core.model import Job
from runner.core.outcomes import Polled, Unknown
from runner.core.pacing import Pacer
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.store import query
from runner.store.costs import attach_costs
from runner.store.job_filter import JobFilter
from runner.store.store import Store
from runner.worker.poll import Poller
from runner.worker.ports import Clock


async def poll_lost_tasks(
    store: Store,
    poller: Poller,
    clock: Clock,
    observe: Observer,
    *,
    job_filter: JobFilter,
    poll_per_s: float,
    resubmit: bool,
) -> None:
    """
    Poll each lost task once, and save what that shows; any other answer than the task leaves its job as it is.

    Args:
        resubmit: Whether jobs whose tasks are still unknown become pending, because a person asked for that.

    Raises:
        RunnerError: The store can't be written.
    """
    lost = list(query.lost_jobs(store.reader, waiting_since=clock.now(), scope=job_filter))
    attach_costs(store.reader, lost)
    pacer, found, commit = Pacer(poll_per_s), 0, 0
    for job in lost:
        await clock.sleep(max(0.0, pacer.opens_at - clock.now()))
        pacer.record_sent(clock.now())
        job.transition(Event.RESUMED)
        outcome = await poller.poll(job)
        if isinstance(outcome, Polled):
            found += 1
            if job.state is State.SUBMITTED:
                job.error = job.finished_at = None
                store.save(job)
        elif not isinstance(outcome, Unknown):
            # The gateway shows nothing now, and must not hold the run up for each of the others.
            observe(Notice("lost", f"lost tasks can't be polled now: {outcome.failure.message}"))
            break
        elif resubmit:
            _requeue(job)
            store.save(job)
        commit = job.commit
    await store.durable(commit)
    if lost:
        message = f"asked again for {format_count(len(lost), 'lost task')}: {found:,} known again"
        observe(Notice("lost", message))


def _requeue(job: Job) -> None:
    """Give up the task permanently; its id remains in the job's attempt."""
    job.transition(Event.REMOTE_FAILED)
    job.transition(Event.RERUN)
    job.task_id = job.other_task_id = None
