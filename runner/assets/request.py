"""What is asked of a download, and what it can come to."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from runner.core.model import Asset, AssetKind, Failure
from runner.media import MediaFacts


class PartMetadata(Struct, frozen=True):
    """
    What the server said of a body, kept beside the part of it that is on disk.

    Attributes:
        total_bytes: Its whole length, or None where it was not declared.
        validator: What `If-Range` may carry: a strong ETag or a trustworthy Last-Modified; None for neither.
    """

    total_bytes: int | None = None
    validator: str | None = None


class AssetRequest(Struct, frozen=True):
    """
    One asset to fetch.

    Attributes:
        url: From an answer of the API, or the gateway's content route. Never written anywhere, it may be signed.
        path: The final name; until the file is published it is written to that name and `.part`. Text, as
            every path on the way of an asset: to take `Path` apart and put it together took a tenth of the
            time of a small one.
        key: Sent to the gateway's origin alone; None for no key.
        known: What an earlier process remembered of the body whose part may be on disk. Without it
            that part is not trusted, and the download begins anew.
    """

    url: str
    path: str
    kind: AssetKind
    key: str | None = None
    known: PartMetadata | None = None


class FetchFailure(StrEnum):
    """Why there is no asset, by what to do about it."""

    EXPIRED = "expired"
    """The address gives nothing, or no more (403, 404, 410 and the like): ask the task for a fresh one."""
    REFUSED = "refused"
    """The address may not be fetched from; another address of the task may be."""
    INVALID = "invalid"
    """What came is not the asset: too large, empty, a web page, or damaged."""
    EXHAUSTED = "exhausted"
    """The tries are used up. What came so far is in the part file, for a later run."""


class Fetched(Struct, frozen=True):
    """
    A whole asset, not yet under its final name and not yet durable.

    Attributes:
        sha256: Of its bytes, in hex.
    """

    part_path: str
    bytes: int
    sha256: str
    facts: MediaFacts


class NotFetched(Struct, frozen=True):
    """No asset, and why."""

    reason: FetchFailure
    failure: Failure


def part_of(path: str) -> str:
    """
    Name the file that holds an asset until it is whole and durable.

    >>> part_of("assets/sky.mp4")
    'assets/sky.mp4.part'
    """
    return f"{path}.part"


def as_asset(fetched: Fetched, kind: AssetKind, path: str) -> Asset:
    """Describe a fetched asset for the store and the results; `path` is relative to the run directory."""
    facts = fetched.facts
    return Asset(
        kind,
        path,
        fetched.bytes,
        fetched.sha256,
        facts.media_type,
        facts.width,
        facts.height,
        facts.duration_s,
    )
