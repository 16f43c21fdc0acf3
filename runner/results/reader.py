"""
Read a results file, which may come from another machine, another version, an editor or an attacker.

Several lines may be about the same job, and only one of them counts:

- In one run, the last line: a line is appended each time a job ends. The attempts of the earlier lines are
  merged with its own.
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
from runner.core.model import MAY_HAVE_PAID_TASK, Attempt, JobRecord
from runner.errors import ResultsError
from runner.jsontext import loads
from runner.results.parse import NewerVersion, ResultLine, parse_line

_PROGRESS = (
    State.PENDING,
    State.FAILED,
    State.SUBMITTING,
    State.UNCERTAIN,
    State.SUBMITTED,
    State.TIMED_OUT,
    State.DOWNLOADING,
    State.UNDELIVERED,
    State.SUCCEEDED,
)
_MAX_LINE_BYTES = 100_000_000
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
        jobs: Number of jobs.
        runs: The runs that its lines are from, with their number of lines.
        warnings: One sentence each, for a person.
    """

    path: Path
    jobs: int
    runs: Mapping[str, int]
    warnings: tuple[str, ...]
    _selected: _SelectedLines

    def __iter__(self) -> Iterator[ResultLine]:
        """
        Yield the line that counts of each job, in the order of the file.

        Raises:
            ResultsError: The file has changed since it was opened.
        """
        earlier: dict[int, tuple[Attempt, ...]] = {}
        for result in _Lines(self.path):
            key = _job_key(result)
            last = self._selected.last_lines.get(key)
            if last is None or result.line > last:
                raise ResultsError(f"{self.path} has changed while it was read", hint="run the command again")
            attempts = _merge_attempts(earlier.pop(key, ()), result.record.attempts)
            if result.line < last:
                earlier[key] = attempts
            elif result.line not in self._selected.superseded:
                yield replace(result, record=replace(result.record, attempts=attempts))


def open_results(path: Path) -> ResultsFile:
    """
    Read and check a results file, plain or gzip'd, with about 100 bytes of memory per job.

    An incomplete last line is left out, with a warning.

    Raises:
        ResultsError: It can't be read, is empty, was written by a newer version, or has an invalid line.
    """
    lines = _Lines(path)
    runs: Counter[str] = Counter()
    last_lines: dict[int, int] = {}
    for result in lines:
        runs[result.run] += 1
        last_lines[_job_key(result)] = result.line
    if not last_lines:
        raise ResultsError(
            f"{path} is empty" if not lines.warnings else f"{path} has no complete line",
            hint="name the results.jsonl of a run, or its run directory",
        )
    selected = _SelectedLines(last_lines, _superseded(path, last_lines) if len(runs) > 1 else frozenset())
    jobs = len(last_lines) - len(selected.superseded)
    return ResultsFile(path, jobs, dict(runs), (*lines.warnings, *_warnings(runs, jobs)), selected)


class _SelectedLines(Struct, frozen=True):
    """The lines that count: the last one of each job in each run, unless another run's line supersedes it."""

    last_lines: Mapping[int, int]
    superseded: frozenset[int]


def _warnings(runs: Mapping[str, int], jobs: int) -> Iterator[str]:
    if len(runs) > 1:
        names = ", ".join(repr(name) for name in list(runs)[:5]) + (", …" if len(runs) > 5 else "")
        yield f"has lines of {len(runs)} runs ({names}), {jobs} jobs in all; the line that got furthest counts"
    repeated = sum(runs.values()) - jobs
    if repeated and len(runs) == 1:
        yield f"{repeated} lines of jobs that have a later line were left out, except for their attempts"


def _superseded(path: Path, last_lines: Mapping[int, int]) -> frozenset[int]:
    """Return the lines of jobs that got further in another run."""
    best: dict[int, tuple[int, int]] = {}
    superseded: set[int] = set()
    for result in _Lines(path):
        if last_lines.get(_job_key(result)) != result.line:
            continue
        request = json.dumps(result.record.request, sort_keys=True)
        key = _fingerprint(result.record.job_id, request)
        mine = (_progress(result.record), result.line)
        other = best.setdefault(key, mine)
        if mine > other:
            best[key] = mine
            superseded.add(other[1])
        elif mine < other:
            superseded.add(result.line)
    return frozenset(superseded)


def _progress(record: JobRecord) -> int:
    """Rank how far a job got, by what would be lost without it: videos, then tasks, then uncertain submissions."""
    if record.error is not None and record.error.cls in MAY_HAVE_PAID_TASK and record.state is State.FAILED:
        return _PROGRESS.index(State.SUBMITTING)
    return _PROGRESS.index(record.state)


def _job_key(result: ResultLine) -> int:
    return _fingerprint(result.run, result.record.job_id)


def _fingerprint(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def _merge_attempts(earlier: tuple[Attempt, ...], later: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    if not earlier or earlier == later:
        return later
    # An attempt without an answer in the earlier line may have one in the later line.
    attempts = {(attempt.number, attempt.submitted_at): attempt for attempt in (*earlier, *later)}
    return tuple(attempts[key] for key in sorted(attempts))


class _Lines(Struct):
    """The parsed lines of a results file; the warnings are complete after the last line."""

    path: Path
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[ResultLine]:
        try:
            with _open(self.path) as file:
                yield from self._results(file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ResultsError(
                f"{self.path} is gzip'd, and damaged or incomplete",
                hint="copy it again from where it was written",
            ) from error
        except OSError as error:
            raise ResultsError(f"{self.path} can't be read: {error.strerror or error}") from error

    def _results(self, file: BinaryIO) -> Iterator[ResultLine]:
        number = 0
        while text := file.readline(_MAX_LINE_BYTES):
            number += 1
            if number == 1:
                text = text.removeprefix(_BOM)
            if not text.strip():
                continue
            result = self._result(text, number)
            if result is not None:
                yield result

    def _result(self, text: bytes, number: int) -> ResultLine | None:
        place = f"{self.path}:{number}"
        try:
            value = loads(text)
        except (ValueError, RecursionError):
            if not text.endswith(b"\n") and len(text) < _MAX_LINE_BYTES:
                self.warnings.append(f"{place} is incomplete, and is left out")
                return None
            raise ResultsError(f"{place} is not JSON", hint="correct the line, or remove it") from None
        try:
            return parse_line(value, line=number)
        except NewerVersion as error:
            raise ResultsError(f"{place} {error}", hint="upgrade runner") from None
        except ValueError as error:
            raise ResultsError(f"{place} {error}", hint="correct the line, or remove it") from None


def _open(path: Path) -> BinaryIO:
    file = path.open("rb")
    start = file.read(16)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        file.close()
        return cast("BinaryIO", gzip.open(path))
    for magic, kind in _OTHER_FORMATS.items():
        if start.startswith(magic):
            file.close()
            raise ResultsError(
                f"{path} is {kind}, not a results file", hint="name a results.jsonl, plain or gzip'd"
            )
    return file
