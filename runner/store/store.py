"""The store of one run directory, for the process that runs it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.core.filenames import BLOCKS_NAME, DB_NAME
from runner.core.model import Asset, AssetKind, Attempt, Job, Json
from runner.core.sanitize import command_text
from runner.errors import RunDirError, RunnerError
from runner.store import files, query, rows, takes
from runner.store.costs import CostKeeper
from runner.store.database import (
    connect_both,
    database_error,
    delete_unused,
    translated,
)
from runner.store.files import Upload
from runner.store.freshness import (
    ChangedJobs,
    EpochFile,
    has_derived_files,
    require_database,
    results_fingerprint,
)
from runner.store.journal import Journal
from runner.store.local_view import (
    JOURNAL,
    REBUILT,
    is_ahead,
    mark_ahead,
    open_view,
    remember_journal,
    write_base,
)
from runner.store.lock import RETIRED, Place, RunLock, note_place, require_only
from runner.store.writer import DiskReserve, Writer, in_thread

BLOCKS = "blocks"
"""Key of what the blocks of jobs in the derived files are known by."""
_CLEAR_FINISHED = "DELETE FROM meta WHERE key = 'finished'"


class Store:
    """
    An open run directory: locked, and readable; during a run, changes are committed in groups.

    Use it as a context manager, and inside that as an asynchronous one for the run itself. Outside of the
    latter, `transaction` writes directly (new jobs, transitions of many jobs).

    Args:
        is_adopted: Whether a ``run.db`` that is older than its directory is opened all the same, because the caller
            takes over what the results know.
        journal: The log of the run off this machine, of which ``run.db`` is a view; None without one.
        may_be_retired: Whether a directory is opened all the same whose jobs went over to another one.

    Attributes:
        reader: A connection for `query`; it sees what is committed.
        meta: The values of the run as a whole, by key, as they were when it was opened.
        has_attempts: Whether any job was submitted by then, or may have been.
        was_finished: Whether the derived files were up to date by then, and in blocks.
        has_log: Whether ``run.db`` has a write-ahead log, which some file systems do not support.
        is_rebuilt: Whether ``run.db`` was made from the journal, and nobody has looked since whether files are missing here.
        is_cut_off: Whether the journal takes nothing from this process any more.
        costs: Follows what the attempts cost, as their jobs are saved.
        changed: The jobs that were changed since the derived files were written.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        journal: Journal | None = None,
        is_adopted: bool = False,
        may_be_retired: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self._is_adopted = is_adopted
        self._may_be_retired = may_be_retired
        self.journal = journal
        self.is_rebuilt = False
        self.is_cut_off = False
        self._is_refused = False
        self._may_have_others = journal is None
        self._checked_commit = 0
        self.costs = CostKeeper()

    def __enter__(self) -> Self:
        """
        Lock and open the directory; create it if it does not exist.

        Raises:
            RunLocked: Another process uses it.
            StoreMissing: There are results but no ``run.db``: jobs that were paid for would be paid for again.
            StoreOutdated: Its ``run.db`` is older than the files beside it.
            RunDirError: It can't be created, its ``run.db`` can't be used, or it was merged into another one.
        """
        with ExitStack() as stack, self._translated():
            is_new_dir = not self.run_dir.exists()
            # With exist_ok, it fails if another process deletes the directory now.
            with suppress(FileExistsError):
                self.run_dir.mkdir(parents=True)
            self._lock = stack.enter_context(RunLock(self.run_dir))
            self._is_new = not (self.run_dir / DB_NAME).exists()
            # Behind the connections and before the lock: nobody else uses what is deleted.
            stack.callback(self._undo_refused, is_new_dir=is_new_dir)
            needs_base = self.journal is not None and open_view(self.run_dir, self.journal, at=time.time())
            require_database(self.run_dir)
            self._lock.lock_database()
            self._connection, self.reader, self.has_log = connect_both(
                self.run_dir, is_adopted=self._is_adopted
            )
            stack.callback(self._connection.close)
            stack.callback(self.reader.close)
            self.meta = meta = query.meta(self.reader)
            self.has_attempts = query.has_attempts(self.reader)
            self._task_owners = query.TaskOwners(self.reader)
            self.is_rebuilt = REBUILT in meta
            has_blocks = (self.run_dir / BLOCKS_NAME).exists()
            self.was_finished = "finished" in meta and not self.is_rebuilt and has_blocks
            self._epoch_file = stack.enter_context(closing(EpochFile(self.run_dir)))
            self._epoch_file.record_opening(self._connection)
            self.changed = ChangedJobs(is_known=self.was_finished)
            if RETIRED in meta and not self._may_be_retired:
                into = meta[RETIRED]
                hint = f"continue there: {command_text('runner', 'resume', into)}"
                if not (Path(into) / DB_NAME).exists():
                    hint = "that merge was cut off, or what it made was moved: run the same runner merge again, or continue there"
                raise RunDirError(f"{self.run_dir} was merged into {into}, which has its jobs now", hint=hint)
            if self.journal is not None:
                remember_journal(self._connection, self.journal)
                if needs_base:
                    mark_ahead(self._connection)
            elif JOURNAL in meta and not self._may_be_retired:
                # What opens the directories of runs passes the journal that they remember.
                raise RunDirError(
                    f"{self.run_dir} can't continue without its journal",
                    hint=command_text("runner", "resume", self.run_dir),
                )
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing, translated(self.run_dir / DB_NAME):
            self._is_refused = self._is_new and error is not None
            if error is None:
                self.give_base()
            elif isinstance(error, sqlite3.DatabaseError):
                # Of a statement anywhere in the block.
                raise error

    def _undo_refused(self, *, is_new_dir: bool) -> None:
        """Delete a run that ended with an error before it sent anything, so that it does not count as the newest one."""
        if self._is_refused:
            with suppress(OSError, sqlite3.Error):
                delete_unused(self.run_dir, with_folder=is_new_dir)

    def give_base(self) -> None:
        """
        Make durable, off this machine, what was written directly; only while no run is active.

        Raises:
            Fenced: Another process has taken over the shard.
            ObjectStoreError: The journal's store can't be used.
        """
        if self.journal is None or self.is_cut_off or self.journal.is_closed:
            return
        try:
            with self._translated():
                if is_ahead(self._connection):
                    write_base(self._connection, self.run_dir, self.journal)
        except RunnerError:
            # It is reported once; the next process gives the journal what it lacks.
            self.is_cut_off = True
            raise

    @contextmanager
    def attached(self, database: Path, name: str) -> Iterator[None]:
        """Let `transaction` see another database under a name, until the block ends."""
        with translated(database):
            self._connection.execute(f"ATTACH DATABASE ? AS {name}", (str(database.absolute()),))
            try:
                yield
            finally:
                self._connection.execute(f"DETACH DATABASE {name}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Convert errors of SQLite and of the disk to the program's own."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise database_error(error, self.run_dir / DB_NAME) from error
        except OSError as error:
            raise RunDirError(
                f"{self.run_dir} can't be written: {error.strerror or error}",
                hint="choose another run directory with -o",
            ) from None

    def require_in_place(self, commit: int) -> None:
        """
        Check that the directory is still at its path; before anything is paid for.

        Args:
            commit: The commit of the intent, which has just become durable. All who wait for one continue in the same
                turn of the event loop, so they share one check.

        Raises:
            RunDirError: It was moved, replaced or deleted.
        """
        if commit != self._checked_commit:
            self._lock.require_in_place()
            self._checked_commit = commit

    def note_place(self) -> Place | None:
        """Save where the directory is; see `lock.note_place`. With a journal nothing is to be saved."""
        if self.journal is not None:
            return None
        with self._translated():
            before, self._may_have_others = note_place(self._connection, self.run_dir, self.meta)
        return before

    def require_only(self) -> None:
        """Check that no other directory of the run continues; see `lock.require_only`."""
        if self._may_have_others:
            with self._translated():
                require_only(self._connection, self.run_dir)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write directly, all or nothing; only while no run is active."""
        connection = self._connection
        with ExitStack() as stack:
            if self.changed.is_wanted:
                stack.enter_context(self.changed.watched(connection))
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            try:
                yield connection
                if connection.total_changes != before:
                    connection.execute(_CLEAR_FINISHED)
                    if self.journal is not None:
                        mark_ahead(connection)
                connection.execute("COMMIT")
            except BaseException:
                # Unless SQLite has done so, as it does when the disk is full.
                connection.rollback()
                raise

    def mark_finished(self, files: Sequence[str] = (), *, blocks: str = "") -> None:
        """
        Record that the result files are up to date, and their names; the next write removes that mark.

        Args:
            blocks: What the blocks of jobs in them are known by.
        """
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('finished', ?), ('results', ?), (?, ?)",
            (json.dumps(list(files)), results_fingerprint(self.run_dir), BLOCKS, blocks),
        )

    @property
    def is_finished(self) -> bool:
        """Whether the result files are up to date, and still there."""
        return has_derived_files(self.reader, self.run_dir)

    # During a run.

    async def __aenter__(self) -> Self:
        """Start the thread that commits."""
        if self.journal is not None:
            await in_thread(self.give_base)
        self._connection.execute(_CLEAR_FINISHED)
        self._reserve = DiskReserve(self.run_dir)
        self._writer = Writer(
            self._connection, self.run_dir / DB_NAME, self._reserve, self._epoch_file.write, self.journal
        )
        # From here on something may be sent.
        self._is_new = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._writer.close()
        self.is_cut_off = self._writer.error is not None
        self._reserve.close()
        del self._writer

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk is full, so that nothing more may be submitted."""
        return self._reserve.is_released

    @property
    def error(self) -> RunnerError | None:
        """Why nothing can be written for the rest of this process, or None."""
        return self._writer.error

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """
        Add a job in its current state, and what belongs to the change, to the next commit.

        Returns:
            The commit's number, for `durable`; also in `Job.commit`.

        """
        self.changed.add(job.seq)
        job.commit = self._writer.add(
            job=rows.job_row(job),
            attempts=None if attempt is None else rows.attempt_row(job.seq, attempt),
            assets=[rows.asset_row(job.seq, job.attempt, asset) for asset in assets] if assets else None,
            tracks=rows.tracks_row(job, assets) if assets else None,
            costs=None if job.cost is None else self.costs.update(job, job.cost, attempt, assets),
            answers=None
            if attempt is None or attempt.answer is None
            else (job.seq, attempt.number, attempt.answer),
        )
        if attempt is not None and attempt.task_id is not None:
            self._task_owners.add(
                attempt.task_id, job.job_id, commit=job.commit, durable=self._writer.last_durable
            )
        return job.commit

    def save_answer(self, job: Job, answer: str) -> None:
        """Add an answer that was not understood to the next commit, with the job's current attempt."""
        self._writer.add(answers=(job.seq, job.attempt, answer))

    def save_usage(self, job: Job, usage: Mapping[str, Json]) -> None:
        """Add what the task of the job's current attempt consumed to the next commit."""
        job.usage = usage
        self.changed.add(job.seq)
        job.commit = self._writer.add(usages=(job.seq, job.attempt, rows.canonical(usage)))

    def save_assets(self, job: Job, assets: Sequence[Asset]) -> None:
        """Add what a job has of its assets before its end to the next commit: files here, or uploads."""
        self.changed.add(job.seq)
        job.commit = self._writer.add(
            assets=[rows.asset_row(job.seq, job.attempt, asset) for asset in assets],
            tracks=rows.tracks_row(job, assets),
            urls=rows.urls_row(job, assets),
        )

    def save_findings(self, seq: int, attempt: int, findings: Json) -> None:
        """Add what checks of an attempt's video found to the next commit."""
        self.changed.add(seq)
        self._writer.add(checks=(seq, attempt, rows.canonical(findings)))

    def save_upload(self, upload: Upload) -> int:
        """Add how far an upload is to the next commit, and return the commit's number."""
        row = (upload.digest, upload.target, upload.state.value, upload.address, upload.expires_at)
        return self._writer.add(uploads=row)

    def task_owner(self, task_id: str) -> str | None:
        """Return the job that has, or had, a task; None if no job of the run has."""
        return self._task_owners.find(task_id)

    async def durable(self, number: int) -> None:
        """
        Wait until a commit is on disk.

        Raises:
            RunnerError: It could not be written.
        """
        if number > self._writer.last_durable:
            await self._writer.wait(number)

    def save_part(self, job: Job, kind: AssetKind, facts: Json) -> None:
        """Save what a later run must know to resume an unfinished download."""
        # In ASCII: a validator is a server's header, which may have characters that SQLite does not accept.
        self._writer.add(parts=(job.seq, kind.value, json.dumps(facts), job.attempt))

    def request_text(self, job: Job) -> str:
        """Return the text of a job's request."""
        return query.request_text(self.reader, job.seq)

    def load_parts(self, job: Job) -> Mapping[str, Json]:
        """Return what is known of the unfinished downloads of a job's current attempt, by kind of asset."""
        return files.parts_of(self.reader, job)

    def load_assets(self, job: Job) -> tuple[Asset, ...]:
        """Return the assets of a job's current attempt."""
        return takes.assets_of(self.reader, job.seq, job.attempt)

    def set_meta(self, key: str, value: str) -> None:
        """Save a value of the run as a whole, in the next commit."""
        self._writer.add(meta=(key, value))
