"""Download requests and their results."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from runner.core.model import Asset, AssetKind, Failure
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
    return f"{path}.part"
