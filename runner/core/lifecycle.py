"""
The life of one job, as a table.

The engine does the work; this module only says what is allowed next. Every other list of states
in the program (what a crash leaves behind, what `resume` does, the diagram in `runner/README.md`)
is derived from the two tables here.

The rules behind the tables:

- A POST is sent only from `submitting`, and `submitting` is entered only from `pending`. No event
  leads from a state that may have a paid task back to `pending`, except those that a person or an
  explicit refusal by the API causes.
- A job found in `submitting` after a crash becomes uncertain: its POST may have been sent.
- Whatever goes wrong inside the program, a job that may have been paid for keeps its task id and
  can be polled and downloaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class IllegalTransition(Exception):
    """An event that the job's state does not allow: a bug in the program."""


class State(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    DOWNLOADING = "downloading"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    TIMED_OUT = "timed_out"
    UNDELIVERED = "undelivered"

    @property
    def label(self) -> str:
        """The state as people read it, such as ``timed out``."""
        return self.value.replace("_", " ")

    @property
    def has_ended(self) -> bool:
        """Whether this process is done with the job; a later run may still resume or rerun it."""
        return self in ENDED


class Step(StrEnum):
    """What the engine can do for a job."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


class Event(StrEnum):
    """What changes a job's state. `TRANSITIONS` says from where to where."""

    INTENT = "intent"
    """About to POST; durable before anything is sent."""
    NOT_SENT = "not_sent"
    """Nothing left this machine, or the API refused for now (429, no channel, key, quota): no task, no charge."""
    REJECTED = "rejected"
    """The API refused permanently: no task, no charge."""
    ACCEPTED = "accepted"
    """A task id came back; durable before the first poll."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The POST may have been accepted, and no answer says so."""
    ATTACHED = "attached"
    """A person named the task that belongs to the job."""
    REMOTE_SUCCEEDED = "remote_succeeded"
    REMOTE_FAILED = "remote_failed"
    """The task failed, was refused or canceled, expired, or was lost."""
    POLL_TIMED_OUT = "poll_timed_out"
    DELIVERED = "delivered"
    """Every asset is complete, verified, durable and under its final name."""
    NOT_DELIVERED = "not_delivered"
    FILES_LOST = "files_lost"
    """A file of a delivered job is gone, or was changed."""
    RESUMED = "resumed"
    """A later run polls or downloads again; of the failed jobs only lost ones."""
    RERUN = "rerun"
    """A person wants a new attempt, and may pay for it."""
    CONFIRMED_NOT_SUBMITTED = "confirmed_not_submitted"
    """A person says that the uncertain POST made no task."""
    WRITTEN_OFF = "written_off"
    """A person gives the job up."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """Nothing was sent and no retry is left."""
    CRASHED = "crashed"
    """A bug of ours in this one job."""


_P, _SG, _SD, _DL = State.PENDING, State.SUBMITTING, State.SUBMITTED, State.DOWNLOADING
_OK, _F, _U, _T, _UD = State.SUCCEEDED, State.FAILED, State.UNCERTAIN, State.TIMED_OUT, State.UNDELIVERED

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    _P: {
        Event.INTENT: _SG,
        Event.ATTACHED: _SD,
        Event.RETRIES_EXHAUSTED: _F,
        Event.CRASHED: _F,
    },
    _SG: {
        Event.NOT_SENT: _P,
        Event.REJECTED: _F,
        Event.ACCEPTED: _SD,
        Event.OUTCOME_UNKNOWN: _U,
        Event.CRASHED: _U,
    },
    _SD: {
        Event.REMOTE_SUCCEEDED: _DL,
        Event.REMOTE_FAILED: _F,
        Event.POLL_TIMED_OUT: _T,
        Event.CRASHED: _T,
    },
    _DL: {
        Event.DELIVERED: _OK,
        Event.NOT_DELIVERED: _UD,
        Event.CRASHED: _UD,
    },
    _T: {Event.RESUMED: _SD, Event.RERUN: _P},
    _UD: {Event.RESUMED: _DL, Event.RERUN: _P},
    _U: {Event.ATTACHED: _SD, Event.CONFIRMED_NOT_SUBMITTED: _P, Event.WRITTEN_OFF: _F},
    _F: {Event.RERUN: _P, Event.ATTACHED: _SD, Event.RESUMED: _SD},
    _OK: {Event.FILES_LOST: _UD, Event.RERUN: _P},
}
"""From each state, the events that it allows and where they lead."""


class _StateInfo(Struct, frozen=True):
    """What a state means, what is left to do in it, and the event that a process owes it after a crash."""

    meaning: str
    next: Step | None = None
    after_crash: Event | None = None


_STATES: Mapping[State, _StateInfo] = {
    _P: _StateInfo("nothing was sent", Step.SUBMIT),
    _SG: _StateInfo(
        "the intent is on disk, the POST may or may not have been sent", after_crash=Event.OUTCOME_UNKNOWN
    ),
    _SD: _StateInfo("the task id is on disk", Step.POLL),
    _DL: _StateInfo("the remote task succeeded, its assets are being downloaded", Step.DOWNLOAD),
    _OK: _StateInfo("every asset is complete, verified, and under its final name"),
    _F: _StateInfo("the job cannot succeed as it is"),
    _U: _StateInfo("the POST's outcome is unknown; there may be a paid task"),
    _T: _StateInfo("still running remotely when the poll timeout expired", Step.POLL),
    _UD: _StateInfo("succeeded remotely, but an asset could not be downloaded or verified", Step.DOWNLOAD),
}

ENDED = frozenset({_OK, _F, _U, _T, _UD})
"""Where a process may leave a job; in the others there is something left to do at once."""
UNFINISHED = frozenset(state for state, info in _STATES.items() if info.next is not None)
"""Where a run has something to do."""
WITH_A_TASK = UNFINISHED - {_P}
"""Where there is a task to poll or to fetch, which is paid for."""


def advance(state: State, event: Event) -> State:
    """
    Return the state that an event leads to.

    Raises:
        IllegalTransition: The state does not allow the event.

    >>> advance(State.PENDING, Event.INTENT)
    <State.SUBMITTING: 'submitting'>
    >>> advance(State.UNCERTAIN, Event.INTENT)
    Traceback (most recent call last):
    ...
    runner.core.lifecycle.IllegalTransition: the state uncertain does not allow the event intent
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"the state {state} does not allow the event {event}") from None


