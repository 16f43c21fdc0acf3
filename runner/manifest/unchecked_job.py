"""
A job before it is checked: the entry that it comes from, the template that it shares with others, and its identity.

A job is identified by its id, and by the digest of its request. The digest is computed from canonical JSON that only the
standard library writes, so that it is the same on every machine and after every upgrade. A local file counts by its
content and not by its path.
"""

from __future__ import annotations

import json
from _blake2 import blake2b  # hashlib has the same one, but loads OpenSSL first
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.problem import Finding, JsonPath, Position, Problem, format_path
from runner.manifest.document import Entry, ProblemHandler, job_label
from runner.manifest.template import Template
from runner.schema.request_schema import RequestSchema

if TYPE_CHECKING:
    from runner.manifest.row_readers import RowFile


_MAX_MODEL_LENGTH = 100
_ID_DIGITS = 16
"""Digits of the digest in an automatic id: two of a million jobs are equal by chance once in 37 million runs."""


_encode = json.JSONEncoder(
    # A request was read from text, so it has no cycles: looking for them takes a third of the time.
    check_circular=False,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
).encode


def canonical_json(request: Mapping[str, Json]) -> str:
    r"""
    Encode a request as JSON with sorted keys, without spaces, in ASCII.

    Raises:
        ValueError: It has a number that JSON does not have (NaN or an infinity).

    >>> canonical_json({"prompt": "小猫", "model": "m"})
    '{"model":"m","prompt":"\\u5c0f\\u732b"}'
    """
    return _encode(request)


def request_digest(request: Mapping[str, Json]) -> str:
    """
    Hash a request: 128 bits of BLAKE2b in hex, the same for every order of its keys.

    Raises:
        ValueError: As for `canonical_json`.

    A local file is the same under every path:

    >>> one = {"image": {"$file": "/a.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}}
    >>> other = {"image": {"$file": "/b.png", "sha256": "1f", "media_type": "image/png", "bytes": 9}}
    >>> request_digest(one) == request_digest(other)
    True
    """
    text = _encode(request)
    if FILE_KEY in text:
        text = _encode(_without_paths(request))
    return _hash(text)


class DigestTemplate:
    """
    The digests of requests that differ in a few keys only: what they share is encoded once.

    Args:
        request: One of them.
        varying: The keys in which they differ, all of which it has.

    >>> template = DigestTemplate({"prompt": "a kitten", "model": "m"}, ["prompt"])
    >>> template.digest({"prompt": "a cat", "model": "m"}) == request_digest({"model": "m", "prompt": "a cat"})
    True
    """

    __slots__ = ("_pieces", "_varying")

    def __init__(self, request: Mapping[str, Json], varying: Collection[str]) -> None:
        shared = "{"
        self._pieces: list[str] = []
        self._varying: list[tuple[int, str]] = []
        for key in sorted(request):
            shared += f"{_encode(key)}:"
            if key in varying:
                self._varying.append((len(self._pieces) + 1, key))
                self._pieces += shared, ""
                shared = ","
            else:
                shared += f"{_encode(request[key])},"
        self._pieces.append(f"{shared.removesuffix(',')}}}")

    def digest(self, request: Mapping[str, Json]) -> str:
        """
        Return `request_digest` of one of these requests.

        Raises:
            ValueError: As for `canonical_json`.
            KeyError: The request lacks a key.
        """
        pieces = self._pieces.copy()
        for index, key in self._varying:
            pieces[index] = _encode(request[key])
        text = "".join(pieces)
        return request_digest(request) if FILE_KEY in text else _hash(text)


def _hash(text: str) -> str:
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def automatic_id(model: str, digest: str, repetition: int | None = None) -> str:
    """
    Name a job without an id; moving it in the manifest does not change the name.

    >>> automatic_id("wan2.7-i2v", "3f9a1c2b7d0e5a4488cc21d07b6e9f10")
    'wan2.7-i2v-3f9a1c2b7d0e5a44'
    >>> automatic_id("wan2.7-i2v", "3f9a1c2b7d0e5a4488cc21d07b6e9f10", repetition=2)
    'wan2.7-i2v-3f9a1c2b7d0e5a44-2'
    """
    name = f"{model[:_MAX_MODEL_LENGTH]}-{digest[:_ID_DIGITS]}"
    return name if repetition is None else f"{name}-{repetition}"


def _without_paths(value: Json) -> Json:
    if is_file_reference(value):
        return {key: item for key, item in value.items() if key != FILE_KEY}
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return value


_NULL_WORDS = frozenset({"null", "none", "nan", "n/a", "#n/a", "na", "nil", "<na>", "\\n", "-"})
_NULL_WORD_HINT = "if this word means an empty cell: csv: {empty: [...]} beside from: lists such words"


class EntrySource(Struct):
    """
    What the jobs of one entry have in common; a batch file is one entry with a job on each line.

    Attributes:
        entry: None for a batch file.
        row_file: The file with the row of the job that is being read; empty if there are no rows.
        schema: The schema that the entry names, or None.
        timeout_s: As in `JobSpec`.
        variable_names: Names that an id may use to distinguish the jobs of the entry.
    """

    entry: Entry | None
    row_file: str = ""
    schema: str | None = None
    timeout_s: float | None = None
    variable_names: tuple[str, ...] = ()
    _rows: RowFile | None = None
    _reported: set[tuple[JsonPath, str]] = field(default_factory=set)

    def begin_file(self, rows: RowFile) -> None:
        """Note from which file the next rows come."""
        self._rows = rows
        self.row_file = str(rows.path)

    def place_of(self, line: int, name: str) -> tuple[int, int]:
        """Return the line and the column of a value in a row; see `RowFile.place_of`."""
        return (line, 0) if self._rows is None else self._rows.place_of(line, name)

    def label(self, line: int, job_id: Json) -> str:
        """Name one of its jobs as people find it, such as ``jobs[3] "grass-2"``."""
        return job_label(line - 1 if self.entry is None else self.entry.index, job_id)

    def report_once(self, finding: Finding, report: ProblemHandler, label: str | None = None) -> None:
        """Report what is the same for all of its jobs, at its position in the manifest, the first time only."""
        if (finding.path, finding.message) not in self._reported:
            self._reported.add((finding.path, finding.message))
            entry = self.entry
            if entry is None:
                report(_problem(finding, Position(self.row_file), None))
            else:
                report(_problem(finding, entry.position_of(finding), label or entry.label))

    def report_row(
        self, line: int, finding: Finding, report: ProblemHandler, job_id: Json = None, *, column: int = 0
    ) -> None:
        """Report what is wrong with a row, at its line."""
        report(_problem(finding, Position(self.row_file, line, column), self.label(line, job_id)))


