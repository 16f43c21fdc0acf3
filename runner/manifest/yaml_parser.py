"""
The events of a YAML file, and what to tell a person when it cannot be parsed.

libyaml's parser is used where PyYAML was built with it, PyYAML's own where not: the
same events and the same positions, at a tenth of the speed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner, ScannerError

from runner.core.problem import Position, Problem, Severity

if TYPE_CHECKING:
    from _typeshed import SupportsRead

NextEvent = Callable[[], Any]
"""Gives the next event of a file; raises YAMLError or OSError."""

MAX_DEPTH = 64
"""Levels of nested collections in one file, the outermost mapping included."""
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class PythonParser(Reader, Scanner, Parser):
    """PyYAML's own parser, for where libyaml is missing."""

    def __init__(self, stream: SupportsRead[bytes]) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)

    def get_event(self) -> Any:
        """Give the next event; half a surrogate pair is an error, as it is to libyaml."""
        event: Any = super().get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, ScalarEvent) and _SURROGATE.search(event.value):
            mark: Any = event.start_mark
            raise ScannerError(None, None, "found invalid Unicode character escape code", mark)
        return event


FastestParser: Callable[[SupportsRead[bytes]], Any]
try:
    from yaml._yaml import CParser as FastestParser
except ImportError:
    FastestParser = PythonParser

_SURROGATE = re.compile("[\ud800-\udfff]")


def open_events(stream: SupportsRead[bytes]) -> NextEvent:
    """Read a stream of bytes as YAML, a little at a time."""
    next_event: NextEvent = FastestParser(stream).get_event
    return next_event


def to_position(mark: Any, file: str) -> Position:
    """Turn a parser's mark, which counts from 0, into a position."""
    return Position(file, mark.line + 1, mark.column + 1)


def parse_problem(error: YAMLError, path: Path, file: str) -> Problem:
    """Say why a file cannot be parsed any further, and where."""
    if isinstance(error, ReaderError):
        return _decoding_problem(path, file)
    if not isinstance(error, MarkedYAMLError):
        return Problem(Severity.ERROR, Position(file), f"not readable as YAML: {error}")
    mark = error.problem_mark or error.context_mark
    deep = None if mark is None else _first_too_deep(path, mark)
    if deep is not None:
        return Problem(Severity.ERROR, to_position(deep.start_mark, file), TOO_DEEP)
    position = Position(file) if mark is None else to_position(mark, file)
    what = error.problem or "the structure breaks off"
    if what == _PARSERS_OWN_BOUND:
        return Problem(Severity.ERROR, position, TOO_DEEP)
    message = f"not readable as YAML: {what}"
    if error.context:
        message += f" ({error.context}"
        if error.context_mark is not None and error.context_mark.line + 1 != position.line:
            message += f" that begins on line {error.context_mark.line + 1}"
        message += ")"
    hint = next((hint for words, hint in _HINTS if words in what), None)
    return Problem(Severity.ERROR, position, message, hint=hint)


_PARSERS_OWN_BOUND = "exceeded maximum nesting depth"
"""What libyaml says from 0.2.6 on of 1000 levels, which its look ahead may meet before we see the 65th."""

_HINTS = (
    ("mapping values are not allowed", "quote a text that holds ': ', and check the indentation"),
    ("cannot start any token", "indent with spaces, and quote a text that begins with @, `, % or a tab"),
    ("did not find expected key", "check the indentation of this line and the quotes of the one before"),
    ("expected <block end>", "check the indentation of this line and the quotes of the one before"),
    ("could not find expected ':'", "check the indentation, and that a space follows each ':'"),
    ("did not find expected ',' or", "a list or mapping in brackets needs commas, and its closing bracket"),
    ("expected ',' or", "a list or mapping in brackets needs commas, and its closing bracket"),
    ("unexpected end of stream", "a quote is never closed"),
    ("invalid Unicode character escape", "write the character itself instead of its escapes"),
    (
        "unknown escape character",
        "in double quotes a backslash is written twice; single quotes keep it as it is",
    ),
    ("undefined tag handle", "a text that begins with '!' must be quoted"),
)
"""What the parsers say, and what usually mends it."""


