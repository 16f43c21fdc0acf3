"""
The parser of YAML files, why it can't parse one, and where among its events a value is.

libyaml's parser is used if PyYAML was built with it, otherwise PyYAML's own: the same
events and the same positions, at a tenth of the speed.
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
"""Returns the next event of a file; raises YAMLError or OSError."""

MAX_DEPTH = 64
"""Levels of nested collections in one file, the outermost mapping included."""
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

_BLOCK = 1 << 20


class PythonParser(Reader, Scanner, Parser):
    """PyYAML's own parser, for installations without libyaml."""

    def __init__(self, stream: SupportsRead[bytes]) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)

    def get_event(self) -> Any:
        """Return the next event; half a surrogate pair is an error, as in libyaml."""
        event: Any = super().get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            mark: Any = event.start_mark
            raise ScannerError(None, None, "found invalid Unicode character escape code", mark)
        return event


DefaultParser: Callable[[SupportsRead[bytes]], Any]
try:
    from yaml._yaml import CParser as DefaultParser
except ImportError:
    DefaultParser = PythonParser


class YamlUnreadable(Exception):
    """
    The file can't be read any further.

    Attributes:
        event: The event with the error; None if the error concerns the file as a whole.
    """

    def __init__(self, message: str, event: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.event = event


def to_position(mark: Any, file: str) -> Position:
    """Convert a parser's mark, which counts from 0, to a position."""
    return Position(file, mark.line + 1, mark.column + 1)


def parse_problem(error: YAMLError, path: Path, file: str) -> Problem:
    """Describe why a file can't be parsed any further, and where."""
    if isinstance(error, ReaderError):
        return _decoding_problem(path, file)
    if not isinstance(error, MarkedYAMLError):
        return Problem(Severity.ERROR, Position(file), f"not readable as YAML: {error}")
    mark = error.problem_mark or error.context_mark
    too_deep = None if mark is None else _first_too_deep(path, mark)
    if too_deep is not None:
        return Problem(Severity.ERROR, to_position(too_deep.start_mark, file), TOO_DEEP)
    position = Position(file) if mark is None else to_position(mark, file)
    description = error.problem or "the structure is incomplete"
    if description == _LIBYAML_TOO_DEEP:
        return Problem(Severity.ERROR, position, TOO_DEEP)
    message = f"not readable as YAML: {description}"
    if error.context:
        message += f" ({error.context}"
        if error.context_mark is not None and error.context_mark.line + 1 != position.line:
            message += f" that begins on line {error.context_mark.line + 1}"
        message += ")"
    hint = next((hint for words, hint in _HINTS if words in description), None)
    return Problem(Severity.ERROR, position, message, hint=hint)


_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
"""The error of libyaml 0.2.6 and later at 1000 levels, which it may reach while we have not read the 65th."""

_HINTS = (
    ("mapping values are not allowed", "quote text with ': ' in it, and check the indentation"),
    ("cannot start any token", "indent with spaces, and quote text that begins with @, `, % or a tab"),
    ("did not find expected key", "check the indentation of this line and the quotes of the one before"),
    ("expected <block end>", "check the indentation of this line and the quotes of the one before"),
    ("could not find expected ':'", "check the indentation, and that a space follows each ':'"),
    ("did not find expected ',' or", "a list or mapping in brackets needs commas, and its closing bracket"),
    ("expected ',' or", "a list or mapping in brackets needs commas, and its closing bracket"),
    ("unexpected end of stream", "a quote is never closed"),
    ("invalid Unicode character escape", "write the character itself instead of its escapes"),
    (
        "unknown escape character",
        "write a backslash twice in double quotes, or use single quotes",
    ),
    ("undefined tag handle", "text that begins with '!' must be quoted"),
)
"""Parts of the parsers' errors, and what usually helps."""


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
    Return the first event beyond MAX_DEPTH and before a mark, or None.

    A parser reads ahead of its events, so that an error may hide what is too deep. It
    returns the events before the mark if nothing follows it.
    """
    depth = 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        next_event: NextEvent = DefaultParser(_Beginning(text, end.index)).get_event
        with suppress(YAMLError):
            while (event := next_event()) is not None:
                if isinstance(event, _STARTS):
                    depth += 1
                    if depth > MAX_DEPTH:
                        return event
                elif isinstance(event, _ENDS):
                    depth -= 1
    return None


# All characters but those that YAML allows (YAML 1.2.2, 5.1); others must be escapes in double quotes.
_NOT_PRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"


def _decoding_problem(path: Path, file: str) -> Problem:
    """Find the first byte or character that no YAML file may have."""
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
                hint = 'remove it, or write it as an escape such as "\\x07" in double quotes'
                return Problem(Severity.ERROR, Position(file, line, column), message, hint=hint)
            line, column = _advance(line, column, text)
            if bad_byte is not None:
                at = offset - len(pending) + bad_byte.start
                message = f"not UTF-8: byte 0x{bad_byte.object[bad_byte.start]:02X} at offset {at}"
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


def find_events(events: Sequence[Any], path: Sequence[str | int]) -> tuple[Any, Any]:
    """
    Find a value, or its nearest ancestor that is written out.

    What an alias or a merge key refers to is written elsewhere: the search ends at the alias.

    Returns:
        The events of the key (of the value itself if it has none) and of the value.
    """
    key_index = index = 0
    for step in path:
        child = find_child(events, index, step)
        if child is None:
            break
        key_index, index = child
    return events[key_index], events[index]


def find_child(events: Sequence[Any], start: int, step: str | int) -> tuple[int, int] | None:
    """Return the indices of the key and the value of a child, or None if it is not written out."""
    if isinstance(events[start], MappingStartEvent):
        merge = None
        children = _children(events, start)
        for key_index, value_index in zip(children, children, strict=False):
            key = events[key_index].value if isinstance(events[key_index], ScalarEvent) else None
            if key == step:
                return key_index, value_index
            if key == "<<":
                merge = key_index, value_index
        return merge
    if isinstance(events[start], SequenceStartEvent):
        for number, value_index in enumerate(_children(events, start)):
            if number == step:
                return value_index, value_index
    return None


def _children(events: Sequence[Any], start: int) -> Iterator[int]:
    """Yield the indices of the values in a collection; for a mapping, of keys and values in turn."""
    depth = 0
    for index in range(start + 1, len(events)):
        if isinstance(events[index], _ENDS):
            if depth == 0:
                return
            depth -= 1
            continue
        if depth == 0:
            yield index
        if isinstance(events[index], _STARTS):
            depth += 1
