"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner.core.lifecycle import State
from runner.core.model import Failure


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job came to rest, and that is on disk."""

    job_id: str
    model: str
    state: State
    error: Failure | None


@dataclass(frozen=True, slots=True)
class Notice:
    """
    Something that a person watching should know.

    Attributes:
        kind: A stable word, such as ``throttled``, ``outage``, ``recovered``, ``key_retired`` or ``stopping``.
    """

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    Where a run stands at one moment.

    Attributes:
        counts: Jobs by state.
        downloads: Ids of the jobs whose assets are being fetched, and ``downloads_waiting`` how many wait for that.
        in_flight: Remote tasks that exist, of the ``most_in_flight`` that may.
        submit_per_s: The rate that is allowed now, and ``accepted_per_s`` what was reached over the last minute.
        binding: Which limit holds the next submission back, in words; empty where none does.
        is_stopping: Whether nothing more is submitted.
        seconds_left: An estimate, or None where there is nothing to go by.
    """

    counts: Mapping[State, int]
    downloads: tuple[str, ...]
    downloads_waiting: int
    in_flight: int
    most_in_flight: int
    submit_per_s: float
    accepted_per_s: float
    binding: str
    is_stopping: bool
    seconds_left: float | None


Event = JobEnded | Notice
Observer = Callable[[Event], None]
