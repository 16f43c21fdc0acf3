"""
JSON values from YAML events, one whole value at a time.

The events of a value are kept with it: cheaper than a table of positions, and enough to
find any position for a problem (`yaml_parser.find_events`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from yaml.error import YAMLError
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from runner.core.model import Json
from runner.core.sanitize import KEY_HINT, MIN_KEY_CHARS, looks_like_key
from runner.disk import MAX_LINE
from runner.manifest import yaml_parser
from runner.manifest.scalars import (
    CORE_TAGS,
    NON_TEXT_STARTS,
    is_text,
    resolve_plain,
    resolve_tagged,
    unsupported_tag_message,
)
from runner.manifest.yaml_parser import MAX_DEPTH, TOO_DEEP, NextEvent, YamlUnreadable, find_child

if TYPE_CHECKING:
    from _typeshed import SupportsRead

MAX_ALIASED = 10_000
"""Values of one entry, or of the header, that may come from aliases: an alias bomb has billions."""

YamlErrorHandler = Callable[[Any, str, str | None], None]
"""Takes the event with the error, what is wrong with it, and a hint."""


REDACTED = "REDACTED"
"""What replaces a text that looks like an API key, after the error."""


def open_events(stream: SupportsRead[bytes]) -> NextEvent:
    """Parse a stream of bytes as YAML, a little at a time."""
    next_event: NextEvent = yaml_parser.DefaultParser(_BoundedLines(stream)).get_event
    return next_event


class _BoundedLines:
    """Ends a stream with an error at a line that would fill the memory, since a parser keeps a whole value."""

    def __init__(self, stream: SupportsRead[bytes]) -> None:
        self._stream = stream
        self._length = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read the next bytes."""
        block = self._stream.read(size)
        end = block.rfind(b"\n")
        self._length = len(block) - end - 1 + (self._length if end < 0 else 0)
        if self._length > MAX_LINE:
            raise YAMLError(f"a line is longer than {MAX_LINE // 1_000_000} MB")
        return block


