"""
A manifest as entries with positions: the header, and the jobs one at a time.

The jobs are streamed: each entry is built, yielded and dropped, so that a manifest
of a million jobs takes no more memory than one of ten.
"""

from __future__ import annotations

import json
import re
import stat
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from msgspec import Struct
from yaml.error import YAMLError
from yaml.events import SequenceEndEvent, SequenceStartEvent

from runner.core.model import Json
from runner.core.problem import Finding, Position, Problem, Severity, format_path
from runner.core.sanitize import sanitize_line
from runner.disk import open_regular
from runner.errors import ManifestError
from runner.manifest.json_rows import JSONL_SUFFIXES
from runner.manifest.scalars import ANCHOR_HINT, HASH_HINT, Mark, cut_texts
from runner.manifest.yaml_parser import YamlUnreadable, find_events, parse_problem, to_position
from runner.manifest.yaml_values import ValueBuilder, open_events
from runner.schema.catalog import load_catalog
from runner.schema.wording import did_you_mean

ProblemHandler = Callable[[Problem], None]

_MANIFESTS = (".yaml", ".yml", *JSONL_SUFFIXES)
_MAX_NAMES = 1000
_MAX_FIRST_LINE_BYTES = 1_000_000
_BLOCK = 1 << 20


class Entry(Struct):
    """
    A mapping of the manifest: one element of `jobs`, or all the other keys together.

    Attributes:
        value: JSON values. Parts may be shared with other entries: never change them.
        index: Its index in `jobs`, from 0; -1 for the header.
        start: Where it begins.
    """

    value: dict[str, Json]
    index: int
    start: Position
    _events: list[Any]

    @property
    def label(self) -> str | None:
        """The job as people find it, such as ``jobs[3] "grass-2"``; None for the header."""
        if self.index < 0:
            return None
        # An entry that is not a mapping has a label too, for the problem that says so.
        job_id = self.value.get("id") if isinstance(self.value, dict) else None
        return job_label(self.index, job_id)

    def position_of(self, finding: Finding) -> Position:
        """Return the position of a finding: of a key if that is unknown, else of a value or its nearest ancestor."""
        key, value = find_events(self._events, finding.path)
        event = key if finding.message.startswith("unknown key") else value
        return to_position(event.start_mark, self.start.file)

    def problem(self, finding: Finding) -> Problem:
        """Add the position to a finding."""
        position, path = self.position_of(finding), format_path(finding.path)
        return Problem(finding.severity, position, finding.message, self.label, path, finding.hint)

    def problems(self, findings: Iterable[Finding]) -> list[Problem]:
        """Add the positions to findings, and sort them by position."""
        problems = map(self.problem, findings)
        return sorted(problems, key=lambda problem: (problem.position.line, problem.position.column))


def job_label(index: int, job_id: Json = None) -> str:
    """
    Return the name of a job of the manifest, for people.

    >>> job_label(3, "grass-2"), job_label(3)
    ('jobs[3] "grass-2"', 'jobs[3]')
    """
    if not isinstance(job_id, str) or not job_id:
        return f"jobs[{index}]"
    return f'jobs[{index}] "{sanitize_line(job_id[:80], max_chars=80)}"'


class Document(Struct, frozen=True):
    """
    A manifest file that can be read.

    Attributes:
        header: All keys except `jobs`.
        hashes: Where a ``#`` may cut a text short; see `scan_lines`.
    """

    path: Path
    header: Entry
    hashes: frozenset[Mark]

    def entries(self, report: ProblemHandler) -> Iterator[Entry]:
        """
        Stream the elements of `jobs`, reading the file again each time.

        Invalid elements are reported and left out; an error that makes the rest of the
        file unreadable is reported, and ends the stream.
        """
        try:
            with _opened(self.path) as stream:
                yield from _DocumentReader(stream, str(self.path), self.hashes, report).entries()
        except ManifestError as error:
            report(error.problems[0])


def open_manifest(path: Path, report: ProblemHandler) -> Document | None:
    """Open a manifest as `open_document` does; return None for a batch file, known by its suffix or its first line."""
    if path.suffix.lower() in JSONL_SUFFIXES:
        return None
    with _opened(path) as stream:
        is_batch_file = {"custom_id", "body"} <= read_first_row(stream).keys()
        stream.seek(0)
        return None if is_batch_file else _read_document(stream, path, report, has_jobs=True)


def open_document(path: Path, report: ProblemHandler, *, has_jobs: bool = True) -> Document:
    """
    Read a manifest's header, and report what is wrong with it.

    The jobs are read only by `Document.entries`, except that they are skipped over here
    if other keys follow them.

    Args:
        has_jobs: Whether it is an error if there are none; a price table has none.

    Raises:
        ManifestError: Nothing can be read; it has the problem, without those that were reported.
    """
    with _opened(path) as stream:
        return _read_document(stream, path, report, has_jobs=has_jobs)


