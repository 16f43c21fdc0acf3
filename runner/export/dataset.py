"""
Make a dataset: whole under its final name, or not there.

Everything is written into a folder beside it, ``.NAME.partial``. If the process dies, or the disk is full, the same
command continues there, as long as the jobs and the options are the same; at the end the folder gets its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.disk import sync_folder, write_error
from runner.errors import ExportError, RunLocked
from runner.export import parquet, videofolder, webdataset
from runner.export.card import card
from runner.export.parquet import require_pyarrow
from runner.export.roots import Root
from runner.export.selection import ExportOptions, Format, Plan, Source, write_plan
from runner.export.videos import SplitTask
from runner.results.writers import atomic_write
from runner.store.lock import RunLock

_WRITERS: Mapping[Format, Callable[[SplitTask], None]] = {
    Format.VIDEOFOLDER: videofolder.write_split,
    Format.WEBDATASET: webdataset.write_split,
    Format.PARQUET: parquet.write_split,
}

OnProgress = Callable[[int, int], None]
"""
Called with the number of videos that are in the dataset, and with the number that will be; while that is not known,
with the number of jobs that were read, and 0.
"""


def export(source: Source, options: ExportOptions, out: Path, on_progress: OnProgress) -> Plan:
    """
    Make a dataset in a directory that does not exist yet, or is empty.

    Raises:
        ExportError: The directory is in use, no job is selected, a video is missing or has changed, or does not fit.
        UsageError: A package is missing.
        RunLocked: Another process makes the same dataset.
        DiskFull: There is no room; what was written is kept for the next time.
        RunDirError: The directory can't be written.
    """
    if options.format is not Format.WEBDATASET:
        require_pyarrow()
    out = Path(os.path.abspath(out))
    _require_free(out)
    work = out.with_name(f".{out.name}.partial")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work):
            plan = _plan(source, options, work, on_progress)
            _write(plan, source.roots, options, work, on_progress)
            _publish(work / "dataset", out)
            # The dataset is there, whatever becomes of the rest.
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise write_error(error, error.filename or out) from error
    return plan


def _require_free(out: Path) -> None:
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists already", hint="name another directory, or remove it")


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    try:
        with RunLock(work):
            yield
    except RunLocked as error:
        raise RunLocked(error.message, hint="wait for that export, or name another directory") from None


def _plan(source: Source, options: ExportOptions, work: Path, on_progress: OnProgress) -> Plan:
    """Write the rows, and remove what an earlier export has written of other rows."""
    rows, dataset, digest = work / "rows", work / "dataset", work / "digest"
    _remove(rows)
    rows.mkdir()
    try:
        plan = write_plan(source, options, rows, lambda read: on_progress(read, 0))
    except BaseException:
        if not dataset.exists():
            shutil.rmtree(work)
        raise
    if not digest.exists() or digest.read_text() != plan.digest:
        _remove(dataset)
        with atomic_write(digest) as file:
            file.write(plan.digest.encode())
    (dataset / "data").mkdir(parents=True, exist_ok=True)
    for folder, _, names in os.walk(dataset):
        for name in names:
            # No file of a dataset begins with a dot, but one that a process left when it died does.
            if name.startswith("."):
                os.unlink(os.path.join(folder, name))
    return plan


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _write(
    plan: Plan, roots: Sequence[Root], options: ExportOptions, work: Path, on_progress: OnProgress
) -> None:
    done = 0

    def on_row() -> None:
        nonlocal done
        done += 1
        on_progress(done, plan.rows)

    for name, split in plan.splits.items():
        task = SplitTask(name, split.shards, work / "dataset" / "data", work / "rows", roots, options, on_row)
        _WRITERS[options.format](task)
    with atomic_write(work / "dataset" / "README.md") as file:
        file.write(card(plan, options).encode())


def _publish(dataset: Path, out: Path) -> None:
    """Give the dataset its name, after everything in it is durable."""
    for folder, _, _ in os.walk(dataset):
        sync_folder(folder)
    dataset.replace(out)
    sync_folder(out.parent)
