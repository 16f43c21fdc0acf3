"""
Read a results file, which may come from another machine, another version, an editor or an attacker.

Several lines may be about the same job, and only one of them counts:

- In one run, a line of a success, then the one with more attempts, then the one with the later end, whatever the
  order of the lines: copies of a file may be concatenated in any order. The attempts of the other lines are merged
  with its own.
- Across runs (concatenated files), jobs with the same id and the same request are one job, and the line that
  got furthest counts: a job that failed on Monday and succeeded in Tuesday's rerun has succeeded, whatever
  the order of the files. With the same id and different requests they are different jobs, and both are read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct, field
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.merge_attempts import progress
from runner.core.model import Attempt
from runner.core.units import format_count
from runner.disk import open_regular
from runner.errors import ResultsError
from runner.jsontext import loads
from runner.results.parse import NewerVersion, ResultLine, parse_line

_NOT_RESULTS = "name the results.jsonl of a run, plain or gzip'd"
_MAX_LINE_BYTES = 20_000_000
_MAX_EMPTY_LINES = 100_000
_BOM = b"\xef\xbb\xbf"
_OTHER_FORMATS: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


class ResultsFile(Struct):
    """
    A valid results file; iterating over it reads it again.

    Attributes:
        path: Its path, that of the first of several files.
        others: The paths of the other files.
        jobs: Number of jobs.
        runs: The runs that its lines are from, with their number of lines.
        warnings: What people should know of the file, as clauses without a subject.
    """

    path: Path
    jobs: int
    runs: Mapping[str, int]
    warnings: tuple[str, ...]
    _selected: _SelectedLines
    others: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[ResultLine]:
        """
        Yield the line that counts of each job, in the order of the file.

        Raises:
            ResultsError: The file has changed since it was opened.
        """
        selected = self._selected
        others = self._attempts_of_other_lines() if selected.has_repeats else {}
        for result in _Lines((self.path, *self.others)):
            key = _job_key(result)
            rank = selected.ranks.get(key)
            if rank is None or result.line > selected.last_line:
                raise ResultsError(f"{self.path} has changed while it was read", hint="run the command again")
            if result.line == _line_of(rank) and result.line not in selected.superseded:
                attempts = _merge_attempts(result.record.attempts, others.pop(key, ()))
                yield replace(result, record=replace(result.record, attempts=attempts))

    def _attempts_of_other_lines(self) -> dict[int, tuple[Attempt, ...]]:
        """Collect the attempts of the lines that do not count, by job."""
        attempts: dict[int, tuple[Attempt, ...]] = {}
        for result in _Lines((self.path, *self.others)):
            key = _job_key(result)
            rank = self._selected.ranks.get(key)
            if rank is not None and result.line != _line_of(rank):
                attempts[key] = _merge_attempts(result.record.attempts, attempts.get(key, ()))
        return attempts


def open_results(path: Path, *others: Path) -> ResultsFile:
    """
    Read and check a results file, plain or gzip'd, with about 100 bytes of memory per job.

    Several files are read as if they were one.

    An incomplete last line is left out, with a warning.

    Raises:
        ResultsError: It can't be read, is empty, was written by a newer version, or has an invalid line.
    """
    lines = _Lines((path, *others))
    runs: Counter[str] = Counter()
    ranks: dict[int, int] = {}
    last_line = 0
    for result in lines:
        runs[result.run] += 1
        last_line, key = result.line, _job_key(result)
        ranks[key] = max(ranks.get(key, -1), _rank(result))
    if not ranks:
        raise ResultsError(
            f"{path} is empty" if not lines.warnings else f"{path} has no complete line",
            hint="name the results.jsonl of a run, or its run directory",
        )
    superseded = _superseded(lines.paths, ranks) if len(runs) > 1 else frozenset()
    selected = _SelectedLines(ranks, superseded, last_line, has_repeats=runs.total() > len(ranks))
    jobs = len(ranks) - len(superseded)
    return ResultsFile(path, jobs, dict(runs), (*lines.warnings, *_warnings(runs, jobs)), selected, others)


class _SelectedLines(Struct, frozen=True):
    """
    The lines that count: the one that got furthest of each job in each run, unless another run's line supersedes it.

    Attributes:
        ranks: The highest rank of the lines of each job.
        superseded: Numbers of lines.
        has_repeats: Whether a job has several lines in one run.
    """

    ranks: Mapping[int, int]
    superseded: frozenset[int]
    last_line: int
    has_repeats: bool


def _warnings(runs: Mapping[str, int], jobs: int) -> Iterator[str]:
    if len(runs) > 1:
        names = ", ".join(repr(name) for name in list(runs)[:5]) + (", …" if len(runs) > 5 else "")
        yield f"has lines of {len(runs)} runs ({names}), {jobs} jobs in all; the line that got furthest counts"
    repeated = sum(runs.values()) - jobs
    if repeated and len(runs) == 1:
        yield f"has {format_count(repeated, 'line')} of jobs that another line has further: only the attempts of such count"


def _superseded(paths: tuple[Path, ...], ranks: Mapping[int, int]) -> frozenset[int]:
    """Return the lines of jobs that got further in another run."""
    best: dict[int, tuple[int, int]] = {}
    superseded: set[int] = set()
    for result in _Lines(paths):
        rank = ranks.get(_job_key(result), -1)
        if result.line != _line_of(rank):
            continue
        request = json.dumps(result.record.request, sort_keys=True)
        key = _fingerprint(result.record.job_id, request)
        mine = (progress(result.record), rank)
        other = best.setdefault(key, mine)
        if mine > other:
            best[key] = mine
            superseded.add(_line_of(other[1]))
        elif mine < other:
            superseded.add(result.line)
    return frozenset(superseded)


_LINE_BITS = 40


def _rank(result: ResultLine) -> int:
    """
    Rank the lines of a job in one run by how far it had got, as one number, which takes little memory.

    A success is furthest, then more attempts, then a known task, then the later end; only then the later line.
    """
    record = result.record
    attempts = max((attempt.number for attempt in record.attempts), default=0)
    end_ms = round((record.finished_at or 0) * 1000)
    rank = int(record.state is State.SUCCEEDED)
    for value, bits in (
        (attempts, 32),
        (int(record.task_id is not None), 1),
        (end_ms, 52),
        (progress(record), 4),
        (result.line, _LINE_BITS),
    ):
        rank = rank << bits | min(max(value, 0), (1 << bits) - 1)
    return rank


def _line_of(rank: int) -> int:
    return rank & ((1 << _LINE_BITS) - 1)


def _job_key(result: ResultLine) -> int:
    return _fingerprint(result.run, result.record.job_id)


def _fingerprint(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def _merge_attempts(attempts: tuple[Attempt, ...], others: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Add the attempts that only other lines have, and the answers that only those have."""
    if not others or others == attempts:
        return attempts
    merged = {(attempt.number, attempt.submitted_at): attempt for attempt in others}
    for attempt in attempts:
        key = (attempt.number, attempt.submitted_at)
        if key not in merged or attempt.outcome != "pending":
            merged[key] = attempt
    return tuple(merged[key] for key in sorted(merged))


