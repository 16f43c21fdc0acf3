"""Whether a request asks for a video with sound."""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.model import Json

_WITH_SOUND_BY_DEFAULT = ("seedance-1-5", "dreamina-seedance", "wan3.0")
"""Beginnings of the names of models that make sound unless `generate_audio` is false (fact F19)."""


def asks_for_sound(request: Mapping[str, Json]) -> bool:
    """
    Return whether a request asks for sound, or leaves that to a model that makes sound by default.

    >>> asks_for_sound({"model": "seedance-1-5-pro-251215"}), asks_for_sound({"model": "wan2.7-i2v"})
    (True, False)
    """
    default = str(request.get("model")).startswith(_WITH_SOUND_BY_DEFAULT)
    return bool(request.get("generate_audio", default))
