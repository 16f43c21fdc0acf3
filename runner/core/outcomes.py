"""
What a call to the API came to: a closed set of values for each kind of call.

`gateway` turns HTTP into these, `core.classify` decides which; nothing above
them ever sees a status code, a header or an exception of the HTTP library.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from msgspec import Struct

from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass


class RemoteStatus(StrEnum):
    """Where a remote task is, in one vocabulary for all of the API's (fact F60)."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """The task will not change any more."""
        return self not in (RemoteStatus.QUEUED, RemoteStatus.RUNNING)


class RemoteTask(Struct, frozen=True):
    """
    A task as an answer of the API shows it.

    Attributes:
        ids: Every id that the answer gives, the one to poll first; empty where it gives none.
        word: The status as the API wrote it, or None where it wrote none.
        is_known_word: Whether the word belongs to a documented vocabulary; an unknown one counts as running.
        progress: From 0 to 100, or None.
        video_urls: Absolute http(s) addresses in the order to try; empty unless the task succeeded.
        last_frame_urls: The same for the last frame.
        error: Why it failed, cancelled or expired; None otherwise.
        completed_at: Seconds since 1970 as the API gave them, or None. It proves nothing (fact F68).
    """

    ids: tuple[str, ...]
    status: RemoteStatus
    word: str | None = None
    is_known_word: bool = True
    progress: float | None = None
    video_urls: tuple[str, ...] = ()
    last_frame_urls: tuple[str, ...] = ()
    error: Failure | None = None
    completed_at: float | None = None


# The outcomes of a POST. NotSent, Throttled and NoChannel allow the same POST to be
# sent again by itself; KeyRefused and BadBaseUrl once their cause is mended; no other.


class Accepted(Struct, frozen=True):
    """An id came back: the task exists, and is paid for."""

    task: RemoteTask
    http_status: int = 200


class Rejected(Struct, frozen=True):
    """The API said no to this job for good; nothing was charged."""

    failure: Failure


class NotSent(Struct, frozen=True):
    """No byte of the request left this machine; try again."""

    failure: Failure


class Throttled(Struct, frozen=True):
    """
    A 429 that is not about quota: slow everyone down, then try again.

    Attributes:
        retry_after_s: The server's wish, or None where it had none.
    """

    failure: Failure
    retry_after_s: float | None = None


class NoChannel(Struct, frozen=True):
    """A 503 from before the charge: no channel took the job. Try again a bounded number of times."""

    failure: Failure
    retry_after_s: float | None = None


class KeyRefused(Struct, frozen=True):
    """The key can't pay or is not known (class ``auth`` or ``quota``): no job can succeed with it. Nothing was charged."""

    failure: Failure


class BadBaseUrl(Struct, frozen=True):
    """A redirect: the base URL is wrong, and no job can be submitted there. Nothing was charged."""

    failure: Failure


class Ambiguous(Struct, frozen=True):
    """Everything else. The POST may have made a paid task; it is never sent again."""

    failure: Failure


SubmitOutcome = Accepted | Rejected | NotSent | Throttled | NoChannel | KeyRefused | BadBaseUrl | Ambiguous


# The outcomes of a query.


class Polled(Struct, frozen=True):
    """
    The API showed the task.

    Attributes:
        poll_after_s: When it wishes to be asked again (openai-poll-after-ms, Retry-After), or None.
    """

    task: RemoteTask
    poll_after_s: float | None = None


class Unknown(Struct, frozen=True):
    """The API does not know the task (400 task_not_exist or 404): true of young tasks, and of lost ones."""

    failure: Failure


class Denied(Struct, frozen=True):
    """The key was refused (401, 403, or quota wording). With 403 it may be transient (fact F48)."""

    failure: Failure


class Transient(Struct, frozen=True):
    """
    Nothing was learned: ask again later.

    Attributes:
        is_throttled: Whether it was a 429, which slows all queries.
        retry_after_s: The server's wish, or None.
    """

    failure: Failure
    is_throttled: bool = False
    retry_after_s: float | None = None


PollOutcome = Polled | Unknown | Denied | Transient


class Probed(Struct, frozen=True):
    """
    What a free request showed of the gateway.

    Attributes:
        answers: Whether the gateway itself spoke, if only to refuse the key.
        models: The ids of the models that the key may use; empty where it named none.
        server_at: The server's clock, in seconds since 1970, or None where it did not say.
        failure: Why it is not well, or None; of class ``auth``, ``quota`` or ``forbidden`` where the key is refused.
    """

    answers: bool
    models: tuple[str, ...] = ()
    server_at: float | None = None
    failure: Failure | None = None


class SubmitTransition(Struct, frozen=True):
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


def submit_transition(outcome: SubmitOutcome) -> SubmitTransition:
    """
    Say what the outcome of a POST does to its job.

    >>> doubt = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "no answer within 120 s"))
    >>> submit_transition(doubt).event
    <Event.OUTCOME_UNKNOWN: 'outcome_unknown'>
    """
    match outcome:
        case Accepted(task, http_status):
            first, *others = task.ids
            return SubmitTransition(
                Event.ACCEPTED, "accepted", None, http_status, first, others[0] if others else None
            )
        case Rejected(failure):
            return SubmitTransition(Event.REJECTED, "rejected", failure, failure.http_status)
        case Ambiguous(failure):
            return SubmitTransition(Event.OUTCOME_UNKNOWN, "uncertain", failure, failure.http_status)
        case NotSent(failure):
            return SubmitTransition(Event.NOT_SENT, "not_sent", failure, None)
        case Throttled(failure):
            return SubmitTransition(Event.NOT_SENT, "throttled", failure, failure.http_status)
        case NoChannel(failure):
            return SubmitTransition(Event.NOT_SENT, "no_channel", failure, failure.http_status)
        case KeyRefused(failure) | BadBaseUrl(failure):
            return SubmitTransition(Event.NOT_SENT, "refused", failure, failure.http_status)
        case _:
            assert_never(outcome)


def task_transition(task: RemoteTask) -> tuple[Event | None, Failure | None]:
    """
    Say what the sight of a remote task does to its job: nothing while it is under way.

    >>> task_transition(RemoteTask(("task_1",), RemoteStatus.RUNNING))
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