class UncheckedJob(Struct):
    """
    A job with its own values filled in, but neither normalized nor checked.

    Attributes:
        job_id: As in the manifest, of any type; None if it has none.
        extra: Fields that are added to the body unchecked.
        line: Of its row, from 1; 0 if it has no row.
        repetition: Its number within ``repeat``, from 1; None if its entry is not repeated.
        template: What its request was rendered from; None if it was written out.
    """

    source: EntrySource
    job_id: Json
    request: dict[str, Json]
    metadata: Mapping[str, Json]
    extra: Mapping[str, Json]
    task_id: Json = None
    line: int = 0
    repetition: int | None = None
    template: RequestTemplate | None = None

    def position(self) -> Position:
        """Return the position of the job: its row, or else its entry."""
        source, line = self.source, self.line
        if line or source.entry is None:
            return Position(source.row_file, line)
        return source.entry.start

    def report(self, finding: Finding, report: ProblemHandler) -> None:
        """Report what is wrong with the job, by its path from the entry's root, at its row or in the manifest."""
        names = self._names_in_row(finding) if self.line else None
        if names is not None:
            line, column = self.source.place_of(self.line, names[0]) if len(names) == 1 else (self.line, 0)
            if finding.hint is None and self._is_null_word(finding.path):
                finding = replace(finding, hint=_NULL_WORD_HINT)
            self.source.report_row(line, finding, report, self.job_id, column=column)
        else:
            self.source.report_once(finding, report, self.source.label(self.line, self.job_id))

    def _is_null_word(self, path: JsonPath) -> bool:
        """Return whether the value is a word that programs write into an empty cell."""
        value = self.request.get(str(path[1])) if len(path) == 2 else None
        return isinstance(value, str) and value.strip().lower() in _NULL_WORDS

    def _names_in_row(self, finding: Finding) -> Sequence[str] | None:
        """Return the names of the row's values that a finding is about; None if it is not about the row."""
        if self.template is None:
            return ()
        if finding.path[:1] != ("request",):
            return None
        within, varying = finding.path[1:], self.template.varying
        for leaf, names in varying.items():
            if within[: len(leaf)] == leaf:
                return names
        # A null in the row removes a key: the row is then why the request lacks it.
        absent = {
            leaf[0]: names
            for leaf, names in varying.items()
            if len(leaf) == 1 and leaf[0] not in self.request
        }
        if not absent or within:
            return None
        return next((names for key, names in absent.items() if f"'{key}'" in finding.message), ())


def _problem(finding: Finding, position: Position, label: str | None) -> Problem:
    # People read paths from the request's root, as in the API's documents.
    path = finding.path[1:] if finding.path[:1] == ("request",) else finding.path
    return Problem(finding.severity, position, finding.message, label, format_path(path), finding.hint)


class RequestTemplate:
    """
    The requests of one template, checked and hashed by what differs between them.

    Where rows fill in nothing but texts of which the schema checks the length alone, usually the
    prompt, one request is checked for all, and the JSON of what they share is encoded
    once. With 200,000 such rows this takes a third off the time of the whole check; other rows are
    checked one by one.

    Attributes:
        render: Returns the request of one job. A name that the job's values lack is a ``KeyError``.
        varying: What differs between the requests; see `Template`.
        schema_name: Of the first clean request, once `set_clean_example` was called.
    """

    def __init__(self, template: Template) -> None:
        self.render = template.render
        self.varying = template.varying
        self.schema_name = ""
        self._keys = {str(path[0]) for path in template.varying}
        self._max_chars: tuple[tuple[str, int], ...] = ()
        self._digests: dict[str, DigestTemplate] = {}

    def set_clean_example(self, request: dict[str, Json], schema: RequestSchema) -> None:
        """Remember the first clean request, which the schema did not have to normalize."""
        self.schema_name = schema.name
        limits = schema.length_only_fields(request)
        if self._keys <= limits.keys():
            self._max_chars = tuple((key, limits[key]) for key in self._keys)

    def is_known_clean(self, request: dict[str, Json]) -> bool:
        """Return whether a request is clean because it differs from the example only in texts of allowed length."""
        for key, max_chars in self._max_chars:
            text = request.get(key)
            if type(text) is not str or not 0 < len(text) <= max_chars or text.isspace():
                return False
        return self._max_chars != ()

    def digest(self, request: dict[str, Json], schema: str) -> str:
        """
        Return `request_digest` of a request that was normalized by the schema of this name.

        Raises:
            ValueError: As for `request_digest`.
        """
        template = self._digests.get(schema)
        if template is None:
            if not self._keys <= request.keys():
                return request_digest(request)
            template = self._digests[schema] = DigestTemplate(request, self._keys)
        try:
            return template.digest(request)
        except KeyError:
            # A null in the row removed a key.
            return request_digest(request)
