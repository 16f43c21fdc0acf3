"""Append the result line of each job that ended, in the background; a job is reported once its end is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from runner.core.model import Job
from runner.engine.events import Delivered, JobEnded, Observer
from runner.store.store import Store

_NOTHING = Delivered()
_BATCH_S = 0.1
"""How long ended jobs are collected before their lines are appended."""


class ResultsAppender:
    """
    Appends result lines in the background.

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
