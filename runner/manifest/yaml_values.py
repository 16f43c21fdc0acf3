"""
JSON values from YAML events, one whole value at a time.

Every event of a value is kept beside it as its trace: cheaper than a table of
positions, and enough to find any of them when a problem must be shown (`trace`).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from runner.core.model import Json
from runner.core.sanitize import MIN_KEY_CHARS, looks_like_key
from runner.manifest.scalars import (
    CORE_TAGS,
    NON_TEXT_STARTS,
    resolve_plain,
    resolve_tagged,
    unsupported_tag_message,
)
from runner.manifest.yaml_parser import MAX_DEPTH, TOO_DEEP, NextEvent, find_child

MAX_ALIASED = 10_000
"""So many values of one entry, or of the header, may come from aliases: a bomb has billions."""

YamlErrorHandler = Callable[[Any, str, str | None], None]
"""Takes the event that is to blame, what is wrong with it, and a hint."""


class YamlUnreadable(Exception):
    """
    The file cannot be read any further.

    Attributes:
        event: What is to blame, or None where it is the file as a whole.
    """

    def __init__(self, message: str, event: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.event = event


class ValueBuilder:
    """
    Builds values from the events of one file; what its anchors name lasts for the file.

    Attributes:
        trace: The events of the value that is being built or was built last.
        is_broken: Whether that value has problems, which were told to `complain`.
        complain: Who hears of problems; the value is built to its end all the same.
    """

    def __init__(self, next_event: NextEvent, complain: YamlErrorHandler) -> None:
        self.on_error = complain
        self.trace: list[Any] = []
        self.is_invalid = False
        self._next = next_event
        self._anchors: dict[str, tuple[Json, int]] = {}
        self._aliased = 0
        # Plain keys that were found to be text: the same string for all jobs. Bounded in `_odd_key`.
        self._plain_keys: dict[str, str] = {}

    def begin(self) -> None:
        """Start a new value with an empty trace."""
        self.trace = []
        self.is_invalid = False
        self._aliased = 0

    def build(self, event: Any, depth: int = 2) -> Json:
        """
        Build the value that begins with an event, and read its events to the last.

        The value may share parts with others where the file has aliases: never change it.

        Args:
            depth: The level of a collection that begins here; the outermost mapping is level 1.

        Raises:
            Unreadable: It is too deep, or its aliases stand for too much.
            yaml.YAMLError: The file cannot be parsed any further.
        """
        self.trace.append(event)
        return self._value(event, depth)

    def skip(self, event: Any) -> Any:
        """Read past a value, but keep what its anchors name; give its last event."""
        depth = 0
        while True:
            kind = event.__class__
            if kind is MappingEndEvent or kind is SequenceEndEvent:
                depth -= 1
            elif event.anchor is not None and kind is not AliasEvent:
                self.begin()
                self.build(event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                depth += 1
            if depth == 0:
                return event
            event = self._next()

    def read_key(self, event: Any) -> str | None:
        """Read a key of the outermost mapping; None where it is none, which was complained of."""
        self.trace.append(event)
        if _is_merge(event):
            self._error(event, "<< cannot bring in keys of the manifest itself", "write them out")
            return None
        return self._uncommon_key(event, depth=1)

    def report_duplicate(self, event: Any, key: str, start: int = 0) -> None:
        """Say that a key stands twice in the mapping that begins at a place of the trace."""
        first = find_child(self.trace, start, key)
        hint = None if first is None else f"first on line {self.trace[first[0]].start_mark.line + 1}"
        self._error(event, f"the key {key[:40]!r} stands here twice", hint)

    def _value(self, event: Any, depth: int) -> Json:
        if event.__class__ is AliasEvent:
            return self._alias(event)
        size_before = len(self.trace) + self._aliased
        kind = event.__class__
        value: Json
        if kind is ScalarEvent:
            value = self._scalar(event)
        elif kind is MappingStartEvent:
            self._check_collection(event, depth, "map")
            value = self._mapping(depth)
        else:
            self._check_collection(event, depth, "seq")
            value = self._sequence(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, len(self.trace) + self._aliased - size_before + 1)
        return value

    # The two loops below run for every value of every job. What is usual is done in
    # place; whatever is not (tags, anchors, aliases, odd keys) has a method of its own.

    def _mapping(self, depth: int) -> dict[str, Json]:
        value: dict[str, Json] = {}
        merged: list[dict[str, Json]] = []
        start = len(self.trace) - 1
        next_event, note, plain_keys = self._next, self.trace.append, self._plain_keys
        while True:
            key_event = next_event()
            note(key_event)
            if key_event.__class__ is MappingEndEvent:
                break
            key: str | None
            if (
                key_event.__class__ is ScalarEvent
                and key_event.value in plain_keys
                and key_event.anchor is None
                and key_event.tag is None
            ):
                key = plain_keys[key_event.value]
            elif _is_merge(key_event):
                self._merge(merged, depth)
                continue
            else:
                key = self._uncommon_key(key_event, depth)
            event = next_event()
            note(event)
            if event.__class__ is not ScalarEvent or event.anchor is not None or event.tag is not None:
                item = self._value(event, depth + 1)
            else:
                item = event.value
                if not event.style and (not item or item[0] in NON_TEXT_STARTS):
                    item = self._plain(event)
                elif len(item) >= MIN_KEY_CHARS and looks_like_key(item):
                    item = self._api_key(event)
            if key is None:
                continue
            if key in value:
                self.report_duplicate(key_event, key, start)
                continue
            value[key] = item
        if merged:
            return {**{key: item for source in reversed(merged) for key, item in source.items()}, **value}
        return value

    def _sequence(self, depth: int) -> list[Json]:
        value: list[Json] = []
        next_event, note = self._next, self.trace.append
        while True:
            event = next_event()
            note(event)
            kind = event.__class__
            if kind is SequenceEndEvent:
                return value
            if kind is ScalarEvent and event.anchor is None:
                value.append(self._scalar(event))
            else:
                value.append(self._value(event, depth + 1))

    def _scalar(self, event: Any) -> Json:
        if looks_like_key(event.value):
            return self._api_key(event)
        # A style is empty for plain scalars, or one of ' " | >.
        if event.tag is not None:
            return self._tagged(event)
        return event.value if event.style else self._plain(event)

    def _plain(self, event: Any) -> Json:
        try:
            return resolve_plain(event.value)
        except ValueError as error:
            self._error(event, str(error), None)
            return event.value

    def _tagged(self, event: Any) -> Json:
        try:
            return resolve_tagged(event.tag, event.value)
        except ValueError as error:
            self._error(event, str(error), None)
            return event.value

    def _api_key(self, event: Any) -> str:
        hint = "keep the key in an environment variable, and its name under gateway.api_keys"
        self._error(event, "this looks like an API key, which a manifest must not hold", hint)
        # The name of a variable is right wherever text is, so that nothing else is said of it.
        return "REDACTED"

    def _check_collection(self, event: Any, depth: int, name: str) -> None:
        if depth > MAX_DEPTH:
            raise YamlUnreadable(TOO_DEEP, event)
        if event.tag is not None and event.tag != "!" and CORE_TAGS.get(event.tag) != name:
            self._error(event, unsupported_tag_message(event.tag), None)

    def _uncommon_key(self, event: Any, depth: int) -> str | None:
        """Read a key that was not met before, or that is no plain text."""
        if event.__class__ is not ScalarEvent:
            self._value(event, depth + 1)
            self._error(event, "a key must be text, not a list, a mapping or an alias", None)
            return None
        key = self._value(event, depth + 1)
        if not isinstance(key, str):
            hint = f"write '{event.value[:40]}' in quotes"
            self._error(event, f"the key {event.value[:40] or 'null'} is not text", hint)
            return None
        if not event.style and event.tag is None:
            if len(self._plain_keys) > 10_000:
                self._plain_keys.clear()
            self._plain_keys[key] = key
        return key

    def _merge(self, merged: list[dict[str, Json]], depth: int) -> None:
        """Read what follows `<<` (of YAML 1.1, and still in use): a mapping, or a list of them."""
        event = self._next()
        self.trace.append(event)
        value = self._value(event, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):
            # The first that has a key wins.
            merged.extend(sources)
        elif not self.is_invalid:
            self._error(event, "<< takes a mapping, or a list of mappings", None)

    def _alias(self, event: Any) -> Json:
        found = self._anchors.get(event.anchor)
        if found is None:
            self._error(event, f"nothing above is marked with &{event.anchor[:40]}", None)
            return None
        value, size = found
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise YamlUnreadable(f"the aliases stand for more than {MAX_ALIASED:,} values", event)
        return value

    def _error(self, event: Any, message: str, hint: str | None) -> None:
        self.is_invalid = True
        self.on_error(event, message, hint)


def _is_merge(event: Any) -> bool:
    return event.__class__ is ScalarEvent and event.value == "<<" and not event.style and event.tag is None


def open_manifest(path: Path) -> IO[bytes]:
    """
    Open a file that may be a manifest.

    Raises:
        Unreadable: It is no regular file, or says that it is not UTF-8.
        OSError: It is missing, or may not be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise YamlUnreadable("this is a directory, not a manifest")
    if not stat.S_ISREG(mode):
        raise YamlUnreadable("a manifest is read more than once; save this to a regular file first")
    stream = path.open("rb")
    start = stream.read(2)
    stream.seek(0)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        stream.close()
        raise YamlUnreadable("not UTF-8: it begins as UTF-16 does; save it as UTF-8")
    return stream


