"""What belongs to a dataset: its rows, written to a file per split, so that they can't change while videos are copied."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runner import __version__
from runner.core.lifecycle import State
from runner.core.model import Asset, JobRecord, Verdicts
from runner.core.sanitize import command_text
from runner.core.settings import SIMULATED
from runner.core.summary import Summary, SummaryBuilder
from runner.core.units import format_count
from runner.core.where import Condition, UnknownNameFinder, text_of, value_of
from runner.errors import ExportError
from runner.export.columns import COLUMNS, Row, make_row, place, video_of
from runner.export.roots import Root
from runner.results.formats import line_bytes
from runner.results.writers import translate_disk_full
from runner.schema.wording import did_you_mean

MAX_VIDEOFOLDER_ROWS = 100_000
"""Repositories of datasets take no more files than that."""
MAX_FILES_OF_FOLDER = 999
MAX_SPLITS = 100
DEFAULT_SPLIT = "train"
_SHARD_ROWS, _SHARD_BYTES = 10_000, 1_000_000_000
_MAX_NAMED = 5
_SPLIT = re.compile(r"[A-Za-z0-9_]{1,100}")
_LICENSE = re.compile(r"[a-z0-9.-]{1,60}")


class Format(StrEnum):
    """What a dataset consists of."""

    VIDEOFOLDER = "videofolder"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"


class ExportOptions(Struct, frozen=True, kw_only=True):
    """
    What to export, and how.

    Attributes:
        split: Name of the value, such as ``metadata.split``, that is the split of a job; None for one split.
        where: Conditions that a job must meet, all of them.
        verdict: Only jobs with this verdict: ``keep`` or ``reject``.
        columns: Of `COLUMNS`; None for all.
        use_links: Make hard links to the videos instead of copies.
        captions: Write the caption into a text file beside each video.
    """

    format: Format
    split: str | None = None
    where: tuple[Condition, ...] = ()
    verdict: str | None = None
    columns: tuple[str, ...] | None = None
    use_links: bool = False
    captions: bool = False


class SourceRecord(Struct, frozen=True):
    """A job, the run and the gateway that it is from, and which of the sources its files are in."""

    run: str
    gateway: str
    record: JobRecord
    root: int = 0


class Source(Struct, frozen=True):
    """
    Where jobs come from.

    Attributes:
        roots: Where the videos are.
        runs: Names of the runs.
        records: All jobs, in a fixed order.
    """

    roots: Sequence[Root]
    runs: tuple[str, ...]
    records: Iterable[SourceRecord]


class SplitPlan(Struct):
    """How much is in a split."""

    rows: int = 0
    bytes: int = 0
    shards: int = 0


class DatasetPlan(Struct, frozen=True):
    """
    What is in a dataset.

    Attributes:
        digest: Of everything that decides what its files hold.
        results_sha256: Of the lines of all jobs, in the format of `results.jsonl`.
        models: Number of videos by model.
        period: The first and the last time at which a video was generated, as in results; None if unknown.
        license: Of all videos, if their metadata name one and the same.
        suffixes: Of the files of videos, each with its dot.
    """

    runs: tuple[str, ...]
    splits: Mapping[str, SplitPlan]
    digest: str
    results_sha256: str
    summary: Summary
    models: Mapping[str, int]
    period: tuple[str, str] | None
    license: str | None
    suffixes: tuple[str, ...]
    is_simulated: bool

    @property
    def rows(self) -> int:
        """Number of videos."""
        return sum(split.rows for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Length of all videos."""
        return sum(split.bytes for split in self.splits.values())


def write_plan(
    source: Source, options: ExportOptions, folder: Path, on_job: Callable[[int], None] = lambda read: None
) -> DatasetPlan:
    """
    Select the rows of a dataset and write them into a folder, for `read_rows`.

    Args:
        on_job: Called with the number of jobs that were read.

    Raises:
        ExportError: No job is selected, a video is missing, or the split or the number of rows does not fit.
        DiskFull: There is no room for the rows.
    """
    with ExitStack() as stack, translate_disk_full(folder):
        planner = _Planner(
            source, options, lambda split: stack.enter_context(_rows_path(folder, split).open("wb"))
        )
        for number, item in enumerate(source.records, 1):
            planner.add(item)
            on_job(number)
    return planner.finish()


