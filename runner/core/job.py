"""A job in hand: the part of its record that changes while the engine works on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Failure, Json


@dataclass(slots=True, eq=False)
class Job:
    """
    What the engine keeps of a job while it is in hand; its request stays in the store.

    Attributes:
        seq: The store's handle for it.
        attempt: How many attempts were made, the one under way included.
        key: Fingerprint of the key that its newest attempt was made with.
        taken_up_at: When this task's waiting began in our eyes: its submission, or when a later run
            took it up again. Patience is counted from here.
        tries: In this process, first the POSTs that no channel took, then the queries in a row that taught nothing.
        unknowns: Queries in a row that did not find the task, once it was no longer young.
        has_files: Whether its request names local files, which become data URIs when it is sent.
        asked: What its request says of the video, where this process submitted it; shared among jobs.
    """

    seq: int
    job_id: str
    index: int
    model: str
    state: State
    attempt: int = 0
    task_id: str | None = None
    other_task_id: str | None = None
    remote_status: str | None = None
    key: str | None = None
    submitted_at: float | None = None
    completed_at: float | None = None
    finished_at: float | None = None
    generate_s: float | None = None
    download_s: float | None = None
    polls: int = 0
    timeout_s: float | None = None
    error: Failure | None = None
    warnings: tuple[str, ...] = ()
    has_files: bool = False
    asked: Mapping[str, Json] | None = None
    taken_up_at: float = 0.0
    tries: int = 0
    unknowns: int = 0
    commit: int = 0

    def meet(self, event: Event) -> None:
        """
        Move on by an event.

        Raises:
            IllegalTransition: The job's state does not allow the event.
        """
        self.state = advance(self.state, event)

    def warn(self, sentence: str) -> None:
        """Add a warning to what the results will carry, once."""
        if sentence not in self.warnings:
            self.warnings = (*self.warnings, sentence)
