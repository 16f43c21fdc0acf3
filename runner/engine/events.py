"""What a run shows and reports, and how it is stopped from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from runner.core.cost import Spend
from runner.core.lifecycle import State
from runner.core.model import Failure
from runner.core.stop import Stop

log = logging.getLogger(__name__)


class Delivered(NamedTuple):
    """
    The files of a job, none unless it succeeded, or had succeeded before.

    Attributes:
        folder: The run directory.
        names: Of those in it, relative to it, the video first.
        urls: Of those in an object store, in the same order.
        bytes: Of all of them.
    """

    folder: Path = Path()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    bytes: int = 0


class JobEnded(Struct, frozen=True):
    """
    A job ended, and that is on disk.

    Attributes:
        task_id: Of its newest task, or None.
        folder, names, urls, bytes: As in `Delivered`.
    """

    job_id: str
    model: str
    state: State
    error: Failure | None
    task_id: str | None = None
    folder: Path = Path()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    bytes: int = 0

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in the run directory, the video first."""
        return tuple(self.folder / name for name in self.names)


class Notice(Struct, frozen=True):
    """
    Something that a person watching the run should know.

    Attributes:
        kind: A stable word, such as ``throttled``, ``outage``, ``recovered``, ``key_retired`` or ``stopping``.
    """

    kind: str
    message: str
    hint: str | None = None


RunEvent = JobEnded | Notice
Observer = Callable[[RunEvent], None]


class DownloadProgress(Struct, frozen=True):
    """
    How much of a job's video is on disk, while it is downloaded.

    Attributes:
        total_bytes: None if it is not known yet, or if the file is too small to be kept in parts.
    """

    job_id: str
    bytes: int
    total_bytes: int | None


class Snapshot(Struct, frozen=True):
    """
    The state of a run at one moment.

    Attributes:
        counts: Jobs by state.
        downloads: Those in progress; ``downloads_waiting`` jobs wait for theirs.
        in_flight: Remote tasks that exist, of at most ``max_in_flight``.
        pending_by_model: Jobs that this process may still submit; ``in_flight_by_model`` are remote tasks.
        submit_per_s: The rate that is allowed now; ``accepted_per_s`` is what was reached over the last minute.
        limited_by: The limit that holds the next submission back, in words; empty if there is none.
        is_stopping: Whether nothing more is submitted.
        spend: What the attempts of the run cost, by currency.
        seconds_left: An estimate, or None if there is nothing to base one on.
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
    pending_by_model: Mapping[str, int] = {}
    in_flight_by_model: Mapping[str, int] = {}
    spend: tuple[Spend, ...] = ()


class ActiveRun(Protocol):
    """A run in progress: one engine, or all shards on a cluster."""

    @property
    def name(self) -> str:
        """The run's name."""

    @property
    def counts(self) -> Mapping[State, int]:
        """Jobs by state."""

    @property
    def stops(self) -> Sequence[Stop]:
        """Why nothing more is submitted, in the order in which the reasons came up."""

    def snapshot(self) -> Snapshot:
        """Return the state of the run now."""

    def stop(self, stop: Stop) -> None:
        """Submit no more."""

    def abandon(self) -> None:
        """Stop now; nothing that is on disk is lost."""


def ignore(_event: object) -> None:
    """Do nothing."""


class _GuardedObserver:
    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._has_failed = False

    def __call__(self, event: RunEvent) -> None:
        try:
            self._observe(event)
        except Exception:
            # Once: the next million events would fail in the same way.
            level = logging.DEBUG if self._has_failed else logging.WARNING
            log.log(level, "the observer failed", exc_info=True)
            self._has_failed = True


def guarded(observe: Observer) -> Observer:
    """Keep an observer's errors, such as a closed terminal, from the run; the first time, it is logged as a warning."""
    return observe if isinstance(observe, _GuardedObserver) else _GuardedObserver(observe)
