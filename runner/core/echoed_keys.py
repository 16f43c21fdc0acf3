"""Keys that a gateway repeats in its answers: they are hidden before anything of an answer is stored or shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

from msgspec.structs import replace

from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    Polled,
    PollOutcome,
    RemoteTask,
    SubmitOutcome,
    Transient,
)
from runner.core.sanitize import HIDDEN

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

    >>> from runner.core.outcomes import RemoteStatus
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
