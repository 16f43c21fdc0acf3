"""Rows of JSON files: an object on each line, or an array of objects, whose values keep their types."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NoReturn

from runner.core.model import Json
from runner.core.sanitize import KEY_HINT, may_contain_key
from runner.disk import MAX_LINE, LineTooLong, lines_of, open_regular
from runner.jsontext import loads
from runner.manifest.row_readers import (
    KEY_MESSAGE,
    Row,
    RowErrorHandler,
    RowFile,
    RowFileError,
    contains_key,
    unreadable,
)
from runner.manifest.yaml_parser import MAX_DEPTH, TOO_DEEP

JSONL_SUFFIXES = (".jsonl", ".ndjson")

_NOT_JSON = "the line has a number or a character that JSON does not have"
_KEY_START = re.compile(r'[\s,]*(?=")')
_COLON = re.compile(r"\s*:\s*")
_BLOCK = 1 << 20
_LONGEST_WORD = len("-Infinity") + 1


class JsonRows(RowFile):
    """A file with an object on each line, or with an array of objects if it begins with a bracket."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._last = LastLine()
        try:
            with open_regular(path) as stream:
                self._is_array = path.suffix.lower() == ".json" and _starts_array(stream)
        except OSError as error:
            raise unreadable(path, error) from error

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the objects; see `RowFile`."""
        if self._is_array:
            return read_array(self.path, on_error)
        return read_jsonl(self.path, on_error, self._last)

    def place_of(self, row_line: int, name: str) -> tuple[int, int]:
        """Return the line and the column of a value; see `RowFile`."""
        last = self._last
        return row_line, _value_column(last.text.decode(), name) if last.number == row_line else 0


class LastLine:
    """
    The line of a JSONL file that was read last, for whoever asks for it.

    Attributes:
        number: From 1.
        text: In UTF-8.
    """

    __slots__ = ("number", "text")

    def __init__(self) -> None:
        self.number = 0
        self.text = b""


def read_jsonl(path: Path, on_error: RowErrorHandler, last: LastLine | None = None) -> Iterator[Row]:
    """
    Stream the objects of a JSONL file, each with its line. Blank lines are skipped.

    An invalid line goes to ``on_error``, and is left out.

    Args:
        last: Gets each valid line before its object is returned.

    Raises:
        RowFileError: The file is missing or can't be read to its end.
    """
    last = last or LastLine()
    try:
        with open_regular(path) as stream:
            for number, line in enumerate(_utf8_lines(stream), start=1):
                try:
                    value = loads(line)
                except (ValueError, RecursionError):
                    if line.strip():
                        on_error(number, *_json_error(line), None)
                    continue
                if type(value) is not dict:
                    on_error(number, 0, "the line is JSON, but not an object in braces", None)
                elif (
                    len(line) > 2 * MAX_DEPTH
                    and line.count(b"{") + line.count(b"[") > MAX_DEPTH
                    and _is_deeper(value, MAX_DEPTH)
                ):
                    on_error(number, 0, TOO_DEEP, None)
                elif may_contain_key(line.decode()) and contains_key(value):
                    on_error(number, 0, KEY_MESSAGE, KEY_HINT)
                else:
                    # A batch line has one object in another; a call to count its keys would take longer.
                    marks = line.count(b'":') - len(value)
                    if marks:
                        for item in value.values():
                            if type(item) is dict:
                                marks -= len(item)
                    if marks and (key := _repeated_key(line, value)) is not None:
                        on_error(number, 0, str(_RepeatedKey(key)), "remove one of them")
                        continue
                    last.number, last.text = number, line
                    yield number, value
    except OSError as error:
        raise unreadable(path, error) from error
    except LineTooLong as error:
        raise RowFileError(error.line, str(error)) from None
    except UnicodeError as error:
        raise RowFileError(
            0, f"the file is not UTF-16, as it begins ({error})", "save it as UTF-8"
        ) from error


def _utf8_lines(stream: IO[bytes]) -> Iterator[bytes]:
    start = stream.read(len(BOM_UTF8))
    if start[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
        stream.seek(0)
        text = TextIOWrapper(stream, encoding="utf-16", newline="\n")
        return (line.encode() for line in lines_of(text))
    if start != BOM_UTF8:
        stream.seek(0)
    return lines_of(stream)


def _json_error(raw: bytes) -> tuple[int, str]:
    """Describe an invalid line by the standard library's error, which is the same for every JSON library."""
    try:
        is_too_deep = _is_deeper(json.loads(raw.decode().rstrip()), MAX_DEPTH)
    except UnicodeDecodeError as error:
        return len(raw[: error.start].decode()) + 1, "the line is not UTF-8"
    except json.JSONDecodeError as error:
        return error.colno, f"the line is not JSON: {error.msg}"
    except RecursionError:
        is_too_deep = True
    # Each JSON library has a depth limit of its own.
    return 0, TOO_DEEP if is_too_deep else _NOT_JSON


