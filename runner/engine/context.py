"""What the engine is given for one process's work on a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from runner.core.key_pool import KeyPool
from runner.core.model import Job
from runner.core.settings import Settings
from runner.core.stop import MaxFailures
from runner.engine.budget import RunBudget
from runner.engine.events import Delivered, Observer
from runner.store.store import Store
from runner.store.work_list import JobFilter
from runner.worker.deliver import Deliverer
from runner.worker.poll import Poller
from runner.worker.ports import Clock
from runner.worker.submit import Submitter

if TYPE_CHECKING:
    from runner.engine.admission import Governor


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
        append: Writes the result lines of some jobs, given by job id with their keys in the store, and returns their files
            by job id; called in a thread.
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
    append: Callable[[Mapping[str, int]], Mapping[str, Delivered]]
    budget: RunBudget
    observe: Observer
    governor: Governor | None = None
    on_success: Callable[[Job], None] = lambda job: None


class SystemClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)
