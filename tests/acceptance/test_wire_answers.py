"""Answers as gateways of this family really give them, from the wire to the result line."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.api.options import RunOptions
from runner.api.run import run
from tests.acceptance.raw_gateway import FILM, Case, RawGateway, answer, film

MODERATED = ("moderation", "output_moderation")
_HTML = answer(b"<html><title>Sign in</title></html>", Content_Type="text/html")
_COMPLETED = '{"id": "{ID}", "status": "completed", "video_url": "{CDN}/%s"}'
_CAT = "name=%E7%8C%AB&sig=a%2Fb%2Bc%3D"


def _failed(**fields: object) -> tuple[bytes, ...]:
    return (answer({"id": "{ID}", "status": "failed", **fields}),)


def _if_path(expected: str) -> Any:
    """Answer with the video only if the path arrives byte for byte, as a signature requires."""
    return lambda path: film() if path == expected else answer(b"SignatureDoesNotMatch", "403 Forbidden")


def _moved_to(location: str) -> bytes:
    return answer(b"", "302 Found", Location=location)


def _redirected(location: str, arrives_as: str) -> Any:
    return lambda path: _moved_to(location) if path == "/v.mp4" else _if_path(arrives_as)(path)


CASES: Mapping[str, Case] = {
    # Ids.
    "id with equals sign": Case(id="video_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZA=="),
    "id with plus and slash": Case(id="video_bGl0+ZWxs/bTpjdXN0"),
    "long id": Case(id="video_" + "bGl0" * 60),
    "id under data": Case(
        id="tsk-88aa",
        posts=[answer({"success": True, "message": "Task submitted", "data": {"taskId": "{ID}"}})],
    ),
    "id in a list": Case(id="tsk-88ae", posts=[answer({"message": "ok", "data": [{"task_id": "{ID}"}]})]),
    "id in an object": Case(
        # No documented shape: it is kept for a person to read.
        id="tsk-88af", posts=[answer({"message": "accepted", "id": {"value": "{ID}"}})],
        state="uncertain", cls=("uncertain_submit",), says="tsk-88af",
    ),
    "bytes behind the end": Case(
        posts=[answer('{"id":"{ID}","status":"queued"}', Connection="close", Content_Length="54") + b"GARBAGE\r\n"]
    ),
    # Refusals.
    "refused under msg": Case(
        posts=[answer({"code": 400, "msg": "prompt is too long"}, "400 Bad Request")],
        state="failed", cls=("invalid_request",), says="prompt is too long",
    ),
    "refused under data": Case(
        posts=[answer({"code": 400, "message": "", "data": {"error": "bad prompt"}}, "400 Bad Request")],
        state="failed", cls=("invalid_request",), says="bad prompt",
    ),
    "refused with 200": Case(
        posts=[answer({"code": 422, "msg": "duration must be one of 5, 10", "data": None})],
        state="failed", cls=("invalid_request",), says="duration must be one of 5, 10",
    ),
    "moderated under msg": Case(
        posts=[answer({"code": 4001, "msg": "The prompt contains sensitive words"}, "400 Bad Request")],
        state="failed", cls=MODERATED, says="sensitive words",
    ),
    # Tasks.
    "raw line breaks": Case(
        polls=[answer('{"id":"{ID}","status":"completed","prompt":"one\ntwo\tthree","metadata":{"url":"{CDN}/v.mp4"}}')]
    ),
    "output.task_status": Case(
        polls=[
            answer({"request_id": "x", "output": {"task_id": "{ID}", "task_status": "RUNNING"}}),
            answer(
                {"output": {"task_id": "{ID}", "task_status": "SUCCEEDED", "video_url": "{CDN}/v.mp4"}, "usage": {"duration": 5}}
            ),
        ]
    ),
    "lost under msg": Case(
        polls=[answer({"code": 10004, "data": {}, "msg": "\u4efb\u52a1\u4e0d\u5b58\u5728", "success": True})],
        state="failed", cls=("lost",),
    ),
    "GBK": Case(
        polls=[
            answer('{"id":"{ID}","status":"completed","message":"任务完成","metadata":{"url":"{CDN}/v.mp4"}}'.encode("gbk"))
        ]
    ),
    "resultJson": Case(
        polls=[
            answer(
                {"code": 200, "data": {"taskId": "{ID}", "state": "success", "resultJson": '{"resultUrls":["{CDN}/v.mp4"]}'}}
            )
        ]
    ),
    "task.content.url": Case(
        posts=[answer({"task_id": "{ID}", "base_resp": {"status_code": 0, "status_msg": "success"}})],
        polls=[
            answer({"task": {"id": "{ID}", "model": "MiniMax-H3", "status": "running"}}),
            answer({"task": {"id": "{ID}", "status": "succeeded", "content": {"url": "{CDN}/v.mp4"}}}),
        ],
    ),
    "two objects": Case(
        polls=[
            answer('{"id":"{ID}","status":"completed","metadata":{"url":"{CDN}/v.mp4"}}\n{"code":"x","message":"y"}')
        ]
    ),
    "request_id beside the id": Case(
        posts=[answer({"request_id": "b53c8bb4-0000-4000-8000-123456789012", "id": "{ID}"})],
        polls=[
            answer({"request_id": "b53c8bb4-0000", "id": "{ID}"}),
            answer({"id": "{ID}", "status": "pending"}),
            answer({"id": "{ID}", "status": "done", "video": {"url": "{CDN}/v.mp4", "duration": 5}, "model": "grok"}),
        ],
    ),
    # Failures of tasks.
    "error_message": Case(polls=_failed(error_message="bad prompt"), state="failed", cls=("remote_failed",), says="bad prompt"),
    "filtered out": Case(
        polls=_failed(error={"message": "The video was filtered out due to policy", "code": ""}), state="failed", cls=MODERATED
    ),
    "risk control": Case(
        polls=_failed(error={"message": "Failure to pass the risk control system"}), state="failed", cls=MODERATED
    ),
    "NSFW": Case(polls=_failed(error={"message": "NSFW content detected"}), state="failed", cls=MODERATED),
    "base_resp": Case(
        polls=_failed(base_resp={"status_code": 1027, "status_msg": "output video contains sensitive content"}),
        state="failed", cls=MODERATED, says="sensitive",
    ),
    "Fail": Case(
        polls=[
            answer({"task_id": "{ID}", "status": "Processing", "base_resp": {"status_code": 0, "status_msg": "success"}}),
            answer({"task_id": "{ID}", "status": "Fail", "base_resp": {"status_code": 1027, "status_msg": "sensitive content"}}),
        ],
        state="failed", cls=MODERATED, says="sensitive",
    ),
    "state -1": Case(
        posts=[answer({"status": 200, "message": "success", "data": {"task_id": "{ID}"}})],
        polls=[answer({"status": 200, "message": "success", "data": {"task_id": "{ID}", "state": -1, "progress": 0}})],
        state="failed", cls=("remote_failed",),
    ),
    "rejected with an address": Case(
        polls=[
            answer({"id": "{ID}", "status": "rejected", "video_url": "{CDN}/v.mp4", "error": {"code": "x", "message": "reason"}})
        ],
        state="failed", cls=("remote_failed",), says="reason",
    ),
    # Addresses.
    "address with a space": Case(polls=[answer(_COMPLETED % "my video.mp4")], assets=[_if_path("/my%20video.mp4")]),
    "address beyond ASCII": Case(
        polls=[answer(_COMPLETED % "v.mp4?name=猫&sig=a%2Fb%2Bc%3D")], assets=[_if_path(f"/v.mp4?{_CAT}")]
    ),
    "video.url": Case(polls=[answer({"id": "{ID}", "status": "completed", "video": {"url": "{CDN}/v.mp4"}})]),
    "moved beyond ASCII": Case(
        assets=[_redirected("{CDN}/b.mp4?name=猫&sig=a%2Fb%2Bc%3D", f"/b.mp4?{_CAT}")]
    ),
    "moved with a space": Case(assets=[_redirected("{CDN}/my video.mp4", "/my%20video.mp4")]),
    "moved far": Case(assets=[_redirected("{CDN}/b.mp4?" + "x" * 9000, "/b.mp4?" + "x" * 9000)]),
    # Downloads.
    "404 twice": Case(assets=[answer(b"", "404 Not Found"), answer(b"", "404 Not Found"), film()]),
    "HTML once": Case(assets=[_HTML, film()]),
    "HTML always": Case(assets=[_HTML], state="undelivered", cls=("asset_invalid", "download_failed"), says="text/html"),
    "expired": Case(
        assets=[
            answer(
                b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>',
                "403 Forbidden", Content_Type="application/xml",
            )
        ],
        state="undelivered", cls=("download_failed",), says="expired",
    ),
    "empty": Case(assets=[answer(b"", Content_Type="video/mp4")], state="undelivered", cls=("asset_invalid", "download_failed"), says="empty"),
    "Content-Encoding binary": Case(assets=[film(Content_Encoding="binary")]),
    "gzip": Case(assets=[answer(gzip.compress(FILM), Content_Type="video/mp4", Content_Encoding="gzip")]),
    "long Set-Cookie": Case(assets=[film(Set_Cookie="a=" + "x" * 8300)]),
    "long header": Case(assets=[film(Content_Security_Policy="x" * 12000)]),
    "line feed behind the video": Case(assets=[film(b"\n")]),
    "zeros behind the video": Case(assets=[film(bytes(4))]),
    "more zeros behind the video": Case(assets=[film(bytes(64))]),
}  # fmt: skip

STOPS: Mapping[str, tuple[Case, int, str]] = {
    # Answers that stop the run: the jobs stay pending; with the exit code, and a part of what is said.
    "no balance": (
        Case(posts=[answer({"code": 4030, "msg": "insufficient balance, please recharge"}, "403 Forbidden")]),
        3,
        "insufficient balance",
    ),
    "no balance with 200": (
        Case(posts=[answer({"code": 402, "msg": "Insufficient credits. Please top up", "data": None})]),
        3,
        "Insufficient credits",
    ),
    "no access with 200": (
        Case(posts=[answer({"code": 401, "msg": "You do not have access permissions", "data": None})]),
        3,
        "access permissions",
    ),
    "wait for centuries": (
        Case(
            posts=[
                answer(
                    {"error": {"message": "Rate limit", "code": "rate_limit"}},
                    "429 Too Many Requests",
                    Retry_After="9999999999",
                )
            ]
        ),
        6,
        "",
    ),
}

MANIFEST = """
version: 1
name: answers
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 1000/s, poll: 1000/s, in_flight: 100, downloads: 32}}
poll: {{first: 10ms, interval: 20ms, max_interval: 50ms, timeout: 20s}}
timeouts: {{submit: 5s, poll: 5s, stall: 5s, unknown_task: 100ms}}
retry: {{attempts: 4, base: 10ms, cap: 50ms}}
jobs:
  - id: ${{name}}
    matrix: {{name: {names}}}
    request: {{model: seedance-1-0-pro-250528, prompt: '${{name}}', seconds: 4, size: 480p}}
