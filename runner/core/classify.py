"""
Decide what an answer to a POST or to a query means: by its status *and* its text.

One status carries several meanings on this API (429 is a rate limit or an empty
account, 500 may be an invalid key), so neither is enough (facts F36, F38, F44).
For a POST the order of doubt is fixed: an id in a 2xx proves that a task exists, an
explicit refusal proves that none does, and everything else may have been paid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from runner.core.http_headers import parse_retry_after
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    BadBaseUrl,
    Denied,
    KeyRefused,
    NoChannel,
    Polled,
    PollOutcome,
    Rejected,
    SubmitOutcome,
    Throttled,
    Transient,
    Unknown,
)
from runner.core.sanitize import sanitize_line
from runner.core.wire import read_task
from runner.core.wire_errors import (
    MESSAGE_CHARS,
    ApiErrorInfo,
    is_moderation,
    is_moderation_code,
    read_error,
    read_json,
)

# Statuses with which the API refuses before it charges (fact F36).
_REFUSALS = frozenset({400, 403, 404, 413, 415, 422})

_QUOTA_CODE = re.compile(
    r"insufficient_(?:user_)?quota|pre_consume_token_quota_failed|quota_not_enough"
    # The upstream's account is empty (Alibaba: Arrearage; Ark: AccountOverdueError): nothing gets through.
    r"|\barrearage\b|account_?overdue"
)
# "Allocated quota exceeded" and "check quota" are rate limits upstream (fact F49), so no "exceeded".
_MONEY, _LACK = r"(?:quota|balance|credits?)\b", r"\b(?:insufficient|not enough|too low|used up)"
_QUOTA_WORDS = re.compile(
    rf"\b{_MONEY}[^.;\n]{{0,40}}{_LACK}|{_LACK}[^.;\n]{{0,40}}\b{_MONEY}"
    r"|(?:余额|额度).{0,6}(?:不足|不够|用尽|用完|耗尽)|欠费"
)
# Enough in a refusal; elsewhere it may as well say what was charged.
_MONEY_WORDS = re.compile(r"余额|额度")
_BAD_KEY = re.compile(r"\btoken_invalid\b|\binvalid_api_?key\b")
_NO_CHANNEL = re.compile(r"get_channel_failed|model_not_found|\bno (?:available )?channel|无可用渠道")
_UNKNOWN_TASK = re.compile(r"task_not_(?:exist|found)|task (?:does )?not (?:exist|found)|任务不存在")
# What the gateway says of a path that it doesn't serve, as with a base URL that ends in /v1.
_UNKNOWN_PATH = re.compile(r"invalid url \(")


def classify_submit(
    status: int, headers: Mapping[str, str], body: bytes, now_at: float, *, secrets: Iterable[str] = ()
) -> SubmitOutcome:
    """
    Say what came of a POST that was answered.

    Args:
        status: As HTTP gave it; redirects are not followed.
        now_at: The wall clock, in seconds since 1970, for a Retry-After that is a date.
        secrets: Keys to hide in messages, beside those that look like one.

    >>> classify_submit(200, {}, b'{"id": "task_1"}', 0.0).task.ids
    ('task_1',)
    >>> type(classify_submit(504, {}, b"<html>", 0.0)).__name__
    'Ambiguous'
    """
    secrets = tuple(secrets)
    task = read_task(read_json(body), http_status=status, secrets=secrets)
    if task.ids and 200 <= status < 300:
        return Accepted(task, status)
    reason = read_error(status, headers, body, secrets=secrets)
    if task.ids:
        # Every other outcome lets a POST go again, by itself or by `rerun`. An error that names a task
        # contradicts itself, so a person decides; the id in the message is what `resolve` needs.
        return _ambiguous(status, reason, f"the answer names task {task.ids[0]}, and is an error: ")
    if 300 <= status < 400:
        return BadBaseUrl(_failure(FailureClass.UNAVAILABLE, status, reason, _redirect(headers, secrets)))
    return _classify_refusal(status, headers, reason, now_at)


def _classify_refusal(
    status: int, headers: Mapping[str, str], reason: ApiErrorInfo, now_at: float
) -> SubmitOutcome:
    if refused := _key_failure(status, reason):
        return KeyRefused(refused)
    if status == 429:
        return Throttled(
            _failure(FailureClass.RATE_LIMITED, status, reason), parse_retry_after(headers, now_at)
        )
    if _is_bad_base_url(status, reason):
        return BadBaseUrl(
            _failure(FailureClass.UNAVAILABLE, status, reason, "no such path at this address: ")
        )
    if status in _REFUSALS:
        return Rejected(_failure(_refusal_class(status, reason), status, reason))
    if status == 503 and reason.is_explicit and _NO_CHANNEL.search(reason.words):
        return NoChannel(
            _failure(FailureClass.UNAVAILABLE, status, reason), parse_retry_after(headers, now_at)
        )
    return _ambiguous(status, reason, "success without a task id: " if 200 <= status < 300 else "")


def classify_poll(
    status: int, headers: Mapping[str, str], body: bytes, now_at: float, *, secrets: Iterable[str] = ()
) -> PollOutcome:
    """
    Say what came of a query that was answered.

    Nothing here is final for a job but a terminal word of a task: the rest is asked
    again until its patience ends.

    >>> classify_poll(200, {}, b'{"id": "task_1", "status": "failed"}', 0.0).task.error.cls.value
    'remote_failed'
    >>> type(classify_poll(400, {}, b'{"code": "task_not_exist", "message": "no", "data": null}', 0.0)).__name__
    'Unknown'
    """
    secrets = tuple(secrets)
    wait_s = parse_retry_after(headers, now_at)
    if 200 <= status < 300:
        task = read_task(read_json(body), http_status=status, secrets=secrets)
        if task.ids or _is_status_of_task(task.word):
            return Polled(task, wait_s)
    reason = read_error(status, headers, body, secrets=secrets)
    if refused := _key_failure(status, reason):
        return Denied(refused)
    if status == 403:
        return Denied(_failure(FailureClass.FORBIDDEN, status, reason))
    if _is_unknown_task(status, reason):
        return Unknown(_failure(FailureClass.LOST, status, reason))
    throttled = status == 429
    cls = FailureClass.RATE_LIMITED if throttled else FailureClass.UNAVAILABLE
    return Transient(_failure(cls, status, reason), throttled, wait_s)


def _key_failure(status: int, reason: ApiErrorInfo) -> Failure | None:
    """
    Give the failure where the key is not known or can't pay, at whatever status.

    Wording counts only where the API itself said it: "balance" is also what a
    load balancer's page speaks of. A refusal by a content policy may quote a prompt
    about money, so its code goes before wording.
    """
    if status == 401 or (reason.is_explicit and _BAD_KEY.search(reason.words)):
        is_quota = reason.is_explicit and _QUOTA_CODE.search(reason.words)
        return _failure(FailureClass.QUOTA if is_quota else FailureClass.AUTH, status, reason)
    if status == 402 or (reason.is_explicit and _is_quota(status, reason.words)):
        return _failure(FailureClass.QUOTA, status, reason)
    return None


def _is_quota(status: int, words: str) -> bool:
    if _QUOTA_CODE.search(words):
        return True
    if is_moderation_code(words):
        return False
    return bool(_QUOTA_WORDS.search(words) or (400 <= status < 500 and _MONEY_WORDS.search(words)))


def _is_bad_base_url(status: int, reason: ApiErrorInfo) -> bool:
    """Say whether there is no such API: a page instead of its JSON, or a path or method that it does not know."""
    return status == 405 or (status == 404 and (reason.is_page or bool(_UNKNOWN_PATH.search(reason.words))))


def _is_status_of_task(word: str | None) -> bool:
    """Say whether a status without an id beside it is that of a task: envelopes write these of the call itself."""
    return word is not None and word.lower() not in ("success", "error")


def _is_unknown_task(status: int, reason: ApiErrorInfo) -> bool:
    if status == 404:
        # A page comes from something in between, which knows nothing of tasks.
        return not reason.is_page
    return reason.is_explicit and _UNKNOWN_TASK.search(reason.words) is not None


def _refusal_class(status: int, reason: ApiErrorInfo) -> FailureClass:
    if is_moderation(reason.words):
        return FailureClass.MODERATION
    return FailureClass.FORBIDDEN if status == 403 else FailureClass.INVALID_REQUEST


def _ambiguous(status: int, reason: ApiErrorInfo, prefix: str) -> Ambiguous:
    return Ambiguous(_failure(FailureClass.UNCERTAIN_SUBMIT, status, reason, prefix))


def _redirect(headers: Mapping[str, str], secrets: tuple[str, ...]) -> str:
    target = next((value for name, value in headers.items() if name.lower() == "location"), "")
    where = sanitize_line(target, most_chars=200, secrets=secrets)
    return f"redirected to {where}, which is not followed: " if where else "redirected: "


def _failure(cls: FailureClass, status: int, reason: ApiErrorInfo, prefix: str = "") -> Failure:
    message = prefix + reason.message
    if len(message) > MESSAGE_CHARS:
        message = message[: MESSAGE_CHARS - 1] + "…"
    return Failure(cls, message, reason.code, status, reason.request_id)
