"""
Decide what an answer to a POST or to a poll means, by its status *and* its text.

One status has several meanings on this API (429 is a rate limit or an empty account, 500 may be an invalid
key), so neither is enough alone (facts F36, F38, F44). For a POST, an id in a 2xx proves that a task exists,
an explicit refusal proves that none does, and everything else may have been paid for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from msgspec.structs import replace

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
from runner.core.retry import parse_retry_after
from runner.core.sanitize import redact, sanitize_line
from runner.core.wire import has_id, is_task_id, read_task, request_id_of
from runner.core.wire_errors import (
    MESSAGE_CHARS,
    ApiErrorInfo,
    is_moderation,
    is_moderation_code,
    read_error,
)
from runner.core.wire_vocabulary import decode, read_json

ANSWER_BYTES = 4096
"""How much is kept of an answer that was not understood."""
_SHOWN_CHARS = 200

# With these statuses the API refuses before it charges (fact F36).
_REFUSALS = frozenset({400, 403, 404, 413, 415, 422})

_QUOTA_CODE = (
    r"insufficient_(?:user_)?quota|pre_consume_token_quota_failed|quota_not_enough"
    # The upstream's account is empty (Alibaba: Arrearage; Ark: AccountOverdueError): nothing gets through.
    r"|\barrearage\b|account_?overdue"
)
# "Allocated quota exceeded" and "check quota" are rate limits upstream (fact F49), so no "exceeded".
_MONEY, _LACK = r"(?:quota|balance|credits?)\b", r"\b(?:insufficient|not enough|too low|used up)"
_QUOTA_WORDS = (
    rf"\b{_MONEY}[^.;\n]{{0,40}}{_LACK}|{_LACK}[^.;\n]{{0,40}}\b{_MONEY}"
    r"|\brecharge\b|\btop[ -]?up\b|余额|额度|欠费"
)
_BAD_KEY = re.compile(r"\btoken_invalid\b|\binvalid_api_?key\b")
# Codes that the gateway itself gives before it charges (facts F37, F46, F47).
_NO_CHANNEL_CODES = frozenset({"get_channel_failed", "model_not_found"})
_AUTH_CODES = frozenset({"token_invalid", "invalid_api_key"})
_QUOTA_CODES = frozenset({"insufficient_user_quota", "insufficient_quota", "pre_consume_token_quota_failed"})
_UNKNOWN_TASK = r"task_not_(?:exist|found)|task (?:does )?not (?:exist|found)|任务不存在"
_TASK_ADDRESS = re.compile(r"/v1/videos/([^/?#]+)/?(?:[?#].*)?$")
# The gateway's message for a path that it doesn't serve, such as with a base URL that ends in /v1.
_UNKNOWN_PATH = re.compile(r"invalid url \(")


def classify_submit(
    status: int, headers: Mapping[str, str], body: bytes, now_at: float, *, secrets: Iterable[str] = ()
) -> SubmitOutcome:
    """
    Return the outcome of a POST that was answered.

    Args:
        status: The HTTP status; redirects are not followed.
        now_at: The wall clock, in seconds since 1970, for a Retry-After that is a date.
        secrets: Keys to hide in messages, besides whatever looks like one.

    >>> classify_submit(200, {}, b'{"id": "task_1"}', 0.0).task.ids
    ('task_1',)
    >>> type(classify_submit(504, {}, b"<html>", 0.0)).__name__
    'Ambiguous'
    """
    secrets = tuple(secrets)
    document = read_json(body)
    task = read_task(document, http_status=status, secrets=secrets)
    is_success = 200 <= status < 300
    if not task.ids and (is_success or status == 303):
        ids = _ids_in_location(headers) or (request_id_of(document) if is_success else ())
        task = replace(task, ids=ids)
    if task.ids and (is_success or status == 303):
        return Accepted(task, status)
    error = read_error(status, headers, body, secrets=secrets)
    if task.ids:
        # After every other outcome the job may be submitted again, automatically or by `rerun`. An error
        # with a task's id contradicts itself, so a person decides; `resolve` needs the id in the message.
        shown = sanitize_line(task.ids[0], max_chars=200, secrets=secrets)
        outcome: Rejected | Throttled | NoChannel | KeyRefused | BadBaseUrl | Ambiguous = _ambiguous(
            status, error, f"the answer names task {shown}, but is an error: "
        )
    elif 300 <= status < 400:
        outcome = BadBaseUrl(_failure(FailureClass.UNAVAILABLE, status, error, _redirect(headers, secrets)))
    elif is_success and (refused := _http_error_in(error.own_code)) and not has_id(document):
        outcome = _classify_refusal(refused, headers, error, now_at)
        outcome = replace(outcome, failure=replace(outcome.failure, http_status=status))
    else:
        outcome = _classify_refusal(status, headers, error, now_at)
    if isinstance(outcome, Ambiguous):
        return _with_answer(outcome, body, secrets)
    return outcome


def _with_answer(outcome: Ambiguous, body: bytes, secrets: tuple[str, ...]) -> Ambiguous:
    """Keep the answer, and show its start if its message may stand in front of an id."""
    answer, failure = excerpt(body, secrets), outcome.failure
    shown = sanitize_line(answer or "", max_chars=_SHOWN_CHARS, secrets=secrets)
    if shown and 200 <= (failure.http_status or 0) < 300 and shown not in failure.message:
        message = f"{failure.message[: MESSAGE_CHARS - _SHOWN_CHARS - 20]}; the answer is {shown}"
        failure = replace(failure, message=message)
    return Ambiguous(failure, answer)


def _http_error_in(code: str) -> int | None:
    """Return the code of an answer if it is the number of an HTTP error: then the answer is that error (fact F55)."""
    return int(code) if re.fullmatch("[45][0-9]{2}", code) else None


def excerpt(body: bytes, secrets: Iterable[str] = ()) -> str | None:
    """
    Return the start of an answer as text, without secrets, for a person to read; None if it is empty.

    It is as it was sent otherwise, and has `ANSWER_BYTES` at most.
    """
    text = redact(decode(body[:ANSWER_BYTES]), secrets)
    # A lone surrogate, or what the decoding made longer, can't be stored.
    return text.encode("utf-8", "replace")[:ANSWER_BYTES].decode("utf-8", "ignore") or None


def _classify_refusal(
    status: int, headers: Mapping[str, str], error: ApiErrorInfo, now_at: float
) -> Rejected | Throttled | NoChannel | KeyRefused | BadBaseUrl | Ambiguous:
    if refused := _key_failure(status, error):
        return KeyRefused(refused)
    if status == 429:
        return Throttled(
            _failure(FailureClass.RATE_LIMITED, status, error), parse_retry_after(headers, now_at)
        )
    if _is_bad_base_url(status, error):
        return BadBaseUrl(_failure(FailureClass.UNAVAILABLE, status, error, "no such path at this URL: "))
    if status in _REFUSALS:
        return Rejected(_failure(_refusal_class(status, error), status, error))
    if status == 503 and error.own_code in _NO_CHANNEL_CODES:
        return NoChannel(
            _failure(FailureClass.UNAVAILABLE, status, error), parse_retry_after(headers, now_at)
        )
    return _ambiguous(status, error, "success without a task id: " if 200 <= status < 300 else "")


def classify_poll(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now_at: float,
    *,
    secrets: Iterable[str] = (),
    base_url: str | None = None,
) -> PollOutcome:
    """
    Return the outcome of a poll that was answered.

    Only a terminal status of the task ends a job; after every other answer the task is polled again until
    the poll timeout.

    Args:
        base_url: What relative addresses of assets are relative to.

    >>> classify_poll(200, {}, b'{"id": "task_1", "status": "failed"}', 0.0).task.error.cls.value
    'remote_failed'
    >>> type(classify_poll(400, {}, b'{"code": "task_not_exist", "message": "no", "data": null}', 0.0)).__name__
    'Unknown'
    """
    secrets = tuple(secrets)
    wait_s = parse_retry_after(headers, now_at)
    if 200 <= status < 300:
        task = read_task(read_json(body), http_status=status, secrets=secrets, base_url=base_url)
        if task.ids or _is_status_of_task(task.raw_status):
            return Polled(task, wait_s, None if task.is_known_status else excerpt(body, secrets))
    error = read_error(status, headers, body, secrets=secrets)
    if refused := _key_failure(status, error):
        return Denied(refused)
    if status == 403:
        return Denied(_failure(FailureClass.FORBIDDEN, status, error))
    if _is_unknown_task(status, error):
        return Unknown(_failure(FailureClass.LOST, status, error))
    throttled = status == 429
    cls = FailureClass.RATE_LIMITED if throttled else FailureClass.UNAVAILABLE
    answer = excerpt(body, secrets) if 200 <= status < 300 else None
    return Transient(_failure(cls, status, error), throttled, wait_s, answer)


def _key_failure(status: int, error: ApiErrorInfo) -> Failure | None:
    """
    Return the failure if the key is unknown or out of credit; None otherwise.

    Wording counts only in a refusal, and only if the API itself wrote it: a load balancer's page may have the
    word "balance" too, and after every other status a task may exist whose answer mentions a balance or a key.
    There only a code of the gateway's own counts.
    A refusal by a content policy may quote a prompt about money, so its code goes before wording.
    """
    if not 400 <= status < 500 or status == 408:
        if error.own_code in _AUTH_CODES:
            return _failure(FailureClass.AUTH, status, error)
        return _failure(FailureClass.QUOTA, status, error) if error.own_code in _QUOTA_CODES else None
    if status == 401 or (error.is_explicit and _BAD_KEY.search(error.search_text)):
        is_quota = error.is_explicit and re.search(_QUOTA_CODE, error.search_text)
        return _failure(FailureClass.QUOTA if is_quota else FailureClass.AUTH, status, error)
    if status == 402 or (error.is_explicit and _is_quota(error.search_text)):
        return _failure(FailureClass.QUOTA, status, error)
    return None


def _is_quota(search_text: str) -> bool:
    if re.search(_QUOTA_CODE, search_text):
        return True
    if is_moderation_code(search_text):
        return False
    return bool(re.search(_QUOTA_WORDS, search_text))


def _is_bad_base_url(status: int, error: ApiErrorInfo) -> bool:
    """Return whether the API is not at this URL: a page instead of JSON, or an unknown path or method."""
    return status == 405 or (
        status == 404 and (error.is_page or bool(_UNKNOWN_PATH.search(error.search_text)))
    )


def _is_status_of_task(raw_status: str | None) -> bool:
    """Return whether a status without an id is a task's: in an envelope, these words are about the call."""
    return raw_status is not None and raw_status.lower() not in ("success", "error", "ok")


