"""
Download requests and their results, and how a video differs from what its job requested.

A difference is worth a warning: the video is paid for and kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from runner.core.filenames import PART_SUFFIX
from runner.core.model import Asset, AssetKind, Failure, Json
from runner.core.units import format_duration
from runner.media import MediaInfo


class PartMetadata(Struct, frozen=True):
    """
    What the server said of a body, stored beside the part of it that is on disk.

    Attributes:
        total_bytes: Its whole length, or None if it was not declared.
        validator: A value for `If-Range`: a strong ETag or a trustworthy Last-Modified; None for neither.
    """

    total_bytes: int | None = None
    validator: str | None = None


class AssetRequest(Struct, frozen=True):
    """
    One asset to download.

    Attributes:
        url: From a response of the API, or the gateway's content route. Never stored or shown whole: it may be signed.
        path: The final name; until the file is published it is written to that name and ``.part``. A string, as
            every path of a download: `Path` objects took a tenth of the time of a small one.
        key: Sent only to the gateway's origin; None for no key.
        metadata: What an earlier process stored of the body whose part may be on disk. Without it
            that part is not trusted, and the download starts from nothing.
    """

    url: str
    path: str
    kind: AssetKind
    key: str | None = None
    metadata: PartMetadata | None = None


class FetchFailure(StrEnum):
    """Why there is no asset, by what to do about it."""

    EXPIRED = "expired"
    """The URL gives nothing, or no more (403, 404, 410 and the like): get a fresh one by polling the task."""
    REFUSED = "refused"
    """The URL is not allowed; another URL of the task may be."""
    INVALID = "invalid"
    """What the URL gives is not the asset: too large, empty, a web page, or damaged."""
    EXHAUSTED = "exhausted"
    """The tries are used up. What was received is in the part file, for a later run."""


class Fetched(Struct, frozen=True):
    """
    A complete asset, not yet under its final name and not yet durable.

    Attributes:
        sha256: Of its bytes, in hex.
    """

    part_path: str
    bytes: int
    sha256: str
    info: MediaInfo

    def to_asset(self, kind: AssetKind, path: str) -> Asset:
        """Return its record for the store and the results; `path` is relative to the run directory."""
        info = self.info
        return Asset(
            kind,
            path,
            self.bytes,
            self.sha256,
            info.media_type,
            info.width,
            info.height,
            info.duration_s,
            codec=info.codec,
            fps=info.fps,
            has_sound=info.has_sound,
        )


class NotFetched(Struct, frozen=True):
    """
    No asset, and why.

    Attributes:
        may_become_ready: Whether the URL may give it a little later, if the task ended only now.
    """

    reason: FetchFailure
    failure: Failure
    may_become_ready: bool = False


def part_path(path: str) -> str:
    """
    Return the name of the file that holds an asset until it is complete and durable.

    >>> part_path("assets/sky.mp4")
    'assets/sky.mp4.part'
    """
    return f"{path}{PART_SUFFIX}"


_DURATION_TOLERANCE_S = 0.5
"""Models render whole frames, and one more than the seconds need: 5 s at 24 per second are 5.04 s."""
_RATIO_TOLERANCE = 0.06
"""Sides are multiples of 16 or 32, so 21:9 may be 992x416, which is 2 % off."""
_AREA_TOLERANCE = 0.25
_RESOLUTION = re.compile(r"(\d{3,4})p", re.IGNORECASE)
_PIXELS = re.compile(r"(\d{2,5})\s*[x*×]\s*(\d{2,5})", re.IGNORECASE)
_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")


def mismatches(request: Mapping[str, Json], info: MediaInfo) -> tuple[str, ...]:
    """
    Return a sentence for each way in which a video differs from its request; none where either states nothing.

    >>> mismatches({"seconds": "5", "size": "720P"}, MediaInfo("video/mp4", 832, 480, 10.0))
    ('the video is 10s long; 5s was requested', 'the video is 832x480 pixels; 720P was requested')
    """
    return tuple(filter(None, (duration_mismatch(request, info), *size_mismatches(request, info))))


def size_mismatches(request: Mapping[str, Json], info: MediaInfo) -> tuple[str, ...]:
    """Return a sentence for each way in which the size or the shape of a video differs from its request."""
    return tuple(filter(None, (_size_mismatch(request, info), _ratio_mismatch(request, info))))


def duration_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    """Return a sentence if the length of a video differs from its request; None if not."""
    try:
        requested_s = float(request["seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    # Seedance takes -1 for a length of its own choice.
    if info.duration_s is None or requested_s <= 0:
        return None
    if abs(info.duration_s - requested_s) <= _DURATION_TOLERANCE_S:
        return None
    return (
        f"the video is {format_duration(info.duration_s)} long; {format_duration(requested_s)} was requested"
    )


def _size_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    if "size" not in request or info.width is None or info.height is None:
        return None
    requested = str(request["size"]).strip()
    if match := _RESOLUTION.fullmatch(requested):
        # 720p means an area of about 1280x720: a square video has 960x960 pixels.
        area = int(match[1]) ** 2 * 16 / 9
        matches = abs(info.width * info.height / area - 1) <= _AREA_TOLERANCE
    elif match := _PIXELS.fullmatch(requested):
        matches = (info.width, info.height) == (int(match[1]), int(match[2]))
    else:
        return None
    return None if matches else f"the video is {info.width}x{info.height} pixels; {requested} was requested"


def _ratio_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    if "ratio" not in request:
        return None
    match = _RATIO.fullmatch(str(request["ratio"]).strip())
    if match is None or not info.width or not info.height or not int(match[1]) or not int(match[2]):
        return None
    deviation = (info.width / info.height) / (int(match[1]) / int(match[2])) - 1
    if abs(deviation) <= _RATIO_TOLERANCE:
        return None
    return f"the video is {info.width}x{info.height} pixels; the ratio {match[0]} was requested"