def read_rows(folder: Path, split: str) -> Iterator[tuple[int, Iterator[Row]]]:
    """Yield the number of each shard of a split with its rows; read them before the next shard."""
    decode = msgspec.json.Decoder(Row).decode
    with _rows_path(folder, split).open("rb") as file:
        yield from groupby(map(decode, file), lambda row: row.shard)


def _rows_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.jsonl"


class _Planner:
    """Collects what `write_plan` returns, one job after the other."""

    def __init__(self, source: Source, options: ExportOptions, open_split: Callable[[str], BinaryIO]) -> None:
        self._source = source
        self._options = options
        self._open_split = open_split
        self._files: dict[str, BinaryIO] = {}
        self._splits: dict[str, SplitPlan] = {}
        self._digest = hashlib.sha256(msgspec.json.encode((__version__, options)))
        self._results = hashlib.sha256()
        self._summary = SummaryBuilder()
        self._models: Counter[str] = Counter()
        self._licenses: set[str | None] = set()
        self._suffixes: set[str] = set()
        self._first = self._last = ""
        self._bad_files: list[str] = []
        self._names = UnknownNameFinder(self._options.where)
        self._bad_count = self._succeeded = self._judged = 0
        self._is_simulated = False
        self._shard_fill: dict[str, tuple[int, int]] = {}

    def add(self, item: SourceRecord) -> None:
        """Take a job into account, and into the dataset if it is selected."""
        record = item.record
        self._results.update(line_bytes(record, run=item.run, gateway=item.gateway))
        self._summary.add(record)
        video = video_of(record) if record.state is State.SUCCEEDED else None
        if video is None:
            return
        self._succeeded += 1
        root = self._source.roots[item.root]
        if not self._is_selected(record, root.verdicts):
            return
        self._is_simulated |= item.gateway == SIMULATED
        source = root.place(video)
        problem = _problem(root, source, video)
        if problem is not None:
            self._bad_count += 1
            if self._bad_count <= _MAX_NAMED:
                self._bad_files.append(f"{place(source, record.job_id)} {problem}")
            return
        is_only_run = len(self._source.runs) == 1
        row = make_row(record, video, run=item.run, is_only_run=is_only_run, root=item.root, source=source)
        self._write(self._split_of(record), row)
        self._suffixes.add(row.suffix)
        self._models[record.model] += 1
        license_of = record.metadata.get("license")
        self._licenses.add(
            license_of if isinstance(license_of, str) and _LICENSE.fullmatch(license_of) else None
        )
        at = row.values["generated_at"]
        if isinstance(at, str):
            self._first, self._last = min(self._first or at, at), max(self._last, at)

    def finish(self) -> DatasetPlan:
        """
        Return the plan.

        Raises:
            ExportError: As for `write_plan`.
        """
        summary = self._summary.summary()
        if self._bad_count:
            more = f"; and {self._bad_count - _MAX_NAMED} more" if self._bad_count > _MAX_NAMED else ""
            raise ExportError(
                f"{format_count(self._bad_count, 'video')} can't be exported: {'; '.join(self._bad_files)}{more}",
                hint=_BAD_FILE_HINT,
            )
        if not self._splits:
            raise self._nothing(summary.jobs)
        (license_id,) = self._licenses if len(self._licenses) == 1 else (None,)
        return DatasetPlan(
            runs=self._source.runs,
            splits=dict(sorted(self._splits.items())),
            digest=self._digest.hexdigest(),
            results_sha256=self._results.hexdigest(),
            summary=summary,
            models=dict(sorted(self._models.items())),
            period=(self._first, self._last) if self._first else None,
            license=license_id,
            suffixes=tuple(sorted(self._suffixes)),
            is_simulated=self._is_simulated,
        )

    def _nothing(self, jobs: int) -> ExportError:
        """Return why there are no rows."""
        succeeded = format_count(self._succeeded, "succeeded job")
        if not self._succeeded:
            return ExportError(f"0 of {format_count(jobs, 'job')} succeeded: there is nothing to export")
        if self._options.verdict is not None and not self._judged:
            return ExportError(
                f"there are no verdicts on the {succeeded}, neither in verdicts.jsonl nor by checks",
                hint="judge the videos first, with: runner review RUN_DIR; or leave --verdict out",
            )
        hint = None if self._options.verdict is None else "judge more videos with: runner review RUN_DIR"
        if self._names.unknown is not None:
            name, known = self._names.unknown
            hint = f"no succeeded job has {name[:60]!r}; {did_you_mean(name, known) or 'see what they have: runner show RUN JOB'}"
        return ExportError(f"none of the {succeeded} is selected by --where and --verdict", hint=hint)

    def _is_selected(self, record: JobRecord, verdicts: Verdicts) -> bool:
        options = self._options
        self._names.add(record)
        if options.verdict is not None:
            verdict = verdicts.of(record)
            self._judged += verdict is not None
            if verdict != options.verdict:
                return False
        return all(condition.matches(record) for condition in options.where)

    def _split_of(self, record: JobRecord) -> str:
        name = self._options.split
        if name is None:
            return DEFAULT_SPLIT
        value = value_of(record, name)
        if value is None or isinstance(value, dict | list):
            raise ExportError(
                f"job {record.job_id!r} has no {name}, so it belongs to no split",
                hint=f"leave such jobs out with {command_text('--where', f'{name}=*')}",
            )
        split = text_of(value)
        if not _SPLIT.fullmatch(split) or split == "all":
            raise ExportError(
                f"{name} of job {record.job_id!r} is {split[:60]!r}, which can't name a split",
                hint="use up to 100 letters, digits and '_', such as train or test; 'all' is reserved",
            )
        return split

    def _open(self, split: str) -> BinaryIO:
        other = next((name for name in self._files if name.lower() == split.lower()), None)
        if other is not None:
            raise ExportError(
                f"the splits {other!r} and {split!r} differ only in case", hint="write them in the same way"
            )
        if len(self._files) == MAX_SPLITS:
            raise ExportError(
                f"{self._options.split} has more than {MAX_SPLITS} values, too many for splits",
                hint="name a value that divides the jobs into a few parts",
            )
        self._splits[split] = SplitPlan()
        self._files[split] = self._open_split(split)
        return self._files[split]

    def _write(self, split: str, row: Row) -> None:
        file = self._files.get(split) or self._open(split)
        plan = self._splits[split]
        rows, size = self._shard_fill.get(split, (0, 0))
        max_rows, max_bytes = _shard_limits(self._options)
        if not rows or rows == max_rows or size + row.bytes > max_bytes:
            plan.shards += 1
            rows = size = 0
        self._shard_fill[split] = rows + 1, size + row.bytes
        plan.rows += 1
        plan.bytes += row.bytes
        self._require_fit(row)
        columns = self._options.columns or tuple(COLUMNS)
        values = {column: row.values[column] for column in columns}
        line = msgspec.json.encode(replace(row, shard=plan.shards - 1, values=values)) + b"\n"
        self._digest.update(f"{split}\n".encode() + line)
        file.write(line)

    def _require_fit(self, row: Row) -> None:
        """Refuse what the format can't hold."""
        dataset_format = self._options.format
        if (
            dataset_format is Format.VIDEOFOLDER
            and sum(plan.rows for plan in self._splits.values()) > MAX_VIDEOFOLDER_ROWS
        ):
            raise ExportError(
                f"a videofolder of more than {MAX_VIDEOFOLDER_ROWS:,} videos has too many files",
                hint="use --format parquet or webdataset",
            )
        if dataset_format is Format.PARQUET and row.bytes >= 2**31 - 1:
            raise ExportError(
                f"{place(row.source, row.job_id)} has 2 GiB or more, too much for a value in Parquet",
                hint="use --format webdataset or videofolder",
            )
        if dataset_format is Format.WEBDATASET and row.bytes >= 2**33:
            raise ExportError(
                f"{place(row.source, row.job_id)} has 8 GiB or more, too much for a tar file of this kind",
                hint="use --format videofolder",
            )


_BAD_FILE_HINT = "put the files back, or leave the jobs out with --where 'job_id!=ID'"


def _problem(root: Root, source: str, video: Asset) -> str | None:
    """Return what is wrong with a video, as far as it shows without being read; None if nothing is."""
    try:
        found = root.size(source)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ValueError:
        return "has a name that no file can have"
    return None if found == video.bytes else f"has {found:,} bytes instead of {video.bytes:,}"


def _shard_limits(options: ExportOptions) -> tuple[int, float]:
    """Return how many videos, and how many bytes of them, are in a shard."""
    if options.format is Format.VIDEOFOLDER:
        return MAX_FILES_OF_FOLDER // (2 if options.captions else 1), float("inf")
    return _SHARD_ROWS, _SHARD_BYTES