def read_first_row(stream: IO[bytes]) -> Mapping[str, Json]:
    """Return the object on the first line of a file; an empty one if there is none."""
    try:
        first = json.loads(stream.readline(_MAX_FIRST_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be a manifest; a ManifestError has the problem that makes it unreadable, now or later."""
    try:
        _require_regular(path)
        with open_regular(path) as stream:
            yield stream
    except (YAMLError, YamlUnreadable, OSError) as error:
        problems = [_read_problem(error, path)]
        raise ManifestError(f"{path} can't be read as a manifest", problems=problems) from error


def _require_regular(path: Path) -> None:
    is_stdin = path.name == "-" and not path.exists()
    # Standard input may be a regular file, by a name in a folder where no run should be.
    is_stream = is_stdin or str(path.absolute()).startswith(("/dev/stdin", "/dev/fd/", "/proc/"))
    mode = 0 if is_stream else path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise YamlUnreadable("this is a directory, not a manifest")
    if not stat.S_ISREG(mode):
        raise YamlUnreadable(
            "a manifest must be a regular file: it is read more than once, and its folder decides where the run is; "
            "write it to a file first"
        )


def _read_document(stream: IO[bytes], path: Path, report: ProblemHandler, *, has_jobs: bool) -> Document:
    if stream.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE):
        raise YamlUnreadable("not UTF-8: it begins as UTF-16 does; save it as UTF-8")
    stream.seek(0)
    hashes, jobs_are_last = scan_lines(stream)
    reader = _DocumentReader(stream, str(path), hashes, report)
    return Document(path, reader.header(needs_jobs=has_jobs, jobs_are_last=jobs_are_last), hashes)


# One blank before the hash and none behind it: people write comments otherwise. Lines of megabytes are not searched.
_HASH = re.compile(rb"[^\s#] (?=#[^\s#])")
_MAX_HASHES = 10_000

# A line that may continue the outermost mapping: neither indented, nor a comment, nor a list item.
_OUTER_LINE = re.compile(rb"\n(?=[^\s#-]|-\S)([^\r\n:]{0,8})")
_JOBS_KEYS = (b"jobs", b'"jobs"', b"'jobs'")
# Single carriage returns, U+0085, U+2028 and U+2029 end lines in YAML too.
_RARE_LINE_END = re.compile(rb"\r(?!\n)|\xc2\x85|\xe2\x80[\xa8\xa9]")

_RARE_BYTES = (b"\r", b"\xc2\x85", b"\xe2\x80")


def scan_lines(stream: IO[bytes]) -> tuple[frozenset[Mark], bool]:
    """
    Read a manifest's lines and go back to its beginning, which takes a twentieth of the time of parsing.

    Returns:
        The marks of the blanks before hashes that may cut a text short, of the first so many; and whether no key
        follows `jobs`, given that the outermost mapping is a block without indentation. If the latter is not certain,
        it is False, which costs time only.
    """
    hashes: set[Mark] = set()
    line = 0
    has_jobs, is_certain = False, True
    # Whole lines, so that nothing is split between two blocks; but a line may have gigabytes.
    while block := stream.read(_BLOCK) + (rest := stream.readline(_BLOCK)):
        is_certain = is_certain and len(rest) < _BLOCK
        if len(hashes) < _MAX_HASHES and b" #" in block:
            hashes.update(_hash_marks(block, line))
        if is_certain:
            text = b"\n" + block
            is_certain = not (any(byte in text for byte in _RARE_BYTES) and _RARE_LINE_END.search(text))
            for match in _OUTER_LINE.finditer(text):
                is_certain = is_certain and not has_jobs
                has_jobs = match[1].rstrip() in _JOBS_KEYS
        elif len(hashes) >= _MAX_HASHES:
            break
        if b"\0" in block:
            # The parser stops here; a file with a hole may have nothing else for terabytes.
            break
        line += block.count(b"\n")
    stream.seek(0)
    return frozenset(hashes), is_certain and has_jobs


def _hash_marks(block: bytes, line: int) -> Iterator[Mark]:
    end = 0
    for match in _HASH.finditer(block):
        start = block.rfind(b"\n", 0, match.end()) + 1
        line += block.count(b"\n", end, start)
        end = start
        yield line, len(block[start : match.end() - 1].decode("utf-8", "replace"))


class _DocumentReader(Struct):
    """One pass over a file."""

    stream: IO[bytes]
    file: str
    hashes: frozenset[Mark]
    report: ProblemHandler
    _job: int | None = None
    _reported: set[Position] = set()

    def header(self, *, needs_jobs: bool, jobs_are_last: bool) -> Entry:
        """Read all keys except `jobs`, whose beginning alone is checked, and stop as soon as no more can follow."""
        builder = ValueBuilder(open_events(self.stream), self._report_at)
        root = builder.read_root()
        events = builder.events
        value: dict[str, Json] = {}
        has_jobs = False
        jobs_are_last = jobs_are_last and root.start_mark.column == 0 and not root.flow_style
        while (found := builder.read_key()) is not None:
            key, key_event, event = found
            if key == "jobs" and not has_jobs:
                has_jobs = True
                events.append(event)
                if not self._skip_jobs(builder, event, are_last=jobs_are_last):
                    break
                builder.events = events
            elif key is not None and (key in value or key == "jobs"):
                builder.report_duplicate(key_event, key)
                builder.build(event)
            else:
                item = builder.build(event)
                if key is not None:
                    value[key] = item
        else:
            builder.read_end()
        if needs_jobs and not has_jobs:
            self._report_at(root, "the key 'jobs' is missing", "list the jobs under jobs:")
        if self.hashes:
            self._warn_of_cut_texts(events)
        return Entry(value, -1, self._position(root.start_mark), events)

    def entries(self) -> Iterator[Entry]:
        """Stream the jobs; problems of the other keys were reported with the header."""
        report, self.report = self.report, discard
        builder = ValueBuilder(open_events(self.stream), self._report_at)
        builder.read_root()
        has_jobs = False
        while (found := builder.read_key()) is not None:
            key, _, event = found
            if key == "jobs" and isinstance(event, SequenceStartEvent) and not has_jobs:
                has_jobs = True
                self.report = report
                yield from self._jobs(builder)
                self.report, self._job = discard, None
            else:
                builder.begin()
                builder.build(event)
        self.report = report
        builder.read_end()
        for anchor, event in builder.unused_anchors.items():
            message = f"'&{anchor[:40]}' is an anchor of YAML here, and the text is only {event.value[:40]!r}"
            self._warn(self._position(event.start_mark), message, ANCHOR_HINT)

    def _jobs(self, builder: ValueBuilder) -> Iterator[Entry]:
        next_event, file, check = builder.next_event, self.file, load_catalog().job_schema.findings
        index = 0
        while True:
            event = next_event()
            if event.__class__ is SequenceEndEvent:
                return
            self._job = index
            self._reported.clear()
            builder.begin()
            value = builder.build(event, 3)
            if self.hashes:
                self._warn_of_cut_texts(builder.events)
            findings = check(value)
            mark = event.start_mark
            entry = Entry(value, index, Position(file, mark.line + 1, mark.column + 1), builder.events)
            if not findings and not builder.is_invalid:
                yield entry
            for problem in entry.problems(findings) if findings else ():
                # At such a position something was reported while it was read.
                if problem.position not in self._reported:
                    self.report(problem)
            index += 1

    def _skip_jobs(self, builder: ValueBuilder, start: Any, *, are_last: bool) -> bool:
        """Check that there are jobs, and skip them; return False if they come last, so that there was no need to."""
        events = builder.events
        if not isinstance(start, SequenceStartEvent):
            self._report_at(start, "jobs must be a list, written out here", None)
            event = builder.skip(start)
            if event is not start:
                events.append(event)
            return True
        event = builder.next_event()
        if isinstance(event, SequenceEndEvent):
            self._report_at(start, "jobs is empty", None)
        elif are_last:
            return False
        while not isinstance(event, SequenceEndEvent):
            builder.skip(event)
            event = builder.next_event()
        events.append(event)
        return True

    def _position(self, mark: Any) -> Position:
        return Position(self.file, mark.line + 1, mark.column + 1)

    def _report_at(self, event: Any, message: str, hint: str | None) -> None:
        position = self._position(event.start_mark)
        self._reported.add(position)
        self.report(Problem(Severity.ERROR, position, message, self._label(), hint=hint))

    def _warn_of_cut_texts(self, events: list[Any]) -> None:
        for (line, column), text in cut_texts(events, self.hashes):
            message = f"the text ends here, since the '#' begins a comment: {text[:40]!r}"
            self._warn(Position(self.file, line + 1, column + 1), message, HASH_HINT)

    def _warn(self, position: Position, message: str, hint: str) -> None:
        self.report(Problem(Severity.WARNING, position, message, self._label(), hint=hint))

    def _label(self) -> str | None:
        return None if self._job is None else job_label(self._job)


def discard(_problem: Problem) -> None:
    """Ignore a problem, such as one that was reported before."""


def _read_problem(error: YAMLError | YamlUnreadable | OSError, path: Path) -> Problem:
    """Describe why a file can't be read."""
    file = str(path)
    if isinstance(error, YAMLError):
        return parse_problem(error, path, file)
    if isinstance(error, YamlUnreadable):
        position = Position(file) if error.event is None else to_position(error.event.start_mark, file)
        return Problem(Severity.ERROR, position, error.message)
    hint = nearest_manifest(path) if isinstance(error, FileNotFoundError) else None
    return Problem(Severity.ERROR, Position(file), f"can't be read: {error.strerror or error}", hint=hint)


def nearest_manifest(path: Path) -> str | None:
    """Ask for the manifest that was probably meant by a path that does not exist."""
    try:
        names = [other.name for other in islice(path.parent.iterdir(), _MAX_NAMES)]
    except OSError:
        return None
    return did_you_mean(path.name, [name for name in names if name.endswith(_MANIFESTS)])
