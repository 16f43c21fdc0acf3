"""
The life of one job, as a table.

The engine performs the work; this module only says what is allowed next. Every
other list of states in the program (what is final, what a crash leaves behind,
what `resume` does, the diagram in `runner/README.md`) is derived from the two tables here.

The rules behind the table:

- A POST leaves only from `submitting`, and `submitting` is entered only from
  `pending`. No event leads from a state that may have a paid task back to
  `pending`, except those that a person or a definite refusal by the API sends.
- A job found in `submitting` after a crash is in doubt: its POST may have left.
- Whatever goes wrong inside the program, a job that may have been paid keeps
  its task id and can be polled and fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from runner.errors import IllegalTransition


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
    def is_final(self) -> bool:
        """Nothing more happens to the job unless a person asks for it."""
        return _WORK[self].next is None and not _WORK[self].in_doubt

    @property
    def is_resting(self) -> bool:
        """This process is through with the job; another run may still take it up."""
        return self in RESTING

    @property
    def may_be_paid(self) -> bool:
        """A remote task exists, or may exist."""
        return _WORK[self].may_be_paid


class Step(StrEnum):
    """What the engine can do for a job."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


class Event(StrEnum):
    """What moves a job. The table below says from where to where."""

    INTENT = "intent"
    """About to POST; durable before anything leaves."""
    NOT_SENT = "not_sent"
    """Nothing left this machine, or the API refused for now (429, no channel, key, quota): no task, no charge."""
    REJECTED = "rejected"
    """The API said no for good: no task, no charge."""
    ACCEPTED = "accepted"
    """A task id came back; durable before the first poll."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The POST may have been accepted, and no answer says so."""
    ATTACHED = "attached"
    """A person named the task that belongs to the job."""
    REMOTE_SUCCEEDED = "remote_succeeded"
    REMOTE_FAILED = "remote_failed"
    """Failed, refused, cancelled or expired remotely, or lost."""
    POLL_TIMED_OUT = "poll_timed_out"
    DELIVERED = "delivered"
    """Every asset is whole, verified, durable and under its final name."""
    NOT_DELIVERED = "not_delivered"
    RESUMED = "resumed"
    """A later run polls or fetches again what rested."""
    RERUN = "rerun"
    """A person wants a new attempt, and may pay for it."""
    CONFIRMED_NOT_SUBMITTED = "confirmed_not_submitted"
    """A person says that the POST in doubt made no task."""
    WRITTEN_OFF = "written_off"
    """A person writes the job off."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """Nothing was sent and the tries are used up."""
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
    _F: {Event.RERUN: _P, Event.ATTACHED: _SD},
    _OK: {Event.RERUN: _P},
}
"""From each state, the events that it allows and where they lead."""


class _StateInfo(Struct, frozen=True):
    """What is left to do in a state, and what is at stake."""

    next: Step | None
    may_be_paid: bool
    in_doubt: bool = False
    after_crash: Event | None = None
    meaning: str = ""


_WORK: Mapping[State, _StateInfo] = {
    _P: _StateInfo(Step.SUBMIT, may_be_paid=False, meaning="nothing was sent"),
    _SG: _StateInfo(
        None,
        may_be_paid=True,
        in_doubt=True,
        after_crash=Event.OUTCOME_UNKNOWN,
        meaning="the intent is on disk, the POST may or may not have left",
    ),
    _SD: _StateInfo(Step.POLL, may_be_paid=True, meaning="the task id is on disk"),
    _DL: _StateInfo(
        Step.DOWNLOAD, may_be_paid=True, meaning="the remote task succeeded, its assets are being fetched"
    ),
    _OK: _StateInfo(
        None, may_be_paid=True, meaning="every asset is whole, verified, and under its final name"
    ),
    _F: _StateInfo(None, may_be_paid=False, meaning="the job cannot succeed as it is"),
    _U: _StateInfo(
        None,
        may_be_paid=True,
        in_doubt=True,
        meaning="the POST's outcome is unknown; there may be a paid task",
    ),
    _T: _StateInfo(Step.POLL, may_be_paid=True, meaning="still running remotely when our patience ended"),
    _UD: _StateInfo(
        Step.DOWNLOAD,
        may_be_paid=True,
        meaning="succeeded remotely, but an asset could not be fetched or verified",
    ),
}

RESTING = frozenset({_OK, _F, _U, _T, _UD})
"""Where a process may leave a job for good; from the others there is something left to do at once."""


def advance(state: State, event: Event) -> State:
    """
    Say where an event leads.

    Raises:
        IllegalTransition: The state does not allow the event.

    >>> advance(State.PENDING, Event.INTENT)
    <State.SUBMITTING: 'submitting'>
    >>> advance(State.UNCERTAIN, Event.INTENT)
    Traceback (most recent call last):
    ...
    runner.errors.IllegalTransition: a job that is uncertain can't meet the event intent
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"a job that is {state} can't meet the event {event}") from None


def next_step(state: State) -> Step | None:
    """
    Say what a run does with a job that it finds in this state; None where it leaves it alone.

    >>> next_step(State.TIMED_OUT), next_step(State.UNCERTAIN)
    (<Step.POLL: 'poll'>, None)
    """
    return _WORK[state].next


def recovery(state: State) -> Event | None:
    """
    Say which event a run owes to a job that a dead process left in this state.

    >>> recovery(State.SUBMITTING)
    <Event.OUTCOME_UNKNOWN: 'outcome_unknown'>
    """
    return _WORK[state].after_crash


def describe(state: State) -> str:
    """Put the state in a person's words."""
    return _WORK[state].meaning


def sources(event: Event) -> frozenset[State]:
    """
    Name the states that allow the event.

    >>> sorted(sources(Event.INTENT))
    [<State.PENDING: 'pending'>]
    """
    return frozenset(state for state, arrows in TRANSITIONS.items() if event in arrows)


def describe_recovery(state: State) -> str:
    """
    Say in a sentence what the next run does with a job whose process died in this state.

    >>> describe_recovery(State.SUBMITTING)
    'becomes uncertain, and is never submitted again by itself'
    """
    event = recovery(state)
    if event is not None:
        return f"becomes {advance(state, event)}, and is never submitted again by itself"
    if state in (State.UNCERTAIN, State.FAILED):
        return (
            "stays as it is until a person decides (`resolve`)"
            if state is State.UNCERTAIN
            else "only a rerun takes it up"
        )
    return {
        Step.SUBMIT: "is submitted",
        Step.POLL: "is polled with its task id",
        Step.DOWNLOAD: "its assets are fetched from where the `.part` files end",
        None: "nothing is left to do",
    }[next_step(state)]
