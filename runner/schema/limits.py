"""
Limits beside those of JSON Schema: words of a text, bytes of a request, what its pictures, videos and audios may be, what
one model allows, and which texts matter by their length alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from msgspec import Struct, field

from runner.core.problem import Finding, PathPattern, Severity, text_schemas
from runner.core.units import format_size

Range = tuple[float, float]
"""The least and the largest allowed value."""


class MediaLimits(Struct, frozen=True):
    """
    What a file must be (facts F23 and F24). What is None is not limited.

    Attributes:
        formats: Lower-case names, ``jpeg`` for JPG. Empty if nothing but an address is allowed.
        formats_by_model: Further formats of single models.
        allows_data_uri: Whether a local file may be sent inside the request, as a base64 data URI.
        allows_asset: Whether ``asset://ID`` of the asset library may be sent.
        max_bytes: Of the file, before base64.
        sides: Of width and of height, in pixels.
        pixels: Of width times height.
        ratio: Of width by height.
        ratio_is_exclusive: Whether the bounds of the ratio are themselves not allowed.
        has_alpha: Whether a PNG may be transparent.
        seconds: Of the length of a video or audio.
        total_seconds: Of all files of the same type in a request together.
        with_seconds: Of all these files and the request's ``seconds`` together.
        frame_rate: In frames a second.
        codecs: Of a video; empty for any.
    """

    formats: tuple[str, ...]
    formats_by_model: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allows_data_uri: bool = False
    allows_asset: bool = False
    max_bytes: int | None = None
    sides: Range | None = None
    pixels: Range | None = None
    ratio: Range | None = None
    ratio_is_exclusive: bool = False
    has_alpha: bool = True
    seconds: Range | None = None
    total_seconds: float | None = None
    with_seconds: float | None = None
    frame_rate: Range | None = None
    codecs: tuple[str, ...] = ()

    def formats_for(self, model: str) -> tuple[str, ...]:
        """Return the formats that one model allows."""
        return self.formats + self.formats_by_model.get(model, ())

    def allows_ratio(self, ratio: float) -> bool:
        """Return whether a picture or video of this ratio (width by height) is allowed."""
        if self.ratio is None:
            return True
        least, most = self.ratio
        return least < ratio < most if self.ratio_is_exclusive else least <= ratio <= most


class MediaField(Struct, frozen=True):
    """
    A field of a request that names a file.

    Attributes:
        path: Keys from the request's root, with ``*`` for every item of a list.
        limits: For every file, unless the ``type`` beside it has its own.
        by_type: Limits by that ``type``.
    """

    path: PathPattern
    limits: MediaLimits
    by_type: Mapping[str, MediaLimits] = field(default_factory=dict)

    def limits_of(self, kind: Any) -> MediaLimits:
        """Return the limits for a file, by the ``type`` beside it."""
        return self.by_type.get(kind, self.limits) if isinstance(kind, str) else self.limits


def media_fields(schema: dict[str, Any]) -> tuple[MediaField, ...]:
    """Return the media fields of a schema: its texts with ``x-media``."""
    return tuple(_field(path, text["x-media"]) for path, text in text_schemas(schema) if "x-media" in text)


def _field(path: PathPattern, rules: dict[str, Any]) -> MediaField:
    by_type = {name: _limits(own) for name, own in rules.get("types", {}).items()}
    return MediaField(path, _limits(rules), by_type)


def _limits(rules: dict[str, Any]) -> MediaLimits:
    return MediaLimits(
        formats=tuple(rules["formats"]),
        formats_by_model={model: tuple(names) for model, names in rules.get("formatsByModel", {}).items()},
        allows_data_uri=rules["local"],
        allows_asset=rules.get("asset", False),
        max_bytes=rules.get("maxBytes"),
        sides=_range(rules, "sides"),
        pixels=_range(rules, "pixels"),
        ratio=_range(rules, "ratio"),
        ratio_is_exclusive=rules.get("ratioExclusive", False),
        has_alpha=rules.get("alpha", True),
        seconds=_range(rules, "seconds"),
        total_seconds=rules.get("totalSeconds"),
        with_seconds=rules.get("withSeconds"),
        frame_rate=_range(rules, "frameRate"),
        codecs=tuple(rules.get("codecs", ())),
    )


def _range(rules: dict[str, Any], key: str) -> Range | None:
    return (rules[key][0], rules[key][1]) if key in rules else None


# Kana, Hangul, and every plane of Han.
_CJK = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"


@cache
def _cjk() -> re.Pattern[str]:
    """Compile the pattern for the first long text: so large a class takes milliseconds."""
    return re.compile(_CJK)


class WordLimit(Struct, frozen=True):
    """The longest text that a document recommends, in Chinese characters and in words."""

    cjk: int
    words: int

    def excess(self, text: str) -> str | None:
        """
        Describe a text that is too long; return None if it is not.

        >>> WordLimit(cjk=2, words=3).excess("小猫 runs")
        >>> WordLimit(cjk=2, words=3).excess("小猫们 run")
        '3 Chinese characters, where at most 2 are recommended'
        """
        # A word has at least one character: most prompts need no counting.
        if len(text) <= min(self.cjk, self.words):
            return None
        cjk = 0 if text.isascii() else len(_cjk().findall(text))
        if cjk > self.cjk:
            return f"{cjk} Chinese characters, where at most {self.cjk} are recommended"
        words = len((_cjk().sub(" ", text) if cjk else text).split())
        if words > self.words:
            return f"{words} words, where at most {self.words} are recommended"
        return None


class BodyLimit(Struct, frozen=True):
    """Bytes of the body above which there is a warning, and above which the server refuses it (fact F27)."""

    warning: int
    error: int

    def finding(self, size_bytes: int) -> Finding | None:
        """
        Return what is wrong with a body of this size, or None.

        >>> BodyLimit(warning=10_000_000, error=64_000_000).finding(12_500_000).message
        'the request has 12.5 MB; more than 10 MB may be refused'
        """
        size = f"the request has {format_size(size_bytes)}"
        hint = "use public URLs instead of data in the request"
        if size_bytes > self.error:
            return Finding((), f"{size}; more than {format_size(self.error)} is refused", hint)
        if size_bytes > self.warning:
            return Finding(
                (), f"{size}; more than {format_size(self.warning)} may be refused", hint, Severity.WARNING
            )
        return None


def body_bytes(request: Any) -> int:
    """
    Measure a request as it would be sent.

    >>> body_bytes({"prompt": "小猫"})
    19
    """
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"), default=str)
    return len(text.encode("utf-8", "replace"))


def allowed_values(document: dict[str, Any], name: str, model: str) -> tuple[Any, ...]:
    """List what one model allows for a key, by the rules that depend on the model alone."""
    allowed: tuple[Any, ...] = tuple(document["properties"][name].get("enum", (True, False)))
    for rules in rules_of(document, name, model):
        allowed = tuple(value for value in allowed if _allows(rules, value))
    return allowed


def rules_of(document: dict[str, Any], name: str, model: str) -> Iterator[dict[str, Any]]:
    """Yield the rules for a key that depend on the model alone."""
    for rule in document.get("allOf", ()):
        condition = rule.get("if", {}).get("properties", {})
        if set(condition) == {"model"} and _allows(condition["model"], model):
            yield rule["then"].get("properties", {}).get(name, {})


def _allows(rules: dict[str, Any], value: Any) -> bool:
    return bool(value == rules.get("const", value) and value in rules.get("enum", (value,)))


_NOT_BLANK = {"type": "string", "pattern": "^\\s+$"}
_LENGTH_KEYWORDS = frozenset({"type", "description", "minLength", "maxLength", "allOf", "not"})
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "title", "description", "required"})
_OPEN_KEYWORDS = frozenset(
    {"$ref", "$dynamicRef", "patternProperties", "additionalProperties", "unevaluatedProperties"}
)
"""Keywords whose rules apply to keys that they do not name."""


def length_only_fields(schema: Mapping[str, Any]) -> dict[str, int]:
    """
    Find the keys of a strict schema whose texts matter by their length alone, with the most characters.

    >>> prompt = {"type": "string", "minLength": 1, "maxLength": 500}
    >>> length_only_fields({"properties": {"prompt": prompt, "seed": {"type": "integer"}}})
    {'prompt': 500}
    """
    own = {"properties", "additionalProperties"}
    named = _texts_in({key: rules for key, rules in schema.items() if key not in own})
    if not named.isdisjoint(_OPEN_KEYWORDS):
        return {}
    limits = {key: _max_chars(rule) for key, rule in schema["properties"].items() if key not in named}
    return {key: limit for key, limit in limits.items() if limit is not None}


def _texts_in(rules: Any) -> set[str]:
    """Collect every text in some rules, except where they only ask whether a key is present."""
    if isinstance(rules, dict):
        return {
            *rules,
            *(text for key, rule in rules.items() if key not in _ANNOTATIONS for text in _texts_in(rule)),
        }
    if isinstance(rules, list):
        return {text for rule in rules for text in _texts_in(rule)}
    return {rules} if isinstance(rules, str) else set()


def _max_chars(rule: Mapping[str, Any]) -> int | None:
    """Return the longest text that a rule allows; None if more than the length matters."""
    if rule.get("type") != "string" or not rule.keys() <= _LENGTH_KEYWORDS or rule.get("minLength", 0) > 1:
        return None
    if rule.get("not", _NOT_BLANK) != _NOT_BLANK:
        return None
    limits = [rule["maxLength"]] if "maxLength" in rule else []
    for condition in rule.get("allOf", ()):
        match condition:
            case {"not": {"type": "string", "minLength": int(limit), **others}} if not others:
                limits.append(limit - 1)
            case _:
                return None
    return min(limits, default=None)
