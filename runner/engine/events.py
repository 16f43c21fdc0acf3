"""What a run tells whoever watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from runner.core.lifecycle import State
from runner.core.model import Failure, Job
from runner.core.value import frozen
from runner.store import Store


@frozen
class JobEnded:
    """A job came to rest, and that is on disk."""

    job_id: str
    model: str
    state: State
    error: Failure | None


@frozen
class Notice:
    """
    Something that a person watching should know.

    Attributes:
        kind: A stable word, such as ``throttled``, ``outage``, ``recovered``, ``key_retired`` or ``stopping``.
    """

    kind: str
    message: str
    hint: str | None = None


@frozen
class Fetching:
    """
    A download in hand: what is on disk of a job's video.

    Attributes:
        total_bytes: None while it is not known, or where the file is too small to be worth keeping in parts.
    """

    job_id: str
    bytes: int
    total_bytes: int | None


@frozen
class Snapshot:
    """
    Where a run stands at one moment.

    Attributes:
        counts: Jobs by state.
        downloads: Those in hand, and ``downloads_waiting`` how many jobs wait for theirs.
        in_flight: Remote tasks that exist, of the ``most_in_flight`` that may.
        submit_per_s: The rate that is allowed now, and ``accepted_per_s`` what was reached over the last minute.
        binding: Which limit holds the next submission back, in words; empty where none does.
        is_stopping: Whether nothing more is submitted.
        seconds_left: An estimate, or None where there is nothing to go by.
    """

    counts: Mapping[State, int]
    downloads: tuple[Fetching, ...]
    downloads_waiting: int
    in_flight: int
    most_in_flight: int
    submit_per_s: float
    accepted_per_s: float
    binding: str
    is_stopping: bool
    seconds_left: float | None


Event = JobEnded | Notice
Observer = Callable[[Event], None]


GATHER_S = 0.1
"""How long ended jobs gather before their lines are appended: the file is a view, and may follow."""


class ResultsFeed:
    """
    Appends to the results in the background.

    Args:
        append: Writes the lines of some jobs, by their handles in the store; called in a thread.
    """

    def __init__(self, store: Store, append: Callable[[Sequence[int]], None], observe: Observer) -> None:
        self._store = store
        self._append = append
        self._observe = observe
        self._ended: list[Job] = []
        self._ready = asyncio.Event()
        self._closing = False

    def add(self, job: Job) -> None:
        """Take a job that came to rest and was saved."""
        self._ended.append(job)
        self._ready.set()

    def close(self) -> None:
        """Let `run` end once everything is told."""
        self._closing = True
        self._ready.set()

    async def run(self) -> None:
        """
        Tell of every job, until closed.

        Raises:
            RunnerError: The store can't be written; nothing more is reported as ended.
        """
        while True:
            await self._ready.wait()
            self._ready.clear()
            if not self._closing:
                await asyncio.sleep(GATHER_S)
            ended, self._ended = self._ended, []
            if ended:
                await self._tell(ended)
            if self._closing and not self._ended:
                return

    async def _tell(self, ended: list[Job]) -> None:
        # What is told is taken down first: a job may have been taken up again by the time it is durable.
        events = [JobEnded(job.job_id, job.model, job.state, job.error) for job in ended]
        await self._store.durable(max(job.commit for job in ended))
        await asyncio.to_thread(self._append, [job.seq for job in ended])
        for event in events:
            self._observe(event)
