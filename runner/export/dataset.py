"""
Make a dataset, with its README: whole under its final name, or not there.

Everything is written into a folder beside it, ``.NAME.partial``. If the process dies, or the disk is full, the same
command continues there, as long as the jobs and the options are the same; at the end the folder gets its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from runner import __version__
from runner.core.lifecycle import State
from runner.core.sanitize import sanitize_line
from runner.core.units import format_count, format_size
from runner.disk import sync_folder, write_error
from runner.errors import ExportError
from runner.export import split_files
from runner.export.columns import COLUMNS
from runner.export.roots import Root
from runner.export.selection import DatasetPlan, ExportOptions, Format, Source, write_plan
from runner.export.split_files import SplitTask, require_pyarrow
from runner.results.writers import atomic_write
from runner.store.lock import RunLock

_WRITERS: Mapping[Format, Callable[[SplitTask], None]] = {
    Format.VIDEOFOLDER: split_files.write_videofolder,
    Format.WEBDATASET: split_files.write_webdataset,
    Format.PARQUET: split_files.write_parquet,
}

OnProgress = Callable[[int, int], None]
"""
Called with the number of videos that are in the dataset, and with the number that will be; while that is not known,
with the number of jobs that were read, and 0.
"""


def export(source: Source, options: ExportOptions, out: Path, on_progress: OnProgress) -> DatasetPlan:
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
        with RunLock(work, hint="wait for that export, or name another directory"):
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


def _plan(source: Source, options: ExportOptions, work: Path, on_progress: OnProgress) -> DatasetPlan:
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
    if not digest.exists() or digest.read_text(encoding="ascii") != plan.digest:
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
    plan: DatasetPlan, roots: Sequence[Root], options: ExportOptions, work: Path, on_progress: OnProgress
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


_MAX_MODELS = 100
_MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>()#|!&@~"})


def card(plan: DatasetPlan, options: ExportOptions) -> str:
    """Return the text of the README."""
    files = [{"split": split, "path": _paths(split, plan, options)} for split in plan.splits]
    config: dict[str, object] = {"config_name": "default", "data_files": files}
    if options.format is Format.VIDEOFOLDER:
        # The names of the folders are not classes.
        config["drop_labels"] = True
    head: dict[str, object] = {
        "license": plan.license or "other",
        "task_categories": ["text-to-video"],
        "tags": ["synthetic", "video"],
        "configs": [config],
    }
    if options.format is Format.WEBDATASET:
        head["dataset_info"] = {"config_name": "default", "features": _features(plan, options)}
    yaml_text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{yaml_text}---\n\n# {_runs(plan)}\n\n" + "\n".join(_body(plan)) + "\n"


def _paths(split: str, plan: DatasetPlan, options: ExportOptions) -> str | list[str]:
    """Return the patterns of the files of a split."""
    if options.format is Format.WEBDATASET:
        return f"data/{split}/*.tar"
    if options.format is Format.PARQUET:
        return f"data/{split}-*.parquet"
    # Without the captions: `datasets` takes a folder for what most of its files are.
    videos = [f"data/{split}/*/*{suffix}" for suffix in plan.suffixes]
    return [f"data/{split}/metadata.parquet", *videos]


def _features(plan: DatasetPlan, options: ExportOptions) -> list[Mapping[str, object]]:
    """Return the types of samples: `datasets` would drop each value that the first five samples do not have."""
    values = [{"name": column, "dtype": COLUMNS[column]} for column in options.columns or COLUMNS]
    videos = [{"name": suffix.removeprefix("."), "dtype": "video"} for suffix in plan.suffixes]
    texts = ["txt"] if options.captions else []
    others = [{"name": name, "dtype": "string"} for name in (*texts, "__key__", "__url__")]
    return [*videos, {"name": "json", "struct": values}, *others]


def _body(plan: DatasetPlan) -> Iterator[str]:
    yield f"{format_count(plan.rows, 'generated video')}, {format_size(plan.bytes)}, exported by runner {__version__}."
    if plan.is_simulated:
        yield "\n**Videos of a simulated run: test patterns, which no model generated.**"
    yield ""
    if plan.period:
        yield f"- Generated: {plan.period[0]} to {plan.period[1]}"
    yield f"- License: {plan.license or 'not given, or not the same for all videos'}"
    yield f"- SHA-256 of the results: `{plan.results_sha256}`"
    splits = {split: (size.rows, format_size(size.bytes)) for split, size in plan.splits.items()}
    yield from _table("Splits", ("split", "videos", "size"), splits)
    models = sorted(plan.models.items(), key=lambda item: (-item[1], item[0]))
    yield from _table("Models", ("model", "videos"), {name: (count,) for name, count in models[:_MAX_MODELS]})
    states = {state.value: (count,) for state, count in plan.summary.by_state.items() if count}
    yield from _table("Jobs of the runs", ("status", "jobs"), states)
    failures = {cls.value: (count,) for cls, count in plan.summary.by_class.items()}
    if failures:
        yield from _table("Failures", ("class", "jobs"), failures)
    if plan.summary.by_state[State.SUCCEEDED] > plan.rows:
        yield "\nOnly some of the succeeded jobs were selected."


def _runs(plan: DatasetPlan) -> str:
    return ", ".join(map(_safe, plan.runs[:10])) + (", …" if len(plan.runs) > 10 else "")


def _table(title: str, heads: tuple[str, ...], rows: Mapping[str, tuple[object, ...]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name, values in rows.items():
        cells = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
        yield f"| {' | '.join([_safe(name), *cells])} |"


def _safe(text: str) -> str:
    """Return text from outside as one line without markup."""
    return sanitize_line(text, max_chars=200).translate(_MARKUP)
