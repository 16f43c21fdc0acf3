"""
The outcomes of calls to the API: a closed set of values for each kind of call.

`gateway` converts HTTP responses and errors to these, and `core.classify` decides to which; no other code
sees a header or an exception of the HTTP library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import assert_never, overload

from msgspec import Struct
from msgspec.structs import replace

from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass, Json
from runner.core.sanitize import HIDDEN


class RemoteStatus(StrEnum):
    """The status of a remote task: one vocabulary for all of the API's (fact F60)."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether the task will not change any more."""
        return self not in (RemoteStatus.QUEUED, RemoteStatus.RUNNING)


FAILURE_CLASSES: Mapping[RemoteStatus, FailureClass] = {
    RemoteStatus.FAILED: FailureClass.REMOTE_FAILED,
    RemoteStatus.CANCELLED: FailureClass.REMOTE_CANCELLED,
    RemoteStatus.EXPIRED: FailureClass.REMOTE_EXPIRED,
}


class RemoteTask(Struct, frozen=True):
    """
    A task as an answer of the API shows it.

    Attributes:
        ids: The ids of the task, the one to poll first; empty if there is none.
        all_ids: Every id anywhere in the answer, such as the upstream's too.
        raw_status: The status as the API wrote it, or None.
        is_known_status: Whether that status is in a known vocabulary; what an unknown one means is guessed (fact F61).
        progress: From 0 to 100, or None.
        video_urls: Absolute http(s) URLs in the order to try; empty unless the task succeeded.
        last_frame_urls: The same for the last frame.
        error: Why the task failed, was canceled or expired; None otherwise.
        completed_at: Seconds since 1970 according to the API, or None. Not reliable (fact F68).
        usage: What the task consumed according to the API, or None.
    """

    ids: tuple[str, ...]
    status: RemoteStatus
    raw_status: str | None = None
    is_known_status: bool = True
    progress: float | None = None
    video_urls: tuple[str, ...] = ()
    last_frame_urls: tuple[str, ...] = ()
    error: Failure | None = None
    completed_at: float | None = None
    usage: Mapping[str, Json] | None = None
    all_ids: tuple[str, ...] = ()


# The outcomes of a POST. After NotSent, Throttled and NoChannel the same POST may be sent again
# automatically; after KeyRefused and BadBaseUrl once their cause is fixed; after no other.


class Accepted(Struct, frozen=True):
    """An id came back: the task exists and is paid for."""

    task: RemoteTask
    http_status: int = 200


class Rejected(Struct, frozen=True):
    """The API refused this job permanently; nothing was charged."""

    failure: Failure


class NotSent(Struct, frozen=True):
    """No byte of the request left this machine; retry."""

    failure: Failure


class Throttled(Struct, frozen=True):
    """
    A 429 that is not about quota: slow down all submissions, then retry.

    Attributes:
        retry_after_s: The wait that the server asks for, or None.
    """

    failure: Failure
    retry_after_s: float | None = None


class NoChannel(Struct, frozen=True):
    """A 503 before the charge: no channel was free. Retry a limited number of times."""

    failure: Failure
    retry_after_s: float | None = None


class KeyRefused(Struct, frozen=True):
    """The key is unknown or out of credit (class ``auth`` or ``quota``): no job can succeed with it. Nothing was charged."""

    failure: Failure


class BadBaseUrl(Struct, frozen=True):
    """The base URL is wrong (a redirect, or no such API), and no job can be submitted there. Nothing was charged."""

    failure: Failure


class Ambiguous(Struct, frozen=True):
    """
    Everything else. The POST may have made a paid task, so it is never sent again and the job becomes uncertain.

    Attributes:
        answer: The start of the answer as text, for a person to find an id in it; None if there was none.
    """

    failure: Failure
    answer: str | None = None


SubmitOutcome = Accepted | Rejected | NotSent | Throttled | NoChannel | KeyRefused | BadBaseUrl | Ambiguous


# The outcomes of a poll.


class Polled(Struct, frozen=True):
    """
    The API showed the task.

    Attributes:
        poll_after_s: The wait before the next poll that it asks for (openai-poll-after-ms, Retry-After), or None.
        answer: The start of the answer as text if its status is unknown, or None.
    """

    task: RemoteTask
    poll_after_s: float | None = None
    answer: str | None = None


class Unknown(Struct, frozen=True):
    """The API does not know the task (400 task_not_exist or 404): it is very young, or lost."""

    failure: Failure


class Denied(Struct, frozen=True):
    """The key was refused (401, 403, or quota wording). A 403 may be transient (fact F48)."""

    failure: Failure


class Transient(Struct, frozen=True):
    """
    The answer says nothing about the task: poll again later.

    Attributes:
        is_throttled: Whether it was a 429, which slows down all polls.
        retry_after_s: The wait that the server asks for, or None.
        answer: The start of the answer as text if it was a success that could not be understood, or None.
    """

    failure: Failure
    is_throttled: bool = False
    retry_after_s: float | None = None
    answer: str | None = None


