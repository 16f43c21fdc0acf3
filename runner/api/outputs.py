"""The files of a run directory that are derived from ``run.db``: appended to as jobs end, brought up to date at the end."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

import msgspec

from runner.api.blocks import BLOCK_JOBS, AppendedBlocks, Written, written
from runner.api.run_facts import RunFacts
from runner.core.filenames import FAILED_NAME, REPORT_NAME, RESULTS_NAME, SUMMARY_NAME
from runner.core.model import JobRecord
from runner.core.summary import Summary
from runner.engine.events import Delivered
from runner.errors import ObjectStoreError
from runner.results.formats import line_bytes
from runner.results.writers import ResultsWriter
from runner.store import query
from runner.store.database import connect_beside
from runner.store.store import BLOCKS, Store

_MIN_JOBS = 5_000


class Outputs:
    """
    The derived files of one run. Called from one thread at a time.

    Args:
        min_jobs: From how many jobs on it is remembered what each block of them is in the files, so that the next
            process writes only the blocks with changed jobs again.
        block_jobs: The size of a block.
    """

    def __init__(
        self, store: Store, facts: RunFacts, *, min_jobs: int = _MIN_JOBS, block_jobs: int = BLOCK_JOBS
    ) -> None:
        self._store = store
        self._run_dir = store.run_dir
        self._facts = facts
        self._min_jobs, self._block_jobs = min_jobs, block_jobs
        self._run = facts.settings.name
        self._writer: ResultsWriter | None = None
        self._blocks: AppendedBlocks | None = None
        # Before lines are appended.
        self._old = self._files_of_last_process() if store.was_finished else None

    def close(self) -> None:
        """Close the files."""
        self._close_writer()
        if "_reader" in vars(self):
            self._reader.close()

    @cached_property
    def _reader(self) -> sqlite3.Connection:
        """A connection of its own, since lines are appended in another thread than the engine's."""
        return connect_beside(self._run_dir)

    def append(self, seqs: Mapping[str, int]) -> dict[str, Delivered]:
        """
        Append the lines of jobs that ended; a job that ended twice has two, and the later one counts.

        Args:
            seqs: The keys of the jobs, by job id.

        Returns:
            The files of the jobs, by job id.
        """
        if self._writer is None:
            self._writer = ResultsWriter(self._run_dir / RESULTS_NAME)
            with suppress(OSError):
                self._blocks = AppendedBlocks(self._store, self._reader, self._writer, self._block_jobs)
        records = list(query.records(self._reader, list(seqs.values())))
        lines = [line_bytes(record, run=self._run, gateway=self._facts.gateway) for record in records]
        start = self._writer.append(b"".join(lines))
        if self._blocks is not None:
            try:
                self._blocks.add(seqs, records, lines, start)
            except OSError:
                # The jobs are read again at the end.
                self._close_blocks()
        return {record.job_id: self._delivered(record) for record in records}

    def finish(self, *, now_at: float) -> Summary:
        """
        Bring every file up to date, record that they are, and return the summary of the run.

        Raises:
            DiskFull: There is no room; the old files stay.
            Fenced, ObjectStoreError: As for `Store.give_base`.
        """
        # First: what only the files have after a kill would make run.db look older than its directory.
        self._store.give_base()
        # Its template engine is slow to import, and not needed before the end of a run.
        from runner.api.final_files import FinalFiles

        keeps_blocks = query.has_jobs(self._reader, self._min_jobs)
        files = FinalFiles(
            self._run_dir,
            self._facts,
            self._reader,
            keeps_blocks=keeps_blocks,
            block_jobs=self._block_jobs,
            appended=self._blocks,
        )
        changed = None if self._old is None else self._store.changed.blocks(self._reader, self._block_jobs)
        summary = files.write(self._old, changed, now_at=now_at)
        self._old = None
        self._close_writer()
        names = [RESULTS_NAME, SUMMARY_NAME, REPORT_NAME]
        if (self._run_dir / FAILED_NAME).exists():
            names.append(FAILED_NAME)
        new = written(
            self._run_dir, run=self._run, gateway=self._facts.gateway, failed_start=files.failed_start
        )
        self._store.mark_finished(names, blocks=msgspec.json.encode(new).decode() if keeps_blocks else "")
        journal = self._store.journal
        if journal is not None and not self._store.is_cut_off:
            # They can be written again from the log, by anybody who opens it.
            with suppress(ObjectStoreError, OSError):
                journal.put_file(self._run_dir / RESULTS_NAME)
        return summary

    def _close_writer(self) -> None:
        self._close_blocks()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close_blocks(self) -> None:
        if self._blocks is not None:
            self._blocks.close()
            self._blocks = None

    def _files_of_last_process(self) -> Written | None:
        """Return the files that are there, if an earlier process wrote them and all were up to date."""
        try:
            old = msgspec.json.decode(self._store.meta.get(BLOCKS, ""), type=Written)
        except msgspec.MsgspecError:
            return None
        now = written(
            self._run_dir, run=self._run, gateway=self._facts.gateway, failed_start=old.failed_start
        )
        return old if old == now else None

    def _delivered(self, record: JobRecord) -> Delivered:
        store = self._facts.origin.asset_store
        is_here = store is None or store.keeps_local
        assets = record.assets
        names = tuple([asset.path for asset in assets if is_here or asset.url is None])
        urls = tuple([asset.url for asset in assets if asset.url is not None])
        return Delivered(self._run_dir, names, urls, sum([asset.bytes for asset in assets]))
