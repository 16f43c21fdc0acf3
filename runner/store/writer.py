"""
Group commit: all pending changes share one commit, and one sync of the disk.

A thread writes whatever is pending in one transaction, and again as soon as that has returned. There is no
batching delay for a caller that waits: in a busy run, changes accumulate while the last sync is in progress,
and an idle run needs a single sync. (A delay of 20 ms was measured to cost 40 % of the jobs per second, one
of 50 ms two thirds.) A change that nobody waits for is committed with the next one that somebody waits for,
or after `LINGER_S`: waking the thread for each would cost more than the change.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from runner.core.filenames import RESERVE_NAME
from runner.core.lifecycle import State
from runner.core.sanitize import command_text
from runner.disk import is_disk_full, write_error
from runner.errors import DiskFull, RunDirError, RunnerError
from runner.store import rows
from runner.store.database import translated
from runner.store.journal import Journal
from runner.store.local_view import Batch, mark_ahead, remember_position
from runner.store.rows import Row

LINGER_S = 0.05
"""How long a change that nobody waits for may wait for others before it is committed."""
JOURNAL_LINGER_S = 1.0
"""The same where each commit is an object in a store, which is paid for."""
RESERVE_BYTES = 4 * 1024 * 1024

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


async def to_the_end(
    step: Callable[[], Awaitable[object]], on_cancel: Callable[[], None] = lambda: None
) -> None:
    """
    Await a step to its end, however often this task is canceled meanwhile; only then is it canceled.

    Args:
        step: Called again after each cancellation, to continue.
        on_cancel: Called at each cancellation.
    """
    canceled: asyncio.CancelledError | None = None
    while True:
        try:
            await step()
            break
        except asyncio.CancelledError as error:
            canceled = error
            on_cancel()
    if canceled is not None:
        raise canceled


async def in_thread(
    function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """
    Call a function in a thread, and wait until it has returned, even if this task is canceled.

    A connection to SQLite that is closed while a thread uses it ends the whole process.
    """
    call = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    await to_the_end(lambda: asyncio.wait([call]))
    return call.result()


class Writer:
    """
    The only writer of ``run.db`` during a run.

    Everything except the commits happens on the event loop's thread. When the disk is full, a reserve from the
    start of the run is released, so that the ids of tasks that were just paid for are still written; the
    engine sees that in `Store.is_disk_full`, and stops. If that does not help, nothing more is written: what is durable
    remains so, and every caller gets the error.

    Args:
        on_commit: Gets the epoch of each commit that is durable; called in the thread. See `freshness`.
        journal: Where each commit is made durable first, off this machine; None without one.

    Attributes:
        last_durable: The number of the last commit that is on disk.
        error: Why nothing can be written any more, or None.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        reserve: DiskReserve,
        on_commit: Callable[[int], None],
        journal: Journal | None = None,
    ) -> None:
        self._connection = connection
        self._on_commit = on_commit
        self._journal = journal
        self._linger_s = LINGER_S if journal is None else JOURNAL_LINGER_S
        # Whether the journal takes nothing any more, so that what was paid for is saved here alone.
        self._is_cut_off = False
        self._path = path
        self._reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._is_requested = False
        self._batch = Batch(1)
        self._outstanding: dict[int, Batch] = {1: self._batch}
        self.last_durable = 0
        # Most assets are small, and never have a part that a row describes.
        self._parts = set(connection.execute("SELECT seq, kind FROM parts"))
        self._is_closing = False
        self.error: RunnerError | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def add(
        self,
        *,
        job: Row | None = None,
        assets: list[Row] | None = None,
        meta: tuple[str, str] | None = None,
        **changes: Row | None,
    ) -> int:
        """
        Add rows to the next commit and return its number.

        Args:
            changes: A row, or none, by the attribute of `Batch` that it belongs to.

        Raises:
            RunnerError: An earlier commit failed.
        """
        if self.error is not None and not self._is_cut_off:
            raise self.error
        with self._lock:
            batch = self._batch
            if not batch.has_changes:
                batch.has_changes = True
                self._loop.call_later(self._linger_s, self._request, batch.number)
            if job is not None:
                self._add_job(batch, job)
            if assets is not None:
                self._add_assets(batch, assets)
            for kind, row in changes.items():
                if row is not None:
                    getattr(batch, kind)[row[:2]] = row
                    if kind == "parts":
                        self._parts.add(row[:2])
            if meta is not None:
                batch.meta[meta[0]] = meta[1]
        if self.error is not None:
            raise self.error
        return batch.number

    def _add_job(self, batch: Batch, job: Row) -> None:
        seq = job[-1]
        if job[0] == State.SUBMITTING:
            # After what the batch has of the job already: its last attempt may have ended in the same moment.
            batch.intents[seq] = job
        else:
            batch.intents.pop(seq, None)
            batch.jobs[seq] = job

    def _add_assets(self, batch: Batch, assets: list[Row]) -> None:
        batch.assets.extend(assets)
        delivered = self._parts.intersection((seq, kind) for seq, kind, *_ in assets)
        self._parts -= delivered
        batch.dropped_parts.extend(delivered)
        batch.old_assets.extend((seq, attempt) for seq, *_, attempt in assets if attempt > 1)

    async def wait(self, number: int) -> None:
        """
        Wait until a commit is on disk that is not yet known to be.

        Raises:
            RunnerError: It could not be written.
        """
        if self.error is not None:
            raise self.error
        future: asyncio.Future[None] = self._loop.create_future()
        # Only `_committed` reads this list, on this thread too.
        waiting = self._outstanding[number].waiting
        if not waiting:
            # After what else happens in this turn of the event loop, which then shares the commit.
            self._loop.call_soon(self._request, number)
        waiting.append(future)
        await future

    def _request(self, number: int) -> None:
        """Let the thread commit as soon as it is free, unless that commit has begun."""
        if self._is_requested or number < self._batch.number:
            return
        with self._lock:
            self._is_requested = True
            self._ready.notify()

    async def close(self) -> None:
        """Write what is pending and end the thread."""
        with self._ready:
            self._is_closing = True
            self._ready.notify()
        await in_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._is_requested and not self._is_closing:
                    self._ready.wait()
                self._is_requested = False
                batch = self._batch
                if not batch.has_changes:
                    if self._is_closing:
                        return
                    continue
                self._batch = Batch(batch.number + 1)
                self._outstanding[batch.number + 1] = self._batch
            if self._is_cut_off:
                self._save_here(batch)
            error = self.error or self._commit(batch)
            if isinstance(error, DiskFull) and self._reserve.release():
                error = self._commit(batch)
            if error is not None:
                self.error = error
            self._loop.call_soon_threadsafe(self._committed, batch, error)

    def _commit(self, batch: Batch) -> RunnerError | None:
        connection = self._connection
        try:
            if self._journal is not None and not batch.is_journaled:
                self._journal.append(batch.to_json())
                batch.is_journaled = True
        except Exception as error:
            self._is_cut_off = True
            self._save_here(batch)
            return _as_runner_error(error, self._path)
        try:
            with translated(self._path):
                connection.execute("BEGIN IMMEDIATE")
                self._require_all(batch.apply(connection), batch)
                if self._journal is not None:
                    remember_position(connection, self._journal)
                (epoch,) = connection.execute(rows.RAISE_EPOCH).fetchone()
                connection.execute("COMMIT")
                self._on_commit(int(epoch))
        except Exception as error:
            with suppress(sqlite3.Error):
                connection.rollback()
            return _as_runner_error(error, self._path)
        return None

    def _require_all(self, intents: int, batch: Batch) -> None:
        """Check that jobs that are about to be submitted were pending: whatever else happens, nothing is paid twice."""
        if intents != len(batch.intents):
            raise RunDirError(
                f"another process has changed jobs in {self._path}, which this one is about to submit",
                hint=f"end the other one, then: {command_text('runner', 'resume', self._path.parent)}",
            )

    def _save_here(self, batch: Batch) -> None:
        """Save on this machine what the journal did not take: ids of tasks that were paid for. Nothing is submitted by it."""
        batch.intents.clear()
        # Whatever is wrong, the thread goes on: who waits for it would wait forever.
        with suppress(Exception):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                batch.apply(self._connection)
                mark_ahead(self._connection)
                self._connection.execute("COMMIT")
            except Exception:
                self._connection.rollback()

    def _committed(self, batch: Batch, error: RunnerError | None) -> None:
        del self._outstanding[batch.number]
        if error is None:
            self.last_durable = batch.number
        for future in batch.waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _as_runner_error(error: Exception, path: Path) -> RunnerError:
    """Convert an error to one that callers expect: whoever waits for the commit must get it, whatever it is."""
    if isinstance(error, RunnerError):
        return error
    return RunDirError(f"a bug in runner: {path} does not accept a value ({error!r})"[:500])


class DiskReserve:
    """
    A file of zeros in the run directory, which exists only during a run, and is deleted when the disk is full.

    The worst moment for a full disk is between a POST and the commit of its task id: the task is paid for, and
    its id is nowhere. The reserve is larger than what has to be written at such a moment.

    If it can't be created, because the disk is full already, the run starts without it: `is_released` is true
    from the start, and nothing is submitted.

    Raises:
        RunDirError: It can't be created for another reason.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / RESERVE_NAME
        self.is_released = not self._allocate()

    def release(self) -> bool:
        """Free the space; return whether there was any to free."""
        if self.is_released:
            return False
        self.is_released = True
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            # More is wrong with the disk than that it is full.
            return False
        return True

    def close(self) -> None:
        """Free the space at the end of a run."""
        # On a disk that failed it stays; the next run deletes it.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _allocate(self) -> bool:
        try:
            # A link that somebody else left there must not be followed.
            self._path.unlink(missing_ok=True)
            with self._path.open("xb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                else:
                    file.write(bytes(RESERVE_BYTES))
        except OSError as error:
            if not is_disk_full(error):
                raise write_error(error, self._path) from error
            self._path.unlink(missing_ok=True)
            return False
        return True
