"""Write the derived files of a run: all of them, or only the parts with jobs that were changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import msgspec
from msgspec import Struct

from runner.api.asset_store import PRESIGNED_S, AssetAddresses
from runner.api.blocks import (
    BLOCK_JOBS,
    AppendedBlock,
    AppendedBlocks,
    Block,
    Key,
    Written,
    encode_block,
    open_if_same,
    read_blocks,
)
from runner.api.config import RunConfig, run_environment
from runner.api.run_facts import RunFacts
from runner.core.filenames import BLOCKS_NAME, FAILED_NAME, REPORT_NAME, RESULTS_NAME, SUMMARY_NAME
from runner.core.model import FailureClass, JobRecord
from runner.core.summary import Summary
from runner.report.page import PageInfo, ReportBuilder, write_page
from runner.report.page_data import MAX_JOBS, JobSample
from runner.results.failed_manifest import JOBS_KEY, Entries, failed_entries, failed_header
from runner.results.formats import line_bytes, write_summary
from runner.results.verdicts import known_verdicts
from runner.results.writers import Splicer, atomic_write, translate_disk_full
from runner.schema.catalog import load_catalog
from runner.store import query
from runner.store.freshness import all_blocks


class FinalFiles:
    """
    Writes the derived files of a run at the end of a process.

    Args:
        keeps_blocks: Whether to write down what each block of jobs is in the files, for the next process.
        block_jobs: The size of a block.
        appended: The blocks whose lines this process appended, if it did.
    """

    def __init__(
        self,
        run_dir: Path,
        facts: RunFacts,
        reader: sqlite3.Connection,
        *,
        keeps_blocks: bool,
        block_jobs: int = BLOCK_JOBS,
        appended: AppendedBlocks | None = None,
    ) -> None:
        self._run_dir, self._facts, self._reader = run_dir, facts, reader
        self._run, self._gateway = facts.settings.name, facts.gateway
        self._keeps_blocks = keeps_blocks
        self._block_jobs = block_jobs
        self._appended = appended
        settings = facts.settings
        environ = facts.environ if isinstance(facts, RunConfig) else run_environment(facts)
        self._address = AssetAddresses(run_dir, environ)
        self._header = failed_header(
            run_dir / FAILED_NAME,
            run=self._run,
            base_url=settings.base_url,
            key_names=settings.key_names,
            settings=settings,
            schemas=settings.schemas,
        )
        self.failed_start = len(self._header)

    def write(self, old: Written | None, changed: set[Key] | None, *, now_at: float) -> Summary:
        """
        Write all files, each atomically, and return the summary of the run.

        Args:
            old: The files that an earlier process wrote; None if they can't be used.
            changed: The blocks with jobs that were changed since; None if that is not known.

        Raises:
            DiskFull: There is no room; the old files stay.
        """
        report = self._run_dir / REPORT_NAME
        with translate_disk_full(report), TemporaryFile(dir=self._run_dir) as rows:
            page = None
            if old is not None and changed is not None:
                with suppress(_Unusable, msgspec.MsgspecError):
                    page = self._write_changed(old, changed, rows)
            if page is None:
                # In the order of the lines.
                keys = all_blocks(self._reader, self._block_jobs)
                page = self._write_blocks(_OldFiles((Block(key), b"") for key in keys), None, rows)
            summary = page.summary.summary()
            write_summary(self._run_dir / SUMMARY_NAME, summary, run=self._run, gateway=self._gateway)
            origins, until_at = self._address.origins, now_at + PRESIGNED_S
            info = PageInfo(
                self._run, self._gateway, self._run_dir, now_at, origins=origins, links_until=until_at
            )
            write_page(page, report, info)
        return summary

    def _write_changed(self, old: Written, changed: set[Key], rows: BinaryIO) -> ReportBuilder:
        """
        Write results, `failed.yaml` and blocks, and take over what was not changed.

        Raises:
            _Unusable: The old files do not allow that.
            msgspec.MsgspecError: The old blocks can't be read.
        """
        with ExitStack() as stack:

            def opened(place: int, name: str, *, has_grown: bool = False) -> int | None:
                descriptor = open_if_same(self._run_dir / name, old.files[place], has_grown=has_grown)
                if descriptor is not None:
                    stack.callback(os.close, descriptor)
                return descriptor

            # Lines were appended as jobs ended.
            results, failed = opened(0, RESULTS_NAME, has_grown=True), opened(1, FAILED_NAME)
            index = opened(2, BLOCKS_NAME)
            if results is None or index is None or (failed is None and old.files[1] is not None):
                raise _Unusable
            blocks = read_blocks(stack.enter_context(os.fdopen(os.dup(index), "rb")))
            return self._write_blocks(_OldFiles(blocks, results, failed, old.failed_start), changed, rows)

    def _write_blocks(self, old: _OldFiles, changed: set[Key] | None, rows: BinaryIO) -> ReportBuilder:
        lists_all = changed is None and not query.has_jobs(self._reader, MAX_JOBS + 1)
        verdicts = known_verdicts(self._run_dir)
        page = _Page(
            self._reader,
            ReportBuilder(verdicts, rows, self._address),
            lists_all=lists_all,
            has_verdicts=bool(verdicts),
        )
        with ExitStack() as stack:
            results, failed = (
                stack.enter_context(atomic_write(self._run_dir / name))
                for name in (RESULTS_NAME, FAILED_NAME)
            )
            index: BinaryIO = BytesIO()
            if self._keeps_blocks:
                index = stack.enter_context(atomic_write(self._run_dir / BLOCKS_NAME))
            failed.write(self._header)
            lines = Splicer(results, old.results)
            entries = _FailedEntries(Splicer(failed, old.failed, start=old.failed_start))
            for before, text in old.blocks:
                is_kept = changed is not None and before.key not in changed
                # Without jobs to run, there is no file that has the comments.
                if is_kept and not (before.comment_bytes and old.failed is None):
                    lines.keep(before.result_bytes)
                    entries.keep(before)
                    page.add(before)
                    index.write(text)
                    continue
                block, new_lines, new_entries = self._render(before.key, page)
                lines.skip(before.result_bytes)
                lines.write(new_lines)
                entries.replace(before, new_entries)
                page.add(block)
                block.totals.summary.forget_durations(page.builder.summary)
                index.write(encode_block(block))
            lines.flush()
            entries.flush()
            if not page.builder.summary.is_exact:
                raise _Unusable
        if not entries.has_jobs:
            (self._run_dir / FAILED_NAME).unlink()
        if not self._keeps_blocks:
            (self._run_dir / BLOCKS_NAME).unlink(missing_ok=True)
        return page.finish()

    def _render(self, key: Key, page: _Page) -> tuple[Block, bytes, Entries]:
        """Return a block with its lines and its entries in `failed.yaml`; its jobs are read unless that was done."""
        appended = None if self._appended is None else self._appended.find(key)
        if appended is not None and page.take(appended):
            block, text = appended.block(key), appended.text
            records = list(query.records(self._reader, block.others))
        else:
            block, text, records = self._read(key, page)
        entries = failed_entries(records, self._run_dir, _known_keys)
        block.result_bytes = len(text)
        block.comment_bytes, block.failed_bytes = len(entries.comments), len(entries.jobs)
        return block, text, entries

    def _read(self, key: Key, page: _Page) -> tuple[Block, bytes, list[JobRecord]]:
        """Read the jobs of a block, and return it with its lines and its jobs."""
        block, lines, records = Block(key), [], []
        for seq, record in query.records_of_block(self._reader, key, self._block_jobs):
            block.add(seq, record)
            lines.append(line_bytes(record, run=self._run, gateway=self._gateway))
            records.append(record)
            page.read(record)
        return block, b"".join(lines), records


class _Unusable(Exception):
    """The old files can't be used."""