class _Lines(Struct):
    """The parsed lines of results files, one after the other; the warnings are complete after the last line."""

    paths: tuple[Path, ...]
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[ResultLine]:
        before = 0
        for index, path in enumerate(self.paths):
            last = 0
            for result in self._results(path):
                last = result.line
                yield result if index == 0 else replace(result, line=before + last, file=index)
            before += last

    def _results(self, path: Path) -> Iterator[ResultLine]:
        try:
            with open_regular(path) as raw, _decompressed(raw, path) as file:
                yield from self._parsed(file, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ResultsError(
                f"{path} is gzip'd, and damaged or incomplete",
                hint="copy it again from where it was written",
            ) from error
        except OSError as error:
            raise ResultsError(f"{path} can't be read: {error.strerror or error}") from error

    def _parsed(self, file: BinaryIO, path: Path) -> Iterator[ResultLine]:
        number = empty = 0
        while text := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(text) > _MAX_LINE_BYTES:
                raise ResultsError(f"{path}:{number} is too long to be the line of a job", hint=_NOT_RESULTS)
            if number == 1:
                text = text.removeprefix(_BOM)
            if not text.strip():
                empty += 1
                if empty > _MAX_EMPTY_LINES:
                    raise ResultsError(
                        f"{path} has more than {_MAX_EMPTY_LINES:,} empty lines", hint=_NOT_RESULTS
                    )
                continue
            result = self._result(text, number, path)
            if result is not None:
                yield result

    def _result(self, text: bytes, number: int, path: Path) -> ResultLine | None:
        place = f"{path}:{number}"
        try:
            value = loads(text)
        except (ValueError, RecursionError):
            if not text.endswith(b"\n"):
                self.warnings.append(f"has an incomplete line {number}, which is left out")
                return None
            raise ResultsError(f"{place} is not JSON", hint="correct the line, or remove it") from None
        try:
            return parse_line(value, line=number)
        except NewerVersion as error:
            raise ResultsError(f"{place} {error}", hint="upgrade runner") from None
        except ValueError as error:
            raise ResultsError(f"{place} {error}", hint="correct the line, or remove it") from None


def _decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    start = file.read(16)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(file))
    for magic, kind in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise ResultsError(f"{path} is {kind}, not a results file", hint=_NOT_RESULTS)
    return file
