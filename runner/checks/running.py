"""Checks beside a run: of each job that succeeded, in the background."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Self

from runner.checks.video_checker import VideoChecker, has_video
from runner.core.lifecycle import State
from runner.core.model import Job, JobRecord
from runner.errors import RunnerError
from runner.store import query, takes
from runner.store.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 0.2


class RunningChecks:
    """
    Checks jobs as they succeed, a few at a time; nothing of the run waits for it.

    Args:
        checker: None if nothing is to be checked.
        files_of: Has the files of a job on this machine for the length of a block.
    """

    def __init__(
        self,
        store: Store,
        checker: VideoChecker | None,
        files_of: Callable[[JobRecord], AbstractAsyncContextManager[None]] = lambda record: nullcontext(),
    ) -> None:
        self._store = store
        self._files_of = files_of
        self._checker = checker
        self._queue: deque[tuple[int, int]] = deque()
        self._earlier: array[int] = array("q")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cancel()

    @property
    def left(self) -> int:
        """Jobs that are not checked yet."""
        return len(self._queue) + len(self._earlier) + len(self._tasks)

    def add(self, job: Job) -> None:
        """Add a job that succeeded, and was saved."""
        if self._checker is None:
            return
        self._queue.append((job.seq, job.commit))
        self._start_one(self._checker)

    def add_earlier(self, seqs: Iterable[int]) -> None:
        """Add jobs whose videos an earlier process left unchecked; what succeeds now comes before them."""
        if self._checker is None:
            return
        self._earlier = array("q", seqs)
        self._earlier.reverse()
        for _ in self._earlier[: self._checker.at_once]:
            self._start_one(self._checker)

    def _start_one(self, checker: VideoChecker) -> None:
        if len(self._tasks) < checker.at_once:
            task = asyncio.create_task(self._work(checker), name="checks")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, is_stopped: Callable[[], bool]) -> int:
        """Wait for the checks that are left, unless the run is to end at once; return how many were not made."""
        while self._tasks and not is_stopped():
            await asyncio.wait(self._tasks, timeout=_LOOK_S)
        left = self.left
        await self._cancel()
        return left

    async def _cancel(self) -> None:
        self._queue.clear()
        del self._earlier[:]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, checker: VideoChecker) -> None:
        while self._queue or self._earlier:
            seq, commit = self._queue.popleft() if self._queue else (self._earlier.pop(), 0)
            try:
                await self._store.durable(commit)
                await self._check(checker, seq)
            except RunnerError:
                # The store can't be written: the run stops for that, and says so.
                return
            except Exception:
                log.exception("a bug in runner ended the checks of a job")

    async def _check(self, checker: VideoChecker, seq: int) -> None:
        record = next(query.records(self._store.reader, [seq]))
        if record.state is not State.SUCCEEDED or not has_video(record.assets):
            return
        number = takes.attempt_number(self._store.reader, seq)
        async with self._files_of(record):
            findings, measures = await checker.look(record)
            self._store.save_findings(seq, number, checker.finish(seq, findings, measures))
