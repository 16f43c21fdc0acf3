"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from runner.core.lifecycle import State
from runner.core.model import Failure


class JobEnded(Struct, frozen=True):
    """A job came to rest, and that is on disk."""

    job_id: str
    model: str
    state: State
    error: Failure | None


class Notice(Struct, frozen=True):
    """
    Something that a person watching should know.

    Attributes:
        kind: A stable word, such as ``throttled``, ``outage``, ``recovered``, ``key_retired`` or ``stopping``.
    """

    kind: str
    message: str
    hint: str | None = None


class DownloadProgress(Struct, frozen=True):
    """
    A download in hand: what is on disk of a job's video.

    Attributes:
        total_bytes: None while it is not known, or where the file is too small to be worth keeping in parts.
    """

    job_id: str
    bytes: int
    total_bytes: int | None


class Snapshot(Struct, frozen=True):
    """
    Where a run stands at one moment.

    Attributes:
        counts: Jobs by state.
        downloads: Those in hand, and ``downloads_waiting`` how many jobs wait for theirs.
        in_flight: Remote tasks that exist, of the ``max_in_flight`` that may.
        submit_per_s: The rate that is allowed now, and ``accepted_per_s`` what was reached over the last minute.
        limited_by: Which limit holds the next submission back, in words; empty where none does.
        is_stopping: Whether nothing more is submitted.
        seconds_left: An estimate, or None where there is nothing to go by.
    """

    counts: Mapping[State, int]
    downloads: tuple[DownloadProgress, ...]
    downloads_waiting: int
    in_flight: int
    max_in_flight: int
    submit_per_s: float
    accepted_per_s: float
    limited_by: str
    is_stopping: bool
    seconds_left: float | None


Event = JobEnded | Notice
Observer = Callable[[Event], None]