class _Beginning:
    """The first characters of a text, as a stream of bytes for a parser."""

    def __init__(self, text: IO[str], length: int) -> None:
        self._text = text
        self._left = length

    def read(self, size: int = 1 << 16, /) -> bytes:
        part = self._text.read(min(size, self._left))
        self._left -= len(part)
        return part.encode()


def _first_too_deep(path: Path, end: Any) -> Any:
    """
    Return the first event past the depth bound and before a mark, or None.

    A parser reads ahead of its events: an error there may hide what is too deep. Without
    what follows the mark, the events before it are given.
    """
    depth = 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        next_event = open_events(_Beginning(text, end.index))
        with suppress(YAMLError):
            while (event := next_event()) is not None:
                if isinstance(event, _STARTS):
                    depth += 1
                    if depth > MAX_DEPTH:
                        return event
                elif isinstance(event, _ENDS):
                    depth -= 1
    return None


# What YAML allows in a text (YAML 1.2.2, 5.1); the rest must be written as an escape in double quotes.
_NOT_PRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
_BLOCK = 1 << 20


def _decoding_problem(path: Path, file: str) -> Problem:
    """Find the first byte or character that no YAML file may hold."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, column, offset = 1, 1, 0
    with path.open("rb") as stream:
        while True:
            block = stream.read(_BLOCK)
            pending = decoder.getstate()[0]
            try:
                text, bad_byte = decoder.decode(block, final=not block), None
            except UnicodeDecodeError as error:
                text, bad_byte = error.object[: error.start].decode("utf-8"), error
            if not offset:
                text = text.removeprefix("\ufeff")
            bad = re.search(_NOT_PRINTABLE, text)
            if bad:
                line, column = _advance(line, column, text[: bad.start()])
                message = f"the character U+{ord(bad.group()):04X} is not allowed in YAML"
                hint = 'take it out, or write it as an escape such as "\\x07" in double quotes'
                return Problem(Severity.ERROR, Position(file, line, column), message, hint=hint)
            line, column = _advance(line, column, text)
            if bad_byte is not None:
                place = offset - len(pending) + bad_byte.start
                message = f"not UTF-8: byte 0x{bad_byte.object[bad_byte.start]:02X} at offset {place}"
                return Problem(Severity.ERROR, Position(file, line, column), message, hint="save it as UTF-8")
            if not block:
                return Problem(Severity.ERROR, Position(file), "not readable as YAML")
            offset += len(block)


def _advance(line: int, column: int, text: str) -> tuple[int, int]:
    breaks = text.count("\n")
    if not breaks:
        return line, column + len(text)
    return line + breaks, len(text) - text.rfind("\n")


_STARTS = (MappingStartEvent, SequenceStartEvent)
_ENDS = (MappingEndEvent, SequenceEndEvent)


def find_events(trace: Sequence[Any], path: Sequence[str | int]) -> tuple[Any, Any]:
    """
    Walk to a value, or to its nearest ancestor that is written out.

    What an alias or a merge key brings in stands elsewhere: the walk ends at the alias.

    Returns:
        The events of the key (or of the value itself, where it has none) and of the value.
    """
    at = key_at = 0
    for step in path:
        found = find_child(trace, at, step)
        if found is None:
            break
        key_at, at = found
    return trace[key_at], trace[at]


def find_child(trace: Sequence[Any], start: int, step: str | int) -> tuple[int, int] | None:
    """Give the places of the key and the value of one step down, or None where it is not written out."""
    if isinstance(trace[start], MappingStartEvent):
        merge = None
        children = _children(trace, start)
        for key_at, value_at in zip(children, children, strict=False):
            key = trace[key_at].value if isinstance(trace[key_at], ScalarEvent) else None
            if key == step:
                return key_at, value_at
            if key == "<<":
                merge = key_at, value_at
        return merge
    if isinstance(trace[start], SequenceStartEvent):
        for place, value_at in enumerate(_children(trace, start)):
            if place == step:
                return value_at, value_at
    return None


def _children(trace: Sequence[Any], start: int) -> Iterator[int]:
    """Give the places of the values right inside a collection; for a mapping, keys and values in turn."""
    depth = 0
    for at in range(start + 1, len(trace)):
        if isinstance(trace[at], _ENDS):
            if depth == 0:
                return
            depth -= 1
            continue
        if depth == 0:
            yield at
        if isinstance(trace[at], _STARTS):
            depth += 1