"""


async def _run(
    folder: Path, cases: Mapping[str, Case], **options: Any
) -> tuple[int, dict[str, Any], RawGateway]:
    async with RawGateway(cases) as gateway:
        manifest = folder / "answers.yaml"
        names = json.dumps(list(cases), ensure_ascii=False)
        manifest.write_text(MANIFEST.format(base_url=gateway.base_url, names=names), encoding="utf-8")
        result = await run(manifest, output=folder / "out", options=RunOptions(max_failures="off", **options))
    lines = (folder / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return result.exit_code, {line["job_id"]: line for line in map(json.loads, lines)}, gateway


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Run a job with each case at the same time; no job is submitted twice."""
    folder = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POWERTOKENS_API_KEY", "test-key-of-nobody")
        _, lines, gateway = asyncio.run(_run(folder, CASES))
    assert dict.fromkeys(CASES, 1) == gateway.posts
    for line in lines.values():
        for asset in line["assets"]:
            line["is_film"] = FILM == (folder / "out" / asset["path"]).read_bytes()[: len(FILM)]
    return lines


@pytest.mark.parametrize("name", CASES)
def test_answer_is_understood(results: Mapping[str, Any], name: str) -> None:
    """State, class and reason are those that the answer means, and a video that can be had is on disk."""
    case, line = CASES[name], results[name]

    error = line["error"] or {"class": None, "message": ""}
    assert case.state == line["status"], error
    assert error["class"] in (case.cls or (None,))
    assert case.says in error["message"]
    assert (case.state == "succeeded") == line.get("is_film", False)


@pytest.mark.parametrize("name", STOPS)
def test_answer_stops_the_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or a balance that is refused in any form costs no job: all stay pending, and the run says why."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "test-key-of-nobody")
    case, exit_code, _ = STOPS[name]

    actual, lines, _ = asyncio.run(
        _run(tmp_path, {"first": case, "second": case}, max_runtime=1.0, drain_time=1.0)
    )

    assert (exit_code, {"pending"}) == (actual, {line["status"] for line in lines.values()})
