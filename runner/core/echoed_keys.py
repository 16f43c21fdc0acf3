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
    secrets = [key for key in keys if len(key) >= _MIN_KEY_CHARS]
    if isinstance(outcome, Ambiguous | Polled | Transient) and outcome.answer is not None:
        outcome = replace(outcome, answer=_hidden(outcome.answer, secrets))
    if not isinstance(outcome, Accepted | Polled):
        failure = _without_keys(outcome.failure, secrets)
        return outcome if failure is outcome.failure else replace(outcome, failure=failure)
    task = _task_without_keys(outcome.task, secrets)
    if task is outcome.task:
        return outcome
    if isinstance(outcome, Accepted) and not task.ids:
        message = "the task's id in the answer contains the API key, so it is not kept"
        return Ambiguous(Failure(FailureClass.UNCERTAIN_SUBMIT, message, http_status=outcome.http_status))
    return replace(outcome, task=task)


def _task_without_keys(task: RemoteTask, secrets: list[str]) -> RemoteTask:
    if task.error is None and not _has_key(
        "\n".join((*task.ids, *task.all_ids, task.raw_status or "")), secrets
    ):
        # No key has a line feed, and nearly no answer has a key.
        return task
    ids = tuple(task_id for task_id in task.ids if not _has_key(task_id, secrets))
    raw_status = _hidden(task.raw_status, secrets)
    error = None if task.error is None else _without_keys(task.error, secrets)
    all_ids = tuple(task_id for task_id in task.all_ids if not _has_key(task_id, secrets))
    is_same = (len(ids), len(all_ids)) == (len(task.ids), len(task.all_ids))
    if is_same and raw_status == task.raw_status and error is task.error:
        return task
    return replace(task, ids=ids, all_ids=all_ids, raw_status=raw_status, error=error)


def _without_keys(failure: Failure, secrets: list[str]) -> Failure:
    texts = (failure.message, failure.code, failure.request_id)
    if not any(text is not None and _has_key(text, secrets) for text in texts):
        return failure
    message, code, request_id = (_hidden(text, secrets) for text in texts)
    return replace(failure, message=message, code=code, request_id=request_id)


def _has_key(text: str, secrets: list[str]) -> bool:
    return any(secret in text for secret in secrets)


def _hidden(text: str | None, secrets: list[str]) -> str | None:
    for secret in secrets:
        text = None if text is None else text.replace(secret, HIDDEN)
    return text
