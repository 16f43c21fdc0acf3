"""
A manifest as entries with positions: the header, and the jobs one at a time; and what is given in its place by mistake.

The jobs are streamed: each entry is built, yielded and dropped, so that a manifest
of a million jobs takes no more memory than one of ten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct
from yaml.error import YAMLError
from yaml.events import SequenceEndEvent, SequenceStartEvent

from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.model import Json
from runner.core.problem import Finding, Position, Problem, Severity, format_path
from runner.core.sanitize import command_text, sanitize_line
from runner.disk import open_regular
from runner.errors import ManifestError
from runner.manifest.json_rows import JSONL_SUFFIXES
from runner.manifest.scalars import ANCHOR_HINT, HASH_HINT, Mark, cut_texts
from runner.manifest.yaml_parser import (
    NextEvent,
    YamlUnreadable,
    find_events,
    open_events,
    open_manifest,
    parse_problem,
    scan_lines,
    to_position,
)
from runner.manifest.yaml_values import ValueBuilder
from runner.schema.catalog import load_catalog
from runner.schema.request_schema import ValueSchema
from runner.schema.wording import did_you_mean

ProblemHandler = Callable[[Problem], None]


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
        path = format_path(finding.path)
        return Problem(
            finding.severity, self.position_of(finding), finding.message, self.label, path, finding.hint
        )

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
        file = str(self.path)
        try:
            with open_manifest(self.path) as stream:
                yield from _DocumentReader(open_events(stream), file, report, self.hashes).entries()
        except (YAMLError, YamlUnreadable, OSError) as error:
            report(_read_problem(error, self.path))


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
    try:
        with open_manifest(path) as stream:
            hashes, jobs_are_last = scan_lines(stream)
            reader = _DocumentReader(open_events(stream), str(path), report, hashes)
            header = reader.header(needs_jobs=has_jobs, jobs_are_last=jobs_are_last)
            return Document(path, header, hashes)
    except (YAMLError, YamlUnreadable, OSError) as error:
        raise ManifestError(
            f"{path} can't be read as a manifest", problems=[_read_problem(error, path)]
        ) from error


class _DocumentReader:
    """One pass over a file."""

    def __init__(
        self, next_event: NextEvent, file: str, report: ProblemHandler, hashes: frozenset[Mark]
    ) -> None:
        self._file = file
        self._hashes = hashes
        self._report = report
        self._job: int | None = None
        self._reported: set[Position] = set()
        self._builder = ValueBuilder(next_event, self._report_at)

    def header(self, *, needs_jobs: bool, jobs_are_last: bool) -> Entry:
        """Read all keys except `jobs`, whose beginning alone is checked, and stop as soon as no more can follow."""
        builder = self._builder
        root = builder.read_root()
        events = builder.events
        value: dict[str, Json] = {}
        has_jobs = False
        jobs_are_last = jobs_are_last and root.start_mark.column == 0 and not root.flow_style
        for key, key_event, event in builder.read_keys():
            if key == "jobs" and not has_jobs:
                has_jobs = True
                events.append(event)
                if not self._skip_jobs(event, events, are_last=jobs_are_last):
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
        if self._hashes:
            self._warn_of_cut_texts(events)
        return Entry(value, -1, to_position(root.start_mark, self._file), events)

    def entries(self) -> Iterator[Entry]:
        """Stream the jobs; problems of the other keys were reported with the header."""
        report, self._report = self._report, discard
        builder = self._builder
        builder.read_root()
        has_jobs = False
        for key, _, event in builder.read_keys():
            if key == "jobs" and isinstance(event, SequenceStartEvent) and not has_jobs:
                has_jobs = True
                self._report = report
                yield from self._jobs()
                self._report, self._job = discard, None
            else:
                builder.begin()
                builder.build(event)
        self._report = report
        builder.read_end()
        for anchor, event in builder.unused_anchors.items():
            message = f"'&{anchor[:40]}' is an anchor of YAML here, and the text is only {event.value[:40]!r}"
            self._warn(event.start_mark.line, event.start_mark.column, message, ANCHOR_HINT)

    def _jobs(self) -> Iterator[Entry]:
        builder, next_event, file = self._builder, self._builder.next_event, self._file
        index = 0
        while True:
            event = next_event()
            if event.__class__ is SequenceEndEvent:
                return
            self._job = index
            self._reported.clear()
            builder.begin()
            value = builder.build(event, 3)
            if self._hashes:
                self._warn_of_cut_texts(builder.events)
            findings = _job_schema().findings(value)
            mark = event.start_mark
            entry = Entry(value, index, Position(file, mark.line + 1, mark.column + 1), builder.events)
            if not findings and not builder.is_invalid:
                yield entry
            for problem in entry.problems(findings) if findings else ():
                # At such a position something was reported while it was read.
                if problem.position not in self._reported:
                    self._report(problem)
            index += 1

    def _skip_jobs(self, start: Any, events: list[Any], *, are_last: bool) -> bool:
        """Check that there are jobs, and skip them; return False if they come last, so that there was no need to."""
        if not isinstance(start, SequenceStartEvent):
            self._report_at(start, "jobs must be a list, written out here", None)
            event = self._builder.skip(start)
            if event is not start:
                events.append(event)
            return True
        event = self._builder.next_event()
        if isinstance(event, SequenceEndEvent):
            self._report_at(start, "jobs is empty", None)
        elif are_last:
            return False
        while not isinstance(event, SequenceEndEvent):
            self._builder.skip(event)
            event = self._builder.next_event()
        events.append(event)
        return True

    def _report_at(self, event: Any, message: str, hint: str | None) -> None:
        job = None if self._job is None else job_label(self._job)
        position = to_position(event.start_mark, self._file)
        self._reported.add(position)
        self._report(Problem(Severity.ERROR, position, message, job, hint=hint))

    def _warn_of_cut_texts(self, events: list[Any]) -> None:
        for (line, column), text in cut_texts(events, self._hashes):
            message = f"the text ends here, since the '#' begins a comment: {text[:40]!r}"
            self._warn(line, column, message, HASH_HINT)

    def _warn(self, line: int, column: int, message: str, hint: str) -> None:
        job = None if self._job is None else job_label(self._job)
        position = Position(self._file, line + 1, column + 1)
        self._report(Problem(Severity.WARNING, position, message, job, hint=hint))


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


@cache
def _job_schema() -> ValueSchema:
    schema = load_catalog().manifest_schema
    return ValueSchema({**schema["$defs"]["job"], "$defs": schema["$defs"]}, "the job")


_TABLES = (".csv", ".tsv", ".xlsx")
_MANIFESTS = (".yaml", ".yml", *JSONL_SUFFIXES)
_MAX_NAMES = 1000
_MAX_FIRST_LINE_BYTES = 1_000_000


def require_manifest(path: Path) -> None:
    """
    Check that a path is not another file that people have beside their manifests.

    Raises:
        ManifestError: It is one; its problem has the right command.
    """
    found = _what_else(path)
    if found is not None:
        message, hint = found
        problem = Problem(Severity.ERROR, Position(str(path)), message, hint=hint)
        raise ManifestError(f"{path} can't be read as a manifest", problems=[problem])


def nearest_manifest(path: Path) -> str | None:
    """Ask for the manifest that was probably meant by a path that does not exist."""
    try:
        names = [other.name for other in islice(path.parent.iterdir(), _MAX_NAMES)]
    except OSError:
        return None
    return did_you_mean(path.name, [name for name in names if name.endswith(_MANIFESTS)])


def _what_else(path: Path) -> tuple[str, str] | None:
    if path.is_dir():
        if (path / DB_NAME).exists() or (path / RESULTS_NAME).exists():
            return (
                "this is a run directory, not a manifest",
                f"to continue it: {command_text('runner', 'resume', path)}",
            )
        return None
    if path.suffix.lower() in _TABLES and path.is_file():
        hint = f"name it in the 'from' of a job: {{from: {path.name}, ...}}; `runner init` writes a manifest to start with"
        return "this is a table, not a manifest", hint
    if path.suffix.lower() in JSONL_SUFFIXES:
        names = read_first_row(path).keys()
        if "custom_id" not in names and {"schema_version", "job_id"} <= names:
            hint = f"to run what did not succeed: {command_text('runner', 'rerun', path)}"
            return "this is a results file, not a manifest", hint
    return None


def is_batch_file(path: Path) -> bool:
    """Return whether a file is a batch file, by its suffix or by its first line."""
    return path.suffix.lower() in JSONL_SUFFIXES or {"custom_id", "body"} <= read_first_row(path).keys()


def read_first_row(path: Path) -> Mapping[str, Json]:
    """Return the object on the first line of a file; an empty one if there is none."""
    try:
        with open_regular(path) as stream:
            first = json.loads(stream.readline(_MAX_FIRST_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}