# A line that may go on with the outermost mapping: neither indented, nor a comment, nor an element of a list.
_OUTER_LINE = re.compile(rb"\n(?=[^\s#-]|-\S)([^\r\n:]{0,8})")
_JOBS_KEYS = (b"jobs", b'"jobs"', b"'jobs'")
# Carriage returns alone, U+0085, U+2028 and U+2029 end lines in YAML too.
_RARE_LINE_END = re.compile(rb"\r(?!\n)|\xc2\x85|\xe2\x80[\xa8\xa9]")

_RARE_BYTES = (b"\r", b"\xc2\x85", b"\xe2\x80")
_BLOCK = 1 << 20


def jobs_come_last(path: Path) -> bool:
    """
    Say whether no key follows `jobs`, given that the outermost mapping is a block without indentation.

    Only the beginnings of lines are looked at, which takes a twentieth of the time
    of parsing. When in doubt the answer is False, which costs time alone.
    """
    found = False
    with path.open("rb") as stream:
        # Whole lines, so that nothing that is looked for is cut in two.
        while block := stream.read(_BLOCK) + stream.readline():
            text = b"\n" + block
            if any(byte in text for byte in _RARE_BYTES) and _RARE_LINE_END.search(text):
                return False
            for match in _OUTER_LINE.finditer(text):
                if found:
                    return False
                found = match[1].rstrip() in _JOBS_KEYS
    return found
