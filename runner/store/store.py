"""The store of one run directory, for the process that runs it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.core.model import Asset, AssetKind, Attempt, Job, Json
from runner.errors import RunDirError, RunnerError
from runner.store import query, rows
from runner.store.database import DB_NAME, connect_reader, connect_writer, journal_mode, translated
from runner.store.lock import RunLock
from runner.store.writer import DiskReserve, Writer

_FORGET_FINISHED = "DELETE FROM meta WHERE key = 'finished'"


class Store:
    """
    A run directory that is open for work: locked, readable, and written in groups.

    Use it as a context manager, then `writing` around the run itself. Before
    that, `transaction` allows plain writes (taking jobs in, settling them).

    Attributes:
        reader: A connection for `query`; it sees what is committed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = RunLock(run_dir)
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        """
        Lock and open the directory, making it where it does not exist.

        Raises:
            RunLocked: Another process works in it.
            RunDirError: It can't be made, or its ``run.db`` can't be used.
        """
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        except OSError as error:
            raise RunDirError(
                f"{self.run_dir} can't be written: {error.strerror or error}",
                hint="choose another run directory with -o",
            ) from None
        try:
            self._connection = connect_writer(self.run_dir)
            self.reader = connect_reader(self.run_dir, with_temp_tables=True)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()
        self._connection.close()
        self._lock.__exit__(kind, error, trace)

    @property
    def journal_mode(self) -> str:
        """Name SQLite's journal: ``wal``, or ``delete`` on file systems that can't do that."""
        return journal_mode(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write directly, all or nothing; only while no run is going."""
        connection = self._connection
        with translated(self.run_dir / DB_NAME):
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            try:
                yield connection
                if connection.total_changes != before:
                    connection.execute(_FORGET_FINISHED)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def mark_finished(self) -> None:
        """Note that the derived files show the store as it stands; the next write forgets that."""
        with translated(self.run_dir / DB_NAME):
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('finished', '1')")

    @property
    def is_finished(self) -> bool:
        """The derived files show the store as it stands."""
        return self.meta("finished") is not None

    def meta(self, key: str) -> str | None:
        """Read a fact about the whole run."""
        return query.meta(self.reader, key)

    # While a run is going.

    async def __aenter__(self) -> Self:
        """Start the thread that commits."""
        with translated(self.run_dir / DB_NAME):
            self._connection.execute(_FORGET_FINISHED)
        self._reserve = DiskReserve(self.run_dir)
        self._writer = Writer(self._connection, self.run_dir / DB_NAME, self._reserve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._writing.close()
        self._reserve.close()
        self._writer = None

    @property
    def is_disk_full(self) -> bool:
        """The disk is full: nothing more may be submitted."""
        return self._writing.is_disk_full

    @property
    def error(self) -> RunnerError | None:
        """What keeps the store from being written for the rest of this process, or None."""
        return self._writing.error

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """
        Put a job as it stands now, and what belongs to the change, into the next commit.

        Returns:
            The commit's number, for `durable`; the job remembers it too.

        """
        job.commit = self._writing.add(
            job=rows.job_row(job),
            attempt=None if attempt is None else rows.attempt_row(job.seq, attempt),
            assets=[rows.asset_row(job, asset) for asset in assets] if assets else None,
        )
        return job.commit

    async def durable(self, number: int) -> None:
        """
        Wait until a commit is on disk.

        Raises:
            RunnerError: It could not be written.
        """
        writing = self._writing
        if number > writing.durable:
            await writing.wait(number)

    def save_part(self, job: Job, kind: AssetKind, facts: Json) -> None:
        """Keep what a later run must know to go on with an unfinished download."""
        # In ASCII: a validator is a server's header, and may hold what SQLite does not take.
        self._writing.add(part=(job.seq, kind.value, json.dumps(facts), job.attempt))

    def request_text(self, job: Job) -> str:
        """Read a job's request as it is stored."""
        return query.request_text(self.reader, job.seq)

    def load_parts(self, job: Job) -> Mapping[str, Json]:
        """Read what is remembered of the unfinished downloads of a job's present attempt, by kind of asset."""
        return query.parts_of(self.reader, job)

    def load_assets(self, job: Job) -> tuple[Asset, ...]:
        """Read the assets that a job's present attempt has."""
        return query.assets_of(self.reader, job)

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact about the whole run."""
        self._writing.add(meta=(key, value))

    @property
    def _writing(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("the store is not open for a run")
        return self._writer
