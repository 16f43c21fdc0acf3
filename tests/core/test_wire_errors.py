"""Reading errors from any answer, and showing nothing that must remain secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.wire_errors import is_moderation, is_output_moderation, read_error


@pytest.mark.parametrize(
    ("message", "code", "request_id", "body"),
    [
        (
            "Invalid token",
            "access_denied",
            "2026AB",
            {
                "error": {
                    "message": "Invalid token (request id: 2026AB)",
                    "code": "access_denied",
                    "type": "api_error",
                }
            },
        ),
        ("banned", None, None, {"error": {"message": "banned", "code": "", "type": "api_error"}}),
        ("no task", "task_not_exist", None, {"code": "task_not_exist", "message": "no task", "data": None}),
        ("overloaded", None, "B", {"error": {"message": "overloaded (request id: A) (request id: B)"}}),
        ("nope", None, None, {"error": "nope"}),
        ("17", "17", None, {"code": 17}),
        ("field required", None, None, {"detail": [{"loc": ["body"], "msg": "field required"}]}),
        ("x", None, "r-1", {"message": "x", "request_id": "r-1"}),
    ],
)
def test_documented_forms(
    message: str, code: str | None, request_id: str | None, body: dict[str, Any]
) -> None:
    """
    Message, code and request id are found in both documented forms, and in others that gateways use.
    """
    error = read_error(400, {}, json.dumps(body).encode())

    assert (message, code, request_id) == (error.message, error.code, error.request_id)
    assert error.is_explicit


def test_an_upstreams_error_in_quotes() -> None:
    """
    The gateway passes an upstream's body on as its message: a person sees the inner message.
    """
    inner = json.dumps({"error": {"code": "InputTextSensitiveContentDetected", "message": "sensitive"}})
    error = read_error(400, {}, json.dumps({"code": "fail_to_fetch_task", "message": inner}).encode())

    assert ("sensitive", "InputTextSensitiveContentDetected") == (error.message, error.code)
    assert "fail_to_fetch_task" in error.search_text


@pytest.mark.parametrize(
    ("message", "status", "body"),
    [
        (
            "502 Bad Gateway",
            502,
            b"<html><head><title>502 Bad Gateway</title></head><body><h1>no</h1></body></html>",
        ),
        ("Oops a & b", 500, b"<!DOCTYPE html><html><style>p{}</style><p>Oops</p> a &amp; b</html>"),
        ("HTTP 502 Bad Gateway", 502, b""),
        ("HTTP 522", 522, b"  "),
        ("upstream timed out", 504, b"upstream timed out\n"),
        ("no answer", None, b""),
        ("\ufffd\ufffd", 500, b"\xff\xff"),
        ("提示词", 500, "提示词".encode("gb18030")),
    ],
)
def test_what_is_not_json(message: str, status: int | None, body: bytes) -> None:
    """
    A proxy's page, plain text or an empty body still gives a message.
    """
    error = read_error(status, {}, body)

    assert message == error.message
    assert not error.is_explicit


def test_long_pages_are_cut() -> None:
    """
    At most 300 characters of a page are used.
    """
    assert 300 == len(read_error(500, {}, b"x" * 10_000).message)


def test_request_id_of_the_headers() -> None:
    """
    If the body has no request id, a header may.
    """
    assert "q1" == read_error(500, {"X-Oneapi-Request-Id": "q1"}, b"").request_id


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps({"error": text}).encode()))
def test_messages_are_one_safe_line(body: bytes) -> None:
    """
    Whatever a server sends, the message is a short printable line that can be written as UTF-8.
    """
    message = read_error(500, {}, body, secrets=["s"]).message

    assert 0 < len(message) <= 500
    assert message.isprintable()
    assert message.encode()


@pytest.mark.parametrize(
    ("expected", "search_text"),
    [
        (True, "datainspectionfailed input data may contain inappropriate content."),
        (True, "inputtextsensitivecontentdetected"),
        (True, "inputimagesensitivecontentdetected.privacyinformation"),
        (True, "ipinfringementsuspect"),
        (True, "content_policy_violation"),
        (True, "your request was rejected by our safety system"),
        (True, "内容违规"),
        (True, "图片审核未通过"),
        (False, "invalid_request first frame is missing"),
        (False, "field names are case sensitive"),
        (False, "request violates the schema"),
    ],
)
def test_moderation(expected: bool, search_text: str) -> None:
    """
    A refusal by a content policy is recognized, and another error is not confused with one.
    """
    assert expected == is_moderation(search_text)


@pytest.mark.parametrize(
    ("expected", "search_text"),
    [
        (True, "outputvideosensitivecontentdetected.policyviolation"),
        (True, "outputaudiosensitivecontentdetected"),
        (True, "outputvideoriskdetection"),
        (True, "output video contains sensitive content"),
        (True, "输出视频可能包含敏感信息"),
        (False, "inputvideosensitivecontentdetected"),
        (False, "datainspectionfailed input or output data may contain inappropriate content."),
        (False, "your request was rejected by our safety system"),
    ],
)
def test_moderation_of_what_was_made(expected: bool, search_text: str) -> None:
    """Only an error that names the output is one that another take may not meet."""
    assert expected == is_output_moderation(search_text)