class _OldFiles(Struct):
    """What an earlier process wrote: blocks with their texts, and descriptors."""

    blocks: Iterable[tuple[Block, bytes]]
    results: int | None = None
    failed: int | None = None
    failed_start: int = 0


class _FailedEntries(Struct):
    """Writes the jobs of `failed.yaml`, with their key before the first one to run."""

    splicer: Splicer
    _had_jobs: bool = False
    has_jobs: bool = False

    def keep(self, block: Block) -> None:
        """Take over what the old file has of a block."""
        has_key = self._passes_key(block)
        needs_key = bool(block.failed_bytes) and not self.has_jobs
        self.splicer.keep(block.comment_bytes)
        if has_key and needs_key:
            self.splicer.keep(len(JOBS_KEY))
        elif has_key:
            self.splicer.skip(len(JOBS_KEY))
        elif needs_key:
            self.splicer.write(JOBS_KEY)
        self.splicer.keep(block.failed_bytes)
        self.has_jobs = self.has_jobs or needs_key

    def replace(self, block: Block, entries: Entries) -> None:
        """Write entries in place of those that the old file has of a block."""
        key_bytes = len(JOBS_KEY) if self._passes_key(block) else 0
        self.splicer.skip(block.comment_bytes + key_bytes + block.failed_bytes)
        needs_key = bool(entries.jobs) and not self.has_jobs
        self.splicer.write(entries.comments + (JOBS_KEY if needs_key else b"") + entries.jobs)
        self.has_jobs = self.has_jobs or needs_key

    def flush(self) -> None:
        """Copy what was kept."""
        self.splicer.flush()

    def _passes_key(self, block: Block) -> bool:
        """Return whether the old file has the key of jobs in a block."""
        if self._had_jobs or not block.failed_bytes:
            return False
        self._had_jobs = True
        return True