class ValueBuilder(Struct):
    """
    Builds values from the events of one file, whose anchors are valid throughout the file.

    Attributes:
        next_event: Returns the next event of the file.
        on_error: Called for each error; the value is built to its end nevertheless.
        events: Of the value that is being built or was built last.
        is_invalid: Whether that value has errors, which were given to `on_error`.
        unused_anchors: Events of plain texts with an anchor that no alias has used so far, by anchor.
    """

    next_event: NextEvent
    on_error: YamlErrorHandler
    events: list[Any] = []
    is_invalid: bool = False
    unused_anchors: dict[str, Any] = {}
    _anchors: dict[str, tuple[Json, int]] = {}
    _aliased: int = 0
    # Plain keys that are text: the same string object for all jobs. Bounded in `_uncommon_key`.
    _plain_keys: dict[str, str] = {}

    def begin(self) -> None:
        """Start a new value without events."""
        self.events = []
        self.is_invalid = False
        self._aliased = 0

    def build(self, event: Any, depth: int = 2) -> Json:
        """
        Build the value that begins with an event, and read its events to the last.

        The value may share parts with others if the file has aliases: never change it.

        Args:
            depth: The level of a collection that begins here; the outermost mapping is level 1.

        Raises:
            YamlUnreadable: It is too deep, or has too many values from aliases.
            yaml.YAMLError: The file can't be parsed any further.
        """
        self.events.append(event)
        return self._value(event, depth)

    def skip(self, event: Any) -> Any:
        """Skip a value, but keep what its anchors name; return its last event."""
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
            event = self.next_event()

    def read_root(self) -> Any:
        """Read the start of the outermost mapping of a manifest, and return its event."""
        self.next_event()
        start = self.next_event()
        if isinstance(start, StreamEndEvent):
            raise YamlUnreadable("the file is empty")
        root = self.next_event()
        if not isinstance(root, MappingStartEvent):
            raise YamlUnreadable("a manifest is a mapping with keys such as version, name and jobs", root)
        self.begin()
        self.events.append(root)
        return root

    def read_key(self) -> tuple[str | None, Any, Any] | None:
        """
        Read the next key of the outermost mapping, after the value of the one before; return None at the end.

        Returns:
            The key, or None if it is invalid, which was reported; its event; and the first one of its value.
        """
        event = self.next_event()
        self.events.append(event)
        if event.__class__ is MappingEndEvent:
            return None
        if _is_merge(event):
            self._error(event, "<< is not allowed for the keys of the manifest itself", "write the keys out")
            return None, event, self.next_event()
        return self._uncommon_key(event, depth=1), event, self.next_event()

    def read_end(self) -> None:
        """Make sure that nothing follows the outermost mapping."""
        self.next_event()
        event = self.next_event()
        if not isinstance(event, StreamEndEvent):
            raise YamlUnreadable("a second document begins here; a manifest is one document", event)

    def report_duplicate(self, event: Any, key: str, start: int = 0) -> None:
        """Report a key that is in the mapping twice; the mapping begins at an index of the events."""
        first = find_child(self.events, start, key)
        hint = None if first is None else f"first on line {self.events[first[0]].start_mark.line + 1}"
        self._error(event, f"duplicate key {key[:40]!r}", hint)

    def _value(self, event: Any, depth: int) -> Json:
        if event.__class__ is AliasEvent:
            return self._alias(event)
        size_before = len(self.events) + self._aliased
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
            if kind is ScalarEvent and not event.style and is_text(event.value):
                self.unused_anchors[event.anchor] = event
            self._anchors[event.anchor] = (value, len(self.events) + self._aliased - size_before + 1)
        return value

    # The two loops below run for every value of every job. The common cases are handled in
    # place; the others (tags, anchors, aliases, unusual keys) have methods of their own.

    def _mapping(self, depth: int) -> dict[str, Json]:
        value: dict[str, Json] = {}
        merged: list[dict[str, Json]] = []
        start = len(self.events) - 1
        next_event, add_event, plain_keys = self.next_event, self.events.append, self._plain_keys
        while True:
            key_event = next_event()
            add_event(key_event)
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
            add_event(event)
            if event.__class__ is not ScalarEvent or event.anchor is not None or event.tag is not None:
                item = self._value(event, depth + 1)
            else:
                item = event.value
                if not event.style and (not item or item[0] in NON_TEXT_STARTS):
                    item = self._plain(event)
                elif len(item) >= MIN_KEY_CHARS and looks_like_key(item):
                    item = self._reject_api_key(event)
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
        next_event, add_event = self.next_event, self.events.append
        while True:
            event = next_event()
            add_event(event)
            kind = event.__class__
            if kind is SequenceEndEvent:
                return value
            if kind is ScalarEvent and event.anchor is None:
                value.append(self._scalar(event))
            else:
                value.append(self._value(event, depth + 1))

    def _scalar(self, event: Any) -> Json:
        if len(event.value) >= MIN_KEY_CHARS and looks_like_key(event.value):
            return self._reject_api_key(event)
        # A style is empty for plain scalars, or one of ' " | >.
        if event.tag is not None:
            return self._tagged(event)
        return event.value if event.style else self._plain(event)

    def _plain(self, event: Any) -> Json:
        text = event.value
        if text and text[0] not in NON_TEXT_STARTS:
            return text
        try:
            return resolve_plain(text)
        except ValueError as error:
            self._error(event, str(error), None)
            return event.value

    def _tagged(self, event: Any) -> Json:
        try:
            return resolve_tagged(event.tag, event.value)
        except ValueError as error:
            self._error(event, str(error), None)
            return event.value

    def _reject_api_key(self, event: Any) -> str:
        self._error(event, "this looks like an API key, which a manifest must not contain", KEY_HINT)
        # The name of a variable is valid wherever text is, so that there is no second error.
        return REDACTED

    def _check_collection(self, event: Any, depth: int, name: str) -> None:
        if depth > MAX_DEPTH:
            raise YamlUnreadable(TOO_DEEP, event)
        if event.tag is not None and event.tag != "!" and CORE_TAGS.get(event.tag) != name:
            self._error(event, unsupported_tag_message(event.tag), None)

    def _uncommon_key(self, event: Any, depth: int) -> str | None:
        """Read a key that occurs for the first time, or that is not plain text."""
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
        """Read the value of `<<` (YAML 1.1, still in use): a mapping, or a list of them."""
        event = self.next_event()
        self.events.append(event)
        value = self._value(event, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):
            # The first one with a key wins.
            merged.extend(sources)
        elif not self.is_invalid:
            self._error(event, "<< takes a mapping, or a list of mappings", None)

    def _alias(self, event: Any) -> Json:
        found = self._anchors.get(event.anchor)
        if found is None:
            self._error(event, f"no value above has the anchor &{event.anchor[:40]}", None)
            return None
        self.unused_anchors.pop(event.anchor, None)
        value, size = found
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise YamlUnreadable(f"the aliases refer to more than {MAX_ALIASED:,} values", event)
        return value

    def _error(self, event: Any, message: str, hint: str | None) -> None:
        self.is_invalid = True
        self.on_error(event, message, hint)


def _is_merge(event: Any) -> bool:
    return event.__class__ is ScalarEvent and event.value == "<<" and not event.style and event.tag is None
