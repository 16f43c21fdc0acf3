"""The coroutines under way of one kind, with an owner, and one job's trouble kept from the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from runner.core.job import Job
from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass
from runner.engine.context import Context, store_stop
from runner.errors import RunnerError

log = logging.getLogger(__name__)


class Steps:
    """
    A bounded set of steps.

    Args:
        ended: Called after each step, whatever came of it.
        released: Called with a job whose remote slot a bug of ours frees.

    Attributes:
        unsaved: Tasks that were paid for and could not be written down, as pairs of job id and task id.
    """

    def __init__(
        self, context: Context, *, ended: Callable[[], None], released: Callable[[Job], None]
    ) -> None:
        self._context = context
        self._ended = ended
        self._released = released
        self._tasks: set[asyncio.Task[None]] = set()
        self.unsaved: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, step: Coroutine[Any, Any, None], job: Job) -> None:
        """Begin a step of a job."""
        self._tasks.add(asyncio.create_task(self._guarded(step, job)))

    def cancel(self) -> None:
        """Give up the requests under way."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, step: Coroutine[Any, Any, None], job: Job) -> None:
        try:
            await step
        except RunnerError as error:
            if job.task_id is not None and job.state is State.SUBMITTED:
                self.unsaved.append((job.job_id, job.task_id))
            self._context.stop(store_stop(error))
        except Exception as error:
            log.exception("a bug in runner ended job %s", job.job_id)
            self._crashed(job, error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._ended()

    def _crashed(self, job: Job, error: Exception) -> None:
        tally = self._context.tally
        if job.state.is_resting:
            tally.ended(job)
            return
        if job.state is State.SUBMITTED:
            self._released(job)
        failure = Failure(FailureClass.INTERNAL, f"a bug in runner: {type(error).__name__}: {error}"[:500])
        tally.rest(job, Event.CRASHED, failure)
