"""What is said of a run in a line: events, states, progress."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from runner.core.lifecycle import State
from runner.core.redact import clean
from runner.core.units import format_duration, format_rate
from runner.engine.events import Event, JobEnded, Snapshot

LABELS: Mapping[State, str] = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.UNCERTAIN: "in doubt",
    State.TIMED_OUT: "timed out",
    State.UNDELIVERED: "undelivered",
    State.PENDING: "pending",
    State.SUBMITTING: "submitting",
    State.SUBMITTED: "in flight",
    State.DOWNLOADING: "downloading",
}
"""What people call the states, those at rest first."""

COLOURS: Mapping[State, str] = {
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.UNCERTAIN: "yellow",
    State.TIMED_OUT: "yellow",
    State.UNDELIVERED: "yellow",
}

_LONGEST = 300


def event_line(event: Event) -> str:
    """Put an event into one safe line."""
    if isinstance(event, JobEnded):
        line = f"{event.job_id}: {LABELS[event.state]}"
        if event.error is not None and event.state is not State.SUCCEEDED:
            line += f" ({event.error.cls}): {event.error.message}"
        return clean(line, most_chars=_LONGEST)
    line = event.message if event.hint is None else f"{event.message} ({event.hint})"
    return clean(line, most_chars=_LONGEST)


def counts_text(counts: Mapping[State, int]) -> str:
    """
    Name the states that have jobs.

    >>> counts_text({State.SUCCEEDED: 1200, State.FAILED: 0, State.PENDING: 3})
    '1,200 succeeded, 3 pending'
    """
    return ", ".join(f"{counts[state]:,} {label}" for state, label in LABELS.items() if counts.get(state))


def rate_text(snapshot: Snapshot) -> str:
    """Put the rate that is reached beside the one that is allowed, and say what holds it back."""
    if snapshot.is_stopping:
        return "submitting no more"
    if not snapshot.counts[State.PENDING]:
        return "everything is submitted"
    reached, allowed = (_rate(per_s) for per_s in (snapshot.accepted_per_s, snapshot.submit_per_s))
    held = f", held by: {snapshot.binding}" if snapshot.binding else ""
    return f"submitting {reached} of {allowed}{held}"


def left_text(snapshot: Snapshot) -> str:
    """Say how long it still takes; empty where nothing is known."""
    if not snapshot.seconds_left:
        return ""
    return f"about {format_duration(max(1.0, snapshot.seconds_left))} left"


def at_rest(counts: Mapping[State, int]) -> int:
    """Count the jobs that this process is through with."""
    return sum(count for state, count in counts.items() if state.is_resting)


def shell(*words: str | Path) -> str:
    """
    Write a command that can be pasted.

    >>> shell("runner", "resume", Path("output/my run"))
    "runner resume 'output/my run'"
    """
    return shlex.join(str(word) for word in words)


def _rate(per_s: float) -> str:
    return format_rate(per_s) if per_s > 0 else "0/s"