class _Page:
    """
    Collects what the report shows from blocks.

    Args:
        lists_all: Whether all jobs are read, and listed; else those that are listed are read at the end.
        has_verdicts: Whether rows may have to show what a person thinks.
    """

    def __init__(
        self, reader: sqlite3.Connection, builder: ReportBuilder, *, lists_all: bool, has_verdicts: bool
    ) -> None:
        self._reader = reader
        self._lists_all = lists_all
        self._has_verdicts = has_verdicts
        self.builder = builder
        self._sample: JobSample[int] = JobSample(MAX_JOBS)
        self._examples: dict[FailureClass, int] = {}

    def read(self, record: JobRecord) -> None:
        """List a job, if all are listed."""
        if self._lists_all:
            self.builder.add_row(record)

    def take(self, block: AppendedBlock) -> bool:
        """List the jobs of a block, if all are listed; return whether that is possible without reading them."""
        if not self._lists_all:
            return True
        if self._has_verdicts or any(line.row is None for line in block.lines):
            return False
        for line in block.lines:
            self.builder.add_made_row(line.row or b"", line.index, succeeded=line.succeeded)
        return True

    def add(self, block: Block) -> None:
        """Add the jobs of a block."""
        self.builder.totals.merge(block.totals)
        self._examples = {**block.examples, **self._examples}
        if self._lists_all:
            return
        for seqs, succeeded in ((block.succeeded, True), (block.others, False)):
            for seq in seqs:
                self._sample.add(partial(int, seq), succeeded=succeeded)

    def finish(self) -> ReportBuilder:
        """Read the jobs that are listed."""
        for record in query.records(self._reader, self._sample.items()):
            self.builder.add_row(record)
        for record in query.records(self._reader, list(self._examples.values())):
            if record.error is not None:
                self.builder.examples[record.error.cls] = record
        return self.builder


@cache
def _known_keys(schema: str) -> frozenset[str] | None:
    catalog = load_catalog()
    if schema not in catalog.names:
        return None
    return frozenset(catalog.schema(schema).document["properties"])
