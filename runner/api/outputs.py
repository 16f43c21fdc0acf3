"""The files of a run directory that are derived from ``run.db``: appended to as jobs end, rewritten at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from runner.api.run_facts import RunFacts
from runner.core.filenames import FAILED_NAME, REPORT_NAME, RESULTS_NAME, SUMMARY_NAME
from runner.core.model import JobRecord
from runner.core.summary import Summary
from runner.errors import ObjectStoreError
from runner.results.failed_manifest import write_failed
from runner.results.files import ResultsWriter, atomic_write
from runner.results.formats import line_bytes, write_summary
from runner.results.verdicts import known_verdicts
from runner.schema.catalog import load_catalog
from runner.store import query
from runner.store.database import connect_reader
from runner.store.store import Store


class Outputs:
    """The derived files of one run. Called from one thread at a time."""

    def __init__(self, store: Store, facts: RunFacts) -> None:
        self._store = store
        self._run_dir = store.run_dir
        self._facts = facts
        self._run, self._gateway = facts.settings.name, facts.gateway
        # A connection of its own, since lines are appended in another thread than the engine's.
        self._reader = connect_reader(store.run_dir)
        self._writer: ResultsWriter | None = None

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
        self._reader.close()

    def append(self, seqs: Sequence[int]) -> dict[str, tuple[Path, ...]]:
        """
        Append the lines of jobs that ended; a job that ended twice has two, and the later one counts.

        Returns:
            The files of the jobs, by job id.
        """
        if self._writer is None:
            self._writer = ResultsWriter(self._run_dir / RESULTS_NAME)
        records = list(query.records(self._reader, seqs))
        self._writer.append(b"".join(map(self._line, records)))
        return {
            record.job_id: tuple(self._run_dir / asset.path for asset in record.assets) for record in records
        }

    def finish(self, *, now_at: float) -> Summary:
        """
        Rewrite every file, record that they are up to date, and return the summary of the run.

        Raises:
            DiskFull: There is no room; the old files stay.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        # Its template engine is slow to import, and not needed before the end of a run.
        from runner.report.page import PageInfo, ReportBuilder, write_page

        page = ReportBuilder(known_verdicts(self._run_dir))
        with atomic_write(self._run_dir / RESULTS_NAME) as results:

            def add(record: JobRecord) -> None:
                results.write(self._line(record))
                page.add(record)

            # Reading a job takes as long as writing it, so one pass serves all files.
            has_failed = self._write_failed(_each(add, query.records(self._reader))) > 0
        summary = page.summary.summary()
        write_summary(self._run_dir / SUMMARY_NAME, summary, run=self._run, gateway=self._gateway)
        info = PageInfo(self._run, self._gateway, self._run_dir, now_at)
        write_page(page, self._run_dir / REPORT_NAME, info)
        names = [RESULTS_NAME, SUMMARY_NAME, REPORT_NAME]
        self._store.mark_finished([*names, FAILED_NAME] if has_failed else names)
        journal = self._store.journal
        if journal is not None and not self._store.is_cut_off:
            # They can be written again from the log, by anybody who opens it.
            with suppress(ObjectStoreError, OSError):
                journal.put_file(self._run_dir / RESULTS_NAME)
        return summary

    def _write_failed(self, records: Iterable[JobRecord]) -> int:
        settings = self._facts.settings
        return write_failed(
            self._run_dir / FAILED_NAME,
            records,
            run=self._run,
            base_url=settings.base_url,
            key_names=settings.key_names,
            known_keys=_known_keys,
            settings=settings,
            schemas=settings.schemas,
        )

    def _line(self, record: JobRecord) -> bytes:
        return line_bytes(record, run=self._run, gateway=self._gateway)


def _each(use: Callable[[JobRecord], None], records: Iterable[JobRecord]) -> Iterator[JobRecord]:
    """Yield records after something was done with each."""
    for record in records:
        use(record)
        yield record


@cache
def _known_keys(schema: str) -> frozenset[str] | None:
    catalog = load_catalog()
    if schema not in catalog.names:
        return None
    return frozenset(catalog.schema(schema).document["properties"])
