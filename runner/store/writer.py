"""
Group commit: everything that waits to be written shares one commit, and one sync.

A thread takes whatever has gathered, writes it in one transaction, and takes
again as soon as that has returned. Nothing that is waited for meets a waiting
window: a busy run gathers by itself while the last sync is under way, and an idle
one pays for a single sync. (A window of 20 ms was measured to cost 40 % of the
jobs a second, one of 50 ms two thirds.) What nobody waits for goes with the next
commit, or with one of its own after `LINGER_S`: waking the thread for each such
change would cost more than the change.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from runner.errors import DiskFull, RunDirError, RunnerError
from runner.store import rows
from runner.store.database import translated
from runner.store.rows import Row

LINGER_S = 0.05
"""How long a change that nobody waits for may gather others before it is committed."""


class _Batch(Struct):
    """What one commit will write, and who waits for it."""

    number: int
    is_begun: bool = False
    jobs: dict[int, Row] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Row] = field(default_factory=dict)
    assets: list[Row] = field(default_factory=list)
    parts: dict[tuple[int, str], Row] = field(default_factory=dict)
    dropped_parts: list[tuple[int, str]] = field(default_factory=list)
    old_assets: list[tuple[int, int]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Writer:
    """
    The one that writes ``run.db`` while a run is going.

    Everything but the thread's own work happens on the event loop's thread.
    When the disk is full, a reserve that was set aside at the start is given up,
    so that the ids of tasks that were just paid for still get written; the
    engine sees `is_short_of_room` and stops. After an error that remains nothing
    more is written: what is durable stays so, and every caller gets the error.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, reserve: DiskReserve) -> None:
        self._connection = connection
        self._path = path
        self._reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._is_wanted = False
        self._batch = _Batch(1)
        self._outstanding: dict[int, _Batch] = {1: self._batch}
        self._durable = 0
        self._closing = False
        self.error: RunnerError | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def is_disk_full(self) -> bool:
        """The disk was full, and the reserve is in use."""
        return self._reserve.is_released

    @property
    def durable(self) -> int:
        """The number of the last commit that is on disk."""
        return self._durable

    def add(
        self,
        *,
        job: Row | None = None,
        attempt: Row | None = None,
        assets: list[Row] | None = None,
        part: Row | None = None,
        meta: tuple[str, str] | None = None,
    ) -> int:
        """
        Put rows into the next commit and return its number.

        Raises:
            RunnerError: An earlier commit failed.
        """
        if self.error is not None:
            raise self.error
        with self._lock:
            batch = self._batch
            if not batch.is_begun:
                batch.is_begun = True
                self._loop.call_later(LINGER_S, self._want, batch.number)
            if job is not None:
                batch.jobs[job[-1]] = job
            if attempt is not None:
                batch.attempts[attempt[0], attempt[1]] = attempt
            if assets is not None:
                batch.assets.extend(assets)
                batch.dropped_parts.extend((seq, kind) for seq, kind, *_ in assets)
                batch.old_assets.extend((seq, attempt) for seq, *_, attempt in assets if attempt > 1)
            if part is not None:
                batch.parts[part[0], part[1]] = part
            if meta is not None:
                batch.meta[meta[0]] = meta[1]
            return batch.number

    async def wait(self, number: int) -> None:
        """
        Wait until a commit is on disk that is not yet known to be.

        Raises:
            RunnerError: It could not be written.
        """
        if self.error is not None:
            raise self.error
        future: asyncio.Future[None] = self._loop.create_future()
        # Read again by `_committed` alone, which runs on this thread too.
        self._outstanding[number].waiting.append(future)
        self._want(number)
        await future

    def _want(self, number: int) -> None:
        """Have a commit made as soon as the thread is free, if it is not under way already."""
        if self._is_wanted or number < self._batch.number:
            return
        with self._lock:
            self._is_wanted = True
            self._ready.notify()

    async def close(self) -> None:
        """Write what is left and end the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._is_wanted and not self._closing:
                    self._ready.wait()
                self._is_wanted = False
                batch = self._batch
                if not batch.is_begun:
                    if self._closing:
                        return
                    continue
                self._batch = _Batch(batch.number + 1)
                self._outstanding[batch.number + 1] = self._batch
            error = self.error or self._commit(batch)
            if isinstance(error, DiskFull) and self._reserve.release():
                error = self._commit(batch)
            if error is not None:
                self.error = error
            self._loop.call_soon_threadsafe(self._committed, batch, error)

    def _commit(self, batch: _Batch) -> RunnerError | None:
        run = self._connection
        try:
            with translated(self._path):
                run.execute("BEGIN IMMEDIATE")
                rows.insert_rows(run, rows.SAVE_JOBS, list(batch.jobs.values()))
                rows.insert_rows(run, rows.SAVE_ATTEMPTS, list(batch.attempts.values()))
                run.executemany(rows.SAVE_PART, batch.parts.values())
                if batch.dropped_parts:
                    rows.insert_rows(run, rows.DROP_PARTS, batch.dropped_parts)
                run.executemany(rows.DROP_OLD_ASSETS, batch.old_assets)
                rows.insert_rows(run, rows.SAVE_ASSETS, batch.assets)
                run.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", batch.meta.items())
                run.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):
                run.rollback()
            return _as_ours(error, self._path)
        return None

    def _committed(self, batch: _Batch, error: RunnerError | None) -> None:
        del self._outstanding[batch.number]
        if error is None:
            self._durable = batch.number
        for future in batch.waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _as_ours(error: Exception, path: Path) -> RunnerError:
    """Make an error one that callers expect: whoever waits for the commit must hear of it, whatever it is."""
    if isinstance(error, RunnerError):
        return error
    return RunDirError(f"a bug in runner: {path} does not take what was to be written ({error!r})"[:500])


RESERVE_NAME = ".reserve"
RESERVE_BYTES = 4 * 1024 * 1024


class DiskReserve:
    """
    A file of zeros in the run directory, there only while a run is going.

    Where it can't be made, because the disk is full already, the run starts
    without it: `is_released` is true from the start, and nothing is submitted.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / RESERVE_NAME
        self.is_released = not self._allocate()

    def release(self) -> bool:
        """Free the room; say whether there was any to free."""
        if self.is_released:
            return False
        self.is_released = True
        self._path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Free the room at the end of a run."""
        self._path.unlink(missing_ok=True)

    def _allocate(self) -> bool:
        try:
            with self._path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                else:
                    file.write(bytes(RESERVE_BYTES))
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True
