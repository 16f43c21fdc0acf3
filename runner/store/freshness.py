"""
Whether ``run.db`` or the files beside it are older.

``run.db`` is older if it was restored from a backup, or lost its log: to continue with it would pay again for what it does
not know. Two things show that: a number in it and in a file beside it, the epoch, that grows with each opening and each
commit of a run; and results and assets of jobs that, by the database, have none. The files that are derived from it are
older if jobs were changed since; only the part of those jobs is written again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.core.filenames import ASSETS_NAME, DB_NAME, EPOCH_NAME, PART_SUFFIX, RESULTS_NAME, file_stem
from runner.core.sanitize import command_text
from runner.disk import is_disk_full, is_own, open_own, replace_foreign
from runner.errors import StoreMissing, StoreOutdated
from runner.store import query

_BATCH = 500
_TAIL_BYTES = 1 << 16
_MAX_LINE_BYTES = 100_000_000
PAID = frozenset({"accepted", "attached", "uncertain", "pending"})
"""Outcomes of attempts after which a task exists, or may exist."""


def require_database(run_dir: Path) -> None:
    """
    Check that a directory without ``run.db`` never had one.

    Raises:
        StoreMissing: It had: jobs that were paid for would be paid for again.
    """
    path = run_dir / DB_NAME
    if path.exists() and path.stat().st_size:
        return
    results = run_dir / RESULTS_NAME
    if results.exists():
        raise StoreMissing(
            f"{run_dir} has {RESULTS_NAME} but no {DB_NAME}, so it is unknown what was already paid for",
            hint=f"start a new directory from the results: {command_text('runner', 'rerun', results)} -o NEW",
        )
    if read_epoch(run_dir):
        raise StoreMissing(
            f"the {DB_NAME} of {run_dir} is gone, so it is unknown what was already paid for",
            hint=f"restore it; or, to start over and pay again, delete the directory with its {EPOCH_NAME}",
        )


def require_current(connection: sqlite3.Connection, run_dir: Path) -> None:
    """
    Check that nothing in a run directory is newer than its database.

    Raises:
        StoreOutdated: Something is, with the way out.
    """
    why = _newer(connection, run_dir)
    if why is None:
        return
    raise StoreOutdated(
        f"{run_dir / DB_NAME} is older than its directory: {why}; what was paid for since would be paid for again",
        hint=f"restore the newest {DB_NAME} with its -wal file; or take over what {RESULTS_NAME} knows: "
        + command_text("runner", "resume", run_dir, "--adopt-results"),
    )


def _newer(connection: sqlite3.Connection, run_dir: Path) -> str | None:
    """Return in words what in the directory is newer than the database, or None."""
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        has_run = (run_dir / RESULTS_NAME).exists() or read_epoch(run_dir)
        return "it is empty, and a run has been here" if has_run else None
    if read_epoch(run_dir) > stored_epoch(connection):
        return f"it lacks the last changes, which {EPOCH_NAME} counts"
    known = connection.execute(
        "SELECT value FROM meta WHERE key = 'results' AND EXISTS (SELECT 1 FROM meta WHERE key = 'finished')"
    ).fetchone()
    if known is not None and known[0] == results_fingerprint(run_dir):
        return None
    for job_id in jobs_with_newer_results(connection, run_dir):
        return f"{RESULTS_NAME} has an attempt at job {job_id!r} that is not in it"
    for job_id in jobs_with_unknown_assets(connection, run_dir):
        return f"{ASSETS_NAME}/ has a file of job {job_id!r}, which was not submitted by it"
    return None


def stored_epoch(connection: sqlite3.Connection) -> int:
    """Return the epoch of the database."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return 0 if row is None else int(row[0])


def read_epoch(run_dir: Path) -> int:
    """Return the epoch in the file beside the database; 0 without one."""
    try:
        path = run_dir / EPOCH_NAME
        return _parse_epoch(path.read_bytes()[:20]) if is_own(path.lstat()) else 0
    except OSError:
        return 0


def _parse_epoch(text: bytes) -> int:
    with suppress(ValueError):
        return int(text)
    return 0


