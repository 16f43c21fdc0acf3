"""Which jobs this process has changed, so that only their part of the derived files is written again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_GROUP_BITS = 4
"""Jobs are remembered in groups of 16 that were added one after the other, since a run may change a million."""
_ALL = -1
_MAX_WITHOUT_LINE = 100_000
"""If there are more such jobs, nothing is known of any: a set of them would take too much memory."""
_NOT_SHOWN = ("answers", "parts")
"""Tables that no derived file depends on."""


class ChangedJobs:
    """
    The jobs that were changed since the derived files were written.

    Args:
        is_known: Whether these files were up to date with ``run.db``; if not, every job counts as changed.

    Attributes:
        is_wanted: Whether anything depends on which jobs are changed; if not, statements need not be `watched`.
    """

    def __init__(self, *, is_known: bool) -> None:
        self._groups: set[int] | None = set() if is_known else None
        self._without_line: set[int] | None = set()
        self.is_wanted = is_known

    def add(self, seq: int) -> None:
        """Add a job."""
        if self._groups is not None:
            self._groups.add(seq >> _GROUP_BITS)
        if self._without_line is not None:
            self._without_line.add(seq)

    def line_follows(self, seq: int) -> None:
        """Note that a job's line will be written from what it is now, or later."""
        self.is_wanted = True
        if self._without_line is not None:
            self._without_line.discard(seq)
            if len(self._without_line) > _MAX_WITHOUT_LINE:
                self._without_line = None

    def has_lines(self, seqs: Iterable[int]) -> bool:
        """Return whether the lines of some jobs, which were written by this process, are known to be up to date."""
        return self._without_line is not None and self._without_line.isdisjoint(seqs)

    @contextmanager
    def watched(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Add the jobs that statements on a connection change, until the block ends."""
        triggers = list(_triggers(connection))
        connection.execute("CREATE TEMP TABLE changed_jobs (grp INTEGER PRIMARY KEY)")
        try:
            for name, statement in triggers:
                connection.execute(f"CREATE TEMP TRIGGER {name} {statement}")
            yield
            self._add_groups({grp for (grp,) in connection.execute("SELECT grp FROM changed_jobs")})
        finally:
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER IF EXISTS temp.{name}")
            connection.execute("DROP TABLE temp.changed_jobs")

    def _add_groups(self, groups: set[int]) -> None:
        if _ALL in groups:
            self._groups = self._without_line = None
        if self._groups is not None:
            self._groups |= groups
        if self._without_line is not None:
            for group in groups:
                self._without_line.update(range(group << _GROUP_BITS, (group + 1) << _GROUP_BITS))

    def blocks(self, connection: sqlite3.Connection, size: int) -> set[tuple[int, int]] | None:
        """
        Return the blocks of jobs that have a changed one: pairs of ``is_gone`` and index divided by the size of blocks.

        None if that is not known, or if jobs were added, removed or moved.
        """
        if self._groups is None:
            return None
        found: set[tuple[int, int]] = set()
        for group in self._groups:
            cursor = connection.execute(
                "SELECT DISTINCT is_gone, idx / ? FROM jobs WHERE seq BETWEEN ? AND ?",
                (size, group << _GROUP_BITS, ((group + 1) << _GROUP_BITS) - 1),
            )
            found.update(cursor.fetchall())
        return found


def all_blocks(connection: sqlite3.Connection, size: int) -> Iterator[tuple[int, int]]:
    """Yield the blocks that have jobs, in the order of `query.records`."""
    # DISTINCT would sort a row of every job, in memory.
    next_job = "SELECT min(idx) FROM jobs WHERE is_gone = ? AND idx >= ?"
    for is_gone in (0, 1):
        index = 0
        while (found := connection.execute(next_job, (is_gone, index)).fetchone()[0]) is not None:
            yield is_gone, found // size
            index = (found // size + 1) * size


def count_jobs(connection: sqlite3.Connection, key: tuple[int, int], size: int) -> int:
    """Count the jobs of a block."""
    is_gone, number = key
    sql = "SELECT count(*) FROM jobs WHERE is_gone = ? AND idx >= ? AND idx < ?"
    return int(connection.execute(sql, (is_gone, number * size, (number + 1) * size)).fetchone()[0])


def _triggers(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the names and statements of triggers that note each change of a job in ``changed_jobs``."""
    tables = connection.execute(
        "SELECT m.name FROM main.sqlite_schema m JOIN pragma_table_info(m.name) p ON p.name = 'seq' "
        "WHERE m.type = 'table'"
    ).fetchall()
    for (table,) in tables:
        if table in _NOT_SHOWN:
            continue
        for action, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            group = f"{row}.seq >> {_GROUP_BITS}"
            if table == "jobs":
                is_moved = "OLD.idx IS NOT NEW.idx OR OLD.is_gone IS NOT NEW.is_gone"
                group = f"iif({is_moved}, {_ALL}, {group})" if action == "UPDATE" else str(_ALL)
            yield (
                f"changed_{table}_{action.lower()}",
                f"AFTER {action} ON main.{table} BEGIN INSERT OR IGNORE INTO changed_jobs VALUES ({group}); END",
            )