PollOutcome = Polled | Unknown | Denied | Transient


class Probed(Struct, frozen=True):
    """
    What a free request showed about the gateway.

    Attributes:
        is_reachable: Whether the gateway itself answered, even if it refused the key.
        models: The ids of the models that the key may use; empty if the answer had none.
        server_at: The server's clock, in seconds since 1970, or None if unknown.
        failure: Why it is not healthy, or None; of class ``auth``, ``quota`` or ``forbidden`` if the key is refused.
    """

    is_reachable: bool
    models: tuple[str, ...] = ()
    server_at: float | None = None
    failure: Failure | None = None


class SubmitTransition(Struct, frozen=True):
    """
    What the outcome of a POST changes in its job.

    Attributes:
        attempt_outcome: `Attempt.outcome` of the attempt.
        task_id: The id to poll; None unless accepted.
        other_task_id: Another id from the same answer, to try if the API does not know the first.
    """

    event: Event
    attempt_outcome: str
    failure: Failure | None
    http_status: int | None
    task_id: str | None = None
    other_task_id: str | None = None


def submit_transition(outcome: SubmitOutcome) -> SubmitTransition:
    """
    Return what the outcome of a POST changes in its job.

    >>> outcome = Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, "no answer within 120 s"))
    >>> submit_transition(outcome).event
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
    Return the event and the failure that a task's status means for its job; None while it is running.

    >>> task_transition(RemoteTask(("task_1",), RemoteStatus.RUNNING))
    (None, None)
    """
    if task.status is RemoteStatus.SUCCEEDED:
        return Event.REMOTE_SUCCEEDED, None
    if not task.status.is_terminal:
        return None, None
    return Event.REMOTE_FAILED, task.error


_MIN_KEY_CHARS = 8
"""A shorter key would be found in ids that do not repeat it."""


@overload
def hide_keys(outcome: SubmitOutcome, keys: Iterable[str]) -> SubmitOutcome: ...


@overload
def hide_keys(outcome: PollOutcome, keys: Iterable[str]) -> PollOutcome: ...


def hide_keys(outcome: SubmitOutcome | PollOutcome, keys: Iterable[str]) -> SubmitOutcome | PollOutcome:
    """
    Hide keys in the ids, the status word and the failure of an outcome.

    A task whose every id has a key in it can't be stored, so its job is uncertain. Addresses are kept as they are:
    they are never stored.

    >>> task = RemoteTask(("task_sk-secret-key",), RemoteStatus.QUEUED)
    >>> type(hide_keys(Accepted(task), ["sk-secret-key"])).__name__
    'Ambiguous'
    """
    text = _text_of(outcome)
    secrets = [key for key in keys if len(key) >= _MIN_KEY_CHARS and key in text]
    if not secrets:
        return outcome
    if isinstance(outcome, Ambiguous | Polled | Transient):
        outcome = replace(outcome, answer=_hidden(outcome.answer, secrets))
    if not isinstance(outcome, Accepted | Polled):
        return replace(outcome, failure=_without_keys(outcome.failure, secrets))
    task = _task_without_keys(outcome.task, secrets)
    if isinstance(outcome, Accepted) and not task.ids:
        message = "the task's id in the answer contains the API key, so it is not kept"
        return Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, message, http_status=outcome.http_status))
    return replace(outcome, task=task)


def _text_of(outcome: SubmitOutcome | PollOutcome) -> str:
    """Return all texts that may have a key in them, a line each: no key has a line feed."""
    texts: list[str | None] = [getattr(outcome, "answer", None)]
    if isinstance(outcome, Accepted | Polled):
        task, failure = outcome.task, outcome.task.error
        texts += (*task.ids, *task.all_ids, task.raw_status)
    else:
        failure = outcome.failure
    if failure is not None:
        texts += (failure.message, failure.code, failure.request_id)
    return "\n".join(filter(None, texts))


def _task_without_keys(task: RemoteTask, secrets: list[str]) -> RemoteTask:
    return replace(
        task,
        ids=_without_key(task.ids, secrets),
        all_ids=_without_key(task.all_ids, secrets),
        raw_status=_hidden(task.raw_status, secrets),
        error=None if task.error is None else _without_keys(task.error, secrets),
    )


def _without_keys(failure: Failure, secrets: list[str]) -> Failure:
    texts = (failure.message, failure.code, failure.request_id)
    message, code, request_id = (_hidden(text, secrets) for text in texts)
    return replace(failure, message=message, code=code, request_id=request_id)


def _without_key(task_ids: tuple[str, ...], secrets: list[str]) -> tuple[str, ...]:
    return tuple(task_id for task_id in task_ids if not any(secret in task_id for secret in secrets))


def _hidden(text: str | None, secrets: list[str]) -> str | None:
    for secret in secrets:
        text = None if text is None else text.replace(secret, HIDDEN)
    return text
