"""The files of a run directory that are derived from ``run.db``: appended as jobs end, made anew at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from runner.api.simulate import SIMULATED
from runner.core.model import JobRecord
from runner.core.settings import Settings
from runner.core.summary import Summary
from runner.results.files import ResultsWriter, atomic_write
from runner.results.formats import line_bytes, write_summary
from runner.schema.catalog import load as load_catalog
from runner.store import query
from runner.store.database import RESULTS_NAME, connect_reader
from runner.store.store import Store

FAILED_NAME, SUMMARY_NAME, REPORT_NAME = "failed.yaml", "summary.json", "report.html"


class Outputs:
    """
    The derived files of one run. Called from one thread at a time.

    Args:
        gateway: The base URL, or `rehearsal.SIMULATED`: every line names it.
    """

    def __init__(self, store: Store, settings: Settings, gateway: str) -> None:
        self._run_dir = store.run_dir
        self._settings = settings
        self.gateway = gateway
        # A connection of its own, since lines are appended in another thread than the engine's.
        self._reader = connect_reader(store.run_dir)
        self._writer: ResultsWriter | None = None

    def close(self) -> None:
        """Let go of the files."""
        if self._writer is not None:
            self._writer.close()
        self._reader.close()

    def append(self, seqs: Sequence[int]) -> None:
        """Append the lines of jobs that ended; a job that ended twice has two, and the later one counts."""
        if self._writer is None:
            self._writer = ResultsWriter(self._run_dir / RESULTS_NAME)
        self._writer.append(b"".join(map(self._line, query.records(self._reader, seqs))))

    def finish(self, *, now_at: float) -> Summary:
        """
        Make every file anew, and return what the run came to.

        Raises:
            DiskFull: There is no room; the old files stay.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        # Needed only here, at the end of a run, and slow to import.
        from runner.report.page import ReportBuilder, write_page

        page = ReportBuilder()
        with atomic_write(self._run_dir / RESULTS_NAME) as results:

            def take_in(record: JobRecord) -> None:
                results.write(self._line(record))
                page.add(record)

            # To read a job takes as long as to write it, so all files are written of one reading.
            self._write_failed(_shown_to(take_in, query.records(self._reader)))
        summary = page.summary.summary()
        write_summary(self._run_dir / SUMMARY_NAME, summary, run=self._settings.name, gateway=self.gateway)
        write_page(
            page,
            self._run_dir / REPORT_NAME,
            run=self._settings.name,
            gateway=self.gateway,
            now_at=now_at,
        )
        return summary

    def _write_failed(self, records: Iterable[JobRecord]) -> None:
        # Needed only here, at the end of a run.
        from runner.results.failed_manifest import write_failed

        write_failed(
            self._run_dir / FAILED_NAME,
            records,
            run=self._settings.name,
            base_url=None if self.gateway == SIMULATED else self.gateway,
            key_names=self._settings.key_names,
            known_keys=_known_keys,
            # A rehearsal hurries, and a real run of the same jobs must not.
            settings=None if self.gateway == SIMULATED else self._settings,
        )

    def _line(self, record: JobRecord) -> bytes:
        return line_bytes(record, run=self._settings.name, gateway=self.gateway)


def _shown_to(watch: Callable[[JobRecord], None], records: Iterable[JobRecord]) -> Iterator[JobRecord]:
    for record in records:
        watch(record)
        yield record


@cache
def _known_keys(schema: str) -> frozenset[str] | None:
    catalog = load_catalog()
    if schema not in catalog.names:
        return None
    return frozenset(catalog.schema(schema).document["properties"])
