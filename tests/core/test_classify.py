"""What an answer means, for statuses and texts: nothing is paid for twice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.classify import classify_poll, classify_submit
from runner.core.outcomes import Accepted, Ambiguous, BadBaseUrl, Polled, Throttled, Transient


def e1(code: str = "", message: str = "no") -> bytes:
    """Write the OpenAI form of an error."""
    return json.dumps(
        {"error": {"message": message, "type": "api_error", "code": code, "param": None}}
    ).encode()


def e2(code: str, message: str = "no") -> bytes:
    """Write the task form of an error."""
    return json.dumps({"code": code, "message": message, "data": None}).encode()


PAGE = b"<html><title>load balancer: not enough backends</title></html>"


@pytest.mark.parametrize(
    ("outcome", "cls", "status", "body"),
    [
        ("KeyRefused", "auth", 401, e1("access_denied", "Invalid token")),
        ("KeyRefused", "auth", 401, b""),
        ("KeyRefused", "auth", 500, e1("token_invalid")),
        ("KeyRefused", "quota", 429, e2("insufficient_user_quota")),
        ("KeyRefused", "quota", 403, e2("insufficient_user_quota")),
        ("KeyRefused", "quota", 403, e1("", "user quota is not enough")),
        ("KeyRefused", "quota", 403, e2("pre_consume_token_quota_failed")),
        ("KeyRefused", "quota", 402, b""),
        ("KeyRefused", "quota", 400, e1("", "Insufficient balance")),
        ("KeyRefused", "quota", 403, e1("", "预扣费额度失败")),
        ("KeyRefused", "quota", 200, e1("insufficient_user_quota")),
        ("Throttled", "rate_limited", 429, b""),
        ("Throttled", "rate_limited", 429, e1("", "Requests rate limit exceeded")),
        ("Throttled", "rate_limited", 429, e1("Throttling.AllocationQuota", "Allocated quota exceeded")),
        ("Throttled", "rate_limited", 429, e1("", "当前分组上游负载已饱和，请稍后再试")),
        ("Throttled", "rate_limited", 429, PAGE),
        ("Rejected", "forbidden", 403, e1("", "user banned")),
        ("Rejected", "invalid_request", 400, e2("invalid_request", "unsupported media combination")),
        ("Rejected", "invalid_request", 404, e2("task_not_found")),
        ("Rejected", "invalid_request", 413, e2("read_request_body_failed")),
        ("Rejected", "invalid_request", 415, b""),
        ("Rejected", "invalid_request", 422, b"bad"),
        ("Rejected", "moderation", 400, e1("InputTextSensitiveContentDetected")),
        (
            "Rejected",
            "moderation",
            400,
            e2("fail_to_fetch_task", '{"code":"DataInspectionFailed","message":"x"}'),
        ),
        ("Rejected", "moderation", 403, e1("", "提示词包含敏感内容")),
        ("Rejected", "moderation", 400, e1("DataInspectionFailed", "the prompt 'my balance is not enough'")),
        ("NoChannel", "unavailable", 503, e1("model_not_found", "no available channel for model x")),
        ("NoChannel", "unavailable", 503, e2("get_channel_failed")),
        ("Ambiguous", "uncertain_submit", 503, e1("", "分组下模型 x 无可用渠道")),
        ("Ambiguous", "uncertain_submit", 503, e2("x", "no available channel, model_not_found")),
        ("BadBaseUrl", "unavailable", 307, b""),
        ("BadBaseUrl", "unavailable", 405, PAGE),
        ("BadBaseUrl", "unavailable", 404, PAGE),
        ("BadBaseUrl", "unavailable", 404, e1("", "Invalid URL (POST /v1/v1/videos)")),
        ("Ambiguous", "uncertain_submit", 200, b""),
        ("Ambiguous", "uncertain_submit", 200, b"{}"),
        ("Ambiguous", "uncertain_submit", 200, PAGE),
        ("Ambiguous", "uncertain_submit", 200, b'{"id": "tas'),
        ("Ambiguous", "uncertain_submit", 200, b'{"id": {"value": "x"}}'),
        ("Ambiguous", "uncertain_submit", 200, e2("invalid_request")),
        ("KeyRefused", "auth", 200, b'{"code": 401, "msg": "You do not have access permissions"}'),
        ("KeyRefused", "quota", 200, b'{"code": 402, "msg": "Insufficient credits", "request_id": "r"}'),
        ("KeyRefused", "quota", 200, b'{"code": "403", "msg": "insufficient balance, please recharge"}'),
        ("Rejected", "invalid_request", 200, b'{"code": 422, "msg": "duration must be one of 5, 10"}'),
        ("Rejected", "moderation", 200, b'{"code": 400, "msg": "NSFW content"}'),
        ("Throttled", "rate_limited", 200, b'{"code": 429, "msg": "too fast", "data": null}'),
        ("Ambiguous", "uncertain_submit", 200, b'{"code": 408, "msg": "balance"}'),
        ("Ambiguous", "uncertain_submit", 200, b'{"code": 500, "msg": "insufficient balance"}'),
        ("Ambiguous", "uncertain_submit", 200, b'{"code": 402, "data": {"x": {"job_id": ["a"]}}}'),
        (
            "Rejected",
            "invalid_request",
            400,
            b'{"request_id": "r", "code": "InvalidParameter", "message": "x"}',
        ),
        ("KeyRefused", "quota", 403, b'{"code": 4030, "msg": "insufficient balance, please recharge"}'),
        ("Rejected", "moderation", 400, b'{"code": 4001, "msg": "The prompt contains sensitive words"}'),
        (
            "Ambiguous",
            "uncertain_submit",
            200,
            b'{"code": "success", "message": "\xe5\xb7\xb2\xe6\x89\xa3\xe9\xa2\x9d\xe5\xba\xa6"}',
        ),
        (
            "Ambiguous",
            "uncertain_submit",
            200,
            b'{"task_uuid": "abc", "code": "queued", "message": "your balance is too low for another task"}',
        ),
        (
            "Ambiguous",
            "uncertain_submit",
            202,
            b'{"message": "accepted; balance insufficient for further tasks"}',
        ),
        ("Ambiguous", "uncertain_submit", 200, b'{"message": "ok, arrearage reminder"}'),
        ("Ambiguous", "uncertain_submit", 408, e1("", "quota used up 98%")),
        ("Ambiguous", "uncertain_submit", 500, e1("", "用户余额不足")),
        ("Ambiguous", "uncertain_submit", 500, e1("", "balance insufficient")),
        ("Ambiguous", "uncertain_submit", 504, e2("x", "account_overdue, quota used up")),
        (
            "Ambiguous",
            "uncertain_submit",
            502,
            e2(
                "bad_response_status_code",
                "upstream answered 500 after accepting: invalid_api_key in callback",
            ),
        ),
        (
            "Ambiguous",
            "uncertain_submit",
            500,
            e2("fail_to_fetch_task", '{"code":"insufficient_user_quota"}'),
        ),
        ("Ambiguous", "uncertain_submit", 408, b""),
        ("Ambiguous", "uncertain_submit", 409, b""),
        ("Ambiguous", "uncertain_submit", 500, e2("do_request_failed")),
        ("Ambiguous", "uncertain_submit", 502, e2("bad_response_status_code")),
        ("Ambiguous", "uncertain_submit", 502, PAGE),
        ("Ambiguous", "uncertain_submit", 503, PAGE),
        ("Ambiguous", "uncertain_submit", 503, b""),
        ("Ambiguous", "uncertain_submit", 504, b""),
        ("Ambiguous", "uncertain_submit", 524, b""),
    ],
)
def test_answers_to_a_post(outcome: str, cls: str, status: int, body: bytes) -> None:
    """
    Status and text together decide; whatever is not clear is uncertain.
    """
    result = classify_submit(status, {}, body, 0.0)

    assert outcome == type(result).__name__
    assert not isinstance(result, Accepted)
    assert cls == result.failure.cls
    assert status == result.failure.http_status


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "task_1"}',
        b'{"task_id": "task_1", "status": "failed", "error": {"message": "quota is not enough"}}',
        b'{"id": "task_1", "error": {"code": "insufficient_user_quota", "message": "x"}}',
        b'\xef\xbb\xbf{"code": "success", "data": {"task_id": "task_1"}}',
        b'{"success": true, "message": "Task submitted successfully", "data": {"taskId": "task_1"}}',
        b'{"message": "ok", "data": [{"task_id": "task_1"}]}',
        b'{"output": {"task_id": "task_1", "task_status": "PENDING"}, "request_id": "r"}',
        b'{"code": "fail", "task": {"id": "task_1"}}',
        b'{"result": {"video_id": "task_1"}}',
        b'{"job_id": "task_1"}',
        b'{"request_id": "task_1"}',
        b'{"id": "task_1", "status": "queued"}\nGARBAGE',
        b'{"message": "ok"} {"id": "task_1"}',
        b'{"id": "task_1", "prompt": "line one\nline two"}',
        '{"message": "排队", "id": "task_1"}'.encode("gb18030"),
        '{"id": "task_1"}'.encode("utf-16"),
    ],
)
def test_an_id_is_proof(body: bytes) -> None:
    """
    A 2xx with an id is a paid task, whatever else it says.
    """
    result = classify_submit(202, {}, body, 0.0)

    assert isinstance(result, Accepted)
    assert ("task_1",) == result.task.ids


@pytest.mark.parametrize("status", [307, 400, 401, 429, 500, 503])
def test_an_error_that_names_a_task_is_uncertain(status: int) -> None:
    """
    Such a POST is never sent again, and the id is shown to the person who resolves the job.
    """
    result = classify_submit(status, {}, b'{"id": "task_1", "error": {"code": "get_channel_failed"}}', 0.0)

    assert isinstance(result, Ambiguous)
    assert "task_1" in result.failure.message


def test_redirect_says_where_to() -> None:
    """
    The message has the URL that the base URL redirects to, without its query.
    """
    result = classify_submit(308, {"Location": "https://www.example/v1/videos?key=1"}, b"", 0.0)

    assert not isinstance(result, Accepted)
    assert "https://www.example/v1/videos, which is not followed" in result.failure.message
    assert "key=1" not in result.failure.message


@pytest.mark.parametrize("status", [201, 202, 303])
@pytest.mark.parametrize("location", ["/v1/videos/task_1", "https://api.example/v1/videos/task_1/?a=b"])
def test_address_of_a_task_is_proof(status: int, location: str) -> None:
    """
    An answer that gives a task's address as that of its result names the task.
    """
    result = classify_submit(status, {"location": location}, b"", 0.0)

    assert isinstance(result, Accepted)
    assert ("task_1",) == result.task.ids


@pytest.mark.parametrize(
    ("status", "location"), [(307, "/v1/videos/task_1"), (303, "/login"), (303, "/v1/videos/"), (303, "")]
)
def test_other_redirects_name_no_task(status: int, location: str) -> None:
    """
    A redirect of the request itself, or to anywhere else, means that the base URL is wrong.
    """
    assert isinstance(classify_submit(status, {"Location": location}, b"", 0.0), BadBaseUrl)


def test_throttled_has_the_retry_after() -> None:
    """
    The pacer gets the wait that the server asks for.
    """
    result = classify_submit(429, {"Retry-After": "12"}, b"", 0.0)

    assert isinstance(result, Throttled)
    assert 12.0 == result.retry_after_s


def test_keys_never_show() -> None:
    """
    A key in an answer is hidden, even if it does not look like a key.
    """
    result = classify_submit(401, {}, e1("", "bad key hush-hush"), 0.0, secrets=["hush-hush"])

    assert not isinstance(result, Accepted)
    assert "hush" not in repr(result.failure)


@pytest.mark.parametrize(
    ("outcome", "cls", "status", "body"),
    [
        ("Unknown", "lost", 400, e2("task_not_exist")),
        ("Unknown", "lost", 404, e2("task_not_found")),
        ("Unknown", "lost", 404, b""),
        ("Unknown", "lost", 200, e2("task_not_exist")),
        ("Denied", "auth", 401, b""),
        ("Denied", "auth", 500, e1("token_invalid")),
        ("Denied", "forbidden", 403, e1("", "user banned")),
        ("Denied", "quota", 429, e2("insufficient_user_quota")),
        ("Transient", "rate_limited", 429, b""),
        ("Transient", "unavailable", 404, PAGE),
        ("Transient", "unavailable", 400, e2("invalid_request")),
        ("Transient", "unavailable", 408, b""),
        ("Transient", "unavailable", 409, b""),
        ("Transient", "unavailable", 425, b""),
        ("Transient", "unavailable", 500, e2("get_task_failed")),
        ("Transient", "unavailable", 502, PAGE),
        ("Transient", "unavailable", 302, b""),
        ("Transient", "unavailable", 200, PAGE),
        ("Transient", "unavailable", 200, b""),
        ("Transient", "unavailable", 200, b"{}"),
        ("Transient", "unavailable", 200, b"[]"),
        ("Transient", "unavailable", 200, b'{"status": "error", "message": "database is down"}'),
        ("Transient", "unavailable", 200, b'{"status": "success"}'),
    ],
)
def test_answers_to_a_poll(outcome: str, cls: str, status: int, body: bytes) -> None:
    """
    No failed poll ends a job that is paid for.
    """
    result = classify_poll(status, {}, body, 0.0)

    assert outcome == type(result).__name__
    assert not isinstance(result, Polled)
    assert cls == result.failure.cls


def test_a_failure_about_quota_is_the_tasks_own() -> None:
    """
    A task whose error mentions quota has failed; that does not stop the run.
    """
    result = classify_poll(
        200, {"retry-after": "3"}, b'{"id": "a", "status": "failed", "fail_reason": "quota"}', 0.0
    )

    assert isinstance(result, Polled)
    assert result.task.error is not None
    assert ("remote_failed", 3.0) == (result.task.error.cls, result.poll_after_s)


def test_a_throttled_poll_says_so() -> None:
    """
    A 429 slows down all polls.
    """
    result = classify_poll(429, {"retry-after-ms": "1500"}, b"", 0.0)

    assert isinstance(result, Transient)
    assert (True, 1.5) == (result.is_throttled, result.retry_after_s)


BODIES = st.binary(max_size=60) | st.sampled_from(
    [e1("x"), e2("task_not_exist"), b"[" * 5000, b"1" * 5000, PAGE]
)


@given(st.integers(100, 999), BODIES)
def test_hostile_answers(status: int, body: bytes) -> None:
    """
    Any status with any bytes is classified, never an exception; a POST is accepted only by a 2xx with an id.
    """
    submitted = classify_submit(status, {}, body, 0.0)
    polled = classify_poll(status, {}, body, 0.0)

    assert isinstance(submitted, Accepted) <= (200 <= status < 300 and b"id" in body)
    assert isinstance(polled, Polled) <= (200 <= status < 300)
