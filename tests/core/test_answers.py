"""Answers of many gateways: how a submission and a query are read, in one table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.core.classify import ANSWER_BYTES, classify_poll, classify_submit, excerpt
from runner.core.outcomes import Ambiguous, Polled, RemoteStatus, Transient

BASE = "https://api.example"
FILM = "https://cdn.example/v.mp4"
SENSITIVE = {"status_code": 1027, "status_msg": "output video contains sensitive content"}

POLLS: dict[str, tuple[str, str | None, str | None, Any]] = {
    "raw control characters": ("succeeded", FILM, None, '{"id":"t","status":"completed","prompt":"one\ntwo\t","metadata":{"url":"FILM"}}'.replace("FILM", FILM)),
    "another encoding": ("succeeded", FILM, None, ('{"id":"t","status":"completed","message":"提示词","metadata":{"url":"FILM"}}'.replace("FILM", FILM)).encode("gb18030")),
    "a second object": ("succeeded", FILM, None, '{"id":"t","status":"completed","metadata":{"url":"FILM"}}\n{"code":"x","message":"y"}'.replace("FILM", FILM)),
    "output.task_status running": ("running", None, None, {"request_id": "x", "output": {"task_id": "t", "task_status": "RUNNING"}}),
    "output.task_status": ("succeeded", FILM, None, {"request_id": "x", "output": {"task_id": "t", "task_status": "SUCCEEDED", "video_url": FILM}}),
    "state and quoted JSON": ("succeeded", FILM, None, {"code": 200, "msg": "success", "data": {"taskId": "t", "state": "success", "resultJson": json.dumps({"resultUrls": [FILM]})}}),
    "task": ("succeeded", FILM, None, {"task": {"id": "t", "status": "succeeded", "content": {"url": FILM}}}),
    "task running": ("running", None, None, {"task": {"id": "t", "status": "running"}}),
    "Fail with a reason": ("failed", None, "output_moderation", {"task_id": "t", "status": "Fail", "base_resp": SENSITIVE}),
    "Processing": ("running", None, None, {"task_id": "t", "status": "Processing", "base_resp": {"status_code": 0, "status_msg": "success"}}),
    "state -1": ("failed", None, "remote_failed", {"status": 200, "message": "success", "data": {"task_id": "t", "state": -1, "progress": 0}}),
    "state 200": ("succeeded", FILM, None, {"task_id": "t", "state": 200, "videos": [{"url": FILM}]}),
    "rejected": ("failed", None, "remote_failed", {"id": "t", "status": "rejected", "video_url": FILM, "error": {"code": "x", "message": "reason here"}}),
    "done": ("succeeded", FILM, None, {"id": "t", "status": "done", "video": {"url": FILM, "duration": 5}}),
    "a list": ("succeeded", FILM, None, {"id": "t", "status": "finished", "output": [FILM]}),
    "video_url a list": ("succeeded", FILM, None, {"id": "t", "status": "ok", "video_url": [FILM]}),
    "an address with blanks": ("succeeded", "https://cdn.example/my%20film.mp4", None, {"id": "t", "status": "completed", "video_url": "https://cdn.example/my film.mp4"}),
    "a relative address": ("succeeded", "https://api.example/v1/videos/t/content", None, {"id": "t", "status": "completed", "url": "/v1/videos/t/content"}),
    "a word beside an error": ("failed", None, "remote_failed", {"id": "t", "status": "kaputt", "error": {"message": "no image"}}),
    "a word beside an address": ("succeeded", FILM, None, {"id": "t", "status": "fertig", "video_url": FILM}),
    "a word alone": ("running", None, None, {"id": "t", "status": "rendering", "message": "wait", "error": {"message": ""}}),
    "error_message": ("failed", None, "remote_failed", {"id": "t", "status": "failed", "error_message": "bad prompt"}),
    "policy": ("failed", None, "moderation", {"id": "t", "status": "failed", "error": {"message": "The video was filtered out due to policy", "code": ""}}),
    "risk control": ("failed", None, "moderation", {"id": "t", "status": "failed", "failMsg": "Failure to pass the risk control system"}),
    "NSFW": ("failed", None, "moderation", {"id": "t", "status": "failed", "data": {"fail_reason": "NSFW content detected"}}),
    "guardrail": ("failed", None, "moderation", {"id": "t", "status": "failed", "errorMessage": "blocked by a guardrail"}),
    "message_zh": ("failed", None, "moderation", {"id": "t", "status": "failed", "message_zh": "审核未通过"}),
    "case sensitive": ("failed", None, "remote_failed", {"id": "t", "status": "failed", "reason": "names are case sensitive"}),
}  # fmt: skip


def as_body(answer: Any) -> bytes:
    """Write an answer."""
    if isinstance(answer, bytes):
        return answer
    return (answer if isinstance(answer, str) else json.dumps(answer)).encode()


@pytest.mark.parametrize(("status", "url", "cls", "answer"), POLLS.values(), ids=POLLS)
def test_answers_to_a_query(status: str, url: str | None, cls: str | None, answer: Any) -> None:
    """
    The state, the address and the class of failure of a task, wherever they are and whatever the words.
    """
    outcome = classify_poll(200, {}, as_body(answer), 0.0, base_url=BASE)

    assert isinstance(outcome, Polled)
    task = outcome.task
    assert (("t",), RemoteStatus(status), (url,) if url else ()) == (task.ids, task.status, task.video_urls)
    assert cls == (task.error.cls if task.error else None)
    assert "message" not in (task.error.message if task.error else "")


@pytest.mark.parametrize(
    ("message", "code", "answer"),
    [
        ("bad prompt", "400", {"code": 400, "message": "", "data": {"error": "bad prompt"}}),
        ("prompt is too long", "400", {"code": 400, "msg": "prompt is too long"}),
        ("no such thing", None, {"error_description": "no such thing"}),
        ("busy", "1002", {"base_resp": {"status_code": 1002, "status_msg": "busy"}}),
        ("https is required", None, {"reason": "https is required"}),
    ],
)
def test_reasons_of_a_refusal(message: str, code: str | None, answer: Any) -> None:
    """
    The reason is shown in its own words, not by its number alone.
    """
    failure = classify_submit(400, {}, as_body(answer), 0.0).failure  # type: ignore[union-attr]

    assert (message, code) == (failure.message, failure.code)


def test_task_that_nobody_knows() -> None:
    """
    Such an answer is not polled to the end of all patience.
    """
    answer = '{"code": 10004, "data": {}, "msg": "任务不存在", "success": true}'.encode()

    assert "Unknown" == type(classify_poll(200, {}, answer, 0.0)).__name__


def test_answer_that_was_not_understood_is_kept() -> None:
    """
    A person can find the id in it: its first 4 KiB, as they were sent, without the key and without signatures.
    """
    body = (
        b'{"message":"accepted","id":{"value":"tsk-88af"},"echo":"hush-hush","u":"https://x/a?sig=1"}'
        + b" " * 9000
    )

    for outcome in (
        classify_submit(200, {}, body, 0.0, secrets=["hush-hush"]),
        classify_poll(200, {}, body, 0.0, secrets=["hush-hush"]),
    ):
        assert isinstance(outcome, Ambiguous | Transient)
        assert outcome.answer is not None
        assert '{"message":"accepted","id":{"value":"tsk-88af"}' in outcome.answer
        assert "hush" not in outcome.answer
        assert "sig" not in outcome.answer
        assert len(outcome.answer) <= ANSWER_BYTES


def test_message_does_not_hide_the_answer() -> None:
    """
    An accepted answer with a message and an id that nobody can read is shown, so that a person finds the id.
    """
    body = b'{"message":"accepted","id":{"value":"tsk-88af"}}'
    outcome = classify_submit(200, {}, body, 0.0)

    assert isinstance(outcome, Ambiguous)
    assert 'success without a task id: accepted; the answer is {"message"' in outcome.failure.message
    assert "tsk-88af" in outcome.failure.message
    assert len(classify_submit(200, {}, body + b"x" * 9000, 0.0).failure.message) <= 500  # type: ignore[union-attr]


def test_unknown_word_is_kept() -> None:
    """
    The answer with a status that nobody knows is kept, and one with a known status is not.
    """
    odd = classify_poll(200, {}, b'{"id": "t", "status": "rendering"}', 0.0)
    plain = classify_poll(200, {}, b'{"id": "t", "status": "running"}', 0.0)

    assert isinstance(odd, Polled)
    assert isinstance(plain, Polled)
    assert ('{"id": "t", "status": "rendering"}', None) == (odd.answer, plain.answer)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\xfd", b"\xed\xa0\x80", "猫".encode() * 4000])
def test_excerpts_can_be_stored(body: bytes) -> None:
    """
    Whatever the bytes, the text has a length that is bounded, and can be written as UTF-8.
    """
    text = excerpt(body)

    assert (text is None) == (body == b"")
    assert len((text or "").encode()) <= ANSWER_BYTES
