"""What a document allows of the images that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from runner.schema.paths import PathPattern, text_schemas


class MediaField(Struct, frozen=True):
    """
    A field of a request that names an image, and what the image may be (fact F23).

    Attributes:
        path: Keys from the request's root, with ``*`` for every item of a list.
        allows_data_uri: Whether a local file may be sent here, as a base64 data URI.
        formats: Lower-case names, ``jpeg`` for JPG.
        formats_by_model: Further formats of single models.
        max_bytes: Of the file, before base64; inclusive.
        min_side_px: Of width and of height, as is max_side_px.
        min_ratio: Width by height, as is max_ratio.
        ratio_is_exclusive: Whether the bounds of the ratio are themselves not allowed.
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
        """Return the formats that one model allows."""
        return self.formats + self.formats_by_model.get(model, ())

    def allows_ratio(self, ratio: float) -> bool:
        """Return whether an image of this ratio (width by height) is allowed."""
        if self.ratio_is_exclusive:
            return self.min_ratio < ratio < self.max_ratio
        return self.min_ratio <= ratio <= self.max_ratio


def media_fields(schema: dict[str, Any]) -> tuple[MediaField, ...]:
    """Return the media fields of a schema: its texts with ``x-media``."""
    return tuple(_field(path, text["x-media"]) for path, text in text_schemas(schema) if "x-media" in text)


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
