"""Reading tasks: every documented shape, and any other JSON."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.model import FailureClass
from runner.core.outcomes import RemoteStatus
from runner.core.wire import read_task

URL = "https://cdn.example/a.mp4?X-Signature=1"
FRAME = "https://cdn.example/a.png?X-Signature=2"

SHAPES = {
    "A unified": {
        "id": "task_1",
        "task_id": "task_1",
        "object": "video",
        "status": "completed",
        "progress": 100,
        "metadata": {"url": URL},
    },
    "A MiniMax": {
        "id": "task_1",
        "object": "video",
        "model": "MiniMax-Hailuo-02",
        "status": "completed",
        "progress": 100,
        "created_at": 1712697600,
        "completed_at": 1712697900,
        "metadata": {"url": URL},
    },
    "B Ali": {
        "id": "task_1",
        "task_id": "task_1",
        "status": "succeeded",
        "progress": 100,
        "video_url": URL,
        "metadata": {"orig_prompt": "a", "actual_prompt": "b", "video_duration": 5, "SR": 720},
    },
    "C BytePlus": {
        "id": "task_1",
        "task_id": "task_1",
        "status": "succeeded",
        "progress": 100,
        "video_url": URL,
        "last_frame_url": FRAME,
        "metadata": {"ratio": "16:9", "usage": {"total_tokens": 1}},
    },
    "D Ark": {
        "id": "task_1",
        "model": "m",
        "status": "succeeded",
        "error": None,
        "content": {"video_url": URL, "last_frame_url": FRAME},
        "usage": {"total_tokens": 1},
    },
    "wrapped": {
        "code": "success",
        "message": "",
        "data": {
            "task_id": "task_1",
            "status": "SUCCESS",
            "progress": "100%",
            "fail_reason": "",
            "data": {"id": "cgt-9", "status": "succeeded", "content": {"video_url": URL}},
        },
    },
    "wrapped with result_url": {
        "code": 0,
        "data": {"task_id": "task_1", "status": "SUCCESS", "result_url": URL},
    },
    "Alibaba's own results": {
        "id": "task_1",
        "status": "succeeded",
        "output": {"results": [{"url": URL}]},
    },
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_every_documented_shape_of_success(body: Any) -> None:
    """
    One host answers in four shapes and a wrapped one: each has the id and the URL.
    """
    task = read_task(body)

    assert ("task_1",) == task.ids
    assert task.status is RemoteStatus.SUCCEEDED
    assert (URL,) == task.video_urls


@pytest.mark.parametrize("name", ["C BytePlus", "D Ark"])
def test_last_frame(name: str) -> None:
    """
    The last frame is read where a shape documents one.
    """
    assert (FRAME,) == read_task(SHAPES[name]).last_frame_urls


@pytest.mark.parametrize(
    ("ids", "body"),
    [
        (("a", "b"), {"id": "a", "task_id": "b"}),
        (("a",), {"id": "a"}),
        (("b",), {"task_id": "b"}),
        (("a",), {"id": "a", "task_id": "a"}),
        (("b",), {"id": "", "task_id": " b "}),
        (("7",), {"id": 7}),
        ((), {"id": True}),
        (("../models",), {"id": "../models"}),
        (("a b",), {"id": " a b "}),
        (("a+b/c==",), {"id": "a+b/c=="}),
        (("猫",), {"id": "猫"}),
        ((str(10**40),), {"id": 10**40}),
        ((), {"id": "a\x00b"}),
        ((), {"id": "猫\u2028b"}),
        ((), {"id": "\ud800"}),
        ((), {"id": "猫" * 342}),
        ((), {"id": "x" * 1025}),
        (("x" * 1024,), {"id": "x" * 1024}),
        (("a", "b"), {"job_id": "b", "taskId": "a"}),
        (("a",), {"output": {"task_id": "a"}, "request_id": "r"}),
        (("a",), {"data": [{"task_id": "a"}]}),
        (("a",), {"success": True, "message": "ok", "data": {"data": {"id": "a"}}}),
        ((), {"request_id": "r"}),
        (("a",), {"code": "fail", "data": {"task_id": "a"}}),
        (("mine",), {"task_id": "mine", "status": "running", "data": {"id": "cgt-1", "status": "succeeded"}}),
        (("inner",), {"code": 0, "id": "request-1", "data": {"task_id": "inner", "status": "queued"}}),
        ((), ["a"]),
        ((), None),
    ],
)
def test_ids(ids: Any, body: Any) -> None:
    """
    An id is found wherever it is if it can be part of a path: a lost id is a lost video.
    """
    assert ids == read_task(body).ids


@pytest.mark.parametrize(
    ("status", "raw_statuses"),
    [
        (
            RemoteStatus.QUEUED,
            ["pending", "queued", "SUBMITTED", "NOT_START", "created", "unknown", "", "  "],
        ),
        (RemoteStatus.RUNNING, ["running", "in_progress", "IN_PROGRESS", "processing", " In Progress "]),
        (RemoteStatus.SUCCEEDED, ["succeeded", "completed", "SUCCESS", "succeed"]),
        (RemoteStatus.FAILED, ["failed", "FAILURE", "error"]),
        (RemoteStatus.CANCELLED, ["cancelled", "CANCELED"]),
        (RemoteStatus.EXPIRED, ["expired", "timeout"]),
    ],
)
def test_statuses_of_every_vocabulary(status: RemoteStatus, raw_statuses: str) -> None:
    """
    All vocabularies mean the same few things, in any case.
    """
    tasks = [read_task({"id": "a", "status": raw}) for raw in raw_statuses]

    assert all(task.status is status for task in tasks)
    assert all(task.is_known_status for task in tasks)


def test_unknown_status_counts_as_running() -> None:
    """
    An undocumented status does not end a paid task; a warning shows it once.
    """
    task = read_task({"id": "a", "status": "archiving\x1b[31m"})

    assert task.status is RemoteStatus.RUNNING
    assert not task.is_known_status
    assert "archiving" == task.raw_status


def test_missing_status_is_queued() -> None:
    """
    According to current Seedance pages, a submission is answered with an id alone.
    """
    assert read_task({"id": "a"}).status is RemoteStatus.QUEUED


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (50.0, 50),
        (50.5, 50.5),
        (50.0, "50"),
        (50.0, " 50% "),
        (100.0, 10**400),
        (0.0, -3),
        (None, "half"),
        (None, float("nan")),
        (None, "inf"),
        (None, True),
        (None, None),
        (None, {}),
    ],
)
def test_progress(expected: float | None, value: Any) -> None:
    """
    Progress is an integer, a float, a text or missing, and is used only if it makes sense.
    """
    assert expected == read_task({"id": "a", "progress": value}).progress


def test_urls_in_the_documented_order() -> None:
    """
    The place in the API's current documentation is tried first, each URL once.
    """
    first, second, third = (f"https://cdn.example/{n}.mp4" for n in (1, 2, 3))
    body = {
        "id": "a",
        "status": "completed",
        "metadata": {"url": first},
        "video_url": second,
        "content": {"video_url": first},
        "url": third,
    }

    assert (first, second, third) == read_task(body).video_urls


@pytest.mark.parametrize(
    "value",
    [
        "",
        "task failed: no such image",
        "/v1/videos/a/content",  # Relative, and the gateway is not known here.
        "//cdn.example/a.mp4",
        "ftp://cdn.example/a.mp4",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///a.mp4",
        "http://[::1",
        "https://host:99999/a.mp4",
        "https://host/a\r\nX-Evil: 1",
        "https://host\\@evil.example/",
        "https://" + "a" * 9000,
        5,
        ["/a.mp4", {"url": "x"}],
    ],
)
def test_what_is_not_a_url(value: Any) -> None:
    """
    Only absolute http(s) URLs with a host are ever downloaded.
    """
    assert () == read_task({"id": "a", "status": "completed", "metadata": {"url": value}}).video_urls


def test_no_url_before_success() -> None:
    """
    A URL counts only on success: a running task may show an old one.
    """
    assert () == read_task({"id": "a", "status": "running", "video_url": URL}).video_urls


@pytest.mark.parametrize(
    ("cls", "message", "code", "fields"),
    [
        ("remote_failed", "boom", "E1", {"error": {"message": "boom", "code": "E1"}}),
        ("remote_failed", "boom", None, {"error": "boom"}),
        ("remote_failed", "boom", "9", {"metadata": {"error": {"code": 9, "message": "boom"}}}),
        ("remote_failed", "boom", "E1", {"code": "E1", "message": "boom"}),
        ("remote_failed", "boom", None, {"fail_reason": "boom"}),
        ("remote_failed", "boom", "E1", {"output": {"code": "E1", "message": "boom"}}),
        ("remote_failed", "boom", None, {"detail": "boom"}),
        ("remote_failed", "no image", None, {"metadata": {"url": "no image"}}),
        ("remote_failed", "the API says failed and gives no reason", None, {}),
        ("remote_failed", "the API says failed and gives no reason", None, {"message": "success"}),
        ("remote_failed", "quota is not enough", None, {"fail_reason": "quota is not enough"}),
        (
            "output_moderation",
            "refused",
            "OutputVideoSensitiveContentDetected.PolicyViolation",
            {"error": {"code": "OutputVideoSensitiveContentDetected.PolicyViolation", "message": "refused"}},
        ),
        ("moderation", "输入内容包含敏感信息", None, {"fail_reason": "输入内容包含敏感信息"}),
    ],
)
def test_why_a_task_failed(cls: str, message: str, code: str | None, fields: dict[str, Any]) -> None:
    """
    The reason is found in every place that is known to hold one.
    """
    error = read_task({"id": "a", "status": "failed", **fields}).error

    assert error is not None
    assert (FailureClass(cls), message, code) == (error.cls, error.message, error.code)


def test_wrapped_failure() -> None:
    """
    The envelope's own "success" is not the error of a failed task inside it.
    """
    body = {
        "code": "success",
        "message": "",
        "data": {"task_id": "a", "status": "FAILURE", "fail_reason": "x"},
    }
    error = read_task(body, http_status=200).error

    assert error is not None
    assert ("x", None, 200) == (error.message, error.code, error.http_status)


@pytest.mark.parametrize(
    ("raw_status", "cls"), [("canceled", "remote_cancelled"), ("expired", "remote_expired")]
)
def test_canceled_and_expired(raw_status: str, cls: str) -> None:
    """
    Canceled and expired tasks have classes of their own.
    """
    error = read_task({"id": "a", "status": raw_status}).error

    assert error is not None
    assert cls == error.cls


@pytest.mark.parametrize(
    ("body", "ids", "all_ids"),
    [
        ({"id": "a", "task_id": "b", "status": "running"}, ("a", "b"), ("a", "b")),
        ({"id": "a", "data": {"id": "c"}}, ("a",), ("a", "c")),
        ({"code": 0, "id": "a", "data": {"id": "c", "output": {"id": "d"}}}, ("c",), ("a", "c", "d")),
        ({"code": 0, "id": "a", "data": {"status": "running"}}, ("a",), ("a",)),
        ({"status": "running", "output": {"task": {"id": "e"}}}, ("e",), ("e",)),
        ({"id": "a", "data": None}, ("a",), ("a",)),
        ({"status": "running"}, (), ()),
    ],
)
def test_ids_of_all_layers(body: dict[str, Any], ids: tuple[str, ...], all_ids: tuple[str, ...]) -> None:
    """The task's ids go first, then those around it, then those inside; all are named from the outside in, each once."""
    task = read_task(body)

    assert (ids, all_ids) == (task.ids, task.all_ids)


@pytest.mark.parametrize(
    "body",
    [
        {"id": "a", "usage": {"tokens": 1}, "metadata": {"usage": {"tokens": 2}}},
        {"id": "a", "usage": 3, "metadata": {"usage": {"tokens": 1}}},
        {"id": "a", "output": {"usage": {"tokens": 1}}},
    ],
)
def test_usage(body: dict[str, Any]) -> None:
    """The first object counts: the outer one, and of one object ``usage``."""
    assert {"tokens": 1} == read_task(body).usage
