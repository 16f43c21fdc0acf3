"""Append the result line of each job that ends, behind the run and durable before it is announced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from runner.core.model import Job
from runner.engine.events import JobEnded, Observer
from runner.store.store import Store

_GATHER_S = 0.1
"""How long ended jobs gather before their lines are appended: the file is a view, and may follow."""


class ResultsAppender:
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
                await asyncio.sleep(_GATHER_S)
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
