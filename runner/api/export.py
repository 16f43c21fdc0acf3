"""Export a run as a dataset. The run is only read, so it may be active."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from runner.api.rerun_from_results import run_dir_of
from runner.api.run_dir import require_run
from runner.api.run_facts import read_facts
from runner.core.filenames import DB_NAME, RESULTS_NAME, VERDICTS_NAME
from runner.core.verdicts import Verdicts
from runner.errors import ExportError
from runner.export.dataset import OnProgress
from runner.export.dataset import export as export_dataset
from runner.export.plan import ExportOptions, Plan, Source, SourceRecord
from runner.results.reader import open_results
from runner.results.verdicts import read_verdicts
from runner.store import query
from runner.store.database import connect_reader, translated


def export(
    path: Path, options: ExportOptions, out: Path, on_progress: OnProgress = lambda done, total: None
) -> tuple[Plan, tuple[str, ...]]:
    """
    Make a dataset from the succeeded jobs of a run.

    Args:
        path: A run directory, or a results file with its assets beside it.

    Returns:
        What is in the dataset, and warnings about the results file.

    Raises:
        StoreMissing, StoreDamaged, StoreTooNew: It is no run directory, or one that can't be read.
        ResultsError: The results file or the verdicts can't be read.
        ExportError: See `runner.export.dataset.export`, for other errors too.
    """
    run_dir = run_dir_of(path)
    if run_dir is not None:
        require_run(run_dir)
    root = run_dir or path.parent
    verdicts = Verdicts() if options.verdict is None else read_verdicts(root / VERDICTS_NAME)
    if run_dir is not None and (run_dir / DB_NAME).exists():
        return _export_run(run_dir, verdicts, options, out, on_progress), ()
    results = open_results(path if run_dir is None else run_dir / RESULTS_NAME)
    records = (SourceRecord(line.run, line.gateway or "", line.record) for line in results)
    source = Source(root, tuple(results.runs), records, verdicts)
    warnings = tuple(f"{results.path} {warning}" for warning in results.warnings)
    return export_dataset(source, options, out, on_progress), warnings


def _export_run(
    run_dir: Path, verdicts: Verdicts, options: ExportOptions, out: Path, on_progress: OnProgress
) -> Plan:
    with closing(connect_reader(run_dir)) as reader, translated(run_dir / DB_NAME):
        facts = read_facts(reader)
        if facts is None:
            raise ExportError(
                f"{run_dir} holds no jobs yet: there is nothing to export", hint="runner run MANIFEST"
            )
        run, gateway = facts.settings.name, facts.gateway
        records: Iterator[SourceRecord] = (
            SourceRecord(run, gateway, record) for record in query.records(reader)
        )
        return export_dataset(Source(run_dir, (run,), records, verdicts), options, out, on_progress)