def _is_unknown_task(status: int, error: ApiErrorInfo) -> bool:
    if status == 404:
        # A page comes from a proxy, which knows nothing of tasks.
        return not error.is_page
    return error.is_explicit and re.search(_UNKNOWN_TASK, error.search_text) is not None


def _refusal_class(status: int, error: ApiErrorInfo) -> FailureClass:
    if is_moderation(error.search_text):
        return FailureClass.MODERATION
    return FailureClass.FORBIDDEN if status == 403 else FailureClass.INVALID_REQUEST


def _ambiguous(status: int, error: ApiErrorInfo, prefix: str) -> Ambiguous:
    return Ambiguous(_failure(FailureClass.UNCERTAIN_SUBMIT, status, error, prefix))


def _ids_in_location(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the task whose address the answer gives as that of its result (fact F119)."""
    found = _TASK_ADDRESS.search(_location(headers))
    task_id = unquote(found[1]) if found else ""
    return (task_id,) if is_task_id(task_id) else ()


def _location(headers: Mapping[str, str]) -> str:
    return next((value.strip() for name, value in headers.items() if name.lower() == "location"), "")


def _redirect(headers: Mapping[str, str], secrets: tuple[str, ...]) -> str:
    where = sanitize_line(_location(headers), max_chars=200, secrets=secrets)
    return f"redirected to {where}, which is not followed: " if where else "redirected: "


def _failure(cls: FailureClass, status: int, error: ApiErrorInfo, prefix: str = "") -> Failure:
    message = prefix + error.message
    if len(message) > MESSAGE_CHARS:
        message = message[: MESSAGE_CHARS - 1] + "…"
    return Failure(cls, message, error.code, status, error.request_id)