def next_step(state: State) -> Step | None:
    """
    Return what a run does with a job that it finds in this state; None if it leaves it alone.

    >>> next_step(State.TIMED_OUT), next_step(State.UNCERTAIN)
    (<Step.POLL: 'poll'>, None)
    """
    return _STATES[state].next


def recovery(state: State) -> Event | None:
    """
    Return the event for a job that a dead process left in this state, or None.

    >>> recovery(State.SUBMITTING)
    <Event.OUTCOME_UNKNOWN: 'outcome_unknown'>
    """
    return _STATES[state].after_crash


def describe(state: State) -> str:
    """Return what the state means, for a person."""
    return _STATES[state].meaning


def sources(event: Event) -> frozenset[State]:
    """
    Return the states that allow the event.

    >>> sorted(sources(Event.INTENT))
    [<State.PENDING: 'pending'>]
    """
    return frozenset(state for state, allowed in TRANSITIONS.items() if event in allowed)


def describe_recovery(state: State) -> str:
    """
    Return what the next run does with a job whose process died in this state, for the documentation.

    >>> describe_recovery(State.SUBMITTING)
    'becomes uncertain, and is never submitted again automatically'
    """
    event = recovery(state)
    if event is not None:
        return f"becomes {advance(state, event)}, and is never submitted again automatically"
    if state is State.UNCERTAIN:
        return "stays as it is until a person decides (`resolve`)"
    if state is State.FAILED:
        return "stays as it is unless it is rerun"
    return {
        Step.SUBMIT: "is submitted",
        Step.POLL: "is polled with its task id",
        Step.DOWNLOAD: "its assets are downloaded from where the `.part` files end",
        None: "nothing is left to do",
    }[next_step(state)]
