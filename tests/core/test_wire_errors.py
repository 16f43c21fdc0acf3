"""Reading errors out of anything, and showing nothing that must stay hidden."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.wire_errors import is_moderation, read_error


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
def test_documented_forms(message, code, request_id, body):
    """
    Both documented forms, and the others that gateways use, give message, code and request id.
    """
    reason = read_error(400, {}, json.dumps(body).encode())

    assert (message, code, request_id) == (reason.message, reason.code, reason.request_id)
    assert reason.is_explicit


def test_an_upstreams_error_in_quotes():
    """
    The gateway passes an upstream's body on as its message: the person sees the inner one.
    """
    inner = json.dumps({"error": {"code": "InputTextSensitiveContentDetected", "message": "sensitive"}})
    reason = read_error(400, {}, json.dumps({"code": "fail_to_fetch_task", "message": inner}).encode())

    assert (reason.message, reason.code) == ("sensitive", "InputTextSensitiveContentDetected")
    assert "fail_to_fetch_task" in reason.search_text


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
        ("\ufffd\ufffd", 500, b"\xff\xfe"),
    ],
)
def test_what_is_not_json(message, status, body):
    """
    A proxy's page, plain text or silence still gives a sentence.
    """
    reason = read_error(status, {}, body)

    assert message == reason.message
    assert not reason.is_explicit


def test_long_pages_are_cut():
    """
    At most 300 characters of a page are kept.
    """
    assert len(read_error(500, {}, b"x" * 10_000).message) == 300


def test_request_id_of_the_headers():
    """
    Where the body names no request, a header may.
    """
    assert read_error(500, {"X-Oneapi-Request-Id": "q1"}, b"").request_id == "q1"


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps({"error": text}).encode()))
def test_messages_are_one_safe_line(body):
    """
    Whatever a server sends, the message is a short printable line that can be written as UTF-8.
    """
    message = read_error(500, {}, body, secrets=["s"]).message

    assert 0 < len(message) <= 500
    assert message.isprintable()
    assert message.encode()


@pytest.mark.parametrize(
    ("expected", "words"),
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
def test_moderation_words(expected, words):
    """
    A refusal by a content policy is recognised, and an ordinary error is not taken for one.
    """
    assert expected == is_moderation(words)