class EpochFile:
    """
    The file beside the database that has its epoch; it is never ahead of it, whatever is lost in a power cut.

    On a full disk there may be none; then nothing is submitted either.

    Raises:
        OSError: It can't be created for another reason.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / EPOCH_NAME
        self._descriptor: int | None = None
        try:
            replace_foreign(path)
            self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if not is_disk_full(error):
                raise

    def record_opening(self, connection: sqlite3.Connection) -> None:
        """Raise the epoch durably: in the database, and then beside it."""
        known = 0 if self._descriptor is None else _parse_epoch(os.pread(self._descriptor, 20, 0))
        epoch = 1 + max(stored_epoch(connection), known)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
        self.write(epoch)
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def write(self, epoch: int) -> None:
        """Write the epoch of a commit that is durable, so that it outlives this process."""
        if self._descriptor is not None:
            # Always of one length, so that nothing of an old number is left.
            with suppress(OSError):
                os.pwrite(self._descriptor, b"%019d\n" % epoch, 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def has_derived_files(connection: sqlite3.Connection, run_dir: Path) -> bool:
    """Return whether the files that are derived from ``run.db`` are up to date, and all there."""
    meta = query.meta(connection)
    names = json.loads(meta.get("finished", "null"))
    if not isinstance(names, list) or not all((run_dir / name).exists() for name in names):
        return False
    return meta.get("results") in (None, results_fingerprint(run_dir))


def results_fingerprint(run_dir: Path) -> str:
    """Return what shows whether results.jsonl was changed: its size, its time of change and a digest of its end."""
    try:
        with open(run_dir / RESULTS_NAME, "rb", opener=_open_to_read) as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - _TAIL_BYTES))
            return f"{status.st_size}:{status.st_mtime_ns}:{sha256(file.read(_TAIL_BYTES)).hexdigest()}"
    except OSError:
        return ""


def jobs_with_newer_results(connection: sqlite3.Connection, run_dir: Path) -> Iterator[str]:
    """Yield the jobs with a result line that has an attempt after the last one in the database, and may have a task."""
    lines = _paid_attempts(run_dir / RESULTS_NAME)
    while batch := dict(islice(lines, _BATCH)):
        known = _known_attempts(connection, batch)
        yield from (job_id for job_id, number in batch.items() if number > known.get(job_id, 0))


def _known_attempts(connection: sqlite3.Connection, job_ids: Iterable[str]) -> Mapping[str, int]:
    query = "SELECT job_id, attempt FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(query, (json.dumps(list(job_ids)),)))


class _LineAttempt(Struct):
    number: int = 0
    outcome: str = ""


class _Line(Struct):
    """What counts here of a result line."""

    job_id: str
    attempts: list[_LineAttempt]


def _paid_attempts(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the job of each line with the number of its last attempt that may have a task."""
    decoder = msgspec.json.Decoder(_Line)
    try:
        with open(path, "rb", opener=_open_to_read) as file:
            while text := file.readline(_MAX_LINE_BYTES):
                try:
                    line = decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    # Half a line, or a foreign one: it tells nothing.
                    continue
                number = max((each.number for each in line.attempts if each.outcome in PAID), default=0)
                if number:
                    yield line.job_id, number
    except OSError:
        return


def _open_to_read(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if is_own(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(path)


def jobs_with_unknown_assets(connection: sqlite3.Connection, run_dir: Path) -> Iterator[str]:
    """Yield the jobs that were never submitted, by the database, and have a file in the folder of assets."""
    stems = (name.removesuffix(PART_SUFFIX).rpartition(".")[0] for name in _asset_files(run_dir))
    unsent = "SELECT job_id FROM jobs WHERE state = 'pending' AND attempt = 0"
    altered: set[str] = set()
    while batch := list(islice(stems, _BATCH)):
        altered.update(stem for stem in batch if "~" in stem)
        found = connection.execute(
            f"{unsent} AND job_id IN (SELECT value FROM json_each(?))", (json.dumps(batch),)
        )
        yield from (job_id for (job_id,) in found.fetchall() if file_stem(job_id) == job_id)
    if altered:
        yield from (job_id for (job_id,) in connection.execute(unsent) if file_stem(job_id) in altered)


def _asset_files(run_dir: Path) -> Iterator[str]:
    """Yield the names of the files in the folder of assets, and in those below it."""
    for _, _, names in os.walk(run_dir / ASSETS_NAME):
        yield from names


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
