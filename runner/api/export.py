"""Export runs as a dataset. They are only read, so they may be active."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from runner.api.config import read_environment, run_environment
from runner.api.options import DEFAULT_OPTIONS
from runner.api.rerun_from_results import run_dir_of
from runner.api.run_dir import require_run
from runner.api.run_facts import read_facts
from runner.core.filenames import DB_NAME, RESULTS_NAME, VERDICTS_NAME
from runner.core.model import Verdicts
from runner.errors import ExportError, ResultsError
from runner.export.dataset import OnProgress
from runner.export.dataset import export as export_dataset
from runner.export.roots import Bucket, Folder, Root
from runner.export.selection import DatasetPlan, ExportOptions, Source, SourceRecord
from runner.objects import Objects, open_store, url_of_path
from runner.objects.base import ObjectMissing, ObjectStore
from runner.results.reader import open_results
from runner.results.verdicts import read_verdicts
from runner.results.writers import translate_disk_full
from runner.store import query
from runner.store.database import reading


def export(
    paths: Sequence[Path],
    options: ExportOptions,
    out: Path,
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[DatasetPlan, tuple[str, ...]]:
    """
    Make a dataset from the succeeded jobs of runs.

    Args:
        paths: Run directories, results files with their assets beside them, or URLs of buckets that have what a run
            directory has. Several are read by their results files, as if these were one.

    Returns:
        What is in the dataset, and warnings about the results files.

    Raises:
        StoreMissing, StoreDamaged, StoreTooNew: One is not a run directory, or one that can't be read.
        ResultsError: A results file or the verdicts can't be read.
        ObjectStoreError: A bucket can't be read.
        ExportError: See `runner.export.dataset.export`, for other errors too.
    """
    if len(paths) == 1 and url_of_path(paths[0]) is None:
        run_dir = run_dir_of(paths[0])
        if run_dir is not None:
            require_run(run_dir)
            if (run_dir / DB_NAME).exists():
                return _export_run(run_dir, options, out, on_progress), ()
    with ExitStack() as stack:
        environ = read_environment(DEFAULT_OPTIONS, Path())
        objects = Objects(environ)
        places = [_open(path, options, stack, objects, environ) for path in paths]
        results = open_results(*(place for place, _ in places))
        records = (SourceRecord(line.run, line.gateway or "", line.record, line.file) for line in results)
        source = Source(tuple(root for _, root in places), tuple(results.runs), records)
        name = url_of_path(paths[0]) or results.path if len(paths) == 1 else "the results"
        warnings = tuple(f"{name} {warning}" for warning in results.warnings)
        return export_dataset(source, options, out, on_progress), warnings


def _open(
    path: Path, options: ExportOptions, stack: ExitStack, objects: Objects, environ: Mapping[str, str]
) -> tuple[Path, Root]:
    """Return the path of the results of a run, and where its videos are."""
    url = url_of_path(path)
    if url is not None:
        store = open_store(url, environ)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runner-")))
        if not _fetch(store, RESULTS_NAME, folder):
            raise ResultsError(
                f"{url} has no {RESULTS_NAME}",
                hint="name the folder of the bucket that has what a run directory has",
            )
        _fetch(store, VERDICTS_NAME, folder)
        return folder / RESULTS_NAME, Bucket(store, _verdicts(folder, options), objects)
    if path.is_dir():
        require_run(path)
        path = path / RESULTS_NAME
    return path, Folder(path.parent, _verdicts(path.parent, options), objects)


def _fetch(store: ObjectStore, name: str, folder: Path) -> bool:
    """Copy an object into a folder; return whether it exists."""
    try:
        with translate_disk_full(folder), (folder / name).open("wb") as file:
            for part in store.read(name):
                file.write(part)
    except ObjectMissing:
        return False
    return True


def _verdicts(folder: Path, options: ExportOptions) -> Verdicts:
    return Verdicts() if options.verdict is None else read_verdicts(folder / VERDICTS_NAME)


def _export_run(run_dir: Path, options: ExportOptions, out: Path, on_progress: OnProgress) -> DatasetPlan:
    verdicts = _verdicts(run_dir, options)
    with reading(run_dir) as reader:
        facts = read_facts(reader)
        if facts is None:
            raise ExportError(
                f"{run_dir} holds no jobs yet: there is nothing to export", hint="runner run MANIFEST"
            )
        run, gateway = facts.settings.name, facts.gateway
        records: Iterator[SourceRecord] = (
            SourceRecord(run, gateway, record) for record in query.records(reader)
        )
        root = Folder(run_dir, verdicts, Objects(run_environment(facts)))
        source = Source((root,), (run,), records)
        return export_dataset(source, options, out, on_progress)
