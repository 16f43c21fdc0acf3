"""
What an outcome does to its job: which event it is, and what is kept of it.

The engine has another question to each outcome (does it stop the run, slow it
down, hold it?); here is only what concerns the one job.
"""

from __future__ import annotations

from typing import assert_never

from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass
from runner.core.outcome import (
    Accepted,
    Ambiguous,
    KeyRefused,
    NoChannel,
    NotSent,
    Rejected,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
    Throttled,
    WrongAddress,
)
from runner.core.value import frozen


@frozen
class Settled:
    """
    What a POST came to, for its job.

    Attributes:
        word: What the attempt's history calls it.
        task_id: The id to poll; None unless accepted.
        other_task_id: Another id of the same answer, to be tried once if the first is not known.
    """

    event: Event
    word: str
    failure: Failure | None
    http_status: int | None
    task_id: str | None = None
    other_task_id: str | None = None


def settle_submission(outcome: SubmitOutcome) -> Settled:
    """
    Say what the outcome of a POST does to its job.

    >>> doubt = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "no answer within 120 s"))
    >>> settle_submission(doubt).event
    <Event.DOUBTED: 'doubted'>
    """
    match outcome:
        case Accepted(task, http_status):
            first, *others = task.ids
            return Settled(
                Event.ACCEPTED, "accepted", None, http_status, first, others[0] if others else None
            )
        case Rejected(failure):
            return Settled(Event.REJECTED, "rejected", failure, failure.http_status)
        case Ambiguous(failure):
            return Settled(Event.DOUBTED, "uncertain", failure, failure.http_status)
        case NotSent(failure):
            return Settled(Event.NOT_SENT, "not_sent", failure, None)
        case Throttled(failure):
            return Settled(Event.NOT_SENT, "throttled", failure, failure.http_status)
        case NoChannel(failure):
            return Settled(Event.NOT_SENT, "no_channel", failure, failure.http_status)
        case KeyRefused(failure) | WrongAddress(failure):
            return Settled(Event.NOT_SENT, "refused", failure, failure.http_status)
        case _:
            assert_never(outcome)


def settle_task(task: RemoteTask) -> tuple[Event | None, Failure | None]:
    """
    Say what the sight of a remote task does to its job: nothing while it is under way.

    >>> settle_task(RemoteTask(("task_1",), RemoteStatus.RUNNING))
    (None, None)
    """
    if task.status is RemoteStatus.SUCCEEDED:
        return Event.REMOTE_SUCCEEDED, None
    if not task.status.is_terminal:
        return None, None
    return Event.REMOTE_FAILED, task.error or _unexplained(task)


def _unexplained(task: RemoteTask) -> Failure:
    cls = {
        RemoteStatus.CANCELLED: FailureClass.REMOTE_CANCELLED,
        RemoteStatus.EXPIRED: FailureClass.REMOTE_EXPIRED,
    }.get(task.status, FailureClass.REMOTE_FAILED)
    return Failure(cls, f"the task ended as {task.word!r}, and the API gave no reason")
