"""Which job of a run has, or had, a task: an answer that names one of another job's must not be believed."""

from __future__ import annotations

import sqlite3

from runner.store import query

_MAX_UNCOMMITTED = 1000
_BITS_PER_TASK = 16
"""Of the bitmap: so many times fewer queries are made than there are new tasks."""


class TaskOwners:
    """
    Finds the owners of tasks, those of earlier processes and those that are not committed yet.

    Nearly every task is new. A bitmap shows that for most, since a query for each took 2 % of a job's time.

    Args:
        reader: A connection that sees what is committed.
    """

    def __init__(self, reader: sqlite3.Connection) -> None:
        self._reader = reader
        # Job ids and commits by task id; what is committed may be removed.
        self._new: dict[str, tuple[str, int]] = {}
        self._bitmap: bytearray | None = None
        self._mask = 0

    def add(self, task_id: str, job_id: str, *, commit: int, durable: int) -> None:
        """
        Add a task that was saved just now.

        Args:
            commit: The number of the commit that it is saved with.
            durable: The number of the last commit that `reader` sees.
        """
        if len(self._new) >= _MAX_UNCOMMITTED:
            self._new = {task: new for task, new in self._new.items() if new[1] > durable}
        self._new[task_id] = (job_id, commit)
        if self._bitmap is not None:
            self._mark(self._bitmap, task_id)

    def find(self, task_id: str) -> str | None:
        """Return the job that has, or had, a task; None if no job of the run has."""
        new = self._new.get(task_id)
        if new is not None:
            return new[0]
        if self._bitmap is None:
            self._bitmap = self._read_tasks()
        bit = hash(task_id) & self._mask
        if not self._bitmap[bit >> 3] & 1 << (bit & 7):
            return None
        return query.task_owner(self._reader, task_id)

    def _read_tasks(self) -> bytearray:
        """Make the bitmap, large enough for the tasks that there are and one more for each job."""
        tasks = "FROM attempts WHERE task_id IS NOT NULL"
        (count,) = self._reader.execute(
            f"SELECT (SELECT count(*) {tasks}) + (SELECT count(*) FROM jobs)"
        ).fetchone()
        size = 1 << (count * _BITS_PER_TASK | 8).bit_length()
        bitmap, self._mask = bytearray(size // 8), size - 1
        for (task_id,) in self._reader.execute(f"SELECT task_id {tasks}"):
            self._mark(bitmap, task_id)
        for task_id in self._new:
            self._mark(bitmap, task_id)
        return bitmap

    def _mark(self, bitmap: bytearray, task_id: str) -> None:
        bit = hash(task_id) & self._mask
        bitmap[bit >> 3] |= 1 << (bit & 7)