def _repeated_key(line: bytes, value: dict[str, Json]) -> str | None:
    """
    Return a key that an object of the line has twice, of which the decoder keeps the last.

    Most lines are cleared by counting the marks between keys and values, since a key is followed by a quote and a colon. One with a blank between them is
    not found if it is beside others without: to look for it would cost every line as much again.
    """
    if line.count(b'":') == _count_keys(value):
        return None
    try:
        json.loads(line, object_pairs_hook=_distinct)
    except _RepeatedKey as error:
        return error.key
    return None


def _count_keys(value: dict[str, Json]) -> int:
    count = len(value)
    for item in value.values():
        kind = type(item)
        if kind is dict:
            count += _count_keys(item)
        elif kind is list:
            count += sum(_count_keys(inner) for inner in item if type(inner) is dict)
    return count


def _value_column(line: str, name: str) -> int:
    """
    Return the column of a value in the object of a line, from 1; 0 if it has no such key.

    >>> _value_column('{"a": [1], "b" : 5}', "b")
    18
    """
    decode = json.JSONDecoder().raw_decode
    at = line.find("{") + 1
    while (found := _KEY_START.match(line, at)) is not None:
        key, end = decode(line, found.end())
        start = _COLON.match(line, end)
        if start is None:
            break
        if key == name:
            return start.end() + 1
        at = decode(line, start.end())[1]
    return 0


def _starts_array(stream: IO[bytes]) -> bool:
    start = stream.read(1024)
    if start[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
        start = start.decode("utf-16", "ignore").encode()
    return start.removeprefix(BOM_UTF8).lstrip()[:1] == b"["


def read_array(path: Path, on_error: RowErrorHandler) -> Iterator[Row]:
    """
    Stream the objects of a file that is one JSON array, each with the line where it begins.

    Raises:
        RowFileError: The file is missing or can't be read to its end.
    """
    try:
        with open_regular(path) as stream:
            encoding = "utf-16" if stream.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
            stream.seek(0)
            with TextIOWrapper(stream, encoding=encoding) as text:
                yield from _Array(text).rows(on_error)
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeError as error:
        raise RowFileError(0, f"'{path.name}' is not UTF-8", "save it as UTF-8") from error


class _Array:
    """An array that is decoded item by item from as much of the text as the item needs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._decode = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse).raw_decode

    def rows(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the items."""
        self._take("[")
        is_first = True
        while self._peek() != "]":
            if not is_first:
                self._take(",")
                self._peek()
            is_first = False
            line, column, value = self._item()
            if type(value) is not dict:
                on_error(line, column, "the item is not an object in braces", None)
            elif _is_deeper(value, MAX_DEPTH):
                on_error(line, column, TOO_DEEP, None)
            elif contains_key(value):
                on_error(line, 0, KEY_MESSAGE, KEY_HINT)
            else:
                yield line, value
        self._take("]")
        if self._peek():
            raise self._error("the file continues after the end of the array")

    def _item(self) -> tuple[int, int, Json]:
        line, column = self._line, self._at - self._line_start + 1
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Text that ends early is an error at its end, or at the quote of its last string.
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_WORD
                length = error.pos - self._at
                if is_cut and self._read():
                    continue
                self._move_to(self._at + length)
                raise self._error(f"the file is not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                message = TOO_DEEP if isinstance(error, RecursionError) else str(error)
                raise RowFileError(line, message, column=column) from error
            # A number may continue in the next block.
            length = end - self._at
            if end < len(self._text) or not self._read():
                self._move_to(self._at + length)
                return line, column, value

    def _peek(self) -> str:
        """Return the next character that is not a blank; the empty text at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            self._move_to(at)
            if at < len(text):
                return text[at]
            if not self._read():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise self._error(f"the file is not JSON: Expecting {character!r}")
        self._at += 1

    def _move_to(self, at: int) -> None:
        breaks = self._text.count("\n", self._at, at)
        if breaks:
            self._line += breaks
            self._line_start = self._text.rindex("\n", self._at, at) + 1
        self._at = at

    def _read(self) -> bool:
        """Read more text behind what is left; return whether there was more."""
        left = self._text[self._at :]
        if len(left) > MAX_LINE:
            raise self._error(f"an item is longer than {MAX_LINE // 1_000_000} MB")
        # As much again as there is, so that a long item is not decoded again for each block.
        more = self._stream.read(max(_BLOCK, len(left)))
        self._line_start -= self._at
        self._text, self._at = left + more, 0
        return bool(more)

    def _error(self, message: str) -> RowFileError:
        return RowFileError(self._line, message, column=self._at - self._line_start + 1)


class _RepeatedKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:40]!r} is there twice")
        self.key = key


def _distinct(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKey(next(name for name in names if names.count(name) > 1))
    return value


def _refuse(_text: str) -> NoReturn:
    raise ValueError(_NOT_JSON)


def _is_deeper(value: Json, levels: int) -> bool:
    """
    Return whether collections are nested deeper than a number of levels.

    >>> _is_deeper({"a": [1]}, 2), _is_deeper({"a": [[]]}, 2)
    (False, True)
    """
    if not isinstance(value, dict | list):
        return False
    items: Any = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)
