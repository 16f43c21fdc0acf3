"""What a document says about the pictures that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from runner.schema.paths import PathPattern, strings

STAND_IN = "data:image/png;base64,"
"""Stands for a local file while its request is checked: what is sent in the end has this form."""


class MediaField(Struct, frozen=True):
    """
    A place in a request where the address of a picture stands, and what the picture may be (fact F23).

    Attributes:
        path: Keys from the request's root; ``*`` is every item of a list. See `runner.schema.paths.find`.
        allows_data_uri: Whether a local file may be sent here, as a base64 data URI.
        formats: Lower-case names, ``jpeg`` for JPG.
        formats_by_model: Further formats of single models.
        max_bytes: Of the file, before base64; itself allowed.
        min_side_px: Of width and of height, as is max_side_px.
        min_ratio: Width by height, as is max_ratio.
        ratio_is_exclusive: Whether the bounds of the ratio are themselves refused.
    """

    path: PathPattern
    allows_data_uri: bool
    formats: tuple[str, ...]
    max_bytes: int
    min_side_px: int
    max_side_px: int
    min_ratio: float
    max_ratio: float
    ratio_is_exclusive: bool = False
    formats_by_model: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def formats_for(self, model: str) -> tuple[str, ...]:
        """List the formats that one model takes."""
        return self.formats + self.formats_by_model.get(model, ())

    def allows_ratio(self, ratio: float) -> bool:
        """Say whether a picture of this shape (width by height) is taken."""
        if self.ratio_is_exclusive:
            return self.min_ratio < ratio < self.max_ratio
        return self.min_ratio <= ratio <= self.max_ratio


def media_fields(schema: dict[str, Any]) -> tuple[MediaField, ...]:
    """Read every ``x-media`` of a schema."""
    return tuple(_field(path, text["x-media"]) for path, text in strings(schema) if "x-media" in text)


def _field(path: PathPattern, rules: dict[str, Any]) -> MediaField:
    return MediaField(
        path=path,
        allows_data_uri=rules["local"],
        formats=tuple(rules["formats"]),
        max_bytes=rules["maxBytes"],
        min_side_px=rules["sides"][0],
        max_side_px=rules["sides"][1],
        min_ratio=rules["ratio"][0],
        max_ratio=rules["ratio"][1],
        ratio_is_exclusive=rules.get("ratioExclusive", False),
        formats_by_model={model: tuple(names) for model, names in rules.get("formatsByModel", {}).items()},
    )
